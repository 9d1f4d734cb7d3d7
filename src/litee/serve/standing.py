"""What the owner sees: pace, agreement, leaderboard, the judge against people, odd voters.

Figures come from `litee.score`; every one has its interval or the reason why there is none. Knows
nothing of pages.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from litee.collect.pairs import gather
from litee.errors import InputError
from litee.records import Score, VotedPair
from litee.score.ceiling import agreement, vote_counts
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats, Truth, metric_rows
from litee.score.ranking import Ranking, bouts_of, rank
from litee.score.raters import alpha_score, mean_kappa
from litee.serve.ballots import GRADES, LONGEST
from litee.serve.snapshot import Snapshot
from litee.serve.voters import VoterRow, voter_rows

#: Resamples behind the owner's intervals: fewer than in reports, because they are always fresh.
RESAMPLES = 400
HOURS = 24


@dataclass(frozen=True, slots=True)
class GradeRow:
    """How often a system's answers failed, passed and excelled.

    Attributes:
        system: its name.
        counts: of fail, pass, excellent.
    """

    system: str
    counts: tuple[int, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of fail, pass, excellent.

        >>> GradeRow("x", (1, 2, 1)).shares
        (0.25, 0.5, 0.25)
        """
        return tuple(count / sum(self.counts) for count in self.counts)


@dataclass(frozen=True, slots=True)
class Standing:
    """The owner's figures at one moment.

    Attributes:
        votes: that count.
        live: those of them on people's own questions.
        wanted: votes wanted on all pairs.
        pairs: to judge.
        pairs_done: with as many votes as are wanted.
        acts: votes, skips and undos of all kinds.
        skipped: ballots that were skipped.
        last_hour: votes in the last hour.
        per_hour: votes in each of the last 24 hours, the current one last.
        seconds: median time per vote, None before the first.
        three_way: share of vote pairs that agree.
        decisive: the same where both are decisive.
        alpha: Krippendorff's.
        kappa: Cohen's, averaged.
        own: agreement of people with themselves on hidden repeats.
        outcomes: votes by a, b, tie, both_bad.
        left_share: of decisive votes, those for the left side.
        ranking: the leaderboard, or why there is none.
        judge: metric → the judge against people; empty without a judge.
        judged_pairs: voted pairs with a judge's verdict.
        grades: by system, in grade mode.
        voters: one row per person.
        at: when this was computed.
    """

    votes: int
    live: int
    wanted: int
    pairs: int
    pairs_done: int
    acts: int
    skipped: int
    last_hour: int
    per_hour: tuple[int, ...]
    seconds: float | None
    three_way: Score
    decisive: Score
    alpha: Score
    kappa: Score
    own: Score
    outcomes: tuple[tuple[str, int], ...]
    left_share: Score
    ranking: Ranking | str
    judge: tuple[tuple[str, Score], ...]
    judged_pairs: int
    grades: tuple[GradeRow, ...]
    voters: tuple[VoterRow, ...]
    at: float


