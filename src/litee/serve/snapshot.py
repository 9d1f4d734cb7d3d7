"""A campaign's votes as they are in the database at one moment, for statistics and exports.

Knows nothing of what is done with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from litee.collect.vote_page import reason_text
from litee.records import Pair, Vote
from litee.serve import votes_store as store
from litee.serve.ballots import Ballot, Person, Question
from litee.serve.tables import VOTE


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything in the database.

    Attributes:
        questions: by number.
        people: by number.
        ballots: in order of showing, with their state.
        acts: all acts in order, taken back or not.
    """

    questions: tuple[Question, ...]
    people: Mapping[int, Person]
    ballots: tuple[Ballot, ...]
    acts: tuple[store.StoredAct, ...]

    def counted(self) -> list[Ballot]:
        """Ballots that are votes: no repeat, no check, not skipped or taken back, not excluded."""
        return [
            ballot
            for ballot in self.ballots
            if ballot.purpose == "vote"
            and ballot.act == "vote"
            and not self.people[ballot.person].excluded
        ]

    def votes(self) -> tuple[Vote, ...]:
        """The counted ballots as votes, in the order in which they were cast."""
        pairs: dict[int, Pair] = {q.number: q.pair for q in self.questions}
        details = {(act.ballot, act.revision): act.details for act in self.acts}
        found = []
        for ballot in sorted(self.counted(), key=lambda b: (b.acted, b.number)):
            assert ballot.winner is not None
            found.append(
                Vote(
                    ballot.id,
                    pairs[ballot.pair],
                    ballot.winner,
                    self.people[ballot.person].name,
                    reason=reason_text(details[ballot.id, ballot.revision]),
                )
            )
        return tuple(found)


def take_snapshot(reader: sa.Engine) -> Snapshot:
    """Read everything in one transaction."""
    with reader.connect() as connection:
        return Snapshot(
            tuple(store.questions(connection)),
            {person.number: person for person in store.people(connection)},
            tuple(store.ballots(connection)),
            tuple(store.acts(connection)),
        )


def last_act(reader: sa.Engine) -> int:
    """Number of the last act, to see cheaply whether anything changed."""
    with reader.connect() as connection:
        return int(connection.execute(sa.select(sa.func.max(VOTE.c.seq))).scalar() or 0)
