"""95 % intervals by resampling prompt groups.

Votes on one prompt are not independent, so whole prompt groups are drawn with replacement
(cluster bootstrap; Davison and Hinkley 1997, section 3.8) and the percentile interval is reported.
Every metric is a ratio of sums (`litee.score.outcomes.Rows`): the sums per group are formed once
and a block of resamples is one matrix product. Knows nothing of what the metrics mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from litee.records import Score
from litee.score.outcomes import Floats, Rows

Key = TypeVar("Key", bound=Hashable)

#: Resamples behind every interval.
RESAMPLES = 2000

#: Group counts drawn at once (8 bytes each).
_BLOCK = 4_000_000

#: Smallest share of resamples on which a metric must be defined to get an interval.
_DEFINED = 0.95


@dataclass(frozen=True, slots=True)
class Resampled(Generic[Key]):
    """Metrics on the full sample and on every resample (the same resamples for all metrics).

    Attributes:
        values: the metric on all pairs, None when undefined.
        draws: (resamples,) its values on the resamples, NaN where undefined; empty when `values`
            is None or there are fewer than two groups.
        reasons: why a value is None.
        absolute: metrics that are sums of absolute values, whose resamples are biased upwards.
    """

    values: Mapping[Key, float | None]
    draws: Mapping[Key, Floats]
    reasons: Mapping[Key, str]
    absolute: frozenset[Key]

    def score(self, key: Key) -> Score:
        """One metric with its interval.

        Sums of absolute values (the calibration error) are biased upwards by resampling: their
        interval is shifted so that the median of the resamples meets the estimate, then cut at 0.
        """
        value = self.values[key]
        if value is None:
            return Score(None, reason=self.reasons[key])
        ends = _percentiles(self.draws[key])
        if ends is None:
            return Score(value)
        low, middle, high = ends
        if key in self.absolute:
            return Score(value, max(0.0, low - middle + value), high - middle + value)
        return Score(value, low, high)

    def difference(self, first: Key, second: Key) -> Score:
        """`first` − `second` with the interval of the paired differences.

        Of sums of absolute values, which a bootstrap makes larger, it is shifted as in `score`.
        """
        one, two = self.values[first], self.values[second]
        if one is None or two is None:
            return Score(None, reason=self.reasons[first if one is None else second])
        ends = _percentiles(self.draws[first] - self.draws[second])
        if ends is None:
            return Score(one - two)
        low, middle, high = ends
        shift = one - two - middle if {first, second} & self.absolute else 0.0
        return Score(one - two, low + shift, high + shift)


def mean_over_strata(parts: Sequence[Resampled[Key]], key: Key) -> Score:
    """The mean of one metric over samples that were resampled apart, such as sources.

    Every stratum keeps its number of prompt groups in each resample (stratified bootstrap; Davison
    and Hinkley 1997, section 3.2). When one has no value, neither has the mean, which would be
    that of other strata.

    Args:
        parts: one per stratum, from bootstraps of different seeds and as many resamples.
        key: of the metric.
    """
    if not parts:
        return Score(None, reason="nothing to average")
    without = next((part for part in parts if part.values[key] is None), None)
    if without is not None:
        return Score(None, reason=without.reasons[key])
    value = float(np.mean([part.values[key] for part in parts]))
    if any(not len(part.draws[key]) for part in parts):  # a stratum of a single prompt group
        return Score(value)
    ends = _percentiles(np.mean([part.draws[key] for part in parts], axis=0))
    return Score(value) if ends is None else Score(value, ends[0], ends[2])


class GroupBootstrap:
    """Draws of prompt groups with replacement.

    Args:
        groups: per pair, its prompt group (any numbers).
        seed: of the draws; the same seed and groups give the same resamples.
        resamples: how many.

    >>> rows = {"accuracy": Rows(np.array([1.0, 0.0, 1.0]), np.ones(3))}
    >>> score = GroupBootstrap([0, 0, 1], seed=0).resample(rows).score("accuracy")
    >>> round(score.value, 3), score.low, score.high
    (0.667, 0.5, 1.0)
    """

    def __init__(
        self,
        groups: Sequence[int] | NDArray[np.int_],
        *,
        seed: int | Sequence[int],
        resamples: int = RESAMPLES,
    ) -> None:
        names, self._index = np.unique(np.asarray(groups), return_inverse=True)
        self.count = len(names)
        self._seed = seed
        self._resamples = resamples

    def resample(self, rows: Mapping[Key, Rows]) -> Resampled[Key]:
        """All metrics on the full sample and on every resample.

        Raises:
            ValueError: a metric does not have one row per pair.
        """
        values = {key: row.value() for key, row in rows.items()}
        usable = [key for key, value in values.items() if value is not None]
        draws = dict.fromkeys(rows, np.empty(0))
        if usable and self.count > 1:
            columns = [self._group_sums(rows[key]) for key in usable]
            sums = self._resampled_sums(np.concatenate(columns, axis=1))
            edges = np.cumsum([0] + [c.shape[1] for c in columns])
            for key, start, end in zip(usable, edges[:-1], edges[1:], strict=True):
                draws[key] = _ratios(sums[:, start:end], absolute=rows[key].numerator.ndim == 2)
        reasons = {key: row.reason for key, row in rows.items()}
        absolute = frozenset(key for key, row in rows.items() if row.numerator.ndim == 2)
        return Resampled(values, draws, reasons, absolute)

    def _group_sums(self, rows: Rows) -> Floats:
        columns = np.column_stack([rows.numerator, rows.denominator])
        if len(columns) != len(self._index):
            raise ValueError(f"{len(columns)} rows for {len(self._index)} pairs")
        sums = np.zeros((self.count, columns.shape[1]))
        np.add.at(sums, self._index, columns)
        return sums

    def _resampled_sums(self, group_sums: Floats) -> Floats:
        return np.concatenate([counts @ group_sums for counts in self.counts()])

    @property
    def index(self) -> NDArray[np.int_]:
        """(n,) number of each pair's group, 0 … count − 1."""
        return self._index

    def counts(self) -> Iterator[Floats]:
        """Blocks (block, groups) of how often each group was drawn, for other statistics.

        Every call yields the same draws, so statistics taken from them are paired.
        """
        rng = np.random.default_rng(self._seed)
        block = max(1, _BLOCK // self.count)
        for start in range(0, self._resamples, block):
            size = min(block, self._resamples - start)
            drawn = rng.integers(0, self.count, (size, self.count))
            drawn += self.count * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * self.count)
            yield counts.reshape(size, self.count).astype(float)


def _ratios(sums: Floats, *, absolute: bool) -> Floats:
    """(resamples,) Σ numerator / Σ denominator; the denominator is the last column."""
    top = np.abs(sums[:, :-1]).sum(axis=1) if absolute else sums[:, 0]
    bottom = sums[:, -1]
    ratio = np.full(len(sums), np.nan)
    np.divide(top, bottom, out=ratio, where=bottom > 0)
    return ratio


def _percentiles(draws: Floats) -> tuple[float, float, float] | None:
    """2.5, 50 and 97.5 percentiles of the defined draws, None when too few are defined."""
    defined = draws[np.isfinite(draws)]
    if not len(draws) or len(defined) < _DEFINED * len(draws):
        return None
    low, middle, high = np.percentile(defined, [2.5, 50, 97.5])
    return float(low), float(middle), float(high)
