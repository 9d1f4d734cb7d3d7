"""Votes files to a `VoteSet`: the entry point of everything that reads votes or pairs.

Brings rows, layouts and ids together: votes on one pair share the pair, ids are checked, every
row that is not used is counted by reason, and so is every odd one that is. Knows nothing of
folds, models or metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from litee.collect.cells import (
    BLANK,
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
    SURROGATE,
    UNEVEN_TURNS,
    Ballot,
    Draft,
    Row,
    Turns,
    UnusableError,
    shorten,
)
from litee.collect.detect import choose_layout
from litee.collect.hub import fetch, is_hub_path
from litee.collect.layouts import ColumnNames, Layout
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import Dropped, Outcome, Pair, Vote, VoteSet
from litee.rundir import sha256_file

_LONG = 100_000
_EXAMPLES = 5


def load_votes(
    paths: Sequence[str | Path],
    *,
    format: str = "auto",
    columns: ColumnNames | None = None,
    strict: bool = False,
) -> VoteSet:
    """Read votes from files of any known format.

    Args:
        paths: files, or `hf://owner/name[:split]`. Ids must be unique over all of them.
        format: `auto`, or one of `litee.collect.detect.FORMATS`.
        columns: the files' own column names (implies the format `columns`).
        strict: refuse a file with any dropped or odd row instead of counting it.

    Returns:
        The votes in file order; votes on the same pair share one `Pair` object.

    Raises:
        InputError: a file is missing, broken or in no known format; an unknown label; an id with
            two contents; no usable vote; with `strict`, any dropped or odd row.
        ConfigError: unknown format, or names together with another format.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    gathering = _Gathering(strict=strict)
    inputs: dict[str, str] = {}
    for path, stem in _files(paths):
        inputs[str(path)] = sha256_file(path) if path.is_file() else ""
        for row, draft, layout in _drafts(path, gathering, format, columns):
            gathering.add_votes(row, draft, layout, stem)
    if not gathering.votes:
        raise _nothing_usable(paths, gathering.dropped)
    return VoteSet(
        tuple(gathering.votes), gathering.dropped.frozen(), gathering.noticed.frozen(), inputs
    )


def load_pairs(
    path: str | Path, *, format: str = "auto", columns: ColumnNames | None = None
) -> tuple[Pair, ...]:
    """Read pairs for prediction, from the same files with or without winners.

    Pairs come in file order. A row without an id gets `<file>:<row>`; rows with one pair id and
    the same content give one pair. Here an unusable row is an error: each pair must get its
    prediction.

    Raises:
        InputError: as `load_votes`, and any row without a usable pair.
        ConfigError: as `load_votes`.
    """
    gathering = _Gathering(strict=False)
    for file, stem in _files([path]):
        for row, draft, _ in _drafts(file, gathering, format, columns, labelled=False):
            gathering.add_pair(row, draft, stem)
    for reason, places in gathering.dropped.examples.items():
        if reason != BLANK:
            raise InputError(reason, place=places[0], fix=FIXES[reason])
    if not gathering.pairs:
        raise _nothing_usable([path], gathering.dropped)
    return tuple(gathering.pairs)


def _files(paths: Sequence[str | Path]) -> Iterator[tuple[Path, str]]:
    """Local files with a name for generated ids, unique over the files."""
    seen: dict[str, int] = {}
    for path in paths:
        local = fetch(str(path)) if is_hub_path(path) else (Path(path),)
        for file in local:
            stem = file.name.removesuffix(".gz").rsplit(".", 1)[0]
            seen[stem] = seen.get(stem, 0) + 1
            yield file, stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"


def _drafts(
    path: Path,
    gathering: _Gathering,
    format: str,
    columns: ColumnNames | None,
    *,
    labelled: bool = True,
) -> Iterator[tuple[Row, Draft, Layout]]:
    """The file's rows as drafts; unusable ones are counted and left out."""
    table = open_table(path)
    try:
        layout = choose_layout(table.columns, format, columns)
    except InputError as error:
        raise InputError(error.problem, place=str(path), fix=error.fix) from error
    needs = layout.needs + (layout.winner if labelled else ())
    _check_columns(str(path), table.columns, needs, layout)
    for row in table.rows:
        if not row.cells:
            gathering.drop(BLANK, row)
            continue
        if any(column not in row.cells for column in needs):
            _check_columns(row.place, tuple(row.cells), needs, layout)
        try:
            draft = _clean(layout.parse(row))
        except UnusableError as error:
            gathering.drop(error.reason, row)
            continue
        yield row, draft, layout


def _check_columns(
    place: str, columns: Sequence[str], needs: Sequence[str], layout: Layout
) -> None:
    missing = [column for column in needs if column not in columns]
    if missing:
        raise InputError(
            f"missing column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))} "
            f"for format {layout.name!r} (found: {', '.join(columns)})",
            place=place,
            fix=layout.fix,
        )


