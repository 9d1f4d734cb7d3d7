"""Answers that were written before, several per prompt, as what preferences are made of.

The file is one of `litee generate` with `--samples` or `--best-of N --all`. Knows nothing of models
and judges; rewards are those of the file, if it has any.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from litee.errors import InputError
from litee.finetune.rewards import Exchange, RewardFunction, checked_rewards
from litee.records import Dropped, Message


@dataclass(frozen=True, slots=True)
class WrittenAnswers:
    """Answers by prompt, in the order of the file.

    Attributes:
        conversations: one per prompt, each of one user message.
        answers: per prompt, two or more.
        finished: whether each ended by itself.
        rewards: of each answer; None when the file has not one for all.
        dropped: rows that were not used, by reason.
    """

    conversations: tuple[tuple[Message, ...], ...]
    answers: tuple[tuple[str, ...], ...]
    finished: tuple[tuple[bool, ...], ...]
    rewards: tuple[tuple[float, ...], ...] | None
    dropped: Dropped

    def ranked_by(self, reward: RewardFunction) -> tuple[tuple[float, ...], ...]:
        """Rewards of all answers, asked for in one call.

        Raises:
            ModelError: a reward is not a finite number.
        """
        asked = [
            Exchange(messages, *one)
            for messages, *several in zip(
                self.conversations, self.answers, self.finished, strict=True
            )
            for one in zip(*several, strict=True)
        ]
        values = iter(checked_rewards(reward, asked))
        return tuple(tuple(next(values) for _ in several) for several in self.answers)


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: str
    answer: str
    finished: bool
    reward: float | None


def read_written_answers(path: Path) -> WrittenAnswers:
    """Read the answers of a file.

    Args:
        path: JSON lines with `prompt`, `answer` and perhaps `finish_reason` and `reward`.

    Raises:
        InputError: the file cannot be read, a line is not such a row, or no prompt has two
            answers.
    """
    dropped: Counter[str] = Counter()
    by_prompt: dict[str, list[_Row]] = {}
    for row in _rows(path, dropped):
        by_prompt.setdefault(row.prompt, []).append(row)
    kept = {prompt: rows for prompt, rows in by_prompt.items() if len(rows) > 1}
    if single := len(by_prompt) - len(kept):
        dropped["the only answer to its prompt"] = single
    if not kept:
        raise InputError(
            f"no prompt has two answers ({dict(dropped) or 'the file is empty'})",
            place=str(path),
            fix="write several: `litee generate … --samples 4`, or `--best-of 8 --judge J --all`",
        )
    rewards = [tuple(r.reward for r in rows if r.reward is not None) for rows in kept.values()]
    whole = all(len(a) == len(b) for a, b in zip(rewards, kept.values(), strict=True))
    return WrittenAnswers(
        tuple((Message("user", prompt),) for prompt in kept),
        tuple(tuple(r.answer for r in rows) for rows in kept.values()),
        tuple(tuple(r.finished for r in rows) for rows in kept.values()),
        tuple(rewards) if whole else None,
        Dropped(dict(dropped)),
    )


def _rows(path: Path, dropped: Counter[str]) -> Iterator[_Row]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip() and (row := _row(line, path, number, dropped)):
                    yield row
    except (OSError, UnicodeDecodeError) as error:
        fix = "check the path; the file must be UTF-8"
        raise InputError(f"cannot read: {error}", place=str(path), fix=fix) from error


def _row(line: str, path: Path, number: int, dropped: Counter[str]) -> _Row | None:
    place, fix = f"{path}, line {number}", "give a file that `litee generate` wrote"
    try:
        cells = json.loads(line)
    except ValueError as error:
        raise InputError(f"no JSON: {error}", place=place, fix=fix) from error
    if not isinstance(cells, Mapping) or not {"prompt", "answer"} <= set(cells):
        raise InputError("no row with prompt and answer", place=place, fix=fix)
    prompt, answer = _only(cells["prompt"]), _only(cells["answer"])
    if prompt is None or answer is None:
        dropped["more than one turn, whose earlier answers differ"] += 1
        return None
    finished = cells.get("finish_reason", "stop") == "stop"
    return _Row(prompt, answer, finished, _finite(cells.get("reward")))


def _finite(cell: object) -> float | None:
    if isinstance(cell, int | float) and not isinstance(cell, bool) and math.isfinite(cell):
        return float(cell)
    return None


def _only(cell: object) -> str | None:
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    return cell if isinstance(cell, str) else None
