"""`python -m benchmarks.engine PART`: measures one part, or joins all into results and a page.

Parts write runs/engine/<part>.json; `report` reads them, and the peers' runs under runs/peers, and
writes results/engine_cpu.json and benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine import ensemble, plans, report, roofline, scale
from benchmarks.engine.texts import REPOSITORY

from litee.rundir import Json, peak_rss_mb, write_json

PARTS: dict[str, Callable[[Path], Json]] = {
    "roofline": roofline.measure,
    "ensemble": ensemble.measure,
    "scale": scale.measure,
    "streaming": scale.stream,
    "plans": plans.measure,
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "report"])
    part = parser.parse_args().part
    folder = REPOSITORY / "runs" / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    if part == "report":
        report.write(folder)
        return
    load, started = os.getloadavg()[0], time.perf_counter()
    found = PARTS[part](folder)
    cost: dict[str, Json] = {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "host_load": [load, os.getloadavg()[0]],
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(folder / f"{part}.json", {"cost": cost, "found": found})


if __name__ == "__main__":
    main()
