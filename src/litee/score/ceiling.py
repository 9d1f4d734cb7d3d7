"""How well people agree with each other, and what that allows any judge to reach.

Two kinds of limits: agreement between people who judged the same pair, with the bounds on the best
possible accuracy and log loss that follow from it; and the bound that ties accuracy to log loss
for calibrated predictions. Knows nothing of a judge beyond its accuracy and log loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from litee.records import CLASSES, Score, VotedPair
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats, Rows

#: Entropy of the uniform prediction in nats: the log loss that needs no knowledge at all.
LOG_3 = math.log(3)

_NO_REPEATS = "no pair has two votes"
_NO_DECISIVE_REPEATS = "no pair has two decisive votes"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement between people who judged the same pair.

    Attributes:
        three_way: share of vote pairs (two votes on one pair) with the same outcome.
        per_vote: the same per pair, pairs weighted by their votes as accuracy and log loss are;
            what bounds these.
        decisive: the same among vote pairs without a tie.
        leave_one_out: three-way accuracy of "what most of the others said" on each vote.
        leave_one_out_decisive: the same on decisive votes, others' tie votes set aside.
        pairs: pairs with two or more votes.
        vote_pairs: vote pairs behind `three_way`.
        decisive_vote_pairs: vote pairs behind `decisive`.
        same_annotator: vote pairs that carry the same annotator name twice (they are counted in:
            many files hold one name for many people).
    """

    three_way: Score
    per_vote: Score
    decisive: Score
    leave_one_out: Score
    leave_one_out_decisive: Score
    pairs: int
    vote_pairs: int
    decisive_vote_pairs: int
    same_annotator: int

    @property
    def accuracy_bounds(self) -> tuple[float, float] | None:
        """Bounds on the best possible three-way accuracy per vote on pairs with repeated votes.

        None where there are none.
        """
        return None if self.per_vote.value is None else bayes_accuracy(self.per_vote.value)

    @property
    def log_loss_floor(self) -> float | None:
        """Log loss per vote that no judge can go below on pairs with repeated votes.

        None without repeated votes or agreement.
        """
        return log_loss_floor(self.per_vote.value) if self.per_vote.value else None


def vote_counts(voted: Sequence[VotedPair]) -> Floats:
    """(n, 3) single votes per outcome, as far as they are known.

    Taken from `winners`; where those are absent, from shares × votes when that gives whole numbers
    (otherwise the row is 0: weighted shares do not tell the votes).

    >>> from litee.records import Pair
    >>> pair = Pair("1", ("q",), ("x",), ("y",))
    >>> vote_counts([VotedPair(pair, (0.5, 0.0, 0.5), 4)]).tolist()
    [[2.0, 0.0, 2.0]]
    """
    counts = np.zeros((len(voted), len(CLASSES)))
    for row, item in zip(counts, voted, strict=True):
        if item.winners:
            for winner in item.winners:
                row[winner.class_index] += 1
        else:
            guess = np.array(item.shares) * item.votes
            if np.abs(guess - guess.round()).max() < 1e-6:
                row[:] = guess.round()
    return counts


def agreement_rows(counts: Floats) -> dict[str, Rows]:
    """`three_way`, `per_vote`, `decisive`, both leave-one-out metrics: `Rows`, one row per pair.

    Args:
        counts: (n, 3) votes per outcome.

    >>> rows = agreement_rows(np.array([[2.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    >>> round(rows["three_way"].value(), 3), round(rows["leave_one_out"].value(), 3)
    (0.333, 0.333)
    """
    decisive = counts * [1, 1, 0]
    three_way, two_way = _same_pairs(counts), _same_pairs(decisive)
    left, left_decisive = _leave_one_out(counts), _leave_one_out(decisive)
    return {
        "three_way": Rows(*three_way, reason=_NO_REPEATS),
        "per_vote": Rows(*_per_vote(counts), reason=_NO_REPEATS),
        "decisive": Rows(*two_way, reason=_NO_DECISIVE_REPEATS),
        "leave_one_out": Rows(*left, reason=_NO_REPEATS),
        "leave_one_out_decisive": Rows(*left_decisive, reason=_NO_DECISIVE_REPEATS),
    }


def _same_pairs(counts: Floats) -> tuple[Floats, Floats]:
    """Vote pairs with the same outcome and all vote pairs, per row."""
    total = counts.sum(axis=1)
    return (counts * (counts - 1)).sum(axis=1) / 2, total * (total - 1) / 2


def _per_vote(counts: Floats) -> tuple[Floats, Floats]:
    """Votes × share of the row's vote pairs that agree, and votes; 0 where there is one vote."""
    same, both = _same_pairs(counts)
    votes = counts.sum(axis=1) * (both > 0)
    return votes * same / np.maximum(both, 1), votes


def _leave_one_out(counts: Floats) -> tuple[Floats, Floats]:
    """Votes that the majority of the other votes gets right, and votes that have others."""
    total = counts.sum(axis=1)
    right = np.zeros(len(counts))
    for k in range(counts.shape[1]):
        others = counts - np.eye(counts.shape[1])[k]
        top = others == others.max(axis=1, keepdims=True)
        right += counts[:, k] * top[:, k] / top.sum(axis=1)
    repeated = total >= 2
    return right * repeated, total * repeated


