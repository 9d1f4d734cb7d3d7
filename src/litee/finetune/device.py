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


def matmul_rate(dtype: torch.dtype, *, rows: int = 1024, repeats: int = 8) -> float:
    """Operations per second of a (rows × 1024) · (1024 × 1024) product, best of `repeats`."""
    left = torch.randn(rows, 1024).to(dtype)
    right = torch.randn(1024, 1024).to(dtype)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * rows * 1024 * 1024 / best


def choose_dtype(name: Literal["auto", "float32", "bfloat16"]) -> DtypeName:
    """The data type of frozen layers: as named, or the faster one here.

    bfloat16 runs at twice the rate of float32 on CPUs with AVX512-BF16 or AMX units that are wired
    up, and at half of it on others; the name of a CPU does not tell.
    """
    if name != "auto":
        return name
    gain = matmul_rate(torch.bfloat16) / matmul_rate(torch.float32)
    return "bfloat16" if gain >= WORTH_ROUNDING else "float32"


def device_name() -> str:
    """The GPU's name when there is one, else the CPU's and its cores."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
