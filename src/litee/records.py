"""The records that cross folders: outcomes, pairs, votes, predictions, scores.

Frozen and validated on construction. Knows nothing of files, models or metrics, and imports
neither numpy nor torch.
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
    """

    pair: Pair
    shares: Triple
    votes: int
    winners: tuple[Outcome, ...] = ()
    annotators: tuple[str, ...] = ()

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
        return VotedPair(self.pair.swapped(), (b, a, tie), self.votes, winners, self.annotators)


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
class Message:
    """One message of a chat: the role is `user`, `assistant` or `system`."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation that shows how to answer: what a chat model is tuned on.

    Attributes:
        id: unique within a data set.
        messages: at most one system message first, then user and assistant in turns; the last
            is the assistant's. No text is blank.
        source: where it comes from, e.g. `stackexchange/cooking`; quotas count by it.
        license: of the text, "" when unknown.
        topic: a given category, "" when there is none.
        score: what readers gave it at its source (up-votes), None when unknown.
        scores: quality by name, e.g. a judge's reward or a grade from 1 to 6; all finite.

    Raises:
        ValueError: the roles do not alternate, a text is blank, or a score is not finite.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    license: str = ""
    topic: str = ""
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roles = [message.role for message in self.messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
            raise ValueError(f"roles must be user, assistant in turns, found {', '.join(roles)}")
        if not all(message.text.strip() for message in self.messages):
            raise ValueError("a message is blank")
        numbers = [*self.scores.values(), 0.0 if self.score is None else self.score]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a score is not finite")

    @property
    def prompt(self) -> str:
        """The first user turn.

        >>> Demonstration("1", (Message("user", "q"), Message("assistant", "x"))).prompt
        'q'
        """
        return next(message.text for message in self.messages if message.role == "user")

    @property
    def answer(self) -> str:
        """All assistant turns, joined by a blank line."""
        return "\n\n".join(m.text for m in self.messages if m.role == "assistant")


@dataclass(frozen=True, slots=True)
class Document:
    """A text to look things up in.

    Attributes:
        id: unique within a data set.
        text: not blank.
        source: where it lies, e.g. `guide.pdf, page 3`.
        title: what it is about, e.g. the name of a hotel; "" when unknown.

    Raises:
        ValueError: the text is blank.
    """

    id: str
    text: str
    source: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("a document is blank")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A verbatim part of a document: what is searched, shown and quoted.

    Attributes:
        id: unique within a data set.
        document: id of the document.
        text: the document's characters `start` to `end`, not blank.
        start: offset of the first character in the document.
        end: offset after the last one.
        source: the document's.
        title: the document's.

    Raises:
        ValueError: the text is blank or is not as long as the offsets say.
    """

    id: str
    document: str
    text: str
    start: int
    end: int
    source: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip() or not 0 <= self.start == self.end - len(self.text):
            raise ValueError(f"chunk {self.id!r} is blank or does not fit its offsets")

    @property
    def titled(self) -> str:
        """The text, led by the title unless it is named in the text.

        >>> Chunk("1", "1", "Dogs are welcome.", 0, 17, title="Hill Inn").titled
        'Hill Inn: Dogs are welcome.'
        """
        if not self.title or self.title.casefold() in self.text.casefold():
            return self.text
        return f"{self.title}: {self.text}"


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


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer that a model wrote.

    Attributes:
        id: of the prompt.
        prompt: the user's turns, at least one.
        response: the answers, one per turn.
        model: who wrote them, as `system` stands in files of answers.
        sample: number of this answer among several to the same prompt, from 0.
        seed: what its random numbers came from.
        finish_reasons: per turn `stop` (the model ended its turn), `length` (it was cut off) or
            `cancelled`.
        tokens: tokens written, over all turns, end-of-turn tokens included.
        prompt_tokens: tokens read, over all turns.
        reward: a judge's scalar reward of the answer, None when no judge was asked.

    Raises:
        ValueError: the numbers of turns differ.
    """

    id: str
    prompt: tuple[str, ...]
    response: tuple[str, ...]
    model: str = ""
    sample: int = 0
    seed: int = 0
    finish_reasons: tuple[str, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    reward: float | None = None

    def __post_init__(self) -> None:
        if not self.prompt or not len(self.prompt) == len(self.response):
            raise ValueError(f"{len(self.prompt)} user turns but {len(self.response)} answers")
        if self.finish_reasons and len(self.finish_reasons) != len(self.prompt):
            raise ValueError("one finish reason per turn is needed")

    @property
    def stopped(self) -> bool:
        """Whether every answer was ended by the model itself."""
        return bool(self.finish_reasons) and set(self.finish_reasons) == {"stop"}


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """What a language model is asked about one or two answers; its reply is one of `labels`.

    Attributes:
        rules: what the model is told about its task; written by the project.
        shared: passages that stand first and are the same in several questions on the same
            texts, so that a local model reads them once. A passage is its text and whether it
            was quoted from outside: quoted ones may be cut to a limit.
        rest: the passages after them.
        labels: allowed replies, at least two, all different.
        version: of the wording; part of what a stored verdict is found by.

    Raises:
        ValueError: fewer than two labels, or one twice.
    """

    rules: str
    shared: tuple[tuple[str, bool], ...]
    rest: tuple[tuple[str, bool], ...]
    labels: tuple[str, ...]
    version: str = ""

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len({x.casefold() for x in self.labels}) < len(self.labels):
            raise ValueError(f"a question needs two or more different labels, got {self.labels}")


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """A language model's reply to a `JudgeQuestion`.

    Attributes:
        label: the one it chose, None when it gave no usable reply.
        probabilities: over the question's labels, sum 1; empty when the model does not tell.
        reason: why `label` is None; empty otherwise.
        comment: what the model wrote before its verdict, if it was asked to.
        tokens_in: tokens it read, those shared with other questions counted once.
        tokens_out: tokens it wrote.
        seconds: from question to reply, waiting included.
        attempts: times it was asked.
        cut: tokens or characters of quoted passages that did not fit the limit.
        mass: share of the model's whole probability that lay on the labels, None when unknown.
        stored: whether it was found on disk and cost nothing now.

    Raises:
        ValueError: neither a label nor a reason, or both.
    """

    label: str | None
    probabilities: tuple[float, ...] = ()
    reason: str = ""
    comment: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    attempts: int = 1
    cut: int = 0
    mass: float | None = None
    stored: bool = False

    def __post_init__(self) -> None:
        if (self.label is None) != bool(self.reason):
            raise ValueError("a verdict has either a label or a reason for having none")
