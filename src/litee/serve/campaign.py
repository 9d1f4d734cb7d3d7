"""A campaign: the database and the desk, kept in step. What the pages and the command line call.

Knows nothing of HTTP, links and pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from litee.errors import InputError
from litee.records import Outcome, Pair, Triple, Vote
from litee.rundir import Json
from litee.serve import votes_store as store
from litee.serve.ballots import (
    Ack,
    ActIn,
    Ballot,
    LiveAnswers,
    Person,
    Question,
    Tray,
    details_of,
    sheet_of,
    winner_of,
)
from litee.serve.committer import Committer
from litee.serve.desk import Desk
from litee.serve.tables import open_engine, reading
from litee.serve.vote_settings import VoteSettings

#: A name of a person may be this long.
MAX_NAME = 60


class Campaign:
    """Votes on pairs by people, in one database served by one process.

    Args:
        where: path of an SQLite file, or a PostgreSQL URL.
        settings: of the campaign.

    Raises:
        InputError: the database belongs to something else.
        ResourceError: it cannot be reached or written.
    """

    def __init__(self, where: str, settings: VoteSettings) -> None:
        self.settings = settings
        self.engine = open_engine(where)
        self.reader = reading(self.engine)
        self.desk = self._load()
        self._rows = store.Rows()
        self._committer = Committer(self.engine, self._reload, self._rows.flush)

    def close(self) -> None:
        """Store what is under way and close the database."""
        self._committer.close()
        self.engine.dispose()

    def _load(self) -> Desk:
        with self.reader.connect() as connection:
            return self._read(connection)

    def _read(self, connection: sa.Connection) -> Desk:
        return Desk(
            self.settings,
            store.questions(connection),
            store.people(connection),
            store.ballots(connection),
        )

    def _reload(self) -> None:
        self._rows.clear()
        self.desk = self._load()

    # -- pairs and people ------------------------------------------------------------------------

    def add_pairs(
        self, pairs: Sequence[Pair], *, checks: Sequence[tuple[Pair, Outcome]] = ()
    ) -> int:
        """Add pairs, and checks with their known winners, that are not there yet.

        Returns:
            How many pairs (without checks) are new.

        Raises:
            InputError: an id is there with another content.
        """

        def work(connection: sa.Connection) -> int:
            known = {q.pair.id: q.pair for q in self.desk.questions}
            new: list[Question] = []
            wanted: list[tuple[Pair, Outcome | None]] = [(pair, None) for pair in pairs]
            for pair, expected in [*wanted, *checks]:
                if "\x00" in pair.id + pair.model_a + pair.model_b + pair.source:
                    fix = "remove the NUL character from ids and names"
                    raise InputError(f"the pair {pair.id!r} has an unusable name", fix=fix)
                if pair.id not in known:
                    number = len(known)
                    kind = "vote" if expected is None else "check"
                    new.append(Question(number, pair, kind, expected))  # type: ignore[arg-type]
                    known[pair.id] = pair
                elif known[pair.id] != pair:
                    fix = "give every pair its own id, or start another database with --db"
                    raise InputError(f"the pair {pair.id!r} is there with another content", fix=fix)
            store.add_questions(connection, new)
            added = sum(q.kind == "vote" for q in new)
            if new:
                store.audit(connection, "owner", "pairs added", {"pairs": added})
            self.desk.add_questions(new)
            return added

        return self._committer.run(work)

    def set_judge(self, verdicts: Mapping[str, Triple]) -> None:
        """Keep a judge's probabilities on pairs, by the pairs' ids."""
        numbers = {q.pair.id: q.number for q in self.desk.questions}
        by_number = {numbers[name]: triple for name, triple in verdicts.items() if name in numbers}

        def work(connection: sa.Connection) -> None:
            store.set_judge(connection, by_number)
            self.desk = self._read(connection)

        self._committer.run(work)

    def person(self, name: str) -> Person:
        """The person of a name, added if there is none.

        Raises:
            InputError: the name is empty, too long or not printable.
        """
        clean = " ".join(name.split())
        if not clean or len(clean) > MAX_NAME or not clean.isprintable():
            fix = f"use 1 to {MAX_NAME} printable characters"
            raise InputError(f"{name[:80]!r} cannot be a person's name", fix=fix)

        def work(connection: sa.Connection) -> Person:
            for person in self.desk.people.values():
                if person.name == clean:
                    return person
            person = Person(len(self.desk.people), clean)
            store.add_person(connection, person)
            store.audit(connection, "owner", "person added", {"person": clean})
            self.desk.add_person(person)
            return person

        return self._committer.run(work)

    def change_person(
        self, number: int, *, excluded: bool | None = None, new_link: bool = False
    ) -> Person:
        """Exclude somebody's votes, take them in again, or make the old link useless.

        Raises:
            InputError: no such person.
        """

        def work(connection: sa.Connection) -> Person:
            old = self.desk.people.get(number)
            if old is None:
                raise InputError(f"there is no person {number}", fix="reload the page")
            person = replace(
                old,
                excluded=old.excluded if excluded is None else excluded,
                link=old.link + new_link,
            )
            store.change_person(connection, person)
            details: dict[str, Json] = {"person": old.name, "excluded": person.excluded}
            details["link renewed"] = new_link
            store.audit(connection, "owner", "person changed", details)
            self.desk.add_person(person)
            if person.excluded != old.excluded:  # whose votes fill a pair is counted anew
                self.desk = self._read(connection)
            return person

        return self._committer.run(work)

    def import_votes(self, rows: Sequence[tuple[Person, Vote, str]]) -> int:
        """Take over votes cast elsewhere: (person, vote, ballot id). Their pairs must be here.

        Returns:
            How many are new: a ballot that is there, or a person's second vote on a pair, is not.
        """

        def work(connection: sa.Connection) -> int:
            numbers = {q.pair.id: q.number for q in self.desk.questions}
            new = 0
            now = time.time()
            for person, vote, name in rows:
                pair = numbers[vote.pair.id]
                if name in self.desk.ballots or pair in self.desk.seats[person.number].asked:
                    continue
                number = len(self.desk.ballots)
                ballot = Ballot(name, number, person.number, pair, "vote", False, now)
                self._rows.add_ballot(ballot)
                details: dict[str, Json] = {"comment": vote.reason} if vote.reason else {}
                act = store.StoredAct(name, 1, "vote", vote.winner, details, None, now)
                self._rows.add_act(act)
                store.apply_act(ballot, act)
                self.desk.add_ballot(ballot)
                new += 1
            store.audit(connection, "owner", "votes imported", {"votes": new})
            return new

        return self._committer.run(work)

    def note(self, actor: str, action: str, details: Mapping[str, Json] | None = None) -> None:
        """Append to the audit trail."""
        self._committer.run(lambda connection: store.audit(connection, actor, action, details))

    # -- voting ----------------------------------------------------------------------------------

    async def act(self, person: int, acts: Sequence[ActIn] = ()) -> Tray:
        """Store what a person did, in order, and hand out what comes next.

        Every act gets an `Ack`; one that was stored before is acknowledged again and changes
        nothing, so a browser may send it as often as it likes. Without acts it is asking what comes
        next; asking again gives the same.

        Raises:
            ResourceError: nothing was stored; send it again.
        """
        return await self._committer.do(self._acting(person, acts), light=True)

    def act_now(self, person: int, acts: Sequence[ActIn] = ()) -> Tray:
        """As `act`, outside an event loop."""
        return self._committer.run(self._acting(person, acts), light=True)

    async def add_live(self, person: int, asked: LiveAnswers) -> str:
        """Keep a person's own question with its answers, as the next thing they judge.

        Returns:
            The id of the ballot.

        Raises:
            ResourceError: it could not be stored.
        """

        def work(connection: sa.Connection) -> str:
            number, now = len(self.desk.questions), time.time()
            ballot = self.desk.live_ballot(person, number, now)
            pair = Pair(
                f"live:{ballot.id}",
                (asked.prompt,),
                (asked.left,),
                (asked.right,),
                asked.left_system,
                asked.right_system,
                "live",
            )
            question = Question(number, pair.swapped() if ballot.swapped else pair, "live")
            store.add_questions(connection, [question])
            self._rows.add_ballot(ballot)
            self.desk.add_questions([question])
            self.desk.add_ballot(ballot)
            return ballot.id

        return await self._committer.do(work)

    def _acting(self, person: int, acts: Sequence[ActIn]) -> Callable[[sa.Connection], Tray]:
        def work(connection: sa.Connection) -> Tray:
            now = time.time()
            acks = tuple(self._one(connection, person, act, now) for act in acts)
            waiting = self.desk.waiting(person)
            while len(waiting) < self.settings.ahead:
                ballot = self.desk.next_ballot(person, now)
                if ballot is None:
                    break
                self._rows.add_ballot(ballot)
                self.desk.add_ballot(ballot)
                waiting = self.desk.waiting(person)
            sheets = tuple(sheet_of(self.desk.questions[b.pair], b) for b in waiting)
            return Tray(sheets, self.desk.progress(person, now), acks)

        return work

    def _one(self, connection: sa.Connection, person: int, act: ActIn, now: float) -> Ack:
        ballot = self.desk.ballots.get(act.ballot)
        if ballot is None or ballot.person != person:
            return Ack(act.ballot, act.revision, "refused")
        stored = store.StoredAct(
            ballot.id,
            act.revision,
            act.act,
            winner_of(act, swapped=ballot.swapped),
            details_of(act, swapped=ballot.swapped),
            act.seconds,
            now,
        )
        if act.revision <= ballot.revision:
            self._rows.flush(connection)
            earlier = next(
                old for old in store.acts(connection, ballot.id) if old.revision == act.revision
            )
            same = (earlier.act, earlier.winner, dict(earlier.details)) == (
                stored.act,
                stored.winner,
                dict(stored.details),
            )
            return Ack(act.ballot, act.revision, "again" if same else "conflict")
        undoes = act.act == "undo"
        if act.revision != ballot.revision + 1 or undoes != (ballot.act is not None):
            return Ack(act.ballot, act.revision, "refused")
        self._rows.add_act(stored)
        before = ballot.act
        store.apply_act(ballot, stored)
        self.desk.acted(ballot, before)
        return Ack(act.ballot, act.revision, "saved")

    def ballots_of(self, person: int) -> list[Ballot]:
        """A person's ballots in order of showing."""
        return [ballot for ballot in self.desk.ballots.values() if ballot.person == person]
