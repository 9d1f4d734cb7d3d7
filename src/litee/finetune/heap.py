"""The C library's heap: when freed memory goes back to the system, and when it stays.

Knows nothing of models. Does nothing where the C library is not GNU's.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Parameters of GNU's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

#: What they are after a block. Setting any of them ends the library's own adjusting, so the
#: thresholds are those that it reaches by itself once large tensors have been freed.
_AFTER = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 * 1024 * 1024, _TRIM_THRESHOLD: 64 * 1024 * 1024}


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
        for parameter, value in _AFTER.items():
            _set(parameter, value)
        give_back_memory()


def _set(parameter: int, value: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)
