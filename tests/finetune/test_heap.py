"""Freed memory stays with the process inside the block, and goes back after it.

Where a tensor lands on the heap hangs on what has been freed there before, so what is asked about
places is asked in a process of its own.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest
import torch

from litee.finetune.heap import kept_memory
from litee.finetune.rates import resident_bytes

_MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's C library")


def tensor(mib: int) -> torch.Tensor:
    """So many MiB, every page written to."""
    return torch.ones(mib * _MIB // 4)


def own_mapping(one: torch.Tensor) -> bool:
    """Whether GNU's malloc has taken it from the system by itself: bit 1 of the size before it."""
    return bool(ctypes.c_size_t.from_address(one.data_ptr() - 8).value & 2)


def mapped_around_an_error() -> list[bool]:
    found = []
    try:
        with kept_memory():
            found.append(own_mapping(tensor(64)))
            raise ValueError("within")
    except ValueError:
        found.append(own_mapping(tensor(256)))
    return found


def mapped_after_a_block() -> list[bool]:
    with kept_memory():
        tensor(64)
    some = [tensor(24) for _ in range(8)]  # more than has been freed; the library starts at 128 KiB
    return [*map(own_mapping, some), own_mapping(tensor(256))]


@pytest.fixture(scope="module")
def fresh() -> Iterator[Pool]:
    """A new process, on whose heap nothing large has been freed."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


def test_freed_memory_is_kept_in_the_block_and_given_back_at_its_end():
    before = resident_bytes()
    with kept_memory():
        some = [tensor(64) for _ in range(4)]
        assert not any(map(own_mapping, some))
        some.clear()
        assert resident_bytes() - before > 200 * _MIB
    assert resident_bytes() - before < 100 * _MIB


def test_the_setting_ends_with_the_block_even_after_an_error(fresh: Pool):
    assert fresh.apply(mapped_around_an_error) == [False, True]


def test_after_a_block_only_large_tensors_are_mapped_anew(fresh: Pool):
    assert fresh.apply(mapped_after_a_block) == [False] * 8 + [True]
