"""A metric's verdicts against people's, pair by pair: accuracy, kappa, alpha, length balance.

Every figure is a function of a few sums over pairs: the 3 × 3 table of what people said and what
the metric said, and the forced choices on decisive votes, apart for the longer and the shorter
winner. The sums are additive over prompts, so a bootstrap needs them once per prompt
(`litee.score.intervals`). Knows nothing of texts, files or of where the scores come from.

Shapes: m pairs; outcomes in the order of `litee.records.CLASSES` (a, b, tie).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.score.intervals import GroupBootstrap, Resampled
from litee.score.outcomes import Floats, choices, decisive_choices

#: Columns of the sums of one metric: the table by rows, then right and all forced choices, over
#: all decisive votes, where the longer answer won, and where the shorter one won.
WIDTH = 15

_TABLE = slice(0, 9)
_FORCED, _LONG, _SHORT = slice(9, 11), slice(11, 13), slice(13, 15)

#: Distance of outcomes for the weighted kappa and alpha: a tie lies half-way between a and b.
_POSITION = np.array([1.0, -1.0, 0.0])

_UNDEFINED = {
    "pairwise_accuracy": "no pair was scored",
    "decisive_accuracy": "no decisive votes (a or b) on scored pairs",
    "both_decisive_accuracy": "no vote is decisive where the metric is",
    "tie_discounted": "no pair was scored",
    "kappa": "people or the metric always say the same",
    "kappa_weighted": "people or the metric always say the same",
    "alpha": "people and the metric always say the same",
    "alpha_interval": "people and the metric always say the same",
    "length_balanced": "decisive votes never go to the shorter, or never to the longer answer",
    "tie_rate": "no pair was scored",
}

#: Names of the figures, in the order they are shown.
PAIR_MEASURES: tuple[str, ...] = tuple(_UNDEFINED)


@dataclass(frozen=True, slots=True)
class PairTruth:
    """What people said about pairs of answers.

    Attributes:
        counts: (m, 3) votes per outcome; one vote per pair where it is derived from ratings.
        groups: (m,) prompt group of each pair.
        longer: (m,) 1 where answer A is the longer one, −1 where B is, 0 when equal or unknown.
        mirrored: whether the order of A and B is arbitrary (pairs derived from ratings); every
            pair then counts half in each order, so that no figure depends on it.
    """

    counts: Floats
    groups: NDArray[np.int_]
    longer: Floats
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not len(self.counts) == len(self.groups) == len(self.longer):
            raise ValueError("votes, groups and lengths need one row per pair")

    @property
    def margin(self) -> Floats:
        """(m,) share of A minus share of B, −1 … 1."""
        total = np.maximum(self.counts.sum(axis=1), 1e-300)
        margin: Floats = (self.counts[:, 0] - self.counts[:, 1]) / total
        return margin


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a metric says about the same pairs.

    Attributes:
        credit: (m, 3) 1 for the outcome it names; shared when several are equally probable.
        forced: (m, 2) the same when it has to choose between a and b; one half each when it
            cannot.
        lean: (m,) a number that grows with its preference for A (score difference or P(a) − P(b)).
        scored: (m,) whether it has an opinion at all; the other rows are ignored.
    """

    credit: Floats
    forced: Floats
    lean: Floats
    scored: NDArray[np.bool_]

    @classmethod
    def from_probabilities(cls, p: Floats) -> Verdicts:
        """From (m, 3) probabilities; a row of NaN is a pair without a verdict.

        >>> Verdicts.from_probabilities(np.array([[0.2, 0.1, 0.7]])).forced.tolist()
        [[1.0, 0.0]]
        """
        scored = np.asarray(np.isfinite(p).all(axis=1), dtype=np.bool_)
        known = np.where(scored[:, None], p, 1 / 3)
        return cls(
            choices(known), decisive_choices(known)[:, :2], known[:, 0] - known[:, 1], scored
        )

    @classmethod
    def from_scores(cls, a: Floats, b: Floats, threshold: float | Floats = 0.0) -> Verdicts:
        """From (m,) scores of both answers: a tie where they differ by `threshold` or less.

        Args:
            a: scores of A, higher is better, NaN where there is none.
            b: likewise of B.
            threshold: one number or one per pair, >= 0.

        >>> v = Verdicts.from_scores(np.array([0.9, 0.5]), np.array([0.1, 0.4]), 0.2)
        >>> v.credit.tolist(), v.forced.tolist()
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]])
        """
        scored = np.isfinite(a) & np.isfinite(b)
        lean = np.where(scored, np.where(scored, a, 0.0) - np.where(scored, b, 0.0), 0.0)
        tied = np.abs(lean) <= threshold
        credit = np.column_stack([(lean > 0) & ~tied, (lean < 0) & ~tied, tied]).astype(float)
        forced = np.column_stack([lean > 0, lean < 0]) + 0.5 * (lean == 0)[:, None]
        return cls(credit, forced.astype(float), lean, scored)


