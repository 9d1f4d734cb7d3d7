"""Freed memory stays with the process inside the block, and goes back after it."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from litee.finetune.heap import kept_memory
from litee.finetune.rates import resident_bytes

_FLOATS = 16 * 1024 * 1024  # 64 MiB: far above what the C library keeps by itself


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's C library")
def test_a_kept_block_is_used_again_and_given_back_at_the_end() -> None:
    torch.ones(_FLOATS)
    with kept_memory():
        torch.ones(_FLOATS)
        held = resident_bytes()
        kept = torch.ones(_FLOATS)
        assert resident_bytes() - held < 16 * 1024 * 1024  # the same pages
        del kept
    after = resident_bytes()
    assert held - after > 48 * 1024 * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's C library")
def test_the_setting_ends_with_the_block_even_after_an_error() -> None:
    with pytest.raises(ValueError, match="within"), kept_memory():
        torch.ones(_FLOATS)
        raise ValueError("within")
    before = resident_bytes()
    torch.ones(_FLOATS)
    assert resident_bytes() - before < 16 * 1024 * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's C library")
def test_after_a_block_activations_are_not_mapped_anew() -> None:
    """What is far above the library's first threshold, 128 KiB, stays on the heap."""
    with kept_memory():
        torch.ones(_FLOATS)
    torch.ones(_FLOATS // 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(_FLOATS // 16)  # 4 MiB, 1,024 pages
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 10_000
