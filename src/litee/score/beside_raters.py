"""Metrics beside single raters, both against the same judgement: the mean of the other raters.

A rater cannot be compared with a mean that holds their own rating. So every rater in turn is left
out, that rater and every metric are compared with the mean of the others, and the figures are taken
over all raters together. Knows nothing of files, texts or pages.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from litee.records import Score
from litee.score.agreement_study import BesideRater
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats
from litee.score.pairwise import WIDTH, Verdicts, pair_sums, resample_pairs, threshold_for_ties
from litee.score.rated import Rated, derived_pairs

#: Name of the row of raters.
RATER = "one rater"

_FEW = "fewer than three answers, or a constant"


def mean_of_others(ratings: Floats, rater: int) -> Floats:
    """(n,) mean rating without one rater; NaN where nobody else rated.

    >>> mean_of_others(np.array([[1.0, 3.0, 5.0], [2.0, np.nan, np.nan]]), 0).tolist()
    [4.0, nan]
    """
    others = np.delete(ratings, rater, axis=1)
    known = np.isfinite(others).any(axis=1)
    mean = np.full(len(others), np.nan)
    mean[known] = np.nanmean(others[known], axis=1)
    return mean


def beside_raters(
    rated: Rated,
    first: NDArray[np.int_],
    second: NDArray[np.int_],
    *,
    seed: int,
    resamples: int,
) -> tuple[BesideRater, ...]:
    """The raters' row, then one per metric in the order of `rated`; empty for a single rater.

    Args:
        rated: answers, ratings and scores.
        first: rows of answer A of every pair.
        second: rows of answer B.
        seed: of the bootstrap and of the folds of the tie threshold.
        resamples: of the bootstrap.
    """
    raters = rated.ratings.shape[1]
    if raters < 2:
        return ()
    own = np.zeros((len(first), WIDTH))
    sums = {m.name: np.zeros((len(first), WIDTH)) for m in rated.metrics}
    ranks: dict[str, list[float]] = {name: [] for name in (RATER, *sums)}
    for k in range(raters):
        mean, alone = mean_of_others(rated.ratings, k), rated.ratings[:, k]
        known = np.isfinite(alone)
        truth = derived_pairs(rated, np.where(known, mean, np.nan), first, second)
        own += pair_sums(truth, Verdicts.from_scores(alone[first], alone[second]))
        ranks[RATER].append(_spearman(alone, mean))
        for metric in rated.metrics:
            a, b = metric.oriented[first], metric.oriented[second]
            verdicts = Verdicts.from_scores(a, b, threshold_for_ties(a, b, truth, seed=seed))
            sums[metric.name] += pair_sums(truth, verdicts)
            ranks[metric.name].append(_spearman(metric.oriented, np.where(known, mean, np.nan)))
    bootstrap = GroupBootstrap(rated.prompts[first], seed=seed, resamples=resamples)
    return _rows(own, sums, {name: _mean(values) for name, values in ranks.items()}, bootstrap)


def _rows(
    own: Floats, sums: Mapping[str, Floats], ranks: Mapping[str, Score], bootstrap: GroupBootstrap
) -> tuple[BesideRater, ...]:
    if not len(own):
        return ()
    people = resample_pairs({RATER: own}, bootstrap)
    nothing = Score(None, reason="the raters themselves")
    found = [
        BesideRater(
            RATER,
            people.score((RATER, "decisive_accuracy")),
            people.score((RATER, "pairwise_accuracy")),
            ranks[RATER],
            nothing,
        )
    ]
    for name, rows in sums.items():
        common = own * (rows[:, :9].sum(axis=1) > 0)[:, None]
        both = resample_pairs({name: rows, RATER: common}, bootstrap)
        figure = "decisive_accuracy"
        found.append(
            BesideRater(
                name,
                both.score((name, figure)),
                both.score((name, "pairwise_accuracy")),
                ranks[name],
                both.difference((name, figure), (RATER, figure)),
            )
        )
    return tuple(found)


def _spearman(x: Floats, y: Floats) -> float:
    keep = np.isfinite(x) & np.isfinite(y)
    if keep.sum() < 3 or np.ptp(x[keep]) == 0 or np.ptp(y[keep]) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x[keep]), rankdata(y[keep]))[0, 1])


def _mean(values: list[float]) -> Score:
    mean = float(np.mean(values))
    return Score(mean) if np.isfinite(mean) else Score(None, reason=_FEW)
