"""Published verdicts of LLM judges, on MT-Bench's and on PandaLM's pairs, matched to voted pairs.

A judge may learn from them only what it is not tested on. Knows nothing of metrics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from litee.collect.cells import name_cell
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import Outcome, Pair

#: `…-<question>-<turn>-<model a>-<model b>`, as MT-Bench pairs are numbered.
_PAIR_ID = re.compile(r"(\d+)-([12])-")

_LABELS = {
    "model_a": Outcome.A,
    "model_b": Outcome.B,
    "tie": Outcome.TIE,
    "tie (inconsistent)": Outcome.TIE,
}

_COLUMNS = ("question_id", "turn", "model_a", "model_b", "winner")

#: `…-<idx>`, as PandaLM's pairs are numbered.
_NUMBER = re.compile(r"-(\d+)$")

_PANDALM_LABELS = {"0": Outcome.TIE, "tie": Outcome.TIE, "1": Outcome.A, "2": Outcome.B}

_PANDALM_COLUMNS = ("gpt_result", "pandalm_result")

Key = tuple[int, int, str, str]


def load_verdicts(path: Path, pairs: Sequence[Pair]) -> tuple[Outcome, ...]:
    """The judge's verdict on every pair, exchanged where the file has the other order.

    Args:
        path: JSON lines (.gz or not) with question_id, turn, model_a, model_b, winner.
        pairs: MT-Bench pairs; their ids carry question and turn.

    Raises:
        InputError: a broken file, an unknown label, or a pair without a verdict.
    """
    verdicts = _read(path)
    found = []
    for pair in pairs:
        match = _PAIR_ID.search(pair.id)
        if match is None:
            raise InputError(f"pair id {pair.id!r} has no question and turn", fix="use MT-Bench")
        question, turn = int(match[1]), int(match[2])
        verdict = verdicts.get((question, turn, pair.model_a, pair.model_b))
        turned = verdicts.get((question, turn, pair.model_b, pair.model_a))
        if verdict is None and turned is not None:
            verdict = turned.swapped
        if verdict is None:
            raise InputError(
                f"no verdict on pair {pair.id!r}", place=str(path), fix="check the verdicts file"
            )
        found.append(verdict)
    return tuple(found)


def load_numbered_verdicts(path: Path, pairs: Sequence[Pair]) -> tuple[Outcome | None, ...]:
    """The verdict of one of PandaLM's judges on every pair; None where it has none of the three.

    Args:
        path: JSON array (.gz or not) with idx and gpt_result or pandalm_result, as published in
            PandaLM's repository.
        pairs: PandaLM's, whose ids end in their idx.

    Raises:
        InputError: a broken file, or one of another layout.
    """
    table = open_table(path)
    column = next((name for name in _PANDALM_COLUMNS if name in table.columns), None)
    if column is None or "idx" not in table.columns:
        raise InputError(
            f"no columns idx and {' or '.join(_PANDALM_COLUMNS)} "
            f"(found: {', '.join(table.columns)})",
            place=str(path),
            fix="use the layout of PandaLM's verdicts",
        )
    verdicts = {
        name_cell(row, "idx"): _PANDALM_LABELS.get(name_cell(row, column).casefold())
        for row in table.rows
        if row.cells
    }
    numbers = (_NUMBER.search(pair.id) for pair in pairs)
    return tuple(None if match is None else verdicts.get(match[1]) for match in numbers)


def _read(path: Path) -> dict[Key, Outcome]:
    verdicts: dict[Key, Outcome] = {}
    for row in open_table(path).rows:
        if not row.cells:
            continue
        question, turn, first, second, label = (name_cell(row, name) for name in _COLUMNS)
        if label not in _LABELS:
            raise InputError(
                f"unknown verdict {label!r}",
                place=row.place,
                fix=f"allowed: {', '.join(_LABELS)}",
            )
        if not (question.isdecimal() and turn.isdecimal()):
            raise InputError(
                f"question_id {question!r} and turn {turn!r} should be whole numbers",
                place=row.place,
                fix="use the layout of MT-Bench judgments",
            )
        verdicts[int(question), int(turn), first, second] = _LABELS[label]
    return verdicts
