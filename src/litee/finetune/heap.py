"""The C library's heap: when freed memory goes back to the system, and when it stays.

Knows nothing of models. Does nothing where the C library is not GNU's.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Parameters of GNU's mallopt (malloc.h), and the values it starts with.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_TRIM_START, _MMAP_START = 128 * 1024, 65_536


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can: what comes next is measured."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within the block, freed memory stays with the process, to be used again.

    Large tensors come from fresh pages otherwise, which the system fills with zeros one by one: a
    third of the processor time of tuning a small model with a large vocabulary. After the block
    all that is free goes back.

    >>> with kept_memory():
    ...     print("a step")
    a step
    """
    _set(_MMAP_MAX, 0)
    _set(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        _set(_MMAP_MAX, _MMAP_START)
        _set(_TRIM_THRESHOLD, _TRIM_START)
        give_back_memory()


def _set(parameter: int, value: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)
