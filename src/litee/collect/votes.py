"""Votes files to a `VoteSet`: the entry point of everything that reads votes or pairs.

Every row that is not used is counted by reason, and so is every odd one that is. Knows nothing
of folds, models or metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from litee.collect.cells import (
    BLANK,
    FIXES,
    PAGE_REASONS,
    SURROGATE,
    UNEVEN_TURNS,
    Draft,
    Row,
    Turns,
    UnusableError,
    mend,
)
from litee.collect.detect import choose_layout
from litee.collect.gathering import Gathering, Tally
from litee.collect.hub import fetch, is_hub_path
from litee.collect.layouts import ColumnNames, Layout
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import Pair, VoteSet
from litee.rundir import sha256_file

#: Pair ids that a stream of pairs remembers.
REMEMBERED_IDS = 8192


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
    gathering = Gathering(strict=strict)
    inputs: dict[str, str] = {}
    for path, stem in _files(paths):
        inputs[str(path)] = sha256_file(path) if path.is_file() else ""
        for row, draft, layout in _drafts(path, gathering, format, columns):
            gathering.add_votes(row, draft, layout.labels, stem)
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
    return tuple(stream_pairs(path, format=format, columns=columns, window=None))


def stream_pairs(
    path: str | Path,
    *,
    format: str = "auto",
    columns: ColumnNames | None = None,
    window: int | None = REMEMBERED_IDS,
) -> Iterator[Pair]:
    """Like `load_pairs`, one by one: memory does not grow with the number of rows.

    Args:
        path: as for `load_pairs`.
        format: as for `load_pairs`.
        columns: as for `load_pairs`.
        window: rows with one pair id give one pair when no more than this many other ids stand
            between them; None remembers all.

    Raises:
        InputError: as `load_pairs`, when the row is reached.
        ConfigError: as `load_pairs`.
    """
    gathering = Gathering(strict=False)
    for file, stem in _files([path]):
        for row, draft, _ in _drafts(file, gathering, format, columns, labelled=False):
            _refuse_dropped(gathering.dropped)
            gathering.add_pair(row, draft, stem)
            yield from gathering.take_pairs(window)
    _refuse_dropped(gathering.dropped)
    if not gathering.taken:
        raise _nothing_usable([path], gathering.dropped)


def _refuse_dropped(dropped: Tally) -> None:
    for reason, places in dropped.examples.items():
        if reason not in (BLANK, *PAGE_REASONS):
            raise InputError(reason, place=places[0], fix=FIXES[reason])


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
    gathering: Gathering,
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
    return tuple(mend(turn) for turn in turns)


def _nothing_usable(paths: Sequence[str | Path], dropped: Tally) -> InputError:
    reasons = "; ".join(
        f"{reason}: {count} (e.g. {dropped.examples[reason][0]})"
        for reason, count in dropped.counts.items()
    )
    fix = next((FIXES[reason] for reason in dropped.counts), "check the file")
    place = ", ".join(map(str, paths))
    return InputError(f"no usable vote: {reasons or 'no rows'}", place=place, fix=fix)
