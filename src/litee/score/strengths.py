"""Strengths of systems from pairwise outcomes: Bradley–Terry, Davidson, Rao–Kupper.

Maximum likelihood by Newton's method, for many resamples at once: a resample only changes how
often each outcome of each two systems occurred, so all resamples are solved as one batch of small
linear systems. Knows nothing of votes, texts or intervals.

Shapes: c resamples; p unordered pairs of systems; s systems. Strengths θ are on the natural-log
scale and sum to 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from litee.errors import ConfigError
from litee.score.outcomes import Floats

Model = Literal["bradley-terry", "davidson", "rao-kupper"]
MODELS: tuple[Model, ...] = ("bradley-terry", "davidson", "rao-kupper")

#: Keeps strengths finite when a system never lost or never won; too small to be seen otherwise.
_RIDGE = 1e-7
_STEPS = 60
_TOLERANCE = 3e-4  # a Newton step of this size leaves an error of about its square, 1e-7
_LARGEST = 30.0

#: A Newton step that changes no difference of log odds by more than this always gains.
_SAFE = 1.0

#: Resamples times pairs worked on at once: small enough for the processor's cache.
_CHUNK = 40_000


@dataclass(frozen=True, slots=True)
class Strengths:
    """Fitted strengths.

    Attributes:
        theta: (c, s) log strengths; every row sums to 0.
        tie: (c,) the tie parameter: ln ν (Davidson), τ = ln η (Rao–Kupper), 0 (Bradley–Terry).
    """

    theta: Floats
    tie: Floats


@dataclass(frozen=True, slots=True)
class _Slope:
    """Derivatives of the log likelihood by δ = θ_a − θ_b (c, p) and by the tie parameter (c,)."""

    delta: Floats
    delta_delta: Floats
    tie: Floats
    tie_tie: Floats
    delta_tie: Floats | None = None


@dataclass(frozen=True, slots=True)
class _Sums:
    """(c, p) weight of each outcome and of all, each in one piece of memory."""

    a: Floats
    b: Floats
    tie: Floats
    n: Floats

    def rows(self, keep: NDArray[np.bool_]) -> _Sums:
        """Some of the resamples."""
        if keep.all():
            return self
        return _Sums(self.a[keep], self.b[keep], self.tie[keep], self.n[keep])


class _TieModel(Protocol):
    """What a model adds to Newton's method."""

    start: float  # of the tie parameter
    fixed: bool  # whether there is no tie parameter
    positive: bool  # whether the tie parameter must stay above 0

    def slope(self, sums: _Sums, gap: Floats, tie: Floats) -> _Slope:
        """First and second derivatives."""

    def value(self, sums: _Sums, gap: Floats, tie: Floats) -> Floats:
        """(c,) log likelihood."""

    def safe(self, gap_step: Floats, tie_step: Floats) -> NDArray[np.bool_]:
        """(c,) whether a full Newton step cannot lower the likelihood."""


