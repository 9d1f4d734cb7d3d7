"""Drafts to votes and pairs: ids checked, votes on one pair brought together, oddities counted.

Knows nothing of files and layouts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from litee.collect.cells import (
    DUPLICATE,
    EMPTY_ANSWER,
    EMPTY_PROMPT,
    FIXES,
    LONG_ANSWER,
    NO_WINNER,
    READS_NAN,
    REPEATED_VOTER,
    SAME_ANSWERS,
    SAME_BUT_WINNER,
    Ballot,
    Draft,
    Row,
    Turns,
    shorten,
)
from litee.errors import InputError
from litee.records import Dropped, Outcome, Pair, Vote

_LONG = 100_000
_EXAMPLES = 5


def _notes(draft: Draft) -> Iterator[str]:
    """What is odd about a usable draft."""
    yield from draft.notes
    answers = draft.response_a + draft.response_b
    if any(not turn.strip() for turn in answers):
        yield EMPTY_ANSWER
    if any(not turn.strip() for turn in draft.prompt):
        yield EMPTY_PROMPT
    if any(len(turn) > _LONG for turn in answers):
        yield LONG_ANSWER
    if any(turn in {"nan", "NaN"} for turn in answers):
        yield READS_NAN
    if draft.response_a == draft.response_b:
        yield SAME_ANSWERS


@dataclass(slots=True)
class Tally:
    """Counts and examples by reason, while reading."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Count one row and keep its place as an example while there are few."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        places = self.examples.get(reason, ())
        if len(places) < _EXAMPLES:
            self.examples[reason] = (*places, place)

    def frozen(self) -> Dropped:
        """The counts so far."""
        return Dropped(dict(self.counts), dict(self.examples))


@dataclass(slots=True)
class _Known:
    """What is remembered of an id: its content, its place, and how often it occurred."""

    content: bytes
    place: str
    times: int = 1


