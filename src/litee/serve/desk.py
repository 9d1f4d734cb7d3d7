"""The state of a campaign in memory: who was asked what, what is under way, what comes next.

It mirrors the database, from which it is built, and changes only together with it. Sides, order,
repeats and checks follow from the seed and the number of ballots. Knows nothing of databases,
links and pages.
"""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from litee.records import Outcome
from litee.serve import choosing
from litee.serve.ballots import LONGEST, Ballot, Person, Progress, Purpose, Question
from litee.serve.vote_settings import VoteSettings

#: A repeat comes at least this many ballots after its first showing.
GAP = 8
#: The first ballots of a person are neither repeats nor checks.
CALM_START = 12
#: Votes after which the strengths behind `informative` are fitted anew.
REFIT = 10
#: Seconds after which ballots that wait too long are looked for again.
SWEEP = 30.0


@dataclass(slots=True)
class _Seat:
    """One person's ballots: waiting for an act (in order), done (in order), pairs by purpose."""

    waiting: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)
    repeated: set[int] = field(default_factory=set)
    checked: set[int] = field(default_factory=set)
    times: list[float] = field(default_factory=list)


class Desk:
    """Hands out ballots and counts what comes back.

    Args:
        settings: of the campaign.
        questions: all pairs, numbered from 0.
        people: all people.
        ballots: all ballots in order of showing, with their state.
    """

    def __init__(
        self,
        settings: VoteSettings,
        questions: Sequence[Question],
        people: Sequence[Person],
        ballots: Sequence[Ballot],
    ) -> None:
        self.settings = settings
        self.questions: list[Question] = []
        self.people = {person.number: person for person in people}
        self.ballots: dict[str, Ballot] = {}
        self.seats: dict[int, _Seat] = {person.number: _Seat() for person in people}
        self._systems: dict[str, int] = {}
        self._pairs = np.empty((0, 2), dtype=int)
        self._main = np.empty(0, dtype=bool)
        self._checks: list[int] = []
        self._votes = np.empty(0, dtype=int)
        self._held = np.empty(0, dtype=int)
        self._judge = np.empty((0, 3))
        self._swept = 0.0
        self._lives = 0  # questions asked since the start, so that each draws anew
        self._since_fit = REFIT
        self._strengths: choosing.Strengths | None = None
        self.add_questions(questions)
        for ballot in ballots:
            self.add_ballot(ballot)

    # -- what is there ---------------------------------------------------------------------------

    def add_questions(self, questions: Sequence[Question]) -> None:
        """Put new pairs on the desk."""
        if not questions:
            return
        self.questions += questions
        rows = [[self._system(q.pair.model_a), self._system(q.pair.model_b)] for q in questions]
        self._pairs = np.concatenate([self._pairs, np.array(rows, dtype=int)])
        main = np.array([q.kind == "vote" for q in questions])
        self._main = np.concatenate([self._main, main])
        self._checks += [q.number for q in questions if q.kind == "check"]
        none = np.zeros(len(questions), dtype=int)
        self._votes = np.concatenate([self._votes, none])
        self._held = np.concatenate([self._held, none])
        judged = [q.judge or (np.nan, np.nan, np.nan) for q in questions]
        self._judge = np.concatenate([self._judge, np.array(judged, dtype=float)])
        self._strengths = None

    def _system(self, name: str) -> int:
        return self._systems.setdefault(name, len(self._systems)) if name else -1

    def add_person(self, person: Person) -> None:
        """Give somebody a seat, or change who sits there."""
        self.people[person.number] = person
        self.seats.setdefault(person.number, _Seat())

    def add_ballot(self, ballot: Ballot) -> None:
        """Take a ballot with whatever state it has."""
        self.ballots[ballot.id] = ballot
        seat = self.seats[ballot.person]
        {"vote": seat.asked, "repeat": seat.repeated, "check": seat.checked}[ballot.purpose].add(
            ballot.pair
        )
        if ballot.act is None:
            self._wait(ballot)
        else:
            self._finish(ballot)

    def _counts(self, ballot: Ballot) -> bool:
        return ballot.purpose == "vote" and not self.people[ballot.person].excluded

    def _wait(self, ballot: Ballot, *, first: bool = False) -> None:
        waiting = self.seats[ballot.person].waiting
        waiting.insert(0 if first else len(waiting), ballot.id)
        self._held[ballot.pair] += self._counts(ballot)

    def _finish(self, ballot: Ballot) -> None:
        seat = self.seats[ballot.person]
        seat.done.append(ballot.id)
        if ballot.seconds is not None:
            seat.times.append(min(ballot.seconds, LONGEST))
        if ballot.act == "vote" and self._counts(ballot):
            self._votes[ballot.pair] += 1
            self._since_fit += 1

    def acted(self, ballot: Ballot, before: str | None) -> None:
        """Bring the desk in line with a ballot whose state has just changed.

        Args:
            ballot: with its new state.
            before: its act before the change.
        """
        seat = self.seats[ballot.person]
        if before is None:
            seat.waiting.remove(ballot.id)
            self._held[ballot.pair] -= self._counts(ballot)
            self._finish(ballot)
            return
        seat.done.remove(ballot.id)
        if before == "vote" and self._counts(ballot):
            self._votes[ballot.pair] -= 1
            self._since_fit = REFIT
        self._wait(ballot, first=True)

    # -- what comes next -------------------------------------------------------------------------

    def waiting(self, person: int) -> list[Ballot]:
        """Ballots a person has been given and not acted on, in order."""
        return [self.ballots[name] for name in self.seats[person].waiting]

    def last_act(self, person: int) -> Ballot | None:
        """The ballot a person acted on last, None before the first."""
        done = [self.ballots[name] for name in self.seats[person].done]
        own = [ballot for ballot in done if not ballot.imported]
        return max(own, key=lambda ballot: (ballot.acted, ballot.number), default=None)

    def next_ballot(self, person: int, now: float) -> Ballot | None:
        """A new ballot for a person, not yet on the desk; None when there is nothing to ask.

        Repeats and checks come only between pairs that are asked for their own sake.
        """
        seat = self.seats[person]
        rng = np.random.default_rng([self.settings.seed, len(self.ballots)])
        open_pairs = self._eligible(seat, now)
        if not len(open_pairs):
            return None
        purpose, pair = self._special(seat, rng)
        if pair is None:
            purpose, pair = "vote", int(open_pairs[self._choose(open_pairs, rng)])
        swapped = bool(rng.random() < 0.5)
        if purpose == "repeat":
            swapped = not self._first_showing(seat, pair).swapped
        name = secrets.token_urlsafe(12)
        return Ballot(name, len(self.ballots), person, pair, purpose, swapped, now)

    def _eligible(self, seat: _Seat, now: float) -> choosing.Ints:
        """Numbers of the pairs a person may be asked about."""
        limit = self.settings.per_person
        if limit and len(seat.asked) >= limit:
            return np.empty(0, dtype=int)
        if now - self._swept > SWEEP:
            self._sweep(now)
        wanted = self._taken() < self.settings.people_per_pair
        wanted &= self._main
        if seat.asked:
            wanted[list(seat.asked)] = False
        return np.flatnonzero(wanted)

    def _taken(self) -> choosing.Ints:
        """(n,) votes on each pair, with those under way."""
        return np.asarray(self._votes + np.maximum(self._held, 0))

    def _sweep(self, now: float) -> None:
        """Count anew which pairs are held by ballots that are not too old."""
        self._swept = now
        self._held[:] = 0
        oldest = now - 60 * self.settings.hold_minutes
        for ballot in self.ballots.values():
            if ballot.act is None and ballot.at >= oldest and self._counts(ballot):
                self._held[ballot.pair] += 1

    def _special(self, seat: _Seat, rng: np.random.Generator) -> tuple[Purpose, int | None]:
        """A check or a repeat, now and then."""
        draw = float(rng.random())
        if len(seat.asked) < CALM_START:
            return "vote", None
        if draw < self.settings.checks:
            left = [k for k in self._checks if k not in seat.checked]
            if left:
                return "check", int(rng.choice(left))
        elif draw < self.settings.checks + self.settings.repeats:
            ready = [
                self.ballots[name].pair
                for name in seat.done[: max(0, len(seat.done) - GAP)]
                if self.ballots[name].purpose == "vote"
                and self.ballots[name].act == "vote"
                and not self.ballots[name].imported
            ]
            ready = [pair for pair in ready if pair not in seat.repeated]
            if ready:
                return "repeat", int(rng.choice(ready))
        return "vote", None

    def _first_showing(self, seat: _Seat, pair: int) -> Ballot:
        shown = (self.ballots[name] for name in seat.done)
        return next(b for b in shown if b.pair == pair and b.purpose == "vote")

    def _choose(self, open_pairs: choosing.Ints, rng: np.random.Generator) -> int:
        choice = self.settings.choice
        if choice == "random":
            return int(rng.integers(len(open_pairs)))
        all_taken = self._taken()
        taken = all_taken[open_pairs]
        judged = np.isfinite(self._judge[open_pairs]).all(axis=1)
        systems = self._pairs[open_pairs]
        if choice == "informative" and judged.all():
            gain = choosing.judge_gain(self._judge[open_pairs], taken)
            return choosing.pick(gain, rng)
        if choice == "informative" and len(self._systems) > 1 and (systems >= 0).all():
            gain = choosing.ranking_gain(self._known_strengths(), systems) / (1 + taken)
            return choosing.pick(gain, rng)
        return choosing.pick(choosing.fewest(taken, systems, self._exposure(all_taken)), rng)

    def _exposure(self, taken: choosing.Ints) -> choosing.Floats:
        """(s + 1,) votes on pairs of each system; −1 finds the last entry: no name."""
        counts = [
            np.bincount(side + 1, weights=taken, minlength=len(self._systems) + 1)
            for side in self._pairs.T
        ]
        return np.append((counts[0] + counts[1])[1:], 0.0)

    def _known_strengths(self) -> choosing.Strengths:
        """Strengths by the votes so far, with those under way as draws."""
        if self._strengths is None or self._since_fit >= REFIT:
            s = len(self._systems)
            wins = np.zeros((s, s))
            for ballot in self.ballots.values():
                a, b = self._pairs[ballot.pair]
                if min(a, b) < 0 or a == b or not self._counts(ballot) or ballot.act == "skip":
                    continue
                share = {Outcome.A: 1.0, Outcome.B: 0.0}.get(ballot.winner or Outcome.TIE, 0.5)
                wins[a, b] += share
                wins[b, a] += 1 - share
            self._strengths, self._since_fit = choosing.map_strengths(wins), 0
        return self._strengths

    # -- people's own questions ------------------------------------------------------------------

    def may_ask(self, person: int) -> bool:
        """Whether a person has not yet judged as many pairs as one person is asked about."""
        limit = self.settings.per_person
        return not limit or len(self.seats[person].asked) < limit

    def live_systems(self, names: Sequence[str]) -> tuple[str, str]:
        """Which two systems answer next, left and right; chosen as pairs are."""
        rng = np.random.default_rng([self.settings.seed, len(self.questions), self._lives])
        self._lives += 1
        known = len(self._systems)
        numbers = [self._system(name) for name in names]
        if len(self._systems) != known:
            self._strengths = None
        two = np.array(list(combinations(numbers, 2)))
        if self.settings.choice == "random":
            chosen = int(rng.integers(len(two)))
        elif self.settings.choice == "informative":
            gain = choosing.ranking_gain(self._known_strengths(), two)
            chosen = choosing.pick(gain, rng)
        else:
            met = np.sort(self._pairs, axis=1)
            counts = np.array([(met == np.sort(row)).all(axis=1).sum() for row in two])
            best = choosing.fewest(counts, two, self._exposure(self._taken()))
            chosen = choosing.pick(best, rng)
        back = {number: name for name, number in self._systems.items()}
        first, second = (back[int(number)] for number in rng.permutation(two[chosen]))
        return first, second

    def live_ballot(self, person: int, pair: int, now: float) -> Ballot:
        """A ballot for a person's own question, not yet on the desk."""
        rng = np.random.default_rng([self.settings.seed, len(self.ballots)])
        name = secrets.token_urlsafe(12)
        swapped = bool(rng.random() < 0.5)
        return Ballot(name, len(self.ballots), person, pair, "vote", swapped, now)

    # -- how far ---------------------------------------------------------------------------------

    def progress(self, person: int, now: float) -> Progress:
        """How far a person is; `left` includes what is waiting."""
        seat = self.seats[person]
        left = len(self._eligible(seat, now))
        if self.settings.per_person:
            left = min(left, max(0, self.settings.per_person - len(seat.asked)))
        times = seat.times[-50:]
        seconds = statistics.median(times) if len(times) >= 3 else None
        return Progress(len(seat.done), left + len(seat.waiting), seconds)