def _clean(draft: Draft) -> Draft:
    """Check the numbers of turns and mend characters that UTF-8 cannot hold.

    Raises:
        UnusableError: the numbers of turns differ.
    """
    if not len(draft.prompt) == len(draft.response_a) == len(draft.response_b):
        raise UnusableError(UNEVEN_TURNS)
    prompt = _mend_turns(draft.prompt)
    response_a = _mend_turns(draft.response_a)
    response_b = _mend_turns(draft.response_b)
    if (prompt, response_a, response_b) == (draft.prompt, draft.response_a, draft.response_b):
        return draft
    notes = (*draft.notes, SURROGATE)
    return replace(draft, prompt=prompt, response_a=response_a, response_b=response_b, notes=notes)


def _mend_turns(turns: Turns) -> Turns:
    return tuple(_mend(turn) for turn in turns)


def _mend(text: str) -> str:
    r"""Join surrogate halves and replace lone ones, so that the text can be written as UTF-8.

    >>> _mend("\ud83d\ude00"), _mend("a\ud83d")
    ('😀', 'a�')
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


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
class _Tally:
    """Counts and examples by reason, while reading."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        places = self.examples.get(reason, ())
        if len(places) < _EXAMPLES:
            self.examples[reason] = (*places, place)

    def frozen(self) -> Dropped:
        return Dropped(dict(self.counts), dict(self.examples))


@dataclass(slots=True)
class _Known:
    """What is remembered of an id: its content, its place, and how often it occurred."""

    content: bytes
    place: str
    ballots: set[Ballot]
    times: int = 1


class _Gathering:
    """Votes and pairs as they come in; holds what is needed to recognise repeats."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.votes: list[Vote] = []
        self.pairs: list[Pair] = []
        self.dropped = _Tally()
        self.noticed = _Tally()
        self._by_content: dict[bytes, Pair] = {}
        self._by_id: dict[str, Pair] = {}
        self._pair_ids: dict[str, _Known] = {}
        self._row_ids: dict[str, _Known] = {}
        self._rows: set[tuple[bytes, tuple[Ballot, ...]]] = set()
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

    def add_votes(self, row: Row, draft: Draft, layout: Layout, stem: str) -> None:
        """Take a row's votes, unless it repeats an earlier row."""
        outcomes = [self._outcome(row, ballot, layout) for ballot in draft.ballots]
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
            self._pair_ids[name] = _Known(content, row.place, set())
            self.pairs.append(_make_pair(name, draft, source))

    def _outcome(self, row: Row, ballot: Ballot, layout: Layout) -> Outcome | None:
        if ballot.label is None:
            return None
        outcome = layout.labels.get(ballot.label)
        if outcome is None:
            allowed = ", ".join(layout.labels)
            raise InputError(
                f"unknown label {shorten(ballot.label)} for the winner (allowed: {allowed})",
                place=row.place,
                fix="correct the label, or map yours with --labels, e.g. --labels left=a,right=b",
            )
        return outcome

    def _check_pair_id(self, row: Row, draft: Draft, content: bytes) -> None:
        if draft.pair_id:
            known = self._check_id(self._pair_ids, row, draft.pair_id, content)
            if known is None:
                self._pair_ids[draft.pair_id] = _Known(content, row.place, set())

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
        if not draft.id:
            key = (content, draft.ballots)
            if key in self._rows and (draft.pair_id or _voter_known(draft)):
                return None
            self._rows.add(key)
            single = len(draft.ballots) == 1
            name = draft.pair_id if draft.pair_id and not single else f"{stem}:{row.number}"
            return self._free_id(name)
        known = self._check_id(self._row_ids, row, draft.id, content)
        if known is None:
            self._row_ids[draft.id] = _Known(content, row.place, set(draft.ballots))
            return draft.id
        if known.ballots >= set(draft.ballots):
            return None
        known.ballots |= set(draft.ballots)
        known.times += 1
        return self._free_id(f"{draft.id}#{known.times}")

    def _free_id(self, name: str) -> str:
        """Remember a made-up id, changed if a row already has it."""
        while name in self._row_ids:
            name += "+"
        self._row_ids[name] = _Known(b"", name, set())
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


def _nothing_usable(paths: Sequence[str | Path], dropped: _Tally) -> InputError:
    reasons = "; ".join(
        f"{reason}: {count} (e.g. {dropped.examples[reason][0]})"
        for reason, count in dropped.counts.items()
    )
    fix = next((FIXES[reason] for reason in dropped.counts), "check the file")
    place = ", ".join(map(str, paths))
    return InputError(f"no usable vote: {reasons or 'no rows'}", place=place, fix=fix)
