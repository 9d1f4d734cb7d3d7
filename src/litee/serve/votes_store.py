"""Reads and writes of the voting page's tables, typed.

Every function works within the caller's transaction. Knows nothing of what is asked next and of
pages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import sqlalchemy as sa

from litee.records import Outcome, Pair, Triple
from litee.rundir import Json
from litee.serve.ballots import Ballot, PairKind, Person, Purpose, Question
from litee.serve.tables import AUDIT, BALLOT, PAIR, PERSON, VOTE

# made once: these run with every vote
_ADD_BALLOT = BALLOT.insert()
_ADD_ACT = VOTE.insert().inline()


@dataclass(frozen=True, slots=True)
class StoredAct:
    """One row of the vote table.

    Attributes:
        ballot: the ballot's id.
        revision: of the act.
        act: vote, undo or skip.
        winner: of the pair, for a vote.
        details: by letter: stars, grade and tags of `a` and `b`, turns, comment.
        seconds: the person took.
        at: when it came in.
    """

    ballot: str
    revision: int
    act: str
    winner: Outcome | None
    details: Mapping[str, Json]
    seconds: float | None
    at: float


def add_questions(connection: sa.Connection, questions: Sequence[Question]) -> None:
    """Store new pairs."""
    if not questions:
        return
    rows = [
        {
            "number": q.number,
            "id": q.pair.id,
            "kind": q.kind,
            "prompt": list(q.pair.prompt),
            "response_a": list(q.pair.response_a),
            "response_b": list(q.pair.response_b),
            "model_a": q.pair.model_a,
            "model_b": q.pair.model_b,
            "source": q.pair.source,
            "expected": "" if q.expected is None else q.expected.value,
            "judge": None if q.judge is None else list(q.judge),
        }
        for q in questions
    ]
    connection.execute(PAIR.insert(), rows)


def set_judge(connection: sa.Connection, verdicts: Mapping[int, Triple]) -> None:
    """Store a judge's probabilities by the numbers of the pairs."""
    for number, triple in verdicts.items():
        change = PAIR.update().where(PAIR.c.number == number).values(judge=list(triple))
        connection.execute(change)


def questions(connection: sa.Connection) -> list[Question]:
    """All pairs in order of their numbers."""
    found = []
    for row in connection.execute(sa.select(PAIR).order_by(PAIR.c.number)):
        pair = Pair(
            row.id,
            tuple(row.prompt),
            tuple(row.response_a),
            tuple(row.response_b),
            row.model_a,
            row.model_b,
            row.source,
        )
        expected = Outcome(row.expected) if row.expected else None
        judge = None if row.judge is None else cast("Triple", tuple(row.judge))
        found.append(Question(row.number, pair, cast("PairKind", row.kind), expected, judge))
    return found


def add_person(connection: sa.Connection, person: Person) -> None:
    """Store a new person."""
    values = {"number": person.number, "name": person.name, "link": person.link}
    connection.execute(PERSON.insert().values(**values, excluded=person.excluded, at=time.time()))


def change_person(connection: sa.Connection, person: Person) -> None:
    """Store a person's link and whether the votes count."""
    change = PERSON.update().where(PERSON.c.number == person.number)
    connection.execute(change.values(link=person.link, excluded=person.excluded))


def people(connection: sa.Connection) -> list[Person]:
    """All people in order of their numbers."""
    rows = connection.execute(sa.select(PERSON).order_by(PERSON.c.number))
    return [Person(row.number, row.name, row.link, row.excluded) for row in rows]


class Rows:
    """Ballots and acts of many works, written together with one statement per table."""

    def __init__(self) -> None:
        self._ballots: list[dict[str, object]] = []
        self._acts: list[dict[str, object]] = []

    def add_ballot(self, ballot: Ballot) -> None:
        """A person is shown a pair."""
        self._ballots.append(
            {
                "id": ballot.id,
                "number": ballot.number,
                "person": ballot.person,
                "pair": ballot.pair,
                "purpose": ballot.purpose,
                "swapped": ballot.swapped,
                "at": ballot.at,
            }
        )

    def add_act(self, act: StoredAct) -> None:
        """A person did something with a ballot."""
        self._acts.append(
            {
                "ballot": act.ballot,
                "revision": act.revision,
                "kind": act.act,
                "winner": None if act.winner is None else act.winner.value,
                "details": dict(act.details),
                "seconds": act.seconds,
                "at": act.at,
            }
        )

    def flush(self, connection: sa.Connection) -> None:
        """Write what there is, in order.

        Raises:
            sqlalchemy.exc.IntegrityError: a ballot has such a revision already.
        """
        ballots, acts = self._ballots, self._acts
        self.clear()
        if ballots:
            connection.execute(_ADD_BALLOT, ballots)
        if acts:
            connection.execute(_ADD_ACT, acts)

    def clear(self) -> None:
        """Forget what was not written."""
        self._ballots, self._acts = [], []


def acts(connection: sa.Connection, ballot: str | None = None) -> Iterator[StoredAct]:
    """Acts in the order in which they came in, of one ballot or of all."""
    wanted = sa.select(VOTE).order_by(VOTE.c.seq)
    if ballot is not None:
        wanted = wanted.where(VOTE.c.ballot == ballot)
    for row in connection.execute(wanted):
        winner = None if row.winner is None else Outcome(row.winner)
        yield StoredAct(
            row.ballot, row.revision, row.kind, winner, row.details, row.seconds, row.at
        )


def ballots(connection: sa.Connection) -> list[Ballot]:
    """All ballots in the order of showing, each with the state its last act left."""
    found = {
        row.id: Ballot(
            row.id,
            row.number,
            row.person,
            row.pair,
            cast("Purpose", row.purpose),
            row.swapped,
            row.at,
        )
        for row in connection.execute(sa.select(BALLOT).order_by(BALLOT.c.number))
    }
    for act in acts(connection):
        apply_act(found[act.ballot], act)
    return list(found.values())


def apply_act(ballot: Ballot, act: StoredAct) -> None:
    """Change a ballot's state by an act on it."""
    ballot.revision = act.revision
    ballot.act = None if act.act == "undo" else cast("Literal['vote', 'skip']", act.act)
    ballot.winner, ballot.acted, ballot.seconds = act.winner, act.at, act.seconds


def audit(
    connection: sa.Connection, actor: str, action: str, details: Mapping[str, Json] | None = None
) -> None:
    """Append to the audit trail. Never give it a link or a key."""
    row = {"at": time.time(), "actor": actor, "action": action, "details": dict(details or {})}
    connection.execute(AUDIT.insert().values(**row))


def audit_trail(connection: sa.Connection, last: int = 200) -> list[tuple[float, str, str, Json]]:
    """The last entries, newest first: when, who, what, details."""
    wanted = sa.select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(last)
    return [(row.at, row.actor, row.action, row.details) for row in connection.execute(wanted)]