def threshold_for_ties(
    a: Floats, b: Floats, truth: PairTruth, *, folds: int = 5, seed: int = 0
) -> Floats:
    """(m,) per pair, the score difference below which a tie is called.

    A continuous score hardly ever ties, people do. Following Deutsch et al. (2023,
    arXiv 2305.14324, section 5) the threshold is the one with the highest three-way accuracy; here
    it is chosen on the *other* folds of prompts, so that no pair judges its own threshold.

    Args:
        a: (m,) scores of A, NaN where there is none.
        b: likewise of B.
        truth: the votes.
        folds: of prompts; with fewer prompts than folds the threshold is 0.
        seed: of the assignment of prompts to folds.
    """
    names, index = np.unique(truth.groups, return_inverse=True)
    thresholds = np.zeros(len(a))
    if len(names) < folds:
        return thresholds
    fold = (np.random.default_rng(seed).permutation(len(names)) % folds)[index]
    lean = a - b
    for k in range(folds):
        train = (fold != k) & np.isfinite(lean)
        if train.any():
            thresholds[fold == k] = _best_threshold(lean[train], truth.counts[train])
    return thresholds


def _best_threshold(lean: Floats, counts: Floats) -> float:
    """The |lean| up to which calling a tie gives the highest three-way accuracy."""
    size = np.abs(lean)
    order = np.argsort(size, kind="stable")
    chosen = np.where(lean > 0, counts[:, 0], np.where(lean < 0, counts[:, 1], counts[:, 2]))
    gain = np.cumsum((counts[:, 2] - chosen)[order])
    ends = np.append(np.flatnonzero(np.diff(size[order]) > 0), len(size) - 1)
    best = ends[np.argmax(gain[ends])]
    return float(size[order][best]) if gain[best] > 0 else 0.0


