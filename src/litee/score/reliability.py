"""Calibration: expected calibration error, reliability diagrams, confidence and coverage.

Targets are soft: a bin's accuracy is the share of human votes that fall on the outcome, so that
pairs on which people disagree count as they should. Bins hold about equal numbers of votes
(adaptive bins; Nixon et al. 2019, arXiv 1904.01685, section 3.3). Equal confidences always share a
bin, so a constant predictor has one bin and the order of the pairs never matters. Knows nothing of
models or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.records import CLASSES, Score
from litee.score.outcomes import Floats, Rows, Truth, choices, decisive_choices

#: Equal-mass bins of every calibration figure.
BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One point of a reliability diagram.

    Attributes:
        predicted: mean predicted probability of the bin's votes.
        observed: share of those votes that fell on the outcome.
        votes: number of votes.
    """

    predicted: float
    observed: float
    votes: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the calibration plots show.

    Attributes:
        top: bins of the most probable outcome's probability.
        classes: outcome (a, b, tie) → bins of its probability.
        histogram: votes per tenth of confidence, 0–0.1 first.
    """

    top: tuple[ReliabilityBin, ...]
    classes: dict[str, tuple[ReliabilityBin, ...]]
    histogram: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """Accuracy on the most confident part of the votes.

    Attributes:
        coverage: share of all votes kept, in (0, 1].
        threshold: confidence from which a pair is kept.
        accuracy: three-way accuracy per vote on the part kept.
        accuracy_decisive: the same on decisive votes, None when there are none.
    """

    coverage: float
    threshold: float
    accuracy: float
    accuracy_decisive: float | None


def equal_mass_bins(values: Floats, weights: Floats, bins: int = BINS) -> NDArray[np.int_]:
    """(n,) bin number of each value, 0 … bins − 1; equal values share a bin; some may be empty.

    >>> equal_mass_bins(np.array([0.9, 0.1, 0.5, 0.5]), np.ones(4), 4).tolist()
    [3, 0, 2, 2]
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=weights, minlength=len(distinct))
    middle = (np.cumsum(mass) - mass / 2) / max(mass.sum(), 1e-300)
    number = np.minimum((middle * bins).astype(int), bins - 1)
    assigned: NDArray[np.int_] = number[inverse]
    return assigned


def ece_rows(p: Floats, truth: Truth, bins: int = BINS) -> Rows:
    """Top-label expected calibration error as `Rows` (n, bins); the value lies in 0 … 1.

    ECE = Σ_b (votes_b / votes) |mean confidence_b − accuracy_b| (Guo et al. 2017,
    arXiv 1706.04599, equation 3), with equal-mass bins and vote shares as accuracy. A bootstrap
    keeps the bins of the full sample.

    >>> truth = Truth(np.array([[1.0, 0, 0], [0, 1.0, 0]]), np.ones(2))
    >>> p = np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1]])
    >>> round(ece_rows(p, truth).value(), 9)
    0.3
    """
    confidence = p.max(axis=1) if len(p) else np.zeros(0)
    right = (choices(p) * truth.shares).sum(axis=1) if len(p) else confidence
    number = equal_mass_bins(confidence, truth.votes, bins)
    gaps = np.zeros((len(p), bins))
    gaps[np.arange(len(p)), number] = truth.votes * (confidence - right)
    return Rows(gaps, truth.votes)


