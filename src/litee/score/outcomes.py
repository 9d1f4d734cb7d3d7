"""How well probabilities of A / B / tie fit human votes: one row per pair, ready to be summed.

Every metric here is a ratio of two sums over pairs. Keeping the two summands per pair lets the
bootstrap of `litee.score.intervals` recompute any metric on a resample without touching the
predictions again. Knows nothing of models, prompts, files or intervals.

Shapes: n pairs; probabilities and vote shares are (n, 3) in the order of
`litee.records.CLASSES` (a, b, tie); votes are (n,).

Exact ties between the largest probabilities are broken by sharing the credit: a predictor that
gives two outcomes the same highest probability counts as one half right on each. This is the
expected accuracy when the tie is broken by a fair coin, it needs no random numbers, and it favours
neither answer slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from litee.records import VotedPair

Floats: TypeAlias = NDArray[np.float64]

#: Probabilities closer than this count as equal when the most probable outcome is chosen.
TIE_TOLERANCE = 1e-9

#: Tie-discounted credit (LIMA, arXiv 2305.11206, section 4.2): rows predicted, columns voted.
_TIE_DISCOUNT = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.5, 0.5, 1.0]])

_NO_VOTES = "no votes"
_NO_DECISIVE = "no decisive votes (a or b)"
_ZERO = "a vote fell on an outcome that was given probability 0"


@dataclass(frozen=True, slots=True)
class Rows:
    """A metric as sums over pairs.

    With a one-dimensional numerator the metric is Σ numerator / Σ denominator. With a
    two-dimensional one (n, bins) it is Σ_bins |Σ_pairs numerator| / Σ denominator: that is how the
    expected calibration error is written.

    Attributes:
        numerator: (n,) or (n, bins).
        denominator: (n,), >= 0.
        reason: why the metric is undefined when the denominators sum to 0 or a numerator is
            infinite.
    """

    numerator: Floats
    denominator: Floats
    reason: str = _NO_VOTES

    def value(self) -> float | None:
        """The metric on all pairs, None when undefined.

        >>> Rows(np.array([1.0, 0.0]), np.array([1.0, 3.0])).value()
        0.25
        """
        total = float(self.denominator.sum())
        if total <= 0 or not np.isfinite(self.numerator).all():
            return None
        summed = self.numerator.sum(axis=0)
        return float(np.abs(summed).sum() if self.numerator.ndim == 2 else summed) / total

    def where(self, keep: NDArray[np.bool_]) -> Rows:
        """The same metric on some of the pairs; `keep` is (n,)."""
        return Rows(self.numerator[keep], self.denominator[keep], self.reason)


@dataclass(frozen=True, slots=True)
class Truth:
    """What people said.

    Attributes:
        shares: (n, 3) vote shares, rows sum to 1.
        votes: (n,) number of votes per pair, >= 1.

    Raises:
        ValueError: shapes do not match or a row is not a distribution.
    """

    shares: Floats
    votes: Floats

    def __post_init__(self) -> None:
        check_probabilities(self.shares, len(self.votes))
        if len(self.votes) and self.votes.min() < 1:
            raise ValueError("every pair needs at least one vote")

    @classmethod
    def of(cls, voted: Sequence[VotedPair]) -> Truth:
        """Shares and numbers of votes of `voted`, in its order."""
        shares = np.array([v.shares for v in voted], dtype=float).reshape(-1, 3)
        return cls(shares, np.array([v.votes for v in voted], dtype=float))

    def where(self, keep: NDArray[np.bool_]) -> Truth:
        """Some of the pairs; `keep` is (n,)."""
        return Truth(self.shares[keep], self.votes[keep])


def check_probabilities(p: ArrayLike, n: int) -> Floats:
    """`p` as a float array after checking that it is (n, 3) and its rows are distributions.

    Raises:
        ValueError: wrong shape, a value below 0 or not finite, or a row that does not sum to 1
            (± 1e-5).
    """
    array = np.asarray(p, dtype=float)
    if array.shape != (n, 3):
        raise ValueError(f"probabilities must have shape ({n}, 3), got {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError("probabilities must be finite and >= 0")
    if n and np.abs(array.sum(axis=1) - 1).max() > 1e-5:
        raise ValueError("probabilities must sum to 1 in every row")
    return array


def choices(p: Floats) -> Floats:
    """(n, 3) credit of the most probable outcome: 1 for it, shared equally when several tie.

    >>> choices(np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])).tolist()
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    """
    best = (p >= p.max(axis=1, keepdims=True) - TIE_TOLERANCE).astype(float)
    credit: Floats = best / best.sum(axis=1, keepdims=True)
    return credit


def decisive_choices(p: Floats) -> Floats:
    """(n, 3) like `choices`, between a and b only; the tie column is 0.

    >>> decisive_choices(np.array([[0.2, 0.1, 0.7], [0.0, 0.0, 1.0]])).tolist()
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    """
    return np.column_stack([choices(p[:, :2]), np.zeros(len(p))])


def cross_entropy(p: Floats, shares: Floats) -> Floats:
    """(n,) −Σ_k share_k ln p_k in nats; 0 · ln 0 = 0; infinite where a voted outcome has p = 0.

    >>> cross_entropy(np.array([[0.5, 0.5, 0.0]]), np.array([[0.5, 0.5, 0.0]])).round(4).tolist()
    [0.6931]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(p), 0.0)
    loss: Floats = np.abs(terms.sum(axis=1))  # every term is <= 0; abs turns -0.0 into 0.0
    return loss