def agreement(voted: Sequence[VotedPair], bootstrap: GroupBootstrap) -> Agreement:
    """Agreement between the votes of `voted`, with intervals over its prompt groups.

    Args:
        voted: pairs with their single votes.
        bootstrap: made from the same pairs' groups.
    """
    counts = vote_counts(voted)
    rows = agreement_rows(counts)
    resampled = bootstrap.resample(rows)
    return Agreement(
        three_way=resampled.score("three_way"),
        per_vote=resampled.score("per_vote"),
        decisive=resampled.score("decisive"),
        leave_one_out=resampled.score("leave_one_out"),
        leave_one_out_decisive=resampled.score("leave_one_out_decisive"),
        pairs=int((counts.sum(axis=1) >= 2).sum()),
        vote_pairs=round(float(rows["three_way"].denominator.sum())),
        decisive_vote_pairs=round(float(rows["decisive"].denominator.sum())),
        same_annotator=sum(_repeats(v.annotators) for v in voted),
    )


def _repeats(annotators: Sequence[str]) -> int:
    """Vote pairs by the same named annotator."""
    names = [name for name in annotators if name]
    return sum(names.count(name) * (names.count(name) - 1) // 2 for name in set(names))


def bayes_accuracy(agreed: float, classes: int = 3) -> tuple[float, float]:
    """Bounds on the accuracy of the best possible predictor, from the agreement of two raters.

    Derived here. If both raters draw independently from p(y | pair), agreement is a = E[Σ p²], the
    mean over the same votes as that of the accuracy. The
    best predictor's accuracy is E[max p] ≥ E[Σ p²] = a; and Σ p² ≥ m² + (1 − m)²/(K − 1) with
    m = max p, convex in m, which solved for m gives (1 + √((K − 1)(K a − 1)))/K from above. An
    agreement below 1/K, which independent raters cannot have, counts as 1/K above.

    Args:
        agreed: in 0 … 1.
        classes: K, 3 for a / b / tie or 2 for decisive votes.

    Raises:
        ValueError: `agreed` is outside 0 … 1.

    >>> [round(x, 2) for x in bayes_accuracy(0.63)], [round(x, 2) for x in bayes_accuracy(0.81, 2)]
    ([0.63, 0.78], [0.81, 0.89])
    """
    _check_share(agreed)
    high = (1 + math.sqrt(max(0.0, (classes - 1) * (classes * agreed - 1)))) / classes
    return agreed, min(1.0, high)


def log_loss_floor(agreed: float) -> float:
    """Lower bound on the log loss of any predictor, in nats: −ln(agreement).

    Derived here: the best log loss is E[H(p)] ≥ E[−ln Σ p²] ≥ −ln E[Σ p²] (Jensen twice), with
    raters drawing independently from p.

    Raises:
        ValueError: `agreed` is not in (0, 1].

    >>> round(log_loss_floor(0.63), 3), round(log_loss_floor(0.5), 3)
    (0.462, 0.693)
    """
    _check_share(agreed)
    if agreed == 0:
        raise ValueError("agreement of 0 gives no bound")
    return abs(math.log(agreed))


def max_calibrated_log_loss(accuracy: float) -> float:
    """Largest log loss a calibrated three-class predictor of this accuracy can have, in nats.

    Derived here. A calibrated predictor has accuracy m = E[max p] and loss E[H(p)], and
    H(p) ≤ h(max p) with h(m) = −m ln m − (1 − m) ln((1 − m)/2), concave and decreasing on [1/3, 1].
    Below chance (1/3) the bound is ln 3.

    Raises:
        ValueError: `accuracy` is outside 0 … 1.

    >>> round(max_calibrated_log_loss(0.802), 3), round(max_calibrated_log_loss(1.0), 3)
    (0.635, 0.0)
    """
    _check_share(accuracy)
    m = max(accuracy, 1 / 3)
    if m >= 1:
        return 0.0
    return -m * math.log(m) - (1 - m) * math.log((1 - m) / 2)


def max_calibrated_accuracy(log_loss: float) -> float:
    """Largest accuracy that goes with a log loss when predictions are calibrated: h⁻¹.

    The inverse of `max_calibrated_log_loss`, by bisection to 1e-12; 1/3 for losses of ln 3 or more.

    Raises:
        ValueError: `log_loss` is negative or not finite.

    >>> [round(max_calibrated_accuracy(x), 3) for x in (0.635, 0.7, 0.92, 0.99, 1.0588)]
    [0.802, 0.769, 0.626, 0.561, 0.47]
    """
    if not (math.isfinite(log_loss) and log_loss >= 0):
        raise ValueError(f"log loss must be finite and >= 0, got {log_loss}")
    low, high = 1 / 3, 1.0
    if log_loss >= LOG_3:
        return low
    while high - low > 1e-12:
        middle = (low + high) / 2
        if max_calibrated_log_loss(middle) > log_loss:
            low = middle
        else:
            high = middle
    return high


def consistency(log_loss: Score, accuracy: Score, *, tolerance: float = 0.005) -> str:
    """Whether a log loss and an accuracy can belong to one calibrated predictor.

    Args:
        log_loss: in nats.
        accuracy: three-way, on the same votes.
        tolerance: how far the accuracy may exceed the bound before it is reported.

    Returns:
        "ok"; a sentence starting with "miscalibrated or impossible"; or why it cannot be checked.

    >>> consistency(Score(0.99), Score(0.55))
    'ok'
    >>> consistency(Score(0.99), Score(0.802))[:49]
    'miscalibrated or impossible: accuracy 0.802 excee'
    """
    if log_loss.value is None or accuracy.value is None:
        return "not checked: " + (log_loss.reason or accuracy.reason)
    bound = max_calibrated_accuracy(log_loss.value)
    if accuracy.value <= bound + tolerance:
        return "ok"
    return (
        f"miscalibrated or impossible: accuracy {accuracy.value:.3f} exceeds {bound:.3f}, the most "
        f"a calibrated judge with log loss {log_loss.value:.3f} can have; recalibrated, this "
        f"accuracy allows a log loss of {max_calibrated_log_loss(accuracy.value):.3f} or less"
    )


def _check_share(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"expected a share in 0 … 1, got {value}")
