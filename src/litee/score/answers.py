"""Answers to be scored, read one at a time: prompt, answer, optional reference and contexts.

Knows nothing of metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from litee.collect.rows import open_table
from litee.collect.votes import load_pairs
from litee.errors import InputError
from litee.records import Pair


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        keys: the cells that go through to the output unchanged (prompt, ids, system, ratings).
        prompt: what was asked, "" when unknown.
        answer: the text to be scored, None when the cell is empty or missing.
        reference: a golden answer, None when there is none.
        contexts: retrieved passages.
    """

    keys: Mapping[str, object]
    prompt: str
    answer: str | None
    reference: str | None = None
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextColumns:
    """Names of the text columns.

    Attributes:
        prompt: of the question; may be absent.
        answer: of the text to be scored.
        reference: of the golden answer; may be absent.
        contexts: of the passages, a list or one text; may be absent.
    """

    prompt: str = "prompt"
    answer: str = "answer"
    reference: str = "reference"
    contexts: str = "contexts"


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """An opened file of answers.

    Attributes:
        keys: columns that are kept.
        answers: to be read once.
    """

    keys: tuple[str, ...]
    answers: Iterator[Answer] = field(compare=False)


def read_answers(path: Path, columns: TextColumns | None = None) -> AnswerFile:
    """Answers of a table, row by row.

    All columns are kept but answer, reference and contexts: the prompt is what scores are joined
    on.

    Raises:
        InputError: the file is broken or has no answer column.
    """
    named = columns or TextColumns()
    table = open_table(path)
    if named.answer not in table.columns:
        raise InputError(
            f"missing column {named.answer!r} (found: {', '.join(table.columns)})",
            place=str(path),
            fix="name your columns with --prompt, --answer, --reference, --contexts",
        )
    texts = {named.answer, named.reference, named.contexts}
    keys = tuple(c for c in table.columns if c not in texts)

    def answers() -> Iterator[Answer]:
        for row in table.rows:
            cells = row.cells
            yield Answer(
                {k: cells.get(k) for k in keys},
                _text(cells.get(named.prompt)) or "",
                _text(cells.get(named.answer)),
                _text(cells.get(named.reference)),
                _passages(cells.get(named.contexts)),
            )

    return AnswerFile(keys, answers())


def read_pair_answers(path: Path, format: str = "auto") -> AnswerFile:
    """Both answers of every pair of a votes or pairs file, keyed by `pair_id` and `side`."""
    pairs = load_pairs(path, format=format)
    sides = (_sides(pair) for pair in pairs)
    return AnswerFile(("pair_id", "side", "system"), chain.from_iterable(sides))


def _sides(pair: Pair) -> Iterator[Answer]:
    prompt = "\n\n".join(pair.prompt)
    for side, turns, model in (
        ("a", pair.response_a, pair.model_a),
        ("b", pair.response_b, pair.model_b),
    ):
        keys = {"pair_id": pair.id, "side": side, "system": model}
        yield Answer(keys, prompt, "\n\n".join(turns))


def blocks(answers: Iterator[Answer], size: int) -> Iterator[list[Answer]]:
    """Lists of `size` answers, the last one shorter."""
    while block := list(islice(answers, size)):
        yield block


def _text(cell: object) -> str | None:
    r"""A cell as text: turns of a list are joined; None when there is nothing.

    >>> _text(["one", "two"]), _text(None), _text(3)
    ('one\n\ntwo', None, '3')
    """
    if cell is None:
        return None
    if isinstance(cell, list | tuple):
        return "\n\n".join(str(part) for part in cell)
    return cell if isinstance(cell, str) else str(cell)


def _passages(cell: object) -> tuple[str, ...]:
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            return (str(cell),)
    if isinstance(cell, list | tuple):
        return tuple(str(part) for part in cell)
    return () if cell in (None, "") else (str(cell),)