def brier(p: Floats, shares: Floats) -> Floats:
    """(n,) mean over the votes of a pair of Σ_k (p_k − y_k)², from 0 to 2.

    Brier (1950), equation 2, with y a vote; for shares s it equals Σ p² − 2 Σ p s + 1.

    >>> brier(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]])).tolist()
    [2.0]
    """
    squared: Floats = (p * p).sum(axis=1) - 2 * (p * shares).sum(axis=1) + 1
    return squared


def majority(shares: Floats) -> tuple[NDArray[np.int_], NDArray[np.bool_]]:
    """(n,) the outcome with most votes and (n,) whether it is alone at the top.

    >>> winner, unique = majority(np.array([[0.2, 0.8, 0.0], [0.5, 0.0, 0.5]]))
    >>> int(winner[0]), unique.tolist()
    (1, [True, False])
    """
    unique = (shares >= shares.max(axis=1, keepdims=True) - TIE_TOLERANCE).sum(axis=1) == 1
    return shares.argmax(axis=1), unique


def metric_rows(p: ArrayLike, truth: Truth) -> dict[str, Rows]:
    """All additive metrics of one system as `Rows`; the names are listed in docs/report.md.

    Args:
        p: (n, 3) probabilities.
        truth: the votes.

    Raises:
        ValueError: `p` is not a set of n distributions.

    >>> truth = Truth(np.array([[1.0, 0, 0], [0, 0.5, 0.5]]), np.array([1.0, 2.0]))
    >>> rows = metric_rows(np.array([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1]]), truth)
    >>> rows["accuracy"].value() == 2 / 3, rows["accuracy_decisive"].value()
    (True, 1.0)
    """
    probabilities = check_probabilities(p, len(truth.votes))
    rows = _loss_rows(probabilities, truth) | _accuracy_rows(probabilities, truth)
    return rows | _class_rows(choices(probabilities), truth)


def _loss_rows(p: Floats, truth: Truth) -> dict[str, Rows]:
    loss = cross_entropy(p, truth.shares)
    reason = _NO_VOTES if np.isfinite(loss).all() else _ZERO
    return {
        "log_loss": Rows(truth.votes * loss, truth.votes, reason),
        "log_loss_pair": Rows(loss, np.ones_like(loss), reason),
        "brier": Rows(truth.votes * brier(p, truth.shares), truth.votes),
    }


def _accuracy_rows(p: Floats, truth: Truth) -> dict[str, Rows]:
    shares, votes = truth.shares, truth.votes
    credit, between = choices(p), decisive_choices(p)
    right = (credit * shares).sum(axis=1)
    winner, unique = majority(shares)
    hit = credit[np.arange(len(credit)), winner]
    decisive = shares[:, 0] + shares[:, 1]
    both = 1 - credit[:, 2]
    return {
        "accuracy": Rows(votes * right, votes),
        "accuracy_pair": Rows(hit * unique, unique.astype(float), "no pair has a majority"),
        "accuracy_decisive": Rows(
            votes * (between * shares).sum(axis=1), votes * decisive, _NO_DECISIVE
        ),
        "accuracy_both_decisive": Rows(
            votes * (credit[:, :2] * shares[:, :2]).sum(axis=1),
            votes * decisive * both,
            "no vote is decisive where the prediction is",
        ),
        "accuracy_tie_discounted": Rows(
            votes * ((credit @ _TIE_DISCOUNT) * shares).sum(axis=1), votes
        ),
        "accuracy_one_vs_rest": Rows(votes * (1 + 2 * right) / 3, votes),
    }


