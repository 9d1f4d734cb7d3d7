"""One row per person: pace, self-agreement, checks, agreement with others, and what looks odd.

A flag is a reason to look, not a verdict. Knows nothing of pages.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass

from scipy.stats import binom, binomtest

from litee.records import Outcome
from litee.serve.ballots import LONGEST, Ballot, Person
from litee.serve.snapshot import Snapshot

#: Chance below which something is called odd: one person in a thousand is flagged by accident.
ODD = 0.001
#: Median seconds per vote below which nobody has read two answers.
HASTY = 2.0
#: Votes before pace and sides are looked at.
ENOUGH = 10


@dataclass(frozen=True, slots=True)
class VoterRow:
    """One person's figures.

    Attributes:
        number: of the person.
        name: of the person.
        excluded: by the owner.
        votes: that count (or would, if not excluded).
        seconds: median time per vote, None before the first.
        left: decisive votes for the left side.
        right: decisive votes for the right side.
        repeats: hidden repeats judged.
        repeats_same: of them, judged as the first time.
        checks: attention checks judged.
        checks_passed: of them, judged as expected (both bad passes too).
        others: votes on pairs that others judged as well.
        others_same: of them, equal to what most others said (a shared lead counts in part).
        flags: what looks odd, in words.
    """

    number: int
    name: str
    excluded: bool
    votes: int
    seconds: float | None
    left: int
    right: int
    repeats: int
    repeats_same: int
    checks: int
    checks_passed: int
    others: int
    others_same: float
    flags: tuple[str, ...] = ()


def voter_rows(snapshot: Snapshot) -> tuple[VoterRow, ...]:
    """Rows of all people, most votes first."""
    done: dict[int, list[Ballot]] = defaultdict(list)
    per_pair: dict[int, Counter[int]] = defaultdict(Counter)
    for ballot in snapshot.ballots:
        if ballot.act != "vote" or ballot.winner is None:
            continue
        done[ballot.person].append(ballot)
        if ballot.purpose == "vote" and not snapshot.people[ballot.person].excluded:
            per_pair[ballot.pair][ballot.winner.class_index] += 1
    rows = [
        _row(snapshot, person, done[person.number], per_pair) for person in snapshot.people.values()
    ]
    usual = _usual(rows)
    flagged = [_flagged(row, usual) for row in rows]
    return tuple(sorted(flagged, key=lambda row: (-row.votes, row.name)))


def _row(
    snapshot: Snapshot,
    person: Person,
    ballots: list[Ballot],
    per_pair: dict[int, Counter[int]],
) -> VoterRow:
    votes = [b for b in ballots if b.purpose == "vote"]
    first = {b.pair: b.winner for b in votes}
    repeats = [b for b in ballots if b.purpose == "repeat" and b.pair in first]
    checks = [b for b in ballots if b.purpose == "check"]
    expected = [snapshot.questions[b.pair].expected for b in checks]
    times = [min(b.seconds, LONGEST) for b in ballots if b.seconds is not None]
    left = sum(_left(b) is True for b in ballots)
    others, same = _with_others(votes, per_pair, counted=not person.excluded)
    return VoterRow(
        person.number,
        person.name,
        person.excluded,
        len(votes),
        statistics.median(times) if times else None,
        left,
        sum(_left(b) is False for b in ballots),
        len(repeats),
        sum(_class(b) == _class_of(first[b.pair]) for b in repeats),
        len(checks),
        sum(
            b.winner in (wanted, Outcome.BOTH_BAD)
            for b, wanted in zip(checks, expected, strict=True)
        ),
        others,
        same,
    )


def _class_of(winner: Outcome | None) -> int:
    return -1 if winner is None else winner.class_index


def _class(ballot: Ballot) -> int:
    return _class_of(ballot.winner)


def _left(ballot: Ballot) -> bool | None:
    """Whether the left side won; None without a winner of the two."""
    if ballot.imported or ballot.winner not in (Outcome.A, Outcome.B):
        return None
    return (ballot.winner is Outcome.A) != ballot.swapped


def _with_others(
    votes: list[Ballot], per_pair: dict[int, Counter[int]], *, counted: bool
) -> tuple[int, float]:
    """Votes on pairs that others judged, and how many equal what most others said."""
    seen, same = 0, 0.0
    for ballot in votes:
        rest = Counter(per_pair[ballot.pair])
        if counted:
            rest[_class(ballot)] -= 1
        rest = +rest
        if rest:
            best = [k for k, n in rest.items() if n == max(rest.values())]
            seen += 1
            same += (_class(ballot) in best) / len(best)
    return seen, same


def _usual(rows: list[VoterRow]) -> float | None:
    """How often people say what most others say, over all of them."""
    seen = sum(row.others for row in rows if not row.excluded)
    return sum(row.others_same for row in rows if not row.excluded) / seen if seen else None


def _flagged(row: VoterRow, usual: float | None) -> VoterRow:
    flags = []
    if row.checks >= 2 and row.checks_passed < 2 * row.checks / 3:
        flags.append(f"passed {row.checks_passed} of {row.checks} attention checks")
    if row.votes >= ENOUGH and row.seconds is not None and row.seconds < HASTY:
        flags.append(f"median of {row.seconds:.1f} s per vote")
    sides = row.left + row.right
    if sides >= ENOUGH and binomtest(row.left, sides).pvalue < ODD:
        flags.append(f"chose the left side {row.left} of {sides} times")
    if row.repeats >= 5 and binom.cdf(row.repeats_same, row.repeats, 0.75) < ODD:
        flags.append(f"judged {row.repeats_same} of {row.repeats} repeats as before")
    alone = usual is not None and row.others >= ENOUGH
    if alone and binom.cdf(round(row.others_same), row.others, usual) < ODD:
        share = row.others_same / row.others
        flags.append(f"agrees with others on {share:.0%}, all people on {usual:.0%}")
    values = {name: getattr(row, name) for name in VoterRow.__slots__ if name != "flags"}
    return VoterRow(**values, flags=tuple(flags))
