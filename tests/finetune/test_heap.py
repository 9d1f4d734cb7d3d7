"""Freed memory stays with the process inside the block, and goes back after it.

Where a tensor lands on the heap hangs on what else lies there, so nothing here asks for one place.
"""

from __future__ import annotations

import ctypes
import sys

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


def test_freed_memory_is_kept_in_the_block_and_given_back_at_its_end():
    before = resident_bytes()
    with kept_memory():
        some = [tensor(64) for _ in range(4)]
        assert not any(map(own_mapping, some))
        some.clear()
        assert resident_bytes() - before > 200 * _MIB
    assert resident_bytes() - before < 100 * _MIB


def test_the_setting_ends_with_the_block_even_after_an_error():
    with pytest.raises(ValueError, match="within"), kept_memory():
        assert not own_mapping(tensor(64))
        raise ValueError("within")
    assert own_mapping(tensor(256))  # nothing so large has been freed on the heap


def test_after_a_block_only_large_tensors_are_mapped_anew():
    with kept_memory():
        tensor(64)
    some = [tensor(24) for _ in range(8)]  # more than has been freed; the library starts at 128 KiB
    assert not any(map(own_mapping, some))