class Gathering:
    """Votes and pairs as they come in; holds what is needed to recognise repeats."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.votes: list[Vote] = []
        self.pairs: list[Pair] = []
        self.taken = 0
        self.dropped = Tally()
        self.noticed = Tally()
        self._by_content: dict[bytes, Pair] = {}
        self._by_id: dict[str, Pair] = {}
        self._pair_ids: dict[str, _Known] = {}
        self._row_ids: dict[str, _Known] = {}
        self._rows: set[tuple[bytes | str, tuple[Ballot, ...]]] = set()
        self._voters: set[tuple[str, str]] = set()

    def drop(self, reason: str, row: Row) -> None:
        """Count a row that is not used."""
        if self.strict:
            raise InputError(reason, place=row.place, fix=FIXES[reason])
        self.dropped.add(reason, row.place)

    def notice(self, reason: str, row: Row) -> None:
        """Count an odd row that is used."""
        if self.strict:
            fix = "mend or remove the row, or read without --strict to keep it"
            raise InputError(reason, place=row.place, fix=fix)
        self.noticed.add(reason, row.place)

    def add_votes(self, row: Row, draft: Draft, labels: Mapping[str, Outcome], stem: str) -> None:
        """Take a row's votes, unless it repeats an earlier row."""
        outcomes = [self._outcome(row, ballot, labels) for ballot in draft.ballots]
        if not outcomes or any(outcome is None for outcome in outcomes):
            self.drop(NO_WINNER, row)
            return
        source = stem if draft.source is None else draft.source
        content = _digest(draft, source)
        self._check_pair_id(row, draft, content)
        vote_id = self._vote_id(row, draft, content, stem)
        if vote_id is None:
            self.drop(DUPLICATE, row)
            return
        pair = self._pair(draft, source, content, vote_id)
        for reason in dict.fromkeys(self._odd(draft, pair, outcomes)):
            self.notice(reason, row)
        several = len(draft.ballots) > 1
        for number, (ballot, outcome) in enumerate(
            zip(draft.ballots, outcomes, strict=True), start=1
        ):
            assert outcome is not None
            one = f"{vote_id}#{number}" if several else vote_id
            vote = Vote(one, pair, outcome, ballot.annotator, ballot.weight, ballot.reason)
            self.votes.append(vote)

    def add_pair(self, row: Row, draft: Draft, stem: str) -> None:
        """Take a row's pair for prediction, unless its pair id was seen with the same content."""
        source = stem if draft.source is None else draft.source
        content = _digest(draft, source)
        name = draft.pair_id or draft.id or f"{stem}:{row.number}"
        if self._check_id(self._pair_ids, row, name, content) is None:
            self._pair_ids[name] = _Known(content, row.place)
            self.pairs.append(_make_pair(name, draft, source))

    def take_pairs(self, window: int | None) -> Iterator[Pair]:
        """Hand out the pairs taken so far, and forget all but the last `window` ids."""
        self.taken += len(self.pairs)
        yield from self.pairs
        self.pairs.clear()
        if window is not None and len(self._pair_ids) > 2 * window:
            self._pair_ids = dict(list(self._pair_ids.items())[-window:])

    def _outcome(self, row: Row, ballot: Ballot, labels: Mapping[str, Outcome]) -> Outcome | None:
        if ballot.label is None:
            return None
        outcome = labels.get(ballot.label)
        if outcome is None:
            allowed = ", ".join(labels)
            raise InputError(
                f"unknown label {shorten(ballot.label)} for the winner (allowed: {allowed})",
                place=row.place,
                fix="correct the label, or map yours with litee data convert FILE votes.jsonl "
                "--labels left=a,right=b",
            )
        return outcome

    def _check_pair_id(self, row: Row, draft: Draft, content: bytes) -> None:
        if draft.pair_id:
            known = self._check_id(self._pair_ids, row, draft.pair_id, content)
            if known is None:
                self._pair_ids[draft.pair_id] = _Known(content, row.place)

    def _check_id(
        self, known_ids: Mapping[str, _Known], row: Row, name: str, content: bytes
    ) -> _Known | None:
        known = known_ids.get(name)
        if known is not None and known.content != content:
            problem = f"the id {shorten(name)} has another content than in {known.place}"
            fix = "give every pair its own id, or remove one of the rows"
            raise InputError(problem, place=row.place, fix=fix)
        return known

    def _vote_id(self, row: Row, draft: Draft, content: bytes, stem: str) -> str | None:
        """An unused id for the row's votes, or None when the row repeats an earlier one.

        Rows with an id repeat when the id, the content and the vote agree; rows without one when
        the content, the vote and the (known) annotator agree.
        """
        key = (draft.id or content, draft.ballots)
        repeated = key in self._rows
        self._rows.add(key)
        if not draft.id:
            single = len(draft.ballots) == 1
            listed = draft.pair_id and not single  # a row that holds all votes on its pair
            if repeated and (listed or _voter_known(draft)):
                return None
            name = draft.pair_id if draft.pair_id and not single else f"{stem}:{row.number}"
            return self._free_id(name)
        known = self._check_id(self._row_ids, row, draft.id, content)
        if known is None:
            self._row_ids[draft.id] = _Known(content, row.place)
            return draft.id
        if repeated:
            return None
        known.times += 1
        return self._free_id(f"{draft.id}#{known.times}")

    def _free_id(self, name: str) -> str:
        """Remember a made-up id, changed if a row already has it."""
        while name in self._row_ids:
            name += "+"
        self._row_ids[name] = _Known(b"", name)
        return name

    def _pair(self, draft: Draft, source: str, content: bytes, vote_id: str) -> Pair:
        """The pair object of this content, made on first sight."""
        if draft.pair_id:
            found = self._by_id.get(draft.pair_id)
            if found is None:
                found = self._by_id[draft.pair_id] = _make_pair(draft.pair_id, draft, source)
            return found
        found = self._by_content.get(content)
        if found is None:
            found = self._by_content[content] = _make_pair(vote_id, draft, source)
        return found

    def _odd(self, draft: Draft, pair: Pair, outcomes: Sequence[Outcome | None]) -> Iterator[str]:
        yield from _notes(draft)
        if draft.response_a == draft.response_b and {Outcome.A, Outcome.B} & set(outcomes):
            yield SAME_BUT_WINNER
        for ballot in draft.ballots:
            voter = (pair.id, ballot.annotator)
            if ballot.annotator and voter in self._voters:
                yield REPEATED_VOTER
            self._voters.add(voter)


def _voter_known(draft: Draft) -> bool:
    return all(ballot.annotator for ballot in draft.ballots)


def _make_pair(name: str, draft: Draft, source: str) -> Pair:
    return Pair(
        name,
        draft.prompt,
        draft.response_a,
        draft.response_b,
        draft.model_a,
        draft.model_b,
        source,
    )


def _digest(draft: Draft, source: str) -> bytes:
    """A short fingerprint of everything that makes a pair the same pair."""
    turns: tuple[Turns, ...] = (draft.prompt, draft.response_a, draft.response_b)
    text = json.dumps([turns, draft.model_a, draft.model_b, source], ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).digest()