def ece_by_chance(
    p: Floats,
    truth: Truth,
    groups: NDArray[np.int_],
    *,
    seed: int,
    resamples: int = 2000,
    bins: int = BINS,
) -> Score:
    """What the ECE of a perfectly calibrated predictor would be on as many votes.

    ECE sums absolute gaps, so it is never 0 on a finite sample (Bröcker and Smith 2007 draw votes
    from the predictions to see how large it has to be). Votes of one prompt go together, so here
    each prompt group's gaps are turned round at random as a whole (wild cluster bootstrap with the
    null imposed: calibrated gaps have mean 0; Cameron, Gelbach and Miller 2008).

    Args:
        p: (n, 3) probabilities.
        truth: of the n pairs.
        groups: (n,) prompt group of each pair.
        seed: of the random signs.
        resamples: how many draws.
        bins: as in `ece_rows`.

    Returns:
        The mean of the draws and the range of 95 % of them: an ECE within it is no sign of
        miscalibration.

    >>> truth = Truth(np.array([[1.0, 0, 0], [0, 1.0, 0]]), np.ones(2))
    >>> p = np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]])  # calibrated; gaps ±0.5 of one vote each
    >>> score = ece_by_chance(p, truth, np.array([0, 1]), seed=0)
    >>> abs(score.value - 0.25) < 0.02, score.low, score.high
    (True, 0.0, 0.5)
    """
    rows = ece_rows(p, truth, bins)
    total = float(truth.votes.sum())
    if total <= 0:
        return Score(None, reason=rows.reason)
    _, index = np.unique(groups, return_inverse=True)
    gaps = np.zeros((int(index.max()) + 1, bins))
    np.add.at(gaps, index, rows.numerator)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(resamples, len(gaps)))
    draws = np.abs(signs @ gaps).sum(axis=1) / total
    low, high = (float(v) for v in np.percentile(draws, (2.5, 97.5)))
    return Score(float(draws.mean()), low, high)


def calibration(p: Floats, truth: Truth, bins: int = BINS) -> Calibration:
    """Reliability bins of the top outcome and of each class, and the confidence histogram."""
    right = (choices(p) * truth.shares).sum(axis=1)
    confidence = p.max(axis=1)
    per_class = {
        label: _bins(p[:, k], truth.shares[:, k], truth.votes, bins)
        for k, label in enumerate(CLASSES)
    }
    counts, _ = np.histogram(confidence, bins=10, range=(0, 1), weights=truth.votes)
    top = _bins(confidence, right, truth.votes, bins)
    return Calibration(top, per_class, tuple(float(c) for c in counts))


def _bins(
    predicted: Floats, observed: Floats, votes: Floats, bins: int
) -> tuple[ReliabilityBin, ...]:
    number = equal_mass_bins(predicted, votes, bins)
    mass, of_predicted, of_observed = (
        np.bincount(number, weights=w, minlength=bins)
        for w in (votes, votes * predicted, votes * observed)
    )
    return tuple(
        ReliabilityBin(float(x / m), float(y / m), float(m))
        for m, x, y in zip(mass, of_predicted, of_observed, strict=True)
        if m > 0
    )


def coverage_curve(p: Floats, truth: Truth, points: int = 20) -> tuple[CoveragePoint, ...]:
    """Accuracy when only the most confident pairs are judged, from few to all.

    Pairs with equal confidence enter together, so the curve does not depend on their order.

    >>> truth = Truth(np.array([[1.0, 0, 0], [0, 1.0, 0]]), np.ones(2))
    >>> curve = coverage_curve(np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1]]), truth, 2)
    >>> [(c.coverage, c.accuracy) for c in curve]
    [(0.5, 1.0), (1.0, 0.5)]
    """
    confidence = p.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    between = (decisive_choices(p) * truth.shares).sum(axis=1)
    right = (choices(p) * truth.shares).sum(axis=1)
    decisive = truth.shares[:, 0] + truth.shares[:, 1]
    columns = np.column_stack([np.ones(len(p)), right, between, decisive]) * truth.votes[:, None]
    sums = np.cumsum(columns[order], axis=0)
    sorted_confidence = confidence[order]
    ends = np.flatnonzero(np.append(np.diff(sorted_confidence) < 0, True))
    shares = sums[ends, 0] / sums[-1, 0]
    wanted = np.arange(1, points + 1) / points
    chosen = np.unique(np.minimum(np.searchsorted(shares, wanted - 1e-12), len(ends) - 1))
    return tuple(_point(sums[end], sorted_confidence[end], sums[-1, 0]) for end in ends[chosen])


def _point(sums: Floats, threshold: float, total: float) -> CoveragePoint:
    kept, right, between, decisive = (float(s) for s in sums)
    return CoveragePoint(
        coverage=kept / float(total),
        threshold=float(threshold),
        accuracy=right / kept,
        accuracy_decisive=between / decisive if decisive > 0 else None,
    )
