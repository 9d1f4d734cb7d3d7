"""Agreement among raters beyond chance: Krippendorff's alpha with its interval, mean Cohen's kappa.

Outcomes are nominal: a, b and tie (both bad counts as tie). Knows nothing of who the raters are
and of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from sklearn.metrics import cohen_kappa_score

from litee.records import Score
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats

_NO_REPEATS = "no pair has two votes"
_ONE_OUTCOME = "all votes on repeated pairs have the same outcome"
_NO_COMMON = "no two people judged {n} pairs in common"

#: Pairs two raters must share before their kappa counts.
COMMON = 5


def alpha_score(counts: Floats, bootstrap: GroupBootstrap) -> Score:
    """Krippendorff's alpha for nominal data, with a 95 % interval over prompt groups.

    α = 1 − D_o / D_e with D_o = Σ_u Σ_{c≠k} n_uc n_uk / (m_u − 1) and
    D_e = Σ_{c≠k} n_c n_k / (n − 1), over the pairs u with m_u ≥ 2 votes (Krippendorff 2011,
    "Computing Krippendorff's Alpha-Reliability", section C).

    Args:
        counts: (n, 3) votes per pair and outcome.
        bootstrap: made from the same pairs' groups.

    >>> counts = np.array([[2.0, 0, 0], [0, 2, 0], [1, 1, 0]])
    >>> round(alpha_score(counts, GroupBootstrap([0, 1, 2], seed=0, resamples=10)).value, 3)
    0.444
    """
    sums = np.zeros((bootstrap.count, 1 + counts.shape[1]))
    np.add.at(sums, bootstrap.index, _parts(counts))
    value = _alpha(sums.sum(axis=0)[None])[0]
    if not np.isfinite(value):
        repeated = (counts.sum(axis=1) >= 2).any()
        return Score(None, reason=_ONE_OUTCOME if repeated else _NO_REPEATS)
    if bootstrap.count < 2:
        return Score(float(value))
    draws = np.concatenate([_alpha(block @ sums) for block in bootstrap.counts()])
    known = draws[np.isfinite(draws)]
    if len(known) < 0.95 * len(draws):
        return Score(float(value))
    low, high = np.percentile(known, [2.5, 97.5])
    return Score(float(value), float(low), float(high))


def _parts(counts: Floats) -> Floats:
    """(n, 1 + 3) observed disagreement and votes per outcome; 0 for pairs with fewer than two."""
    total = counts.sum(axis=1)
    paired = total >= 2
    unequal = total**2 - (counts**2).sum(axis=1)
    observed = np.divide(unequal, total - 1, out=np.zeros_like(total), where=paired)
    return np.column_stack([observed, counts * paired[:, None]])


def _alpha(sums: Floats) -> Floats:
    """(c,) alpha from summed parts (c, 1 + 3); NaN where it is undefined."""
    votes = sums[:, 1:]
    total = votes.sum(axis=1)
    expected = total**2 - (votes**2).sum(axis=1)
    ratio = np.full(len(sums), np.nan)
    np.divide(sums[:, 0] * (total - 1), expected, out=ratio, where=expected > 0)
    return np.asarray(1 - ratio)


def mean_kappa(votes: Mapping[str, Mapping[int, int]]) -> Score:
    """Cohen's kappa (1960), averaged over all two raters with enough pairs in common.

    Args:
        votes: rater → pair → class (0 a, 1 b, 2 tie).

    >>> votes = dict.fromkeys(range(5), 0) | {5: 1}
    >>> mean_kappa({"x": votes, "y": votes}).value
    1.0
    """
    values: list[float] = []
    weights: list[int] = []
    for one, two in combinations(votes.values(), 2):
        common = sorted(one.keys() & two.keys())
        kappa = _kappa([one[k] for k in common], [two[k] for k in common])
        if len(common) >= COMMON and kappa is not None:
            values.append(kappa)
            weights.append(len(common))
    if not values:
        return Score(None, reason=_NO_COMMON.format(n=COMMON))
    return Score(float(np.average(values, weights=weights)))


def _kappa(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Kappa of two raters; None when both always say the same one thing."""
    if len({*first, *second}) < 2:
        return None
    return float(cohen_kappa_score(list(first), list(second)))
