"""Scores and human ratings out of tables: one row per answer, or one per pair of answers.

Files are those of `litee.collect.rows` (CSV, TSV, JSON lines, JSON, parquet, gzipped or not).
Several tables are joined on shared key columns. Every row or cell that is not used is counted by
reason. Knows nothing of how metrics are computed or compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from litee.collect.cells import Row
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import Dropped
from litee.rundir import sha256_file
from litee.score.outcomes import Floats
from litee.score.rated import Metric, Rated

#: Reasons of the counts.
NO_RATING, NO_SCORE, NOT_A_NUMBER = "no human rating", "no score in the table", "not a number"
REPEATED_ROW, UNKNOWN_KEY = "repeats the key of an earlier row", "key is not in the first table"

#: Column of a scores file that says why cells of its row are empty: metric → reason, as JSON.
REASONS = "unscored"


@dataclass(frozen=True, slots=True)
class Keys:
    """Which columns say what a row is about.

    Attributes:
        prompt: names the prompt.
        system: names who answered.
        answer: the text, for its length; may be absent from the table.
        human: one column per rater, or one whose cells are lists.
        reserved: further columns that are no metrics.
    """

    prompt: str = "prompt"
    system: str = "system"
    answer: str = "answer"
    human: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Which columns are metrics.

    Attributes:
        names: columns; empty for every column of numbers that is no key.
        lower: those for which less is better.
        seconds: metric → seconds per 1,000 rows.
        prices: metric → price per 1,000 rows.
    """

    names: tuple[str, ...] = ()
    lower: frozenset[str] = frozenset()
    seconds: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)

    def metric(self, name: str, values: Floats, unscored: Mapping[str, int]) -> Metric:
        """A column as a `Metric`."""
        return Metric(
            name,
            values,
            unscored,
            name in self.lower,
            self.seconds.get(name),
            self.prices.get(name),
        )