def pair_sums(truth: PairTruth, verdicts: Verdicts) -> Floats:
    """(m, WIDTH) the summands of every figure, one row per pair.

    >>> truth = PairTruth(np.array([[1.0, 0, 0]]), np.array([0]), np.array([1.0]))
    >>> v = Verdicts.from_scores(np.array([2.0]), np.array([1.0]))
    >>> pair_sums(truth, v)[0, [0, 9, 10, 11, 12]].tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    counts = truth.counts * verdicts.scored[:, None]
    table = (counts[:, :, None] * verdicts.credit[:, None, :]).reshape(-1, 3, 3)
    if truth.mirrored:
        turned = table[:, [1, 0, 2]][:, :, [1, 0, 2]]
        table = (table + turned) / 2
    right = counts[:, :2] * verdicts.forced
    long_won = np.column_stack([truth.longer > 0, truth.longer < 0])
    short_won = np.column_stack([truth.longer < 0, truth.longer > 0])
    forced = [
        part
        for where in (np.ones_like(long_won), long_won, short_won)
        for part in ((right * where).sum(axis=1), (counts[:, :2] * where).sum(axis=1))
    ]
    return np.column_stack([table.reshape(-1, 9), *forced])


def measures(sums: Floats) -> dict[str, Floats]:
    """Every figure of `PAIR_MEASURES` from (k, WIDTH) sums: name → (k,), NaN where undefined.

    Formulas are in docs/agree.md. Kappa: Cohen (1960), equation 1; weighted: Cohen (1968) with
    linear weights; alpha: Krippendorff (2011), equation 1, people and metric as two coders.

    >>> sums = np.zeros((1, WIDTH)); sums[0, [0, 4]] = 3, 1
    >>> {k: v.tolist() for k, v in measures(sums).items() if k in ("pairwise_accuracy", "kappa")}
    {'pairwise_accuracy': [1.0], 'kappa': [1.0]}
    """
    table = sums[:, _TABLE].reshape(-1, 3, 3)
    total = table.sum(axis=(1, 2))
    hits = np.einsum("kii->k", table)
    ties = table[:, :2, 2].sum(axis=1) + table[:, 2, :2].sum(axis=1)
    both = table[:, :2, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        long_right = sums[:, 11] / sums[:, 12]
        short_right = sums[:, 13] / sums[:, 14]
        return {
            "pairwise_accuracy": hits / total,
            "decisive_accuracy": sums[:, 9] / sums[:, 10],
            "both_decisive_accuracy": np.einsum("kii->k", both) / both.sum(axis=(1, 2)),
            "tie_discounted": (hits + 0.5 * ties) / total,
            "kappa": _kappa(table, np.abs(np.sign(_POSITION[:, None] - _POSITION[None]))),
            "kappa_weighted": _kappa(table, np.abs(_POSITION[:, None] - _POSITION[None]) / 2),
            "alpha": _alpha(table, np.abs(np.sign(_POSITION[:, None] - _POSITION[None]))),
            "alpha_interval": _alpha(table, (_POSITION[:, None] - _POSITION[None]) ** 2),
            "length_balanced": (long_right + short_right) / 2,
            "tie_rate": table[:, :, 2].sum(axis=1) / total,
        }


def _kappa(table: Floats, distance: Floats) -> Floats:
    """1 − observed / expected disagreement; (k, 3, 3) → (k,)."""
    total = table.sum(axis=(1, 2))
    expected = np.einsum("ki,kj,ij->k", table.sum(axis=2), table.sum(axis=1), distance) / total
    observed = np.einsum("kij,ij->k", table, distance)
    kappa: Floats = np.where(expected > 1e-12 * total, 1 - observed / expected, np.nan)
    return kappa


def _alpha(table: Floats, distance: Floats) -> Floats:
    """Krippendorff's alpha for two coders without missing values; (k, 3, 3) → (k,)."""
    both = table + table.transpose(0, 2, 1)
    values = both.sum(axis=2)
    n = values.sum(axis=1)
    pairs = np.einsum("ki,kj,ij->k", values, values, distance)
    observed = np.einsum("kij,ij->k", both, distance)
    alpha: Floats = np.where(pairs > 1e-12 * n, 1 - (n - 1) * observed / pairs, np.nan)
    return alpha


def resample_pairs(
    sums: Mapping[str, Floats], bootstrap: GroupBootstrap
) -> Resampled[tuple[str, str]]:
    """All figures of all metrics with their bootstrap draws, keyed (metric, figure).

    Args:
        sums: metric → (m, WIDTH) from `pair_sums`.
        bootstrap: made from the pairs' groups.
    """
    values: dict[tuple[str, str], float | None] = {}
    draws: dict[tuple[str, str], Floats] = {}
    for name, rows in sums.items():
        whole = measures(rows.sum(axis=0, keepdims=True))
        drawn = group_draws(rows, bootstrap, measures)
        for key, value in whole.items():
            values[name, key] = float(value[0]) if np.isfinite(value[0]) else None
            draws[name, key] = drawn[key]
    reasons = {key: _UNDEFINED[key[1]] for key in values}
    return Resampled(values, draws, reasons, frozenset())


def group_draws(
    rows: Floats, bootstrap: GroupBootstrap, figures: Callable[[Floats], dict[str, Floats]]
) -> dict[str, Floats]:
    """`figures` of the sums of (m, w) rows on every resample of prompt groups."""
    per_group = np.zeros((bootstrap.count, rows.shape[1]))
    np.add.at(per_group, bootstrap.index, rows)
    if bootstrap.count < 2:
        return {key: np.empty(0) for key in figures(per_group[:1])}
    blocks = [figures(counts @ per_group) for counts in bootstrap.counts()]
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def human_sums(counts: Floats) -> Floats:
    """(m, WIDTH) people against each other: every ordered pair of two votes on one pair.

    Args:
        counts: (m, 3) single votes per outcome.
    """
    ordered = counts[:, :, None] * counts[:, None, :] - np.eye(3) * counts[:, :, None]
    decisive = ordered[:, :2, :2]
    right, total = np.einsum("mii->m", decisive), decisive.sum(axis=(1, 2))
    nothing = np.zeros((len(counts), 4))
    return np.column_stack([ordered.reshape(-1, 9), right, total, nothing])
