"""Votes and what is said of them: outcomes, pairs, votes, predictions, scores, folds.

Knows nothing of files, models and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: The order of classes in every probability vector of the project.
CLASSES: tuple[str, str, str] = ("a", "b", "tie")

#: Three numbers in the order of `CLASSES`.
Triple = tuple[float, float, float]


class Outcome(StrEnum):
    """What a person answered when shown two answers, A and B."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"

    @property
    def class_index(self) -> int:
        """Position in `CLASSES`; `both_bad` counts as a tie.

        >>> [o.class_index for o in Outcome]
        [0, 1, 2, 2]
        """
        return {"a": 0, "b": 1}.get(self.value, 2)

    @property
    def swapped(self) -> Outcome:
        """The same judgement with A and B exchanged.

        >>> Outcome.A.swapped, Outcome.TIE.swapped
        (<Outcome.B: 'b'>, <Outcome.TIE: 'tie'>)
        """
        return {Outcome.A: Outcome.B, Outcome.B: Outcome.A}.get(self, self)


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt and two answers to it.

    Attributes:
        id: unique within a data set.
        prompt: the user's turns, at least one.
        response_a: one assistant turn per user turn (the string may be empty).
        response_b: likewise.
        model_a: who wrote `response_a`, or "" when unknown. Never shown to a judge.
        model_b: likewise.
        source: the data set it came from.

    Raises:
        ValueError: when the turns do not match in number.
    """

    id: str
    prompt: tuple[str, ...]
    response_a: tuple[str, ...]
    response_b: tuple[str, ...]
    model_a: str = ""
    model_b: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a pair needs at least one user turn")
        if not len(self.prompt) == len(self.response_a) == len(self.response_b):
            raise ValueError(
                f"turns do not match: {len(self.prompt)} user turns, "
                f"{len(self.response_a)} in response_a, {len(self.response_b)} in response_b"
            )

    def swapped(self) -> Pair:
        """The same pair with the answers exchanged.

        >>> Pair("1", ("q",), ("x",), ("y",)).swapped().response_a
        ('y',)
        """
        return Pair(
            self.id,
            self.prompt,
            self.response_b,
            self.response_a,
            self.model_b,
            self.model_a,
            self.source,
        )


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's judgement of one pair.

    Attributes:
        id: unique within a data set.
        pair: what was judged; votes on the same pair share the object.
        winner: the outcome.
        annotator: who judged, or "" when unknown.
        weight: relative weight, finite and > 0.
        reason: free text, e.g. a defect tag; never an input of a judge.
    """

    id: str
    pair: Pair
    winner: Outcome
    annotator: str = ""
    weight: float = 1.0
    reason: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight must be finite and > 0, got {self.weight!r}")


@dataclass(frozen=True, slots=True)
class VotedPair:
    """A pair with all its votes put together: what judges are trained and tested on.

    Attributes:
        pair: the pair.
        shares: weighted vote shares in the order of `CLASSES`; they sum to 1.
        votes: number of votes behind the shares, at least 1.
        winners: the single votes' outcomes, in file order (for rater agreement).
        annotators: who cast each of them, same length.
        weights: relative weight of each of them, same length, or empty when all are alike.
    """

    pair: Pair
    shares: Triple
    votes: int
    winners: tuple[Outcome, ...] = ()
    annotators: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise ValueError("a voted pair needs at least one vote")
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares must be >= 0 and sum to 1, got {self.shares}")

    def swapped(self) -> VotedPair:
        """The same votes with A and B exchanged.

        >>> v = VotedPair(Pair("1", ("q",), ("x",), ("y",)), (1.0, 0.0, 0.0), 2)
        >>> v.swapped().shares
        (0.0, 1.0, 0.0)
        """
        a, b, tie = self.shares
        winners = tuple(w.swapped for w in self.winners)
        return VotedPair(
            self.pair.swapped(), (b, a, tie), self.votes, winners, self.annotators, self.weights
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """A judge's opinion on one pair.

    Attributes:
        pair_id: the pair's id.
        probabilities: P(A better), P(B better), P(tie); sums to 1.
        reward_a: the ensemble's scalar reward of answer A (higher is better), or None when no
            member has one.
        reward_b: likewise for B.
        tokens_cut: prompt and answer tokens that did not fit the budget, per text
            (prompt, A, B), summed over turns, largest over members.
    """

    pair_id: str
    probabilities: Triple
    reward_a: float | None = None
    reward_b: float | None = None
    tokens_cut: tuple[int, int, int] = (0, 0, 0)

    @property
    def winner(self) -> Outcome:
        """The most probable outcome (ties in probability go to the earlier class).

        >>> Prediction("1", (0.2, 0.5, 0.3)).winner
        <Outcome.B: 'b'>
        """
        best = max(range(3), key=lambda k: self.probabilities[k])
        return Outcome(CLASSES[best])


@dataclass(frozen=True, slots=True)
class Score:
    """A number with its interval, or the reason why there is none.

    Attributes:
        value: the estimate, None when it could not be computed.
        low: lower end of the 95 % interval, None when not estimated.
        high: upper end.
        reason: why `value` is None; empty otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.reason):
            raise ValueError("a score has either a value or a reason for having none")

    def negated(self) -> Score:
        """Minus this: the difference b − a out of a − b.

        >>> Score(0.5, 0.2, 0.9).negated()
        Score(value=-0.5, low=-0.9, high=-0.2, reason='')
        """
        low, high = (None if x is None else -x for x in (self.high, self.low))
        return Score(None if self.value is None else -self.value, low, high, self.reason)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows that were read but not used, by reason: nothing is lost silently.

    Attributes:
        counts: reason → number of rows.
        examples: reason → up to five places such as `votes.csv, row 17`.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of rows over all reasons.

        >>> Dropped({"null response": 2, "duplicate vote": 1}).total
        3
        """
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class VoteSet:
    """Votes as they came out of one or more files, with what was left out and why.

    Attributes:
        votes: the usable votes, in file order.
        dropped: rows that were not used, by reason.
        noticed: rows that were used but look odd (empty answer, identical answers, …), by reason.
        inputs: file → sha256 of its bytes.
    """

    votes: tuple[Vote, ...]
    dropped: Dropped = field(default_factory=Dropped)
    noticed: Dropped = field(default_factory=Dropped)
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Folds:
    """A split of pairs by prompt.

    Attributes:
        groups: per pair, the number of its prompt group (near-duplicate prompts share one).
        folds: per pair, the fold that holds it out, 0 … count - 1; all pairs of a group agree.
        count: number of folds, at least 2.
    """

    groups: tuple[int, ...]
    folds: tuple[int, ...]
    count: int

    def __post_init__(self) -> None:
        if self.count < 2 or len(self.groups) != len(self.folds):
            raise ValueError("folds need count >= 2 and one group and one fold per pair")
        of_group: dict[int, int] = {}
        for group, fold in zip(self.groups, self.folds, strict=True):
            if not 0 <= fold < self.count:
                raise ValueError(f"fold {fold} is not in 0 … {self.count - 1}")
            if of_group.setdefault(group, fold) != fold:
                raise ValueError(f"prompt group {group} lies in two folds")