def standing(snapshot: Snapshot, *, people_per_pair: int, now: float | None = None) -> Standing:
    """All of the owner's figures.

    Args:
        snapshot: of the database.
        people_per_pair: votes wanted on each pair.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    counted = snapshot.counted()
    voted = gather(snapshot.votes())
    groups = _prompt_groups(voted)
    bootstrap = GroupBootstrap(groups, seed=0, resamples=RESAMPLES) if voted else None
    per_pair = Counter(ballot.pair for ballot in counted)
    asked = [q for q in snapshot.questions if q.kind == "vote"]
    times = [min(b.seconds, LONGEST) for b in counted if b.seconds is not None]
    voters = voter_rows(snapshot)
    judge, judged = _judge(snapshot, voted, groups)
    three_way, decisive, alpha = _agreement(voted, bootstrap)
    return Standing(
        votes=len(counted),
        live=sum(snapshot.questions[b.pair].kind == "live" for b in counted),
        wanted=len(asked) * people_per_pair,
        pairs=len(asked),
        pairs_done=sum(per_pair[q.number] >= people_per_pair for q in asked),
        acts=len(snapshot.acts),
        skipped=sum(b.act == "skip" for b in snapshot.ballots),
        last_hour=sum(b.acted > now - 3600 for b in counted if not b.imported),
        per_hour=_per_hour([b.acted for b in counted if not b.imported], now),
        seconds=statistics.median(times) if times else None,
        three_way=three_way,
        decisive=decisive,
        alpha=alpha,
        kappa=mean_kappa(_by_person(snapshot)),
        own=_own(voters),
        outcomes=_outcomes(snapshot),
        left_share=_left_share(voters),
        ranking=_ranking(voted, groups),
        judge=judge,
        judged_pairs=judged,
        grades=_grades(snapshot),
        voters=voters,
        at=now,
    )


def _prompt_groups(voted: Sequence[VotedPair]) -> list[int]:
    """Equal prompts share a group; near ones are left to the reports."""
    numbers: dict[tuple[str, ...], int] = {}
    return [numbers.setdefault(v.pair.prompt, len(numbers)) for v in voted]


def _agreement(
    voted: Sequence[VotedPair], bootstrap: GroupBootstrap | None
) -> tuple[Score, Score, Score]:
    if bootstrap is None:
        none = Score(None, reason="no votes yet")
        return none, none, none
    found = agreement(voted, bootstrap)
    return found.three_way, found.decisive, alpha_score(vote_counts(voted), bootstrap)


def _by_person(snapshot: Snapshot) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for ballot in snapshot.counted():
        assert ballot.winner is not None
        found[snapshot.people[ballot.person].name][ballot.pair] = ballot.winner.class_index
    return found


def _own(voters: Sequence[VoterRow]) -> Score:
    repeats = sum(v.repeats for v in voters if not v.excluded)
    same = sum(v.repeats_same for v in voters if not v.excluded)
    if not repeats:
        return Score(None, reason="no hidden repeat was judged yet")
    return share_score(same, repeats)


def _left_share(voters: Sequence[VoterRow]) -> Score:
    left = sum(v.left for v in voters if not v.excluded)
    right = sum(v.right for v in voters if not v.excluded)
    if not left + right:
        return Score(None, reason="no decisive vote yet")
    return share_score(left, left + right)


def share_score(k: int, n: int) -> Score:
    """A share with its Wilson interval (Wilson 1927).

    >>> found = share_score(5, 10)
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (0.5, 0.237, 0.763)
    """
    z = 1.959963984540054
    middle = (k + z * z / 2) / (n + z * z)
    half = z * np.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return Score(k / n, float(max(0.0, middle - half)), float(min(1.0, middle + half)))


def _per_hour(times: Sequence[float], now: float) -> tuple[int, ...]:
    """Votes in each of the last hours, oldest first.

    >>> _per_hour([7100.0, 3599.0], 7200.0)[-2:]
    (1, 1)
    """
    counts = [0] * HOURS
    for at in times:
        age = int((now - at) // 3600)
        if 0 <= age < HOURS:
            counts[HOURS - 1 - age] += 1
    return tuple(counts)


def _outcomes(snapshot: Snapshot) -> tuple[tuple[str, int], ...]:
    counts = Counter(b.winner.value for b in snapshot.counted() if b.winner is not None)
    return tuple((name, counts[name]) for name in ("a", "b", "tie", "both_bad"))


def _ranking(voted: Sequence[VotedPair], groups: Sequence[int]) -> Ranking | str:
    if not voted:
        return "no votes yet"
    try:
        return rank(bouts_of(voted, groups), resamples=RESAMPLES)
    except InputError:
        return "a leaderboard needs pairs of at least two named systems"


def _judge(
    snapshot: Snapshot, voted: Sequence[VotedPair], groups: Sequence[int]
) -> tuple[tuple[tuple[str, Score], ...], int]:
    """The judge's accuracy and log loss on people's votes, next to a constant prediction's."""
    known = {q.pair.id: q.judge for q in snapshot.questions if q.judge is not None}
    rows = [
        (v, known[v.pair.id], g) for v, g in zip(voted, groups, strict=True) if v.pair.id in known
    ]
    if not rows:
        return (), 0
    truth = Truth.of([v for v, _, _ in rows])
    p: Floats = np.array([judged for _, judged, _ in rows], dtype=float)
    resampled = GroupBootstrap([g for *_, g in rows], seed=0, resamples=RESAMPLES).resample(
        metric_rows(p / p.sum(axis=1, keepdims=True), truth)
    )
    names = ("accuracy", "accuracy_decisive", "log_loss")
    return tuple((name, resampled.score(name)) for name in names), len(rows)


def _grades(snapshot: Snapshot) -> tuple[GradeRow, ...]:
    """Grades per system, best share of excellent first; empty when nothing was graded."""
    details = {(act.ballot, act.revision): act.details for act in snapshot.acts}
    counts: dict[str, list[int]] = {}
    for ballot in snapshot.counted():
        pair = snapshot.questions[ballot.pair].pair
        for letter, system in (("a", pair.model_a), ("b", pair.model_b)):
            notes = details[ballot.id, ballot.revision].get(letter)
            grade = notes.get("grade") if isinstance(notes, dict) else None
            if grade in GRADES:
                counts.setdefault(system or "(no name)", [0] * len(GRADES))[
                    GRADES.index(grade)
                ] += 1
    rows = [GradeRow(system, tuple(found)) for system, found in counts.items()]
    return tuple(sorted(rows, key=lambda row: row.shares[::-1], reverse=True))
