"""Samples over sites or categories that favour the small ones.

Knows nothing of what is sampled. Source: Zhou et al. (2023), "LIMA", section 2.1: exchanges are
sampled with a temperature of 3, so that each source gets a more even share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def sample_sites(
    pools: Mapping[str, Sequence[T]], count: int, temperature: float, random: np.random.Generator
) -> Iterator[T]:
    """Up to `count` items: a site drawn with weight size^(1 / temperature), then its next item.

    A site's items are taken in their order, best first; an empty site is not drawn again.

    Args:
        pools: site → its items, the best first.
        count: all items when there are fewer.
        temperature: 1 is proportional to size; the larger, the more even.
        random: the draws.

    >>> rng = np.random.default_rng(0)
    >>> sorted(sample_sites({"a": [1, 2], "b": [3]}, 9, 3.0, rng))
    [1, 2, 3]
    """
    names = sorted(pools)
    weights = np.array([len(pools[name]) ** (1 / temperature) for name in names], dtype=float)
    taken = [0] * len(names)
    for _ in range(min(count, sum(map(len, pools.values())))):
        k = int(random.choice(len(names), p=weights / weights.sum()))
        yield pools[names[k]][taken[k]]
        taken[k] += 1
        if taken[k] == len(pools[names[k]]):
            weights[k] = 0.0
