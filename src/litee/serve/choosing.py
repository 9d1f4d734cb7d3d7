"""Which pair to ask about next: any, the one that evens out the counts, or the most informative.

Pure functions on arrays, so that a replay of real votes measures exactly what the page does. Knows
nothing of people, ballots and databases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int_]

#: Prior standard deviation of log strengths: 1.5 is 260 Elo points.
PRIOR_SD = 1.5

_STEPS = 30


@dataclass(frozen=True, slots=True)
class Strengths:
    """What the votes so far say about the systems.

    Attributes:
        mean: (s,) log strengths.
        covariance: (s, s).
    """

    mean: Floats
    covariance: Floats


def map_strengths(wins: Floats, prior_sd: float = PRIOR_SD) -> Strengths:
    """Bradley–Terry log strengths under a normal prior, with their Laplace covariance.

    Maximises Σ w_ij ln σ(θ_i − θ_j) − ‖θ‖² / (2 sd²) by Newton's method; the covariance is the
    inverse of the negative Hessian (Laplace approximation; Bradley & Terry 1952 for the model). The
    prior keeps strengths finite after a handful of votes.

    Args:
        wins: (s, s) how often the row's system beat the column's; a tie counts half for both.
        prior_sd: prior standard deviation of a log strength.

    >>> found = map_strengths(np.array([[0.0, 3.0], [1.0, 0.0]]))
    >>> bool(found.mean[0] > 0), bool(np.isclose(found.mean.sum(), 0))
    (True, True)
    """
    theta = np.zeros(len(wins))
    total = wins + wins.T
    prior = np.eye(len(wins)) / prior_sd**2
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
        gradient = wins.sum(axis=1) - (total * p).sum(axis=1) - theta / prior_sd**2
        step = np.linalg.solve(_information(total, p) + prior, gradient)
        theta = theta + step
        if np.abs(step).max() < 1e-9:
            break
    p = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
    covariance = np.linalg.inv(_information(total, p) + prior)
    return Strengths(theta, np.asarray(covariance, dtype=np.float64))


def _information(total: Floats, p: Floats) -> Floats:
    """Fisher information of the strengths: Σ n p (1 − p) (e_i − e_j)(e_i − e_j)ᵀ."""
    weight = total * p * (1 - p)
    return np.diag(weight.sum(axis=1)) - weight


def ranking_gain(strengths: Strengths, systems: Ints) -> Floats:
    """How much one vote between two systems is expected to narrow all strengths.

    (m,) p (1 − p) ‖C d‖² / (1 + p (1 − p) dᵀ C d) with d = e_a − e_b: by how much the trace of the
    posterior covariance C falls when a vote adds the information p (1 − p) d dᵀ (rank-one update
    of the inverse; A-optimal design, Chaloner & Verdinelli 1995, section 2.2).

    Args:
        strengths: what is known so far.
        systems: (m, 2) numbers of the systems of a and b.

    >>> even = Strengths(np.zeros(2), np.eye(2))
    >>> float(ranking_gain(even, np.array([[0, 1]]))[0])  # ¼ · 2 / (1 + ¼ · 2)
    0.3333333333333333
    """
    a, b = systems[:, 0], systems[:, 1]
    p = 1 / (1 + np.exp(strengths.mean[b] - strengths.mean[a]))
    c = strengths.covariance
    moved = c[:, a] - c[:, b]
    rows = np.arange(len(systems))
    variance = np.maximum(moved[a, rows] - moved[b, rows], 0.0)
    information = p * (1 - p)
    return np.asarray(information * (moved**2).sum(axis=0) / (1 + information * variance))


def judge_gain(probabilities: Floats, votes: Floats | Ints) -> Floats:
    """What one more vote on a pair is expected to teach a judge: its entropy, shared among votes.

    (m,) H(p) / (1 + votes): uncertainty sampling (Lewis & Gale 1994), turned down where people have
    answered already.

    >>> judge_gain(np.array([[1.0, 0, 0], [1 / 3] * 3]), np.array([0.0, 0.0])).round(2).tolist()
    [0.0, 1.1]
    """
    p = np.clip(probabilities, 1e-12, 1.0)
    return np.asarray(np.maximum(0.0, -(p * np.log(p)).sum(axis=1)) / (1 + votes))


def fewest(votes: Ints, systems: Ints, exposure: Floats) -> NDArray[np.bool_]:
    """Which pairs even out the counts most.

    Those with the fewest votes; among them, those whose systems have been shown least, first by the
    rarer, then by the more frequent of the two.

    Args:
        votes: (m,) votes on each pair so far, with those under way.
        systems: (m, 2) numbers of systems, −1 for an unnamed one.
        exposure: (s + 1,) votes on pairs of each system; the last entry stands for unnamed.

    >>> fewest(np.array([1, 0, 0]), np.array([[0, 1], [0, 1], [0, 2]]), np.array([5.0, 4, 1, 0]))
    array([False, False,  True])
    """
    best = votes == votes.min()
    seen = exposure[systems]
    for level in (seen.min(axis=1), seen.max(axis=1)):
        best &= level == level[best].min()
    return np.asarray(best)


def pick(best: NDArray[np.bool_] | Floats, rng: np.random.Generator) -> int:
    """One of the marked rows, or one with the largest value, at random among equals.

    >>> pick(np.array([0.0, 2.0, 1.0]), np.random.default_rng(0))
    1
    """
    marked = best if best.dtype == bool else best >= best.max() - 1e-12
    return int(rng.choice(np.flatnonzero(marked)))
