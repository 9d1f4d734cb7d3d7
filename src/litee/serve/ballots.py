"""The shapes of voting: pairs on the desk, ballots, what people did with them.

Sides are what a person saw (left, right); letters are the pair's own answers (a, b). Everything
that is stored or counted is in letters. Knows nothing of databases and pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from litee.records import Outcome, Pair, Triple
from litee.rundir import Json

PairKind = Literal["vote", "check", "live"]
Purpose = Literal["vote", "repeat", "check"]
Act = Literal["vote", "undo", "skip"]
Side = Literal["left", "right", "tie", "both_bad"]
Grade = Literal["fail", "pass", "excellent"]

#: Worst first.
GRADES: tuple[Grade, ...] = ("fail", "pass", "excellent")

MAX_COMMENT = 2000
#: How the id of a vote begins that was cast elsewhere, and the bytes of its digest.
IMPORTED = "i"
DIGEST_BYTES = 10
#: Longest time a person is credited with for one vote, in seconds: longer means they were away.
LONGEST = 600.0


@dataclass(frozen=True, slots=True)
class Question:
    """A pair that can be asked about.

    Attributes:
        number: its place in the database.
        pair: the texts and who wrote them.
        kind: vote, check or live.
        expected: the known winner of a check, else None.
        judge: a judge's probabilities of a, b, tie, if there is a judge.
    """

    number: int
    pair: Pair
    kind: PairKind = "vote"
    expected: Outcome | None = None
    judge: Triple | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may vote.

    Attributes:
        number: in the database.
        name: shown to the owner; the annotator of the votes.
        link: counts up when the link is renewed, which makes the old link useless.
        excluded: whether the votes are left out of every count and export.
    """

    number: int
    name: str
    link: int = 0
    excluded: bool = False


@dataclass(slots=True)
class Ballot:
    """A pair shown to a person, and the state of its vote.

    Attributes:
        id: random; the only name the browser knows.
        number: in order of showing.
        person: who was asked.
        pair: the question's number.
        purpose: vote, repeat (for self-agreement) or check.
        swapped: whether answer B was on the left.
        at: when it was shown first, seconds since 1970.
        revision: of the last act, 0 when there is none.
        act: the last act, None when there is none or it was taken back.
        winner: of the pair, for a vote.
        acted: when the last act came in.
        seconds: how long the person took.
    """

    id: str
    number: int
    person: int
    pair: int
    purpose: Purpose
    swapped: bool
    at: float
    revision: int = 0
    act: Literal["vote", "skip"] | None = None
    winner: Outcome | None = None
    acted: float = 0.0
    seconds: float | None = None

    @property
    def imported(self) -> bool:
        """Whether it was cast elsewhere and read from a file: nobody saw it here, on no side.

        >>> Ballot("i" + 20 * "0", 0, 0, 0, "vote", False, 0.0).imported
        True
        """
        return self.id.startswith(IMPORTED) and len(self.id) == 1 + 2 * DIGEST_BYTES


