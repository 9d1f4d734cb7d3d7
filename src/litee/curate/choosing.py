"""Choose n of many vectors: cover all, stay apart, take turns, by quality alone, or at random.

Every strategy asks a gate before it takes one. Knows nothing of texts.

Sources: facility location with lazy evaluation (Minoux 1978; Krause and Golovin 2014, section
2); k-center greedy (Gonzalez 1985; Sener and Savarese 2018). Their mixture with quality is
derived here: F(S) = (1 − w) · coverage(S) + w · Σ quality / n, which stays submodular, since the
quality part adds up; and for k-center the next pick maximises (1 − w) · distance + w · quality.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.curate.quotas import Cell, Gate
from litee.curate.vectors import Vectors
from litee.progress import progress

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may be chosen.

    Attributes:
        vectors: unit vectors, shape (candidates, width).
        quality: 0 … 1 each.
        cells: source and topic each.
        clusters: topic cluster each.
    """

    vectors: Vectors
    quality: NDArray[np.float64]
    cells: Sequence[Cell]
    clusters: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Task:
    """How to choose.

    Attributes:
        n: how many, at most the number of candidates.
        weight: of quality, 0 … 1.
        clients: size of the sample that facility location covers.
        seed: of that sample.
    """

    n: int
    weight: float
    clients: int
    seed: int


Advance = Callable[[int], None]


def choose(strategy: str, candidates: Candidates, gate: Gate, task: Task) -> list[int]:
    """The chosen candidates in the order in which they were chosen.

    Args:
        strategy: `facility`, `kcenter`, `clusters`, `quality` or `random`.
        candidates: what there is.
        gate: which cells may still be taken; made for `task.n`.
        task: numbers.
    """
    strategies = {
        "facility": _facility,
        "kcenter": _k_center,
        "clusters": _clusters,
        "quality": _quality,
        "random": _random,
    }
    with progress("choosing", task.n, "demonstrations") as advance:
        return strategies[strategy](candidates, gate, task, advance)


def _facility(candidates: Candidates, gate: Gate, task: Task, advance: Advance) -> list[int]:
    """Lazy greedy: gains only shrink, so an old gain bounds the new one."""
    vectors, size = candidates.vectors, len(candidates.vectors)
    rng = np.random.default_rng(task.seed)
    sample = np.sort(rng.choice(size, size=min(task.clients, size), replace=False))
    clients = vectors[sample]
    covered = np.zeros(len(clients), dtype=np.float32)
    bonus = task.weight * candidates.quality / task.n

    def gain(row: int) -> float:
        new = np.maximum(clients @ vectors[row] - covered, 0.0).mean()
        return (1 - task.weight) * float(new) + float(bonus[row])

    first = np.concatenate(
        [
            np.maximum(vectors[k : k + _BLOCK] @ clients.T, 0.0).mean(axis=1)
            for k in range(0, size, _BLOCK)
        ]
    )
    bounds = (1 - task.weight) * first.astype(np.float64) + bonus
    heap = [(-bound, row, 0) for row, bound in enumerate(bounds.tolist())]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < task.n and heap:
        _, row, when = heapq.heappop(heap)
        if gate.is_closed(candidates.cells[row]):
            continue
        if when < len(chosen):
            heapq.heappush(heap, (-gain(row), row, len(chosen)))
        elif gate.take(candidates.cells[row]):
            chosen.append(row)
            covered = np.maximum(covered, clients @ vectors[row])
            advance(1)
    return chosen


def _k_center(candidates: Candidates, gate: Gate, task: Task, advance: Advance) -> list[int]:
    """The next pick is far from all chosen ones, and good."""
    vectors = candidates.vectors
    distance = np.ones(len(vectors), dtype=np.float32)
    open_rows = np.ones(len(vectors), dtype=bool)
    members: dict[Cell, list[int]] = {}
    for row, cell in enumerate(candidates.cells):
        members.setdefault(cell, []).append(row)
    chosen: list[int] = []
    while len(chosen) < task.n and open_rows.any():
        value = (1 - task.weight) * distance + task.weight * candidates.quality
        row = int(np.argmax(np.where(open_rows, value, -np.inf)))
        cell = candidates.cells[row]
        if not gate.take(cell):
            open_rows[members[cell]] = False
            continue
        chosen.append(row)
        open_rows[row] = False
        distance = np.minimum(distance, np.clip(1 - vectors @ vectors[row], 0.0, 1.0))
        advance(1)
    return chosen


def _clusters(candidates: Candidates, gate: Gate, task: Task, advance: Advance) -> list[int]:
    """One of each topic in turn, the best first, the largest topic first."""
    order = np.argsort(-candidates.quality, kind="stable")
    queues: dict[int, list[int]] = {}
    for row in order.tolist():
        queues.setdefault(int(candidates.clusters[row]), []).append(row)
    turns = sorted(queues.values(), key=lambda rows: (-len(rows), rows[0]))
    places = [0] * len(turns)
    chosen: list[int] = []
    while len(chosen) < task.n and any(p < len(q) for p, q in zip(places, turns, strict=True)):
        for k, queue in enumerate(turns):
            while places[k] < len(queue) and len(chosen) < task.n:
                row = queue[places[k]]
                places[k] += 1
                if gate.take(candidates.cells[row]):
                    chosen.append(row)
                    advance(1)
                    break
    return chosen


def _quality(candidates: Candidates, gate: Gate, task: Task, advance: Advance) -> list[int]:
    """The best first."""
    order = np.argsort(-candidates.quality, kind="stable")
    return _in_order(order.tolist(), candidates, gate, task, advance)


def _random(candidates: Candidates, gate: Gate, task: Task, advance: Advance) -> list[int]:
    """Whichever comes, to compare the others with."""
    order = np.random.default_rng(task.seed).permutation(len(candidates.quality))
    return _in_order(order.tolist(), candidates, gate, task, advance)


def _in_order(
    order: Sequence[int], candidates: Candidates, gate: Gate, task: Task, advance: Advance
) -> list[int]:
    chosen: list[int] = []
    for row in order:
        if len(chosen) == task.n:
            break
        if gate.take(candidates.cells[row]):
            chosen.append(row)
            advance(1)
    return chosen


def nearest(
    vectors: Vectors, chosen: Sequence[int], *, apart: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Per vector the place in `chosen` of the most similar chosen one, and their cosine.

    Args:
        vectors: unit vectors.
        chosen: rows, one or more (two or more with `apart`).
        apart: do not compare a chosen one with itself.
    """
    picked = vectors[list(chosen)]
    place = np.empty(len(vectors), dtype=np.int64)
    cosine = np.empty(len(vectors), dtype=np.float32)
    own = {row: k for k, row in enumerate(chosen)}
    for start in range(0, len(vectors), _BLOCK):
        found = vectors[start : start + _BLOCK] @ picked.T
        if apart:
            for row in range(start, min(start + _BLOCK, len(vectors))):
                if row in own:
                    found[row - start, own[row]] = -2.0
        place[start : start + _BLOCK] = found.argmax(axis=1)
        cosine[start : start + _BLOCK] = found.max(axis=1)
    return place, cosine
