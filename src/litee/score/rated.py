"""Rated answers: people's ratings, the metrics' scores beside them, and the pairs they imply.

Knows nothing of files, of how a metric works, or of bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from litee.score.outcomes import Floats
from litee.score.pairwise import PairTruth

_MOST_VALUES = 2000


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric's scores of the answers of a `Rated`, or of the pairs of a vote set.

    Attributes:
        name: of the metric.
        values: (n,) scores of answers; or (m, 2) of answer A and B; or (m, 3) probabilities of
            a, b, tie. NaN where there is none.
        unscored: reason → number of rows without a score.
        lower_is_better: the sign is turned before anything is compared.
        seconds_per_1000: cost in seconds, None when unknown.
        price_per_1000: cost in money, None when unknown.
    """

    name: str
    values: Floats
    unscored: Mapping[str, int] = field(default_factory=dict)
    lower_is_better: bool = False
    seconds_per_1000: float | None = None
    price_per_1000: float | None = None

    @property
    def oriented(self) -> Floats:
        """The values with higher meaning better."""
        return -self.values if self.lower_is_better else self.values


@dataclass(frozen=True, slots=True)
class Rated:
    """n rated answers.

    Attributes:
        prompts: (n,) prompt group.
        systems: (n,) number of the system that answered.
        system_names: their names.
        ratings: (n, r) rating by rater, NaN where missing; higher is better.
        lengths: (n,) characters, or None when the texts are not known.
        metrics: scores of the same answers.
        source: where the ratings came from, for the reader.

    Raises:
        ValueError: shapes do not match or an answer has no rating.
    """

    prompts: NDArray[np.int_]
    systems: NDArray[np.int_]
    system_names: tuple[str, ...]
    ratings: Floats
    lengths: Floats | None
    metrics: tuple[Metric, ...]
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.prompts)
        columns: Sequence[NDArray[np.int_] | Floats] = [self.systems, self.ratings]
        columns = [*columns, *(m.values for m in self.metrics)]
        if any(len(column) != n for column in columns) or self.ratings.ndim != 2:
            raise ValueError("prompts, systems, ratings and metrics need one row per answer")
        if n and not np.isfinite(self.ratings).any(axis=1).all():
            raise ValueError("every answer needs at least one rating")

    @property
    def mean(self) -> Floats:
        """(n,) mean rating."""
        mean: Floats = np.nanmean(self.ratings, axis=1)
        return mean


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far raters agree with each other.

    Attributes:
        raters: number of raters (columns).
        pair_correlations: Pearson correlation of each two raters.
        mean_correlation: their mean.
        of_mean: reliability of the mean of all raters (Spearman 1910, Brown 1910):
            k r / (1 + (k − 1) r); None when r is not positive.
        exact: share of rating pairs that are equal.
        alpha_ordinal: Krippendorff's alpha, None when undefined.
        alpha_interval: likewise.
    """

    raters: int
    pair_correlations: tuple[float, ...]
    mean_correlation: float
    of_mean: float | None
    exact: float
    alpha_ordinal: float | None
    alpha_interval: float | None


def reliability(ratings: Floats) -> Reliability | None:
    """Agreement between the columns of (n, r) ratings; None with fewer than two raters.

    >>> r = reliability(np.array([[1.0, 1], [2, 2], [3, 3], [4, 5]]))
    >>> round(r.mean_correlation, 3), r.exact
    (0.983, 0.75)
    """
    k = ratings.shape[1]
    if k < 2:
        return None
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    found, equal, total = [], 0, 0
    for i, j in pairs:
        both = np.isfinite(ratings[:, i]) & np.isfinite(ratings[:, j])
        one, two = ratings[both, i], ratings[both, j]
        equal, total = equal + int((one == two).sum()), total + len(one)
        if len(one) > 1 and one.std() > 0 and two.std() > 0:
            found.append(float(np.corrcoef(one, two)[0, 1]))
    if not found or not total:
        return None
    r = float(np.mean(found))
    return Reliability(
        raters=k,
        pair_correlations=tuple(found),
        mean_correlation=r,
        of_mean=k * r / (1 + (k - 1) * r) if r > 0 else None,
        exact=equal / total,
        alpha_ordinal=krippendorff_alpha(ratings, "ordinal"),
        alpha_interval=krippendorff_alpha(ratings, "interval"),
    )


def krippendorff_alpha(ratings: Floats, level: Literal["ordinal", "interval"]) -> float | None:
    """Krippendorff's alpha of (n, r) ratings with missing values.

    Krippendorff (2011), "Computing Krippendorff's alpha-reliability", by the matrix of
    coincidences, whose size depends on the number of different ratings and not of answers.

    Returns:
        None when all ratings are equal, no answer has two, or there are more than 2,000 different
        ratings.

    >>> krippendorff_alpha(np.array([[1.0, 1.0], [2.0, 2.0]]), "interval")
    1.0
    """
    known = np.isfinite(ratings)
    repeated = known.sum(axis=1) >= 2
    ratings, known = ratings[repeated], known[repeated]
    values = np.unique(ratings[known])
    if not 2 <= len(values) <= _MOST_VALUES:
        return None
    unit = np.nonzero(known)[0]
    cell = unit * len(values) + np.searchsorted(values, ratings[known])
    counts = np.bincount(cell, minlength=len(ratings) * len(values))
    counts = counts.reshape(len(ratings), len(values)).astype(float)
    shared = counts / (known.sum(axis=1) - 1)[:, None]
    together = shared.T @ counts - np.diag(shared.sum(axis=0))
    marginal = together.sum(axis=1)
    if level == "interval":
        distance = (values[:, None] - values[None]) ** 2
    else:
        middle = np.cumsum(marginal) - marginal / 2
        distance = (middle[:, None] - middle[None]) ** 2
    expected = marginal @ distance @ marginal
    return float(1 - (marginal.sum() - 1) * (together * distance).sum() / expected)


def within_prompt_pairs(prompts: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Every two answers to one prompt: (m,) first and (m,) second row.

    >>> first, second = within_prompt_pairs(np.array([0, 1, 0, 0]))
    >>> list(zip(first.tolist(), second.tolist()))
    [(0, 2), (0, 3), (2, 3)]
    """
    order = np.argsort(prompts, kind="stable")
    bounds = np.flatnonzero(np.diff(prompts[order])) + 1
    first: list[NDArray[np.int_]] = [np.empty(0, dtype=int)]
    second: list[NDArray[np.int_]] = [np.empty(0, dtype=int)]
    for rows in np.split(order, bounds):
        i, j = np.triu_indices(len(rows), 1)
        first.append(rows[i])
        second.append(rows[j])
    return np.concatenate(first), np.concatenate(second)


def derived_pairs(
    rated: Rated, human: Floats, first: NDArray[np.int_], second: NDArray[np.int_]
) -> PairTruth:
    """Outcomes implied by ratings: the answer with the higher mean wins, equal means tie.

    Such pairs are *derived*: nobody compared the two answers. Their order is arbitrary.

    Args:
        rated: the answers.
        human: (n,) rating that decides, e.g. `rated.mean`.
        first: rows of answer A.
        second: rows of answer B.
    """
    gap = human[first] - human[second]
    counts = np.column_stack([gap > 1e-9, gap < -1e-9, np.abs(gap) <= 1e-9]).astype(float)
    counts[~np.isfinite(gap)] = 0
    lengths = rated.lengths
    longer = np.zeros(len(first))
    if lengths is not None:
        longer = np.nan_to_num(np.sign(lengths[first] - lengths[second]))
    return PairTruth(counts, rated.prompts[first], longer, mirrored=True)