@dataclass(frozen=True, slots=True)
class Joined:
    """Rows of the first table with the cells of the others.

    Attributes:
        columns: of all tables, in order of appearance.
        rows: one per row of the first table that was not dropped.
        dropped: rows left out.
        inputs: file → sha256.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    dropped: Dropped
    inputs: Mapping[str, str]


class Counts:
    """Rows by reason, with the first five places of each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, tuple[str, ...]] = {}

    def add(self, reason: str, place: str) -> None:
        """Count one row."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        seen = self._examples.get(reason, ())
        if len(seen) < 5:
            self._examples[reason] = (*seen, place)

    def frozen(self) -> Dropped:
        """What was counted."""
        return Dropped(dict(self._counts), dict(self._examples))


def join_tables(paths: Sequence[str | Path], keys: Sequence[str]) -> Joined:
    """The rows of the first table, with the other tables' cells where all `keys` are equal.

    Args:
        paths: at least one file. Cells of the first file win when a column occurs twice.
        keys: columns that every table must have.

    Raises:
        InputError: a file is missing or broken, or lacks a key column.
    """
    counts, columns = Counts(), list[str]()
    rows: dict[tuple[str, ...], Row] = {}
    inputs: dict[str, str] = {}
    for number, path in enumerate(map(Path, paths)):
        table = open_table(path)
        inputs[str(path)] = sha256_file(path)
        _need(table.columns, keys, str(path))
        columns += [c for c in table.columns if c not in columns]
        fresh: dict[tuple[str, ...], Row] = {}
        for row in table.rows:
            key = tuple(str(row.cells.get(k, "")) for k in keys)
            if key in fresh:
                counts.add(REPEATED_ROW, row.place)
                continue
            fresh[key] = row
        if number == 0:
            rows = fresh
            continue
        for key, row in fresh.items():
            if key not in rows:
                counts.add(UNKNOWN_KEY, row.place)
                continue
            first = rows[key]
            rows[key] = Row(first.file, first.number, {**row.cells, **first.cells})
    return Joined(tuple(columns), tuple(rows.values()), counts.frozen(), inputs)


def _need(columns: Sequence[str], keys: Iterable[str], place: str) -> None:
    missing = [k for k in keys if k not in columns]
    if missing:
        raise InputError(
            f"missing column {missing[0]!r} (found: {', '.join(columns)})",
            place=place,
            fix="name your columns with --prompt, --system, --answer and --human",
        )


def read_rated(paths: Sequence[str | Path], keys: Keys, choice: Choice) -> tuple[Rated, Joined]:
    """Rated answers with their metrics.

    Args:
        paths: tables; the first one has the ratings.
        keys: what the columns mean.
        choice: which columns are metrics.

    Returns:
        The rated answers (rows without any rating are dropped and counted), and the rows.

    Raises:
        InputError: a file is broken, a named column is missing or nothing is left.
    """
    joined = join_tables(paths, (keys.prompt, keys.system))
    _need(joined.columns, (*keys.human, *choice.names), joined.rows[0].file if joined.rows else "")
    counts = _counts_of(joined.dropped)
    kept: list[Row] = []
    ratings: list[list[float]] = []
    for row in joined.rows:
        found = [x for column in keys.human for x in _numbers(row.cells.get(column))]
        if not any(math.isfinite(x) for x in found):
            counts.add(NO_RATING, row.place)
            continue
        kept.append(row)
        ratings.append(found)
    if not kept:
        raise InputError("no row has a human rating", place=str(paths[0]), fix="check --human")
    width = max(map(len, ratings))
    matrix = np.full((len(kept), width), np.nan)
    for line, found in zip(matrix, ratings, strict=True):
        line[: len(found)] = found
    names, systems = np.unique([str(r.cells.get(keys.system)) for r in kept], return_inverse=True)
    prompts = np.unique([str(r.cells.get(keys.prompt)) for r in kept], return_inverse=True)[1]
    metrics = tuple(
        choice.metric(name, *column_of_numbers(kept, name))
        for name in _metric_names(joined, keys, choice)
    )
    rated = Rated(
        prompts, systems, tuple(map(str, names)), matrix, _lengths(kept, keys), metrics,
        ", ".join(keys.human),
    )  # fmt: skip
    return rated, Joined(joined.columns, tuple(kept), counts.frozen(), joined.inputs)


def _counts_of(dropped: Dropped) -> Counts:
    counts = Counts()
    for reason, number in dropped.counts.items():
        for place in [*dropped.examples[reason], *[""] * (number - len(dropped.examples[reason]))]:
            counts.add(reason, place)
    return counts


#: Columns that number rows; they are metrics only when they are named.
_IDS = ("id", "prompt_id", "answer_id", "row", "index")


def _metric_names(joined: Joined, keys: Keys, choice: Choice) -> list[str]:
    if choice.names:
        return list(choice.names)
    reserved = {keys.prompt, keys.system, keys.answer, *keys.human, *keys.reserved, REASONS, *_IDS}
    return [c for c in joined.columns if c not in reserved and is_numeric(joined.rows, c)]


def is_numeric(rows: Sequence[Row], column: str) -> bool:
    """Whether the first filled cells of a column are numbers."""
    filled = [c for row in rows[:200] if (c := row.cells.get(column)) not in (None, "")]
    return bool(filled) and all(len(_numbers(c)) == 1 and _finite(c) for c in filled)


def _finite(cell: object) -> bool:
    return not isinstance(cell, list | tuple) and math.isfinite(_numbers(cell)[0])


def _numbers(cell: object) -> list[float]:
    """A cell as numbers: one, several when it is a list (or its JSON), NaN when it is neither.

    >>> _numbers("[4, 5]"), _numbers(3)
    ([4.0, 5.0], [3.0])
    """
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            return [math.nan]
    if isinstance(cell, list | tuple):
        return [number for item in cell for number in _numbers(item)]
    if isinstance(cell, bool) or cell is None or not isinstance(cell, str | int | float):
        return [float(cell) if isinstance(cell, bool) else math.nan]
    try:
        number = float(cell)
    except ValueError:
        return [math.nan]
    return [number if math.isfinite(number) else math.nan]


def column_of_numbers(rows: Sequence[Row], name: str) -> tuple[Floats, dict[str, int]]:
    """(n,) numbers of a column, NaN where there is none, and why by reason."""
    values = np.array([_single(row.cells.get(name)) for row in rows])
    unscored: dict[str, int] = {}
    for place in np.flatnonzero(np.isnan(values)).tolist():
        reason = why_missing(rows[place], name)
        unscored[reason] = unscored.get(reason, 0) + 1
    return values, unscored


def _single(cell: object) -> float:
    numbers = _numbers(cell)
    return numbers[0] if len(numbers) == 1 else math.nan


def why_missing(row: Row, name: str) -> str:
    """Why a cell has no score: the row's own note, or what is in the cell."""
    noted = row.cells.get(REASONS)
    if isinstance(noted, str) and noted.startswith("{"):
        try:
            noted = json.loads(noted)
        except ValueError:
            noted = None
    if isinstance(noted, Mapping) and name in noted:
        return str(noted[name])
    return NO_SCORE if row.cells.get(name) in (None, "") else NOT_A_NUMBER


def _lengths(rows: Sequence[Row], keys: Keys) -> Floats | None:
    """(n,) characters of the answers, else the column `length` that `litee score` writes."""
    texts = [row.cells.get(keys.answer) for row in rows]
    if all(isinstance(text, str) for text in texts):
        return np.array([float(len(str(text))) for text in texts])
    known = np.array([_single(row.cells.get("length")) for row in rows])
    return known if np.isfinite(known).all() else None
