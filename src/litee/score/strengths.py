"""Strengths of systems from pairwise outcomes: Bradley–Terry, Davidson, Rao–Kupper.

Maximum likelihood by Newton's method, for many resamples at once: a resample only changes how
often each outcome of each two systems occurred, so all resamples are solved as one batch of small
linear systems. Knows nothing of votes, texts or intervals.

Shapes: c resamples; p unordered pairs of systems; s systems. Strengths θ are on the natural-log
scale and sum to 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from litee.errors import ConfigError
from litee.score.outcomes import Floats

Model = Literal["bradley-terry", "davidson", "rao-kupper"]
MODELS: tuple[Model, ...] = ("bradley-terry", "davidson", "rao-kupper")

#: Keeps strengths finite when a system never lost or never won; too small to be seen otherwise.
_RIDGE = 1e-7
_STEPS = 60
_TOLERANCE = 1e-6  # a Newton step of this size leaves an error of about its square
_LARGEST = 30.0

#: Resamples times pairs worked on at once: small enough for the processor's cache.
_CHUNK = 60_000


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
    """Log likelihood with its derivatives by δ = θ_a − θ_b (c, p) and by the tie parameter (c,)."""

    value: Floats
    delta: Floats
    delta_delta: Floats
    tie: Floats
    tie_tie: Floats
    delta_tie: Floats


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
            `rao-kupper` (1967, equation 2.4): P(a) = σ(δ − τ), P(b) = σ(−δ − τ).
        start: one row to begin from, e.g. the fit to the full sample.

    Raises:
        ConfigError: unknown model.

    >>> votes = np.array([[[3.0, 1.0, 0.0]]])
    >>> fit_strengths(votes, np.array([[0, 1]]), 2).theta.round(4).tolist()
    [[0.5493, -0.5493]]
    """
    slopes: dict[str, Callable[[Floats, Floats, Floats], _Slope]] = {
        "bradley-terry": _bradley_terry,
        "davidson": _davidson,
        "rao-kupper": _rao_kupper,
    }
    if model not in slopes:
        raise ConfigError(f"unknown model {model!r}", fix=f"use one of: {', '.join(MODELS)}")
    slope = slopes[model]
    size = max(1, _CHUNK // max(len(pairs), 1))
    parts = [
        _fit(outcomes[k : k + size], pairs, systems, slope, start=start, ties=model)
        for k in range(0, len(outcomes), size)
    ]
    return Strengths(
        np.concatenate([p.theta for p in parts]), np.concatenate([p.tie for p in parts])
    )


def _fit(
    outcomes: Floats,
    pairs: NDArray[np.int_],
    systems: int,
    slope: Callable[[Floats, Floats, Floats], _Slope],
    *,
    start: Strengths | None,
    ties: Model,
) -> Strengths:
    """Newton's method with step halving for a few resamples at once."""
    theta = np.zeros((len(outcomes), systems))
    tie = np.full(len(outcomes), 0.5 if ties == "rao-kupper" else 0.0)
    if start is not None:
        theta, tie = theta + start.theta[:1], np.repeat(start.tie[:1], len(outcomes))
    now = slope(outcomes, _gaps(theta, pairs), tie)
    value = now.value - _penalty(theta)
    for _ in range(_STEPS):
        step_theta, step_tie, size = _newton(now, theta, pairs, systems)
        if ties == "bradley-terry":
            step_tie = np.zeros_like(tie)
        scale = np.ones(len(theta))
        for _ in range(30):
            next_theta = np.clip(theta + scale[:, None] * step_theta, -_LARGEST, _LARGEST)
            next_tie = np.clip(tie + scale * step_tie, -_LARGEST, _LARGEST)
            if ties == "rao-kupper":
                next_tie = np.maximum(next_tie, tie / 10)
            following = slope(outcomes, _gaps(next_theta, pairs), next_tie)
            next_value = following.value - _penalty(next_theta)
            worse = next_value < value - 1e-9 * (1 + np.abs(value))
            if not worse.any():
                break
            scale = np.where(worse, scale / 2, scale)
        theta, tie, now, value = next_theta, next_tie, following, next_value
        if size < _TOLERANCE:
            break
    return Strengths(theta - theta.mean(axis=1, keepdims=True), tie)


def _gaps(theta: Floats, pairs: NDArray[np.int_]) -> Floats:
    gaps: Floats = theta[:, pairs[:, 0]] - theta[:, pairs[:, 1]]
    return gaps


def _penalty(theta: Floats) -> Floats:
    penalty: Floats = _RIDGE / 2 * (theta**2).sum(axis=1)
    return penalty


def _newton(
    now: _Slope, theta: Floats, pairs: NDArray[np.int_], systems: int
) -> tuple[Floats, Floats, float]:
    """(c, s) and (c,) Newton steps and the largest of them."""
    c, first, second = len(theta), pairs[:, 0], pairs[:, 1]
    incidence = np.zeros((len(pairs), systems))
    incidence[np.arange(len(pairs)), first] = 1
    incidence[np.arange(len(pairs)), second] = -1
    gradient = np.column_stack([now.delta @ incidence - _RIDGE * theta, now.tie])
    curvature = np.zeros((c, systems + 1, systems + 1))
    curvature[:, first, second] = -now.delta_delta
    curvature[:, second, first] = -now.delta_delta
    diagonal = np.arange(systems)
    curvature[:, diagonal, diagonal] = now.delta_delta @ np.abs(incidence) + _RIDGE
    curvature[:, :systems, :systems] += 1 / systems  # the free constant: strengths sum to 0
    cross = now.delta_tie @ incidence
    curvature[:, :systems, systems] = curvature[:, systems, :systems] = cross
    curvature[:, systems, systems] = now.tie_tie + 1e-12
    solved = np.linalg.solve(curvature, gradient[:, :, None])
    step: Floats = np.asarray(solved[:, :, 0], dtype=np.float64)
    return step[:, :systems], step[:, systems], float(np.abs(step).max(initial=0.0))


def _sigmoid(x: Floats) -> Floats:
    value: Floats = 0.5 * (1 + np.tanh(x / 2))
    return value


def _log_sigmoid(x: Floats) -> Floats:
    value: Floats = -np.logaddexp(0, -x)
    return value


def _bradley_terry(outcomes: Floats, gap: Floats, tie: Floats) -> _Slope:
    won = outcomes[:, :, 0] + outcomes[:, :, 2] / 2
    n = outcomes.sum(axis=2)
    small = np.exp(-np.abs(gap))
    low = small / (1 + small)
    p = np.where(gap > 0, 1 - low, low)
    # ln σ(gap) = gap + ln σ(−gap), and ln σ(−gap) = −max(gap, 0) − ln(1 + e^−|gap|)
    value = (won * gap - n * (np.maximum(gap, 0) + np.log1p(small))).sum(axis=1)
    nothing = np.zeros_like(tie)
    return _Slope(value, won - n * p, n * p * (1 - p), nothing, nothing + 1, np.zeros_like(gap))


def _davidson(outcomes: Floats, gap: Floats, tie: Floats) -> _Slope:
    logits = np.stack([gap / 2, -gap / 2, np.broadcast_to(tie[:, None], gap.shape)], axis=2)
    top = logits.max(axis=2, keepdims=True)
    norm = top[:, :, 0] + np.log(np.exp(logits - top).sum(axis=2))
    p = np.exp(logits - norm[:, :, None])
    n = outcomes.sum(axis=2)
    value = ((outcomes * logits).sum(axis=2) - n * norm).sum(axis=1)
    edge = p[:, :, 0] - p[:, :, 1]
    return _Slope(
        value=value,
        delta=(outcomes[:, :, 0] - outcomes[:, :, 1] - n * edge) / 2,
        delta_delta=n / 4 * (p[:, :, 0] + p[:, :, 1] - edge**2),
        tie=(outcomes[:, :, 2] - n * p[:, :, 2]).sum(axis=1),
        tie_tie=(n * p[:, :, 2] * (1 - p[:, :, 2])).sum(axis=1),
        delta_tie=-n * p[:, :, 2] * edge / 2,
    )


def _rao_kupper(outcomes: Floats, gap: Floats, tie: Floats) -> _Slope:
    # P(tie) = (e^2τ − 1) σ(δ − τ) σ(−δ − τ), so a tie adds to both sigmoids.
    tau = tie[:, None]
    ahead, behind = outcomes[:, :, 0] + outcomes[:, :, 2], outcomes[:, :, 1] + outcomes[:, :, 2]
    p, q = _sigmoid(gap - tau), _sigmoid(-gap - tau)
    ties = outcomes[:, :, 2].sum(axis=1)
    with np.errstate(over="ignore"):
        free = np.expm1(2 * tie)
    up, down = ahead * p * (1 - p), behind * q * (1 - q)
    log_free = 2 * tie + np.log1p(-np.exp(-2 * tie))
    value = (ahead * _log_sigmoid(gap - tau) + behind * _log_sigmoid(-gap - tau)).sum(axis=1)
    return _Slope(
        value=value + ties * log_free,
        delta=ahead * (1 - p) - behind * (1 - q),
        delta_delta=up + down,
        tie=ties * 2 * (1 + 1 / free) - (ahead * (1 - p) + behind * (1 - q)).sum(axis=1),
        tie_tie=ties * 4 * (1 + 1 / free) / free + (up + down).sum(axis=1),
        delta_tie=down - up,
    )
