"""Which layout a file has, from the names of its columns.

Knows nothing of the rows' contents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from litee.collect.arena import arena, mt_bench
from litee.collect.layouts import (
    ColumnNames,
    Layout,
    by_columns,
    canonical,
    evalica,
    pair_votes,
)
from litee.collect.trl import trl
from litee.collect.vote_page import COLUMNS, vote_page
from litee.errors import ConfigError, InputError

_LAYOUTS: dict[str, Callable[[Sequence[str]], Layout]] = {
    "canonical": lambda _: canonical(),
    "pair-votes": lambda _: pair_votes(),
    "arena": arena,
    "mt-bench": lambda _: mt_bench(),
    "trl": lambda _: trl(),
    "evalica": evalica,
    "vote-page": lambda _: vote_page(),
}

#: What `format` may be.
FORMATS: tuple[str, ...] = ("auto", *_LAYOUTS, "columns")

#: Columns of Arena 33k that MT-Bench human judgments lack; the rest of their names agree.
_ARENA_ONLY = {"anony", "tstamp", "timestamp", "language"}


def choose_layout(
    columns: Sequence[str], format: str = "auto", names: ColumnNames | None = None
) -> Layout:
    """The layout to read a file with these columns.

    Args:
        columns: the file's columns.
        format: one of `FORMATS`.
        names: the user's own column names; they imply the format `columns`.

    >>> choose_layout(["prompt", "chosen", "rejected"]).name
    'trl'

    Raises:
        ConfigError: unknown format, or column names together with another format.
        InputError: no known layout fits.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}", fix=f"use one of: {', '.join(FORMATS)}")
    if names is not None:
        if format not in {"auto", "columns"}:
            problem = f"column names were given together with format {format!r}"
            raise ConfigError(problem, fix="leave one of them out")
        return by_columns(names)
    if format == "columns":
        raise ConfigError(
            "format 'columns' needs the columns' names",
            fix="add e.g. --columns prompt=question,response_a=left,response_b=right,winner=vote",
        )
    return _LAYOUTS[_detect(columns) if format == "auto" else format](columns)


def _detect(columns: Sequence[str]) -> str:
    has = set(columns)
    rules: tuple[tuple[str, bool], ...] = (
        ("vote-page", {*COLUMNS} <= has),
        ("pair-votes", {"pair_id", "prompt", "response_a", "votes"} <= has),
        ("arena", {"winner_model_a", "winner_model_b"} <= has),
        ("mt-bench", {"question_id", "conversation_a", "turn"} <= has and not has & _ARENA_ONLY),
        ("arena", bool({"conversation_a", "full_conversation"} & has)),
        ("trl", {"chosen", "rejected"} <= has),
        ("evalica", {"left", "right"} <= has),
        ("canonical", len({"prompt", "response_a", "response_b", "winner"} & has) >= 2),
    )
    for name, fits in rules:
        if fits:
            return name
    raise InputError(
        f"no known votes format has these columns: {', '.join(columns)}",
        fix="needed: prompt, response_a, response_b, winner; rename yours with litee data convert "
        "FILE votes.jsonl --columns prompt=…,response_a=…,response_b=…,winner=…",
    )
