"""The Arena layouts (Kaggle 55k, 33k, 100k, 140k) and MT-Bench human judgments.

Column names and labels as published with `lmsys/lmsys-arena-human-preference-55k`,
`lmsys/chatbot_arena_conversations`, `lmarena-ai/arena-human-preference-100k` and `-140k`, and
`lmsys/mt_bench_human_judgments`. Knows nothing of file types.
"""

from __future__ import annotations

import ast
import io
import itertools
import tokenize
from collections.abc import Mapping, Sequence

from litee.collect.cells import (
    PLAIN_CELL,
    Ballot,
    Draft,
    Row,
    Turns,
    json_list,
    label_cell,
    name_cell,
    shorten,
    turns_of,
    wrong_cell,
)
from litee.collect.conversations import (
    Dialogue,
    content_text,
    messages_cell,
    same_users,
    to_dialogue,
)
from litee.collect.layouts import LABELS, Layout, source_of
from litee.errors import InputError
from litee.records import Message, Outcome

_ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
_ONE_HOT_LABELS = ("a", "b", "tie")
_MT_BENCH_LABELS: Mapping[str, Outcome] = {
    "model_a": Outcome.A,
    "model_b": Outcome.B,
    "tie": Outcome.TIE,
    "tie (inconsistent)": Outcome.TIE,
}


def arena(columns: Sequence[str]) -> Layout:
    """The Arena layout that fits the columns: list cells, or whole conversations."""
    if "conversation_a" in columns or "full_conversation" in columns:
        whole = "conversation_a" not in columns
        sides = ("full_conversation",) if whole else ("conversation_a", "conversation_b")
        return Layout("arena", sides, ("winner",), LABELS, _conversations)
    winner: tuple[str, ...] = ("winner",) if "winner" in columns else _ONE_HOT
    needs = ("prompt", "response_a", "response_b")
    return Layout("arena", needs, winner, LABELS, _list_cells)


def mt_bench() -> Layout:
    """MT-Bench human judgments: turn 1 compares the first answers only."""
    needs = ("question_id", "conversation_a", "conversation_b", "turn")
    return Layout("mt-bench", needs, ("winner",), _MT_BENCH_LABELS, _mt_bench)


def _list_cells(row: Row) -> Draft:
    notes: list[str] = []
    prompt, response_a, response_b = (
        _cell_turns(row, column, notes) for column in ("prompt", "response_a", "response_b")
    )
    label = label_cell(row, "winner") if "winner" in row.cells else _one_hot(row)
    return Draft(
        prompt,
        response_a,
        response_b,
        (Ballot(label, _annotator(row)),),
        id=_row_id(row),
        model_a=name_cell(row, "model_a"),
        model_b=name_cell(row, "model_b"),
        source=source_of(row),
        notes=tuple(dict.fromkeys(notes)),
    )


def _cell_turns(row: Row, column: str, notes: list[str]) -> Turns:
    """The turns in a cell that holds a JSON list, a Python list, or (noted) plain text.

    Raises:
        InputError: the cell looks like a list and is none.
    """
    value = row.cells.get(column)
    if not isinstance(value, str):
        return turns_of(row, column, value)
    turns: object = json_list(value)
    if turns is None and value.strip().startswith("["):
        turns = _python_list(value.strip())
        if turns is None:
            problem = f"column {column!r} looks like a list of turns and cannot be read: "
            fix = 'write the turns as a JSON list: ["first turn", "second turn"]'
            raise InputError(problem + shorten(value), place=row.place, fix=fix)
    elif turns is None:
        notes.append(PLAIN_CELL)
        turns = value
    return turns_of(row, column, turns)


def _python_list(text: str) -> list[str | None] | None:
    """A list of strings and None written by Python's `str`, or None.

    Strings without a comma between them (as numpy prints arrays) are refused: Python would glue
    them together silently.
    """
    try:
        value = ast.literal_eval(text)
        tokens = [t.type for t in tokenize.generate_tokens(io.StringIO(text).readline)]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    solid = [t for t in tokens if t not in {tokenize.NL, tokenize.NEWLINE}]
    glued = any(a == b == tokenize.STRING for a, b in itertools.pairwise(solid))
    strings = isinstance(value, list) and all(v is None or isinstance(v, str) for v in value)
    return value if strings and not glued else None