def _class_rows(credit: Floats, truth: Truth) -> dict[str, Rows]:
    rows: dict[str, Rows] = {}
    for k, label in enumerate(("a", "b", "tie")):
        voted, chosen = truth.shares[:, k], credit[:, k]
        hit = voted * chosen
        rows[f"recall_{label}"] = Rows(
            truth.votes * hit, truth.votes * voted, f"nobody voted {label}"
        )
        rows[f"precision_{label}"] = Rows(
            truth.votes * hit, truth.votes * chosen, f"{label} was never predicted"
        )
        agree = hit + (1 - voted) * (1 - chosen)
        rows[f"accuracy_one_vs_rest_{label}"] = Rows(truth.votes * agree, truth.votes)
    return rows


def length_rows(p: Floats, truth: Truth, longer: NDArray[np.int_]) -> dict[str, Rows]:
    """Accuracy between A and B by which answer was voted for: the longer one or the shorter one.

    A judge that only likes length is right on all of the first and none of the second.

    Args:
        p: (n, 3) probabilities.
        truth: the votes.
        longer: (n,) 1 where A is longer, −1 where B is, 0 where neither is.

    >>> truth = Truth(np.array([[0.75, 0.25, 0.0]]), np.array([4.0]))
    >>> rows = length_rows(np.array([[0.6, 0.3, 0.1]]), truth, np.array([1]))
    >>> rows["accuracy_longer_won"].value(), rows["accuracy_shorter_won"].value()
    (1.0, 0.0)
    """
    credit, rows = decisive_choices(p), {}
    for name, a_won in (("longer", longer > 0), ("shorter", longer < 0)):
        b_won = (longer != 0) & ~a_won
        mask = np.column_stack([a_won, b_won])
        votes = truth.votes[:, None] * truth.shares[:, :2] * mask
        rows[f"accuracy_{name}_won"] = Rows(
            (votes * credit[:, :2]).sum(axis=1),
            votes.sum(axis=1),
            f"nobody voted for the {name} answer",
        )
    return rows


def confusion(p: Floats, truth: Truth) -> Floats:
    """(3, 3) votes by voted outcome (rows) and predicted outcome (columns).

    >>> truth = Truth(np.array([[0.0, 0.5, 0.5]]), np.array([2.0]))
    >>> confusion(np.array([[0.1, 0.8, 0.1]]), truth).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """
    table: Floats = (truth.shares * truth.votes[:, None]).T @ choices(p)
    return table


def unswap(p_swapped: Floats) -> Floats:
    """Probabilities on exchanged pairs, put back in the original order of a and b.

    >>> unswap(np.array([[0.1, 0.6, 0.3]])).tolist()
    [[0.6, 0.1, 0.3]]
    """
    return p_swapped[:, [1, 0, 2]]


def swap_flip_rate(p: Floats, p_swapped: Floats) -> float:
    """Share of pairs whose predicted outcome changes when the answers change places, 0 to 1.

    Args:
        p: (n, 3) predictions.
        p_swapped: (n, 3) predictions on the same pairs with the answers exchanged, as the judge
            gave them (column 0 is the answer then shown first).

    Raises:
        ValueError: no pairs.

    >>> swap_flip_rate(np.array([[0.6, 0.3, 0.1]]), np.array([[0.6, 0.3, 0.1]]))
    1.0
    """
    return float(np.mean(swap_flips(p, p_swapped)))


def swap_flips(p: Floats, p_swapped: Floats) -> Floats:
    """(n,) 1 where the predicted outcome changes with the order, between 0 and 1 on exact ties."""
    if not len(p):
        raise ValueError("no pairs")
    moved: Floats = np.abs(choices(p) - choices(unswap(p_swapped))).sum(axis=1) / 2
    return moved


def swap_difference(p: Floats, p_swapped: Floats) -> float:
    """Largest absolute change of a probability when the answers change places.

    >>> round(swap_difference(np.array([[0.6, 0.3, 0.1]]), np.array([[0.3, 0.5, 0.2]])), 9)
    0.1
    """
    return float(np.abs(p - unswap(p_swapped)).max(initial=0.0))
