"""TRL preference rows: `chosen` and `rejected`, with or without `prompt`, text or messages.

The winner is always A, the chosen answer. Formats as documented in TRL's "Dataset formats and
types" (preference). Knows nothing of file types.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from litee.collect.cells import (
    MARGIN_IGNORED,
    NULL_PROMPT,
    NULL_RESPONSE,
    Ballot,
    Draft,
    Row,
    UnusableError,
    name_cell,
    wrong_cell,
)
from litee.collect.conversations import (
    Dialogue,
    messages_cell,
    same_users,
    to_dialogue,
)
from litee.collect.layouts import LABELS, Layout, source_of
from litee.errors import InputError
from litee.records import Message

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_IGNORED = ("margin", "label")


def trl() -> Layout:
    """Rows with `chosen` and `rejected`."""
    return Layout("trl", ("chosen", "rejected"), (), LABELS, _trl)


def _trl(row: Row) -> Draft:
    prompt = row.cells.get("prompt")
    if "prompt" in row.cells and prompt is None:
        raise UnusableError(NULL_PROMPT)
    a = _side(row, "chosen", prompt)
    b = _side(row, "rejected", prompt)
    notes = list(a.notes + b.notes)
    if any(row.cells.get(column) is not None for column in _IGNORED):
        notes.append(MARGIN_IGNORED)
    return Draft(
        same_users(a, b),
        a.answers,
        b.answers,
        (Ballot("a", name_cell(row, "annotator")),),
        id=name_cell(row, "id"),
        model_a=name_cell(row, "chosen_model"),
        model_b=name_cell(row, "rejected_model"),
        source=source_of(row),
        notes=tuple(dict.fromkeys(notes)),
    )


def _side(row: Row, column: str, prompt: object) -> Dialogue:
    """One side's conversation: the prompt's messages, then the answer's."""
    value = row.cells.get(column)
    if value is None:
        raise UnusableError(NULL_RESPONSE)
    if isinstance(value, str):
        if prompt is None:
            return to_dialogue(_transcript(row, column, value))
        answer: tuple[Message, ...] = (Message("assistant", value),)
    else:
        answer = messages_cell(row, column, value)
    asked = _asked(row, prompt)
    whole = bool(answer) and answer[0].role != "assistant"
    return to_dialogue(answer if whole else asked + answer)


def _asked(row: Row, prompt: object) -> tuple[Message, ...]:
    if prompt is None:
        return ()
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    if not isinstance(prompt, Sequence):
        raise wrong_cell(row, "prompt", prompt, "text or a list of messages")
    return messages_cell(row, "prompt", prompt)


def _transcript(row: Row, column: str, text: str) -> list[Message]:
    r"""A `\n\nHuman: … \n\nAssistant: …` transcript (the HH-RLHF form) as messages.

    Raises:
        InputError: the text is no such transcript, so the prompt cannot be told from the answer.
    """
    pieces = _SPEAKER.split(text)
    if len(pieces) < 5 or pieces[0].strip():
        problem = f"no 'prompt' column, and {column!r} is plain text without speakers"
        fix = "add a 'prompt' column, or write chosen and rejected as lists of messages"
        raise InputError(problem, place=row.place, fix=fix)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        Message(roles[name], said.strip())
        for name, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
