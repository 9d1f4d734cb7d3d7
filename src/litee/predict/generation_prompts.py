"""Reads the prompts that are to be answered: text lines, tables, dialogues, votes files.

Imports no torch and knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.collect.cells import Row, UnusableError, json_list, turns_of
from litee.collect.conversations import messages_cell
from litee.collect.gathering import Tally
from litee.collect.rows import open_table
from litee.collect.votes import load_pairs
from litee.errors import InputError
from litee.records import Dropped, Message
from litee.rundir import sha256_json

#: Columns that are taken as the prompt, the first one found.
COLUMNS = ("prompt", "messages", "question", "instruction")

#: Columns of votes and pairs, whose prompts stand in many rows.
_OF_PAIRS = frozenset(("response_a", "winner", "winner_model_a", "chosen", "answer_a", "output_a"))

_IDS = ("id", "prompt_id", "question_id")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is to be answered.

    Attributes:
        id: of the row; its number when it has none.
        turns: the user's turns, at least one; each is answered before the next is asked.
        system: a system message, or "".
    """

    id: str
    turns: tuple[str, ...]
    system: str = ""

    @property
    def key(self) -> str:
        """Hex digest of id and texts: how an answer is found again when a run resumes."""
        return sha256_json([self.id, list(self.turns), self.system])[:24]

    def seed(self, seed: int, sample: int, turn: int) -> int:
        """Seed of one answer, from the run's seed and the texts alone: the file does not matter.

        >>> Prompt("1", ("q",)).seed(0, 0, 0) == Prompt("2", ("q",)).seed(0, 0, 0)
        True
        """
        text = json.dumps([seed, sample, turn, self.turns, self.system])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def messages(self, answers: Sequence[str]) -> tuple[Message, ...]:
        """The dialogue up to the first turn without an answer.

        >>> [m.role for m in Prompt("1", ("a", "b"), "s").messages(["x"])]
        ['system', 'user', 'assistant', 'user']
        """
        found = [Message("system", self.system)] if self.system else []
        for turn, answer in zip(self.turns, answers, strict=False):
            found += [Message("user", turn), Message("assistant", answer)]
        return (*found, Message("user", self.turns[len(answers)]))


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts of a file.

    Attributes:
        prompts: in file order, no two with the same key.
        dropped: rows without a usable prompt, by reason.
    """

    prompts: tuple[Prompt, ...]
    dropped: Dropped


def read_prompts(path: Path, *, column: str | None = None, system: str = "") -> PromptSet:
    """The prompts of a file.

    Args:
        path: `.txt` with a prompt per line; a table with a column of prompts (text, or a list of
            user turns) or of messages; or a file of votes or pairs, whose distinct prompts are
            taken.
        column: where the prompts stand; the first of `COLUMNS` when None.
        system: system message for prompts that bring none.

    Raises:
        InputError: the file is missing, broken, or holds no prompt.
    """
    dropped = Tally()
    found: dict[str, Prompt] = {}
    for place, prompt in _prompts(path, column, system, dropped):
        if not any(turn.strip() for turn in prompt.turns):
            dropped.add("blank prompt", place)
        elif prompt.key in found:
            dropped.add("the same prompt again", place)
        else:
            found[prompt.key] = prompt
    if not found:
        reasons = ", ".join(f"{n} × {reason}" for reason, n in dropped.counts.items())
        raise InputError(f"no usable prompt ({reasons or 'no rows'})", place=str(path))
    return PromptSet(tuple(found.values()), dropped.frozen())


def _prompts(
    path: Path, column: str | None, system: str, dropped: Tally
) -> Iterator[tuple[str, Prompt]]:
    if path.suffix == ".txt":
        yield from _lines(path, system)
        return
    table = open_table(path)
    named = column or next((c for c in COLUMNS if c in table.columns), "")
    if column is None and (not named or _OF_PAIRS & set(table.columns)):
        for k, turns in enumerate(dict.fromkeys(pair.prompt for pair in load_pairs(path))):
            yield str(path), Prompt(str(k + 1), turns, system)
        return
    if named not in table.columns:
        known = ", ".join(table.columns)
        raise InputError(
            f"no column {named!r} (found: {known})", place=str(path), fix="name it with --column"
        )
    for number, row in enumerate(table.rows, start=1):
        try:
            yield row.place, _prompt(row, named, number, system)
        except UnusableError as error:
            dropped.add(error.reason, row.place)


def _lines(path: Path, system: str) -> Iterator[tuple[str, Prompt]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fix = "check the path; the file must be UTF-8"
        raise InputError(f"cannot read: {error}", place=str(path), fix=fix) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}, line {number}", Prompt(str(number), (line,), system)


def _prompt(row: Row, column: str, number: int, system: str) -> Prompt:
    value = row.cells.get(column)
    names = (row.cells.get(name) for name in _IDS)
    id = next((str(name) for name in names if name not in (None, "")), str(number))
    if isinstance(value, str) and (listed := json_list(value)) is not None:
        value = listed
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        messages = messages_cell(row, column, value)
        users = tuple(m.text for m in messages if m.role == "user")
        if not users:
            raise UnusableError("no user turn")
        own = "\n\n".join(m.text for m in messages if m.role == "system")
        return Prompt(id, users, own or system)
    return Prompt(id, turns_of(row, column, value), system)