class _In(BaseModel):
    """Base of what a browser sends: unknown names and odd types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


Stars = Annotated[int, Field(ge=1, le=5)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Comment = Annotated[str, StringConstraints(max_length=MAX_COMMENT)]
BallotId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,32}$")]


class SideNotes(_In):
    """What a person noted about one answer."""

    stars: Stars | None = None
    grade: Grade | None = None
    tags: Annotated[list[Tag], Field(max_length=20)] = []


class ActIn(_In):
    """One act as the browser sends it; sending it again changes nothing.

    Attributes:
        ballot: the ballot's id.
        revision: 1 for the first act on a ballot, one more for each further act.
        act: vote, undo or skip.
        choice: which side was better; only for a vote. Without one the grades decide.
        left: notes on the left answer.
        right: notes on the right answer.
        turns: verdicts on single turns (None where none was given).
        comment: free text.
        seconds: from seeing to voting, as the browser measured it.
    """

    ballot: BallotId
    revision: Annotated[int, Field(ge=1, le=1000)]
    act: Act = "vote"
    choice: Side | None = None
    left: SideNotes = SideNotes()
    right: SideNotes = SideNotes()
    turns: Annotated[list[Side | None], Field(max_length=100)] = []
    comment: Comment = ""
    seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ActIn:
        if self.act != "vote" and self.choice is not None:
            raise ValueError("only a vote has a choice")
        graded = self.left.grade is not None and self.right.grade is not None
        if self.act == "vote" and self.choice is None and not graded:
            raise ValueError("a vote needs a choice, or a grade for both answers")
        return self


@dataclass(frozen=True, slots=True)
class LiveAnswers:
    """A person's own question and what two systems answered.

    Attributes:
        prompt: the question.
        left: answer on the left.
        right: answer on the right.
        left_system: who wrote the left one.
        right_system: likewise.
    """

    prompt: str
    left: str
    right: str
    left_system: str
    right_system: str


@dataclass(frozen=True, slots=True)
class Ack:
    """What became of an act.

    Attributes:
        ballot: its id.
        revision: of the act.
        status: saved; again (the same act was saved before); conflict (another act has this
            revision); refused (no such ballot of this person, or nothing to take back).
    """

    ballot: str
    revision: int
    status: Literal["saved", "again", "conflict", "refused"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person is.

    Attributes:
        done: pairs judged (hidden repeats and checks count: the person cannot tell them apart).
        left: pairs still to come, as far as is known now.
        seconds: median seconds per pair, None before the third.
    """

    done: int
    left: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A ballot as a person may see it: no names, no purpose, no order of the answers.

    Attributes:
        ballot: id of the ballot.
        revision: of the last act on it.
        prompt: user turns.
        left: assistant turns of the answer on the left.
        right: likewise.
    """

    ballot: str
    revision: int
    prompt: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tray:
    """What a browser needs to go on: sheets to judge, and how far the person is."""

    sheets: tuple[Sheet, ...]
    progress: Progress
    acks: tuple[Ack, ...] = field(default=())


def letters(side: Side, *, swapped: bool) -> Outcome:
    """What a choice of side means for the pair.

    >>> letters("left", swapped=True), letters("both_bad", swapped=True)
    (<Outcome.B: 'b'>, <Outcome.BOTH_BAD: 'both_bad'>)
    """
    seen = {"left": Outcome.A, "right": Outcome.B}.get(side)
    outcome = Outcome(side) if seen is None else seen
    return outcome.swapped if swapped else outcome


def side_of_grades(left: Grade, right: Grade) -> Side:
    """The verdict that two grades imply.

    >>> [side_of_grades(*g) for g in (("pass", "fail"), ("fail", "fail"), ("pass", "pass"))]
    ['left', 'both_bad', 'tie']
    """
    a, b = GRADES.index(left), GRADES.index(right)
    if a == b:
        return "both_bad" if a == 0 else "tie"
    return "left" if a > b else "right"


def winner_of(act: ActIn, *, swapped: bool) -> Outcome | None:
    """The pair's winner by a vote; None for other acts."""
    if act.act != "vote":
        return None
    if act.choice is not None:
        return letters(act.choice, swapped=swapped)
    assert act.left.grade is not None
    assert act.right.grade is not None
    return letters(side_of_grades(act.left.grade, act.right.grade), swapped=swapped)


def details_of(act: ActIn, *, swapped: bool) -> dict[str, Json]:
    """What is stored beside the winner, by letter: tags, stars, grades, turns, comment."""
    first, second = (act.right, act.left) if swapped else (act.left, act.right)
    found: dict[str, Json] = {}
    for letter, notes in (("a", first), ("b", second)):
        kept = notes.model_dump(exclude_defaults=True)
        if kept:
            found[letter] = kept
    if any(act.turns):
        found["turns"] = [
            None if side is None else letters(side, swapped=swapped).value for side in act.turns
        ]
    if act.comment.strip():
        found["comment"] = act.comment.strip()
    return found


def sheet_of(question: Question, ballot: Ballot) -> Sheet:
    """What the person may see of a ballot."""
    pair = question.pair.swapped() if ballot.swapped else question.pair
    return Sheet(ballot.id, ballot.revision, pair.prompt, pair.response_a, pair.response_b)
