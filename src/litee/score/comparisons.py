"""Paired differences between metrics, and how many more votes would settle them.

Knows nothing of where scores come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from litee.records import Score
from litee.score.agreement_study import Comparison, primary_figure
from litee.score.enough import needed
from litee.score.intervals import GroupBootstrap, Resampled
from litee.score.outcomes import Floats
from litee.score.pairwise import PAIR_MEASURES, resample_pairs
from litee.score.rated import Metric

#: With more metrics than this, only neighbours and the best against all others are compared.
ALL_PAIRS = 12


def compare(
    resampled: Resampled[tuple[str, str]],
    sums: Mapping[str, Floats],
    bootstrap: GroupBootstrap,
    metrics: Sequence[Metric],
    *,
    prompts: int,
    votes: int,
) -> list[Comparison]:
    """Differences of the primary figure: neighbours in the ranking first, then the other pairs.

    Metrics that scored different rows are compared on the pairs that both scored.

    Args:
        resampled: all figures of all metrics.
        sums: metric → (m, w) sums of its pairs.
        bootstrap: over the pairs' prompts.
        metrics: what to compare.
        prompts: prompt groups in all.
        votes: votes or ratings in all.
    """
    names = [m.name for m in metrics]
    rows = [{k[1]: resampled.score(k) for k in resampled.values if k[0] == n} for n in names]
    figure = primary_figure(rows)
    known = [n for n in names if resampled.values.get((n, figure)) is not None]
    ranked = sorted(known, key=lambda n: -(resampled.values[n, figure] or 0.0))
    found: list[Comparison] = []
    for better, worse in _chosen(ranked):
        gap = _difference(resampled, sums, bootstrap, figure, (better, worse))
        found.append(_comparison(better, worse, figure, gap, prompts, votes))
    return found


def _comparison(
    better: str, worse: str, figure: str, gap: Score, prompts: int, votes: int
) -> Comparison:
    """With the better one first: on common pairs the order can turn round."""
    if gap.value is not None and gap.value < 0:
        better, worse = worse, better
        ends = (None, None) if gap.low is None or gap.high is None else (-gap.high, -gap.low)
        gap = Score(-gap.value, *ends)
    return Comparison(better, worse, figure, gap, needed(gap, prompts=prompts, votes=votes))


def _chosen(ranked: Sequence[str]) -> list[tuple[str, str]]:
    near = list(pairwise(ranked))
    if len(ranked) <= ALL_PAIRS:
        far = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 2 :]]
    else:
        far = [(ranked[0], b) for b in ranked[2:]]
    return near + far


def _difference(
    resampled: Resampled[tuple[str, str]],
    sums: Mapping[str, Floats],
    bootstrap: GroupBootstrap,
    figure: str,
    names: tuple[str, str],
) -> Score:
    one, two = names
    if figure not in PAIR_MEASURES:
        if len(resampled.draws[one, figure]) != len(resampled.draws[two, figure]):
            return Score(None, reason="no interval")
        return resampled.difference((one, figure), (two, figure))
    scored = [sums[name][:, :9].sum(axis=1) > 0 for name in names]
    if np.array_equal(scored[0], scored[1]):
        return resampled.difference((one, figure), (two, figure))
    common = scored[0] & scored[1]
    if not common.any():
        return Score(None, reason="no pair was scored by both")
    both = resample_pairs({name: sums[name] * common[:, None] for name in names}, bootstrap)
    return both.difference((one, figure), (two, figure))
