"""`litee doctor`: what this machine can do."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from litee.rundir import cpu_name, versions


def doctor() -> None:
    """Show processor, speed per data type, memory, disk, libraries and backbones at hand."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="This machine", show_header=False, box=None, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("processor", cpu_name())
    table.add_row("memory", _memory())
    disk = shutil.disk_usage(Path.cwd())
    table.add_row("disk here", f"{disk.free / 1e9:.0f} GB free of {disk.total / 1e9:.0f} GB")
    table.add_row("libraries", ", ".join(f"{k} {v}" for k, v in versions().items()))
    if importlib.util.find_spec("torch") is None:
        table.add_row("torch", escape('not installed: pip install "lora-litee[train]"'))
    else:
        for name, value in _torch_rows():
            table.add_row(name, value)
    Console().print(table)


def _memory() -> str:
    info = Path("/proc/meminfo")
    if not info.exists():
        return "unknown"
    values = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines())
    free, total = (int(values[k].split()[0]) / 1e6 for k in ("MemAvailable", "MemTotal"))
    return f"{free:.1f} GB free of {total:.1f} GB"


def _torch_rows() -> list[tuple[str, str]]:
    import torch

    from litee.finetune.backbones import cache_folder
    from litee.finetune.device import choose_dtype, device_name, matmul_rates, use_threads
    from litee.finetune.packaged import PACKAGED

    use_threads(0)
    rows = []
    if torch.cuda.is_available():
        rows.append(("GPU", device_name()))
    speeds = ", ".join(f"{name} {r / 1e9:,.0f} GFLOP/s" for name, r in matmul_rates().items())
    rows.append(("matrix speed", f"{speeds} per thread; fit would use {choose_dtype('auto')}"))
    for name, one in PACKAGED.items():
        found = one.files() is not None
        rows.append((name, "installed" if found else f"not installed: {one.install}"))
    rows.append(("cache", str(cache_folder())))
    return rows
