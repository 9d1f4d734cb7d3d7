"""Who met whom and how it ended, as counts: per prompt, resampled, added up by system.

Knows nothing of strengths, votes or files.

Shapes: c resamples; p unordered pairs of systems; s systems; outcomes are "first better", "second
better", "tie".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats

_BLOCK = 6_000_000


def meetings(
    systems: NDArray[np.int_], counts: Floats, groups: NDArray[np.int_], count: int
) -> tuple[NDArray[np.int_], Floats]:
    """(p, 2) pairs of systems that met, and (groups, p, 3) outcomes between them per prompt.

    Args:
        systems: (m, 2) numbers of the systems of A and B.
        counts: (m, 3) weight of a, b, tie.
        groups: (m,) prompt group.
        count: s.

    >>> pairs, cells = meetings(np.array([[1, 0]]), np.array([[2.0, 0, 1]]), np.array([7]), 2)
    >>> pairs.tolist(), cells.tolist()
    ([[0, 1]], [[[0.0, 2.0, 1.0]]])
    """
    first, second = systems.min(axis=1), systems.max(axis=1)
    turned = systems[:, 0] > systems[:, 1]
    counts = np.where(turned[:, None], counts[:, [1, 0, 2]], counts)
    codes, pair = np.unique(first * count + second, return_inverse=True)
    index = np.unique(groups, return_inverse=True)[1]
    cells = np.zeros((index.max() + 1, len(codes), 3))
    np.add.at(cells, (index, pair), counts)
    return np.column_stack(np.divmod(codes, count)), cells


def resampled(cells: Floats, bootstrap: GroupBootstrap) -> Iterator[Floats]:
    """Blocks (c, p, 3) of resampled outcomes."""
    flat = cells.reshape(len(cells), -1)
    size = max(1, _BLOCK // max(flat.shape[1], 1))
    for counts in bootstrap.counts():
        for start in range(0, len(counts), size):
            block = counts[start : start + size] @ flat
            yield block.reshape(-1, cells.shape[1], 3)


def win_rates(outcomes: Floats, pairs: NDArray[np.int_], systems: int) -> Floats:
    """(c, s) share of votes won, ties half; NaN for a system without votes.

    >>> win_rates(np.array([[[3.0, 1.0, 0.0]]]), np.array([[0, 1]]), 2).tolist()
    [[0.75, 0.25]]
    """
    won, total = np.zeros((2, len(outcomes), systems))
    for side, other in ((0, 1), (1, 0)):
        gained = outcomes[:, :, side] + outcomes[:, :, 2] / 2
        lost = outcomes[:, :, other] + outcomes[:, :, 2] / 2
        for k in range(systems):
            here = pairs[:, side] == k
            won[:, k] += gained[:, here].sum(axis=1)
            total[:, k] += (gained + lost)[:, here].sum(axis=1)
    rates = np.full(won.shape, np.nan)
    np.divide(won, total, out=rates, where=total > 0)
    return rates


def unbounded(outcomes: Floats, pairs: NDArray[np.int_], systems: int) -> Sequence[bool]:
    """(s,) whether the likelihood has no finite maximum for a system; outcomes are (p, 3).

    It has one exactly when every system beat (or tied with) every other through some chain of
    votes (Ford 1957): when the graph of wins is strongly connected. The systems of the largest
    connected part count as bounded.
    """
    won = outcomes[:, 0] + outcomes[:, 2] > 0
    lost = outcomes[:, 1] + outcomes[:, 2] > 0
    edges = np.concatenate([pairs[won], pairs[lost][:, ::-1]])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(systems, systems))
    _, part = connected_components(graph, directed=True, connection="strong")
    found: list[bool] = (part != np.bincount(part).argmax()).tolist()
    return found
