"""A child process, timed and watched: wall and CPU seconds, peak memory, load of the host.

Peak memory is VmHWM as /proc has it (Linux): of the child alone, from its own start, unlike
`ru_maxrss`, which begins at its parent's. Knows nothing of what the child does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.records import Cost

from litee.errors import ModelError

_EVERY = 0.1  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True)
class Child:
    """A finished child.

    Attributes:
        cost: what it cost; without phases.
        report: what it wrote about itself.
    """

    cost: Cost
    report: Mapping[str, object] = field(default_factory=dict)


def run_child(
    command: Sequence[str],
    log: Path,
    *,
    threads: int,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Run to the end; stdout and stderr go to `log`. On an interrupt the child is ended first.

    Raises:
        ModelError: the child failed.
    """
    settings = {
        **os.environ,
        "PYTHONPATH": str(cwd),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
        **(environment or {}),
    }
    before, started = os.getloadavg()[0], time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            list(command), stdout=stream, stderr=stream, cwd=log.parent, env=settings
        )
        peak = 0.0
        try:
            while True:
                peak = max(peak, memory_peak_mb(process.pid))
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                time.sleep(_EVERY)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        problem = f"exit code {process.returncode}: {' '.join(last)}"
        raise ModelError(problem, place=log.stem, fix=f"see {log}")
    return Child(
        Cost(
            wall_seconds=time.perf_counter() - started,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            phases={},
            peak_rss_mb=peak,
            host_load=(before, os.getloadavg()[0]),
        )
    )


def memory_peak_mb(pid: int) -> float:
    """VmHWM of a process in 10^6 bytes; 0 when it is gone or the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 / 1e6 if found else 0.0