def fit_strengths(
    outcomes: Floats,
    pairs: NDArray[np.int_],
    systems: int,
    model: Model = "bradley-terry",
    *,
    start: Strengths | None = None,
) -> Strengths:
    """Maximum-likelihood strengths for each resample.

    Args:
        outcomes: (c, p, 3) weight of "first better", "second better", "tie" per pair of systems.
        pairs: (p, 2) numbers of the two systems; every unordered pair at most once.
        systems: s.
        model: `bradley-terry` counts a tie as half a win for each (Bradley and Terry 1952);
            `davidson` (1970, equation 2.3): P(a) ∝ e^(δ/2), P(b) ∝ e^(−δ/2), P(tie) ∝ ν;
            `rao-kupper` (1967, equation 2.4): P(a) = σ(δ − τ), P(b) = σ(−δ − τ); a resample
            without any tie has τ = 0 and is Bradley–Terry's.
        start: one row to begin from, e.g. the fit to the full sample.

    Raises:
        ConfigError: unknown model.

    >>> votes = np.array([[[3.0, 1.0, 0.0]]])
    >>> fit_strengths(votes, np.array([[0, 1]]), 2).theta.round(4).tolist()
    [[0.5493, -0.5493]]
    """
    if model not in _LIKELIHOODS:
        raise ConfigError(f"unknown model {model!r}", fix=f"use one of: {', '.join(MODELS)}")
    if model == "rao-kupper":
        none = outcomes[:, :, 2].sum(axis=1) == 0
        if none.any():
            return _without_ties(outcomes, pairs, systems, none, start)
    ties = _LIKELIHOODS[model]
    theta = np.zeros((len(outcomes), systems))
    tie = np.full(len(outcomes), ties.start)
    if start is not None:
        theta, tie = theta + start.theta[:1], np.repeat(start.tie[:1], len(outcomes))
    size = max(1, _CHUNK // max(len(pairs), 1))
    graph = _Graph(pairs, systems)
    for k in range(0, len(outcomes), size):
        part = slice(k, k + size)
        theta[part], tie[part] = _fit(outcomes[part], graph, ties, theta[part], tie[part])
    return Strengths(theta - theta.mean(axis=1, keepdims=True), tie)


def _without_ties(
    outcomes: Floats,
    pairs: NDArray[np.int_],
    systems: int,
    none: NDArray[np.bool_],
    start: Strengths | None,
) -> Strengths:
    """Rao–Kupper where some resamples have no tie: its maximum lies on the border, at τ = 0."""
    theta, tie = np.zeros((len(outcomes), systems)), np.zeros(len(outcomes))
    theta[none] = fit_strengths(outcomes[none], pairs, systems, start=start).theta
    if not none.all():
        rest = fit_strengths(outcomes[~none], pairs, systems, "rao-kupper", start=start)
        theta[~none], tie[~none] = rest.theta, rest.tie
    return Strengths(theta, tie)


class _Graph:
    """Which systems met.

    Args:
        pairs: (p, 2) numbers of the two systems.
        systems: s.
    """

    def __init__(self, pairs: NDArray[np.int_], systems: int) -> None:
        self.first, self.second = pairs[:, 0], pairs[:, 1]
        self.systems = systems
        self.incidence = np.zeros((len(pairs), systems))
        self.incidence[np.arange(len(pairs)), self.first] = 1
        self.incidence[np.arange(len(pairs)), self.second] = -1
        self.touched = np.abs(self.incidence)

    def gaps(self, theta: Floats) -> Floats:
        """(c, p) differences of strength."""
        gaps: Floats = theta[:, self.first] - theta[:, self.second]
        return gaps


def _fit(
    outcomes: Floats, graph: _Graph, ties: _TieModel, theta: Floats, tie: Floats
) -> tuple[Floats, Floats]:
    """Newton's method for a few resamples at once; those that are done leave the batch."""
    a, b, t = (np.ascontiguousarray(outcomes[:, :, k]) for k in range(3))
    sums = _Sums(a, b, t, a + b + t)
    theta, tie = theta.copy(), tie.copy()
    left = np.arange(len(theta))
    for _ in range(_STEPS):
        now, now_tie = theta[left], tie[left]
        step, tie_step = _newton(ties.slope(sums, graph.gaps(now), now_tie), now, graph, ties.fixed)
        unit = np.ones(len(now_tie))
        if ties.positive:
            unit, tie_step = now_tie, np.maximum(tie_step, -0.9 * now_tie)
        size = np.maximum(np.abs(step).max(axis=1), np.abs(tie_step) / unit)
        scale = _scale(sums, graph, ties, (now, now_tie), (step, tie_step))
        theta[left] = np.clip(now + scale[:, None] * step, -_LARGEST, _LARGEST)
        tie[left] = np.clip(now_tie + scale * tie_step, -_LARGEST, _LARGEST)
        going = size >= _TOLERANCE
        if not going.any():
            break
        left, sums = left[going], sums.rows(going)
    return theta, tie


def _scale(
    sums: _Sums,
    graph: _Graph,
    ties: _TieModel,
    now: tuple[Floats, Floats],
    step: tuple[Floats, Floats],
) -> Floats:
    """(c,) part of the Newton step, 1, 1/2, 1/4 and so on, that does not lower the likelihood."""
    scale = np.ones(len(now[0]))
    risky = ~ties.safe(graph.gaps(step[0]), step[1])
    if not risky.any():
        return scale
    (theta, tie), (theta_step, tie_step) = ((x[risky] for x in pair) for pair in (now, step))
    part, own = sums.rows(risky), np.ones(int(risky.sum()))

    def value(at: Floats, at_tie: Floats) -> Floats:
        found: Floats = ties.value(part, graph.gaps(at), at_tie) - _RIDGE / 2 * (at**2).sum(axis=1)
        return found

    before = value(theta, tie)
    for _ in range(30):
        new = np.clip(theta + own[:, None] * theta_step, -_LARGEST, _LARGEST)
        after = value(new, np.clip(tie + own * tie_step, -_LARGEST, _LARGEST))
        # an undefined value (a tie parameter outside its range) is worse too
        worse = ~(after >= before - 1e-9 * (1 + np.abs(before)))
        if not worse.any():
            break
        own = np.where(worse, own / 2, own)
    scale[risky] = own
    return scale


def _newton(now: _Slope, theta: Floats, graph: _Graph, fixed: bool) -> tuple[Floats, Floats]:
    """(c, s) and (c,) Newton steps."""
    s, free = graph.systems, int(not fixed)
    gradient = np.empty((len(theta), s + free))
    gradient[:, :s] = now.delta @ graph.incidence - _RIDGE * theta
    curvature = np.zeros((len(theta), s + free, s + free))
    curvature[:, graph.first, graph.second] = -now.delta_delta
    curvature[:, graph.second, graph.first] = -now.delta_delta
    diagonal = np.arange(s)
    curvature[:, diagonal, diagonal] = now.delta_delta @ graph.touched + _RIDGE
    curvature[:, :s, :s] += 1 / s  # the free constant: strengths sum to 0
    if now.delta_tie is not None:
        gradient[:, s] = now.tie
        cross = now.delta_tie @ graph.incidence
        curvature[:, :s, s] = curvature[:, s, :s] = cross
        curvature[:, s, s] = now.tie_tie + 1e-12
    solved = np.linalg.solve(curvature, gradient[:, :, None])
    step: Floats = np.asarray(solved[:, :, 0], dtype=np.float64)
    return step[:, :s], step[:, s] if free else np.zeros(len(theta))


def _sigmoid(x: Floats) -> Floats:
    value: Floats = 0.5 * (1 + np.tanh(x / 2))
    return value


def _log_sigmoid(x: Floats) -> Floats:
    value: Floats = -np.logaddexp(0, -x)
    return value


class _BradleyTerry:
    """A tie is half a win for each."""

    start, fixed, positive = 0.0, True, False

    def slope(self, sums: _Sums, gap: Floats, tie: Floats) -> _Slope:
        p = _sigmoid(gap)
        expected = sums.n * p
        won = sums.a + sums.tie / 2
        return _Slope(won - expected, expected * (1 - p), tie, tie)

    def value(self, sums: _Sums, gap: Floats, tie: Floats) -> Floats:
        won = sums.a + sums.tie / 2
        value: Floats = (won * gap + sums.n * _log_sigmoid(-gap)).sum(axis=1)
        return value

    def safe(self, gap_step: Floats, tie_step: Floats) -> NDArray[np.bool_]:
        """Since |third derivative| ≤ second derivative (Bach 2010, proposition 1)."""
        safe: NDArray[np.bool_] = np.abs(gap_step).max(axis=1, initial=0.0) <= _SAFE
        return safe


class _Davidson:
    """A tie is an outcome of its own."""

    start, fixed, positive = 0.0, False, False

    def slope(self, sums: _Sums, gap: Floats, tie: Floats) -> _Slope:
        a, b, t = self._shares(gap, tie)
        edge, both = a - b, a + b
        return _Slope(
            delta=(sums.a - sums.b - sums.n * edge) / 2,
            delta_delta=sums.n / 4 * (both - edge**2),
            tie=(sums.tie - sums.n * t).sum(axis=1),
            tie_tie=(sums.n * t * both).sum(axis=1),
            delta_tie=-sums.n * t * edge / 2,
        )

    @staticmethod
    def _shares(gap: Floats, tie: Floats) -> tuple[Floats, Floats, Floats]:
        top = np.maximum(np.abs(gap) / 2, tie[:, None])
        a, b, t = np.exp(gap / 2 - top), np.exp(-gap / 2 - top), np.exp(tie[:, None] - top)
        total = a + b + t
        return a / total, b / total, t / total

    def value(self, sums: _Sums, gap: Floats, tie: Floats) -> Floats:
        norm = np.logaddexp(np.abs(gap) / 2 + np.log1p(np.exp(-np.abs(gap))), tie[:, None])
        logits = (sums.a - sums.b) * gap / 2 + sums.tie * tie[:, None]
        value: Floats = (logits - sums.n * norm).sum(axis=1)
        return value

    def safe(self, gap_step: Floats, tie_step: Floats) -> NDArray[np.bool_]:
        """As for Bradley–Terry, with the range of the three logits' changes."""
        gap = np.abs(gap_step).max(axis=1, initial=0.0)
        safe: NDArray[np.bool_] = np.maximum(gap, gap / 2 + np.abs(tie_step)) <= _SAFE
        return safe


class _RaoKupper:
    """P(tie) = (e^2τ − 1) σ(δ − τ) σ(−δ − τ), so a tie adds to both sigmoids; τ > 0."""

    start, fixed, positive = 0.5, False, True

    def slope(self, sums: _Sums, gap: Floats, tie: Floats) -> _Slope:
        tau = tie[:, None]
        ahead, behind = sums.a + sums.tie, sums.b + sums.tie
        p, q = _sigmoid(gap - tau), _sigmoid(-gap - tau)
        ties = sums.tie.sum(axis=1)
        with np.errstate(over="ignore"):
            free = np.expm1(2 * tie)
        up, down = ahead * p * (1 - p), behind * q * (1 - q)
        return _Slope(
            delta=ahead * (1 - p) - behind * (1 - q),
            delta_delta=up + down,
            tie=ties * 2 * (1 + 1 / free) - (ahead * (1 - p) + behind * (1 - q)).sum(axis=1),
            tie_tie=ties * 4 * (1 + 1 / free) / free + (up + down).sum(axis=1),
            delta_tie=down - up,
        )

    def value(self, sums: _Sums, gap: Floats, tie: Floats) -> Floats:
        tau, ties = tie[:, None], sums.tie.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            log_free = 2 * tie + np.log1p(-np.exp(-2 * tie))
            value: Floats = (
                (sums.a + sums.tie) * _log_sigmoid(gap - tau)
                + (sums.b + sums.tie) * _log_sigmoid(-gap - tau)
            ).sum(axis=1) + ties * log_free
        return value

    def safe(self, gap_step: Floats, tie_step: Floats) -> NDArray[np.bool_]:
        """Never beforehand: the bound does not hold near τ = 0."""
        return np.zeros(len(tie_step), dtype=np.bool_)


_LIKELIHOODS: dict[Model, _TieModel] = {
    "bradley-terry": _BradleyTerry(),
    "davidson": _Davidson(),
    "rao-kupper": _RaoKupper(),
}
