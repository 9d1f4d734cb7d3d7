"""Metrics of pairs of answers out of tables: verdicts, probabilities or scores of both answers.

Reads what `litee predict` and `litee score` write, and any table with a pair id. Knows nothing of
how verdicts are compared with votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litee.collect.cells import Row
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import CLASSES, VotedPair
from litee.score.outcomes import Floats
from litee.score.rated import Metric
from litee.score.score_table import (
    NO_SCORE,
    REASONS,
    Choice,
    Counts,
    Joined,
    column_of_numbers,
    is_numeric,
    join_tables,
    why_missing,
)

UNKNOWN_PAIR = "pair id is not among the votes"
NOT_A_LABEL = "not a, b or tie"

#: What a table may call the pair.
_IDS = ("pair_id", "id")

#: Column of a table with the outcomes of both orders.
ORDERS = "orders"

_LABELS = {
    "a": "a", "model_a": "a", "left": "a",
    "b": "b", "model_b": "b", "right": "b",
    "tie": "tie", "both_bad": "tie", "c": "tie", "neither": "tie",
}  # fmt: skip

#: Columns of two sides that are no metrics.
_TEXTS = {"model", "response", "answer", "tokens"}


def read_pair_metrics(
    paths: Sequence[str], voted: Sequence[VotedPair], choice: Choice
) -> tuple[tuple[Metric, ...], Joined]:
    """Metrics of voted pairs, from tables with a column `pair_id` or `id`.

    A column `x` of labels (a, b, tie) is a verdict; columns `x_a`, `x_b`, `x_tie` are
    probabilities; `x_a`, `x_b` alone are scores of the two answers. With a column `side` (a or b)
    the table has one row per answer, and every numeric column is a metric.

    Args:
        paths: files, each as `path` or `name=path`; a name replaces the probabilities' `p` and
            stands before the other metrics of that file.
        voted: the pairs; ids in the tables that are not among them are counted.
        choice: which metrics to take; empty for all.

    Raises:
        InputError: a file is broken or has no id column, or two metrics have one name.
    """
    place_of = {item.pair.id: k for k, item in enumerate(voted)}
    metrics: list[Metric] = []
    counts, inputs = Counts(), dict[str, str]()
    for given in paths:
        prefix, path = _named(given)
        columns = open_table(Path(path)).columns
        key = next((c for c in _IDS if c in columns), _IDS[0])
        joined = join_tables([path], [key, *(["side"] if "side" in columns else [])])
        inputs |= joined.inputs
        known = [r for r in joined.rows if str(r.cells.get(key)) in place_of]
        for row in joined.rows:
            if str(row.cells.get(key)) not in place_of:
                counts.add(UNKNOWN_PAIR, row.place)
        places = np.array([place_of[str(r.cells.get(key))] for r in known], dtype=int)
        read = _sided if "side" in columns else _wide
        taken = read(known, places, len(voted), joined.columns, prefix)
        metrics += [
            choice.metric(name, values, unscored)
            for name, values, unscored in taken
            if not choice.names or name in choice.names
        ]
    _check_names(metrics, choice)
    return tuple(metrics), Joined((), (), counts.frozen(), inputs)


def read_verdicts(path: str, voted: Sequence[VotedPair]) -> Floats:
    """(m, 3) what the one judge of a file says on every pair; NaN rows where it says nothing.

    Raises:
        InputError: the file has no verdicts or probabilities.
    """
    metrics, _ = read_pair_metrics([path], voted, Choice())
    usable = [m.values for m in metrics if m.values.shape[1] == len(CLASSES)]
    if not usable:
        fix = "give a file with labels a, b, tie or with probabilities p_a, p_b, p_tie"
        raise InputError("holds no verdicts", place=path, fix=fix)
    return usable[0]


def read_orders(path: str, voted: Sequence[VotedPair]) -> tuple[Floats, Floats] | None:
    """Hard verdicts with answer A first and with B first, where a table has a column `orders`.

    Its cells are the outcomes of both orders, e.g. `a/tie`, as `litee score --metrics pairwise`
    writes them; `-` is no verdict.

    Returns:
        Two (m, 3), NaN rows without verdict; column 0 is the answer shown first. None without
        such a column.
    """
    table = open_table(Path(_named(path)[1]))
    if ORDERS not in table.columns:
        return None
    key = next((c for c in _IDS if c in table.columns), _IDS[0])
    place_of = {item.pair.id: k for k, item in enumerate(voted)}
    found = np.full((2, len(voted), 3), np.nan)
    for row in table.rows:
        place = place_of.get(str(row.cells.get(key)))
        outcomes = str(row.cells.get(ORDERS)).split("/")
        if place is None or len(outcomes) != 2:
            continue
        for order, outcome in enumerate(outcomes):
            if outcome in CLASSES:
                found[order, place] = [float(outcome == c) for c in CLASSES]
    return found[0], found[1][:, [1, 0, 2]]


_Taken = list[tuple[str, Floats, dict[str, int]]]


def _named(given: str) -> tuple[str, str]:
    """`name=path` → name and path; the name is empty for a plain path.

    >>> _named("gpt4=verdicts.csv"), _named("scores.csv")
    (('gpt4', 'verdicts.csv'), ('', 'scores.csv'))
    """
    name, sign, path = given.partition("=")
    if sign and "/" not in name and not Path(given).exists():
        return name.strip(), path
    return "", given


def _check_names(metrics: Sequence[Metric], choice: Choice) -> None:
    names = [m.name for m in metrics]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        fix = "give the files names: litee agree one=FILE two=FILE --votes VOTES"
        raise InputError(f"two metrics are called {twice[0]!r}", fix=fix)
    missing = sorted(set(choice.names) - set(names))
    if missing:
        fix = f"the tables have: {', '.join(names) or 'no metric'}"
        raise InputError(f"no table has the metric {missing[0]!r}", fix=fix)


def _sided(
    rows: Sequence[Row], places: NDArray[np.int_], n: int, columns: Sequence[str], prefix: str
) -> _Taken:
    side = np.array([0 if str(r.cells.get("side")).lower() == "a" else 1 for r in rows], dtype=int)
    found: _Taken = []
    for name in columns:
        if name in {*_IDS, "side", REASONS} or not is_numeric(rows, name):
            continue
        values, unscored = column_of_numbers(rows, name)
        table = np.full((n, 2), np.nan)
        table[places, side] = values
        found.append((f"{prefix}.{name}" if prefix else name, table, unscored))
    return found


def _wide(
    rows: Sequence[Row], places: NDArray[np.int_], n: int, columns: Sequence[str], prefix: str
) -> _Taken:
    found: _Taken = []
    names = wide_names(columns, rows)
    for name in names:
        parts = [p for p in ("a", "b", "tie") if f"{name}_{p}" in columns]
        if parts:
            cells = [column_of_numbers(rows, f"{name}_{part}") for part in parts]
            values, unscored = np.column_stack([c[0] for c in cells]), cells[0][1]
        else:
            values, unscored = _verdicts(rows, name)
        table = np.full((n, values.shape[1]), np.nan)
        table[places] = values
        missing = n - len(places)
        if missing:
            unscored = {**unscored, NO_SCORE: unscored.get(NO_SCORE, 0) + missing}
        found.append((_shown(name, prefix, alone=len(names) == 1), table, unscored))
    return found


def _shown(name: str, prefix: str, *, alone: bool) -> str:
    if name == "p":
        return prefix or "judge"
    if not prefix:
        return name
    return prefix if alone else f"{prefix}.{name}"


def wide_names(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Names of the metrics of a table with one row per pair.

    >>> wide_names(["pair_id", "judge_a", "judge_b", "judge_tie", "reward_a", "reward_b"], [])
    ['judge', 'reward']
    """
    names = [c[:-2] for c in columns if c.endswith("_a") and f"{c[:-2]}_b" in columns]
    used = {f"{name}_{part}" for name in names for part in ("a", "b", "tie")}
    for column in columns:
        if column in used or column in {*_IDS, REASONS}:
            continue
        if column == "winner" and "p" in names:
            continue  # `litee predict` names the most probable outcome again
        if _mostly_labels([row.cells.get(column) for row in rows[:200]]):
            names.append(column)
    return [name for name in names if name not in _TEXTS]


def _mostly_labels(cells: Sequence[object]) -> bool:
    """Whether most filled cells are verdicts: a judge's garbage must not hide its column."""
    filled = [c for c in cells if c not in (None, "")]
    known = sum(str(c).strip().lower() in _LABELS for c in filled)
    return bool(filled) and 2 * known > len(filled)


def _verdicts(rows: Sequence[Row], name: str) -> tuple[Floats, dict[str, int]]:
    """(n, 3) probability 1 on the named outcome; anything unknown is unscored and counted."""
    values = np.full((len(rows), 3), np.nan)
    unscored: dict[str, int] = {}
    for line, row in zip(values, rows, strict=True):
        cell = row.cells.get(name)
        label = _LABELS.get(str(cell).strip().lower())
        if label is None:
            reason = why_missing(row, name) if cell in (None, "") else NOT_A_LABEL
            unscored[reason] = unscored.get(reason, 0) + 1
            continue
        line[:] = [float(label == outcome) for outcome in ("a", "b", "tie")]
    return values, unscored
