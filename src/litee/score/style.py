"""Strengths with the answers' style held fixed: length, lists, bold, headers.

Bradley–Terry with the style differences of each pair as further terms (the style control of the
Chatbot Arena leaderboard, Li et al. 2024). Knows nothing of files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.records import Pair
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats

#: Style terms, in the order of the coefficients.
STYLE_TERMS: tuple[str, ...] = ("length", "lists", "bold", "headers")

_LIST = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_HEADER = re.compile(r"^\s{0,3}#{1,6}\s+\S", re.MULTILINE)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def style_counts(answer: str) -> tuple[int, int, int, int]:
    r"""Characters, list items, bold runs and headers of an answer; code blocks only have length.

    >>> style_counts("# Plan\n- **one**\n- two")
    (22, 2, 1, 1)
    """
    text = _CODE.sub("", answer)
    return (
        len(answer),
        len(_LIST.findall(text)),
        len(_BOLD.findall(text)),
        len(_HEADER.findall(text)),
    )


def style_differences(pairs: Sequence[Pair]) -> Floats:
    """(m, 4) normalised differences (A − B) / (A + B) of every style count, 0 where both are 0.

    Turns are joined. Columns are not yet standardised.
    """
    a, b = (
        np.array([style_counts("\n".join(r)) for r in texts], dtype=float).reshape(-1, 4)
        for texts in ([p.response_a for p in pairs], [p.response_b for p in pairs])
    )
    total = a + b
    differences: Floats = np.divide(a - b, total, out=np.zeros_like(total), where=total > 0)
    return differences


@dataclass(frozen=True, slots=True)
class StyledStrengths:
    """Strengths and style coefficients.

    Attributes:
        theta: (s,) log strengths at equal style; they sum to 0.
        coefficients: (k,) change of the log odds per standard deviation of each term.
    """

    theta: Floats
    coefficients: Floats


def fit_styled(
    shares: Floats,
    systems: NDArray[np.int_],
    terms: Floats,
    weights: Floats,
    count: int,
    *,
    penalty: float = 1e-6,
    start: StyledStrengths | None = None,
) -> StyledStrengths:
    """Bradley–Terry with style terms, by Newton's method.

    Minimises the weighted mean of −log likelihood + penalty/2 · Σ β²; a tie is half a win for each.

    Args:
        shares: (m,) share of A, ties half.
        systems: (m, 2) numbers of the two systems.
        terms: (m, k) style differences, standardised by the caller.
        weights: (m,) weight of each pair, e.g. its number of votes.
        count: s.
        penalty: on the coefficients.
        start: where to begin.
    """
    m, k = terms.shape
    design = np.zeros((m, count + k))
    design[np.arange(m), systems[:, 0]] += 1
    design[np.arange(m), systems[:, 1]] -= 1
    design[:, count:] = terms
    weights = weights / weights.sum()
    held = np.full(count + k, 1e-9)
    held[count:] = penalty
    shift = np.zeros(count + k)
    shift[:count] = 1 / np.sqrt(count)  # the free constant: strengths sum to 0
    found = np.zeros(count + k)
    if start is not None:
        found = np.concatenate([start.theta, start.coefficients])
    for _ in range(50):
        p = 0.5 * (1 + np.tanh(design @ found / 2))
        gradient = design.T @ (weights * (shares - p)) - held * found
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design
        curvature += np.diag(held) + np.outer(shift, shift)
        step = np.linalg.solve(curvature, gradient)
        found = found + step * min(1.0, 5 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    theta = found[:count]
    return StyledStrengths(theta - theta.mean(), found[count:])


def resample_styled(
    counts: Floats,
    systems: NDArray[np.int_],
    differences: Floats,
    count: int,
    bootstrap: GroupBootstrap | None,
) -> tuple[StyledStrengths, list[StyledStrengths]]:
    """The fit to all pairs and one per resample; style terms are standardised.

    Args:
        counts: (m, 3) votes for a, b, tie.
        systems: (m, 2) numbers of the two systems.
        differences: (m, k) from `style_differences`.
        count: s.
        bootstrap: over the pairs' prompts, None for no resamples.
    """
    total = counts.sum(axis=1)
    shares = (counts[:, 0] + counts[:, 2] / 2) / total
    spread = differences.std(axis=0)
    terms = np.divide(differences, spread, out=np.zeros_like(differences), where=spread > 0)

    def fit(weights: Floats, start: StyledStrengths | None) -> StyledStrengths:
        keep = weights > 0
        return fit_styled(
            shares[keep], systems[keep], terms[keep], weights[keep], count, start=start
        )

    full = fit(total, None)
    if bootstrap is None:
        return full, []
    draws = [fit(total * row[bootstrap.index], full) for rows in bootstrap.counts() for row in rows]
    return full, draws