def _one_hot(row: Row) -> str | None:
    """The class of a one-hot triple; None when the row has no such columns or they are blank.

    Raises:
        InputError: not exactly one of the three is 1.
    """
    cells = [row.cells.get(column) for column in _ONE_HOT]
    if all(cell is None or cell == "" for cell in cells):
        return None
    known = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0}
    flags = [known.get(str(cell).strip().lower()) for cell in cells]
    if None in flags or sum(flag or 0 for flag in flags) != 1:
        shown = ", ".join(
            f"{column}={shorten(cell, 20)}" for column, cell in zip(_ONE_HOT, cells, strict=True)
        )
        fix = "exactly one of the three must be 1, the others 0"
        raise InputError(f"no one-hot winner: {shown}", place=row.place, fix=fix)
    return _ONE_HOT_LABELS[flags.index(1)]


def _row_id(row: Row) -> str:
    return name_cell(row, "id") or name_cell(row, "question_id")


def _annotator(row: Row) -> str:
    return name_cell(row, "judge") or name_cell(row, "annotator")


def _conversations(row: Row) -> Draft:
    if row.cells.get("conversation_a") is None and row.cells.get("full_conversation") is not None:
        a, b = _full_conversation(row)
    else:
        a = _dialogue(row, "conversation_a")
        b = _dialogue(row, "conversation_b")
    return Draft(
        same_users(a, b),
        a.answers,
        b.answers,
        (Ballot(label_cell(row, "winner"), _annotator(row)),),
        id=_row_id(row),
        model_a=name_cell(row, "model_a"),
        model_b=name_cell(row, "model_b"),
        source=source_of(row),
        notes=tuple(dict.fromkeys(a.notes + b.notes)),
    )


def _dialogue(row: Row, column: str) -> Dialogue:
    return to_dialogue(messages_cell(row, column, row.cells.get(column)))


def _full_conversation(row: Row) -> tuple[Dialogue, Dialogue]:
    """Both sides of Arena 140k's `full_conversation`: user, model_side_a, model_side_b."""
    column = "full_conversation"
    turns = row.cells[column]
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise wrong_cell(row, column, turns, "a list of turns with both sides")
    sides: tuple[list[Message], list[Message]] = ([], [])
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise wrong_cell(row, column, turn, "a list of turns with both sides")
        user = _side(row, column, turn.get("user"))
        for side, name in zip(sides, ("model_side_a", "model_side_b"), strict=True):
            side.append(Message("user", user))
            side.append(Message("assistant", _side(row, column, turn.get(name))))
    return to_dialogue(sides[0]), to_dialogue(sides[1])


def _side(row: Row, column: str, message: object) -> str:
    content = message.get("content") if isinstance(message, Mapping) else message
    return content_text(row, column, content)


def _mt_bench(row: Row) -> Draft:
    turn = name_cell(row, "turn")
    if turn not in {"1", "2"}:
        problem = f"column 'turn' holds {shorten(turn)}"
        raise InputError(problem, place=row.place, fix="write 1 or 2")
    a = _dialogue(row, "conversation_a")
    b = _dialogue(row, "conversation_b")
    turns = int(turn)
    models = (name_cell(row, "model_a"), name_cell(row, "model_b"))
    return Draft(
        same_users(a, b)[:turns],
        a.answers[:turns],
        b.answers[:turns],
        (Ballot(label_cell(row, "winner"), name_cell(row, "judge")),),
        pair_id="-".join(["mtb", name_cell(row, "question_id"), turn, *models]),
        model_a=models[0],
        model_b=models[1],
        source=source_of(row),
        notes=tuple(dict.fromkeys(a.notes + b.notes)),
    )
