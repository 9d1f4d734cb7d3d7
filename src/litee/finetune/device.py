"""Where backbones run and what computes fastest there: device, threads, data type.

Knows nothing of models.
"""

from __future__ import annotations

import time
from typing import Literal

import torch

from litee.config import Device, DtypeSetting
from litee.errors import ConfigError, ResourceError
from litee.rundir import cpu_name, usable_cores

DtypeName = Literal["float32", "bfloat16"]

#: bfloat16 must be this much faster than float32 to be worth its rounding.
WORTH_ROUNDING = 1.3


def use_threads(threads: int) -> int:
    """Set torch's compute threads; 0 takes all usable cores. Returns the number set."""
    count = threads or usable_cores()
    torch.set_num_threads(count)
    return count


def choose_device(name: Device, dtype: DtypeSetting = "auto") -> torch.device:
    """Where backbones run.

    Args:
        name: as the settings have it; auto takes a CUDA GPU when torch sees one.
        dtype: the data type asked for: int8 products are there on a CPU only, so that auto stays
            on it; a judge's nf4 weights are read on either.

    Raises:
        ConfigError: int8 on a GPU.
        ResourceError: torch sees no CUDA GPU.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        built = "was built without CUDA" if torch.version.cuda is None else "finds no GPU"
        raise ResourceError(
            f"device = 'cuda', but torch {torch.__version__} {built}",
            fix="use --device cpu, or install a CUDA build of torch and check `nvidia-smi`",
        )
    if dtype == "int8":
        if name == "cuda":
            raise ConfigError(
                "dtype = 'int8' has its products on a CPU only, but device = 'cuda'",
                fix="use --dtype bfloat16 or nf4 on a GPU, or --device cpu",
            )
        return torch.device("cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def check_trainable(dtype: DtypeSetting, device: torch.device) -> None:
    """Refuse to fit with 4-bit weights where they would save memory but cost all the time.

    Raises:
        ConfigError: nf4 on a CPU.
    """
    if dtype == "nf4" and device.type != "cuda":
        raise ConfigError(
            "dtype = 'nf4' needs a CUDA GPU to fit a judge",
            fix="use --dtype int8 or auto on a CPU; a judge fitted with nf4 predicts there, too",
        )


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


def choose_dtype(name: DtypeSetting, device: torch.device | None = None) -> DtypeName:
    """The data type of states and of what is not rounded further: as named, or the faster one.

    On a GPU auto is bfloat16, and so are the states between nf4 products. On a CPU it is measured:

    bfloat16 runs at twice the rate of float32 on CPUs with AVX512-BF16 or AMX units that are wired
    up, and at half of it on others; the name of a CPU does not tell.
    """
    if name in ("float32", "bfloat16"):
        return name
    if name == "nf4" or (device is not None and device.type == "cuda"):
        return "bfloat16"
    rates = matmul_rates()
    return "bfloat16" if rates["bfloat16"] >= WORTH_ROUNDING * rates["float32"] else "float32"


def device_name(device: torch.device | None = None) -> str:
    """The name of the GPU, or of the CPU and its cores; of the GPU, if there is one, for None."""
    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    return torch.cuda.get_device_name(device) if on_gpu else cpu_name()


def peak_gpu_mb(device: torch.device) -> float | None:
    """Largest GPU memory that tensors of this process held, in MB (10^6 bytes); None on a CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 1e6
