"""How well the right documents are found: recall@k, reciprocal rank, nDCG, with intervals.

Works on ranked ids and gold ids; knows nothing of texts, indexes or models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from litee.records import Score
from litee.score.intervals import GroupBootstrap, Resampled
from litee.score.outcomes import Rows

#: Ids per query that rankings need: the largest cut-off.
LARGEST = 10


@dataclass(frozen=True, slots=True)
class Query:
    """A question with what should be found.

    Attributes:
        text: the question.
        gold: ids of the right documents, at least one.
        group: questions of one group are not independent (one dialogue, one gold document);
            intervals resample groups. "" is a group of its own.

    Raises:
        ValueError: there is no gold id.
    """

    text: str
    gold: frozenset[str]
    group: str = ""

    def __post_init__(self) -> None:
        if not self.gold:
            raise ValueError("a query needs at least one gold document")


def recall_at(ranked: Sequence[str], gold: frozenset[str], k: int) -> float:
    """Share of the gold documents among the first k, 0 … 1.

    >>> recall_at(["x", "a", "y"], frozenset("ab"), 2)
    0.5
    """
    return len(gold & set(ranked[:k])) / len(gold)


def reciprocal_rank(ranked: Sequence[str], gold: frozenset[str]) -> float:
    """1 / rank of the first gold document, 0 when none was found.

    >>> reciprocal_rank(["x", "a", "y"], frozenset("ab"))
    0.5
    """
    ranks = (rank for rank, own in enumerate(ranked, start=1) if own in gold)
    return 1 / next(ranks, math.inf)


def ndcg_at(ranked: Sequence[str], gold: frozenset[str], k: int) -> float:
    """Discounted gain of the first k over that of the best order, 0 … 1; gains are 0 or 1.

    Source: Järvelin and Kekäläinen (2002), with the discount 1 / log2(rank + 1).

    >>> round(ndcg_at(["x", "a", "y"], frozenset("a"), 3), 3)  # 1 / log2(3)
    0.631
    """
    gain = sum(
        1 / math.log2(rank + 1) for rank, own in enumerate(ranked[:k], start=1) if own in gold
    )
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(gold)) + 1))
    return gain / best


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """Metrics of several ways to search the same documents with the same questions.

    Attributes:
        queries: how many questions.
        groups: how many independent groups.
        metrics: method → metric (`recall_at_5`, `mrr`, `ndcg_at_10`, …) → value.
        gains: method → recall_at_`k` less that of the first method, paired.
    """

    queries: int
    groups: int
    metrics: Mapping[str, Mapping[str, Score]]
    gains: Mapping[str, Score]


def evaluate_rankings(
    queries: Sequence[Query],
    rankings: Mapping[str, Sequence[Sequence[str]]],
    *,
    cutoffs: Sequence[int] = (1, 5, LARGEST),
    compare_at: int = 5,
    seed: int = 0,
) -> RetrievalReport:
    """Metrics with 95 % intervals; rankings must be as deep as the largest cut-off.

    Args:
        queries: at least one.
        rankings: method → ranked ids per query.
        cutoffs: the k of recall@k and nDCG@k.
        compare_at: the k at which methods are compared; one of the cut-offs.
        seed: of the resamples.

    Raises:
        ValueError: there is no query, a method has another number of rankings, or `compare_at`
            is no cut-off.
    """
    if not queries or compare_at not in cutoffs:
        raise ValueError("queries are needed, and compare_at must be one of the cut-offs")
    columns: dict[tuple[str, str], Rows] = {}
    for method, ranked in rankings.items():
        for name, values in _columns(queries, ranked, cutoffs).items():
            columns[method, name] = Rows(np.array(values), np.ones(len(queries)))
    names: dict[str, int] = {}
    groups = [names.setdefault(q.group or f"#{i}", len(names)) for i, q in enumerate(queries)]
    found: Resampled[tuple[str, str]] = GroupBootstrap(groups, seed=seed).resample(columns)
    metrics: dict[str, dict[str, Score]] = {}
    for method, name in columns:
        metrics.setdefault(method, {})[name] = found.score((method, name))
    key = f"recall_at_{compare_at}"
    first, *others = rankings
    gains = {other: found.difference((other, key), (first, key)) for other in others}
    return RetrievalReport(len(queries), len(names), metrics, gains)


def _columns(
    queries: Sequence[Query], ranked: Sequence[Sequence[str]], cutoffs: Sequence[int]
) -> dict[str, list[float]]:
    pairs = list(zip(queries, ranked, strict=True))
    found = {f"recall_at_{k}": [recall_at(r, q.gold, k) for q, r in pairs] for k in cutoffs}
    found["mrr"] = [reciprocal_rank(r, q.gold) for q, r in pairs]
    found |= {f"ndcg_at_{k}": [ndcg_at(r, q.gold, k) for q, r in pairs] for k in cutoffs if k > 1}
    return found
