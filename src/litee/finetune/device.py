"""What this machine computes fastest: threads and data type, by measurement.

Knows nothing of models.
"""

from __future__ import annotations

import time
from typing import Literal

import torch

from litee.rundir import cpu_name, usable_cores

DtypeName = Literal["float32", "bfloat16"]

#: bfloat16 must be this much faster than float32 to be worth its rounding.
WORTH_ROUNDING = 1.3


def use_threads(threads: int) -> int:
    """Set torch's compute threads; 0 takes all usable cores. Returns the number set."""
    count = threads or usable_cores()
    torch.set_num_threads(count)
    return count


def matmul_rates(*, rows: int = 512, repeats: int = 12) -> dict[DtypeName, float]:
    """Operations per second and thread of a (rows × 1024) · (1024 × 1024) product, by data type.

    The data types take turns on one thread and the best of `repeats` counts, so that other jobs
    on the machine do not decide between them.
    """
    best: dict[DtypeName, float] = {"float32": float("inf"), "bfloat16": float("inf")}
    operands = {
        name: (torch.randn(rows, 1024).to(dtype), torch.randn(1024, 1024).to(dtype))
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats):
            for name in best:
                left, right = operands[name]
                started = time.perf_counter()
                torch.nn.functional.linear(left, right)
                best[name] = min(best[name], time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return {name: 2 * rows * 1024 * 1024 / seconds for name, seconds in best.items()}


def choose_dtype(name: Literal["auto", "float32", "bfloat16", "int8"]) -> DtypeName:
    """The data type of states and of what is not rounded to int8: as named, or the faster one here.

    bfloat16 runs at twice the rate of float32 on CPUs with AVX512-BF16 or AMX units that are wired
    up, and at half of it on others; the name of a CPU does not tell.
    """
    if name in ("float32", "bfloat16"):
        return name
    rates = matmul_rates()
    return "bfloat16" if rates["bfloat16"] >= WORTH_ROUNDING * rates["float32"] else "float32"


def device_name() -> str:
    """The GPU's name when there is one, else the CPU's and its cores."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
