"""Passes side by side on a CPU: one pack of texts per thread instead of all threads on one pack.

The matrices of a light model are small, so threads that share each of them mostly wait for each
other; threads with packs of their own do not. Knows nothing of what is run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

#: Passes at once at most: each holds the activations of a pack.
MOST_PASSES = 8


def passes_at_once() -> int:
    """How many passes run side by side with torch's compute threads as they are set."""
    return min(torch.get_num_threads(), MOST_PASSES)


def side_by_side(
    work: Callable[[T], R], items: Sequence[T], *, device: torch.device
) -> Generator[R]:
    """Results of `work` in the order of `items`, computed ahead by threads on a CPU.

    Every item is computed with the same number of threads, whatever else is computed, so that its
    result does not depend on the other items. While results are awaited, torch's threads in the
    caller are fewer; they are set back at the end. When the caller stops early, what has not begun
    is left out.

    Args:
        work: must not change anything that another call reads.
        items: what to compute.
        device: where `work` computes; on a GPU the items run one after the other.

    >>> list(side_by_side(abs, [-1, 2, -3], device=torch.device("cpu")))
    [1, 2, 3]
    """
    threads, workers = torch.get_num_threads(), passes_at_once()
    if device.type != "cpu" or workers == 1:
        yield from map(work, items)
        return
    torch.set_num_threads(threads // workers)
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
