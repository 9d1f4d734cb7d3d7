"""Evaluation prompts that must not be learnt from: shared runs of words.

A demonstration leaks an evaluation prompt when it holds at least a share of the prompt's word
n-grams; near-duplicate prompts are found elsewhere (`duplicates`). Knows nothing of choosing.
Overlapping n-grams are the usual test for contamination (Brown et al. 2020, appendix C, with 13
words and any overlap); the share, which spares common phrases, is this project's choice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from litee.collect.cells import json_list
from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.instructions import records
from litee.collect.near import normalise
from litee.collect.reading import Reading
from litee.errors import InputError

_WORD = re.compile(r"\w+")
#: Shorter prompts are too common to prove anything by their words alone.
_SHORTEST = 4
_CELLS = ("prompt", "instruction", "question", "Golden Question", "text")


def read_prompts(paths: Sequence[Path]) -> tuple[str, ...]:
    """Evaluation prompts out of votes, demonstrations, tables or plain text (one per line).

    Taken are `prompt` (text or a list of turns), `messages` (what the user says), `instruction`,
    `question` or `text`, the first that a row has. Repeats are left out.

    Raises:
        InputError: a file is missing or broken, or has no prompts.
    """
    found: dict[str, None] = {}
    for path in paths:
        before = len(found)
        if path.suffix == ".txt":
            found.update(dict.fromkeys(line.strip() for line in _lines(path) if line.strip()))
        else:
            reading = Reading(DemonstrationSettings())
            for _, cells in records(path, reading):
                found.update(dict.fromkeys(t for t in _prompts(cells) if t.strip()))
        if len(found) == before and not before:
            fix = f"give a .txt file with a prompt per line, or rows with {', '.join(_CELLS)}"
            raise InputError("no evaluation prompts", place=str(path), fix=fix)
    return tuple(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix = "give a UTF-8 text file with a prompt per line"
        raise InputError(f"cannot read: {error}", place=str(path), fix=fix) from error


def _prompts(cells: Mapping[str, object]) -> Iterator[str]:
    messages = cells.get("messages")
    if isinstance(messages, list):
        for message in messages:
            if isinstance(message, Mapping) and message.get("role") == "user":
                yield str(message.get("content", ""))
        return
    value = next((cells[name] for name in _CELLS if cells.get(name)), "")
    if isinstance(value, str):
        turns: Sequence[object] = json_list(value) or [value]
    else:
        turns = value if isinstance(value, list | tuple) else []
    yield from (turn for turn in turns if isinstance(turn, str))


def word_runs(text: str, n: int) -> set[int]:
    """Hashes of all runs of n words.

    >>> len(word_runs("to be or not to be or not", 4))
    4
    """
    words = _WORD.findall(normalise(text))
    return {hash(tuple(words[k : k + n])) for k in range(len(words) - n + 1)}


class Leaks:
    """Finds evaluation prompts in texts.

    Args:
        prompts: the evaluation prompts.
        n: words per run; a shorter prompt of four words or more counts as one run.
        share: of a prompt's runs that must be shared, in (0, 1].

    >>> leaks = Leaks(["Why is the sky blue at noon but red at dusk?"], n=4, share=0.5)
    >>> leaks.find("Tell me: why is the sky blue at noon but red at dusk?", "")
    (1.0, 0)
    >>> leaks.find("Why is the grass green?", "")
    """

    def __init__(self, prompts: Sequence[str], *, n: int, share: float) -> None:
        self.prompts = tuple(prompts)
        self._share = share
        self._n = n
        self._runs: dict[int, dict[int, list[int]]] = {}
        self._sizes: list[int] = []
        for k, prompt in enumerate(prompts):
            words = len(_WORD.findall(normalise(prompt)))
            length = min(n, words)
            runs = word_runs(prompt, length) if length >= _SHORTEST else set()
            self._sizes.append(len(runs))
            for run in runs:
                self._runs.setdefault(length, {}).setdefault(run, []).append(k)

    def find(self, asked: str, answered: str) -> tuple[float, int] | None:
        """The largest share of a prompt's runs and the prompt's number; None below the limit.

        Short prompts are looked for in what is asked only.
        """
        counts: Counter[int] = Counter()
        for length, known in self._runs.items():
            runs = word_runs(asked, length)
            if length == self._n:
                runs |= word_runs(answered, length)
            for run in runs & known.keys():
                counts.update(known[run])
        if not counts:
            return None
        share, negative = max((count / self._sizes[k], -k) for k, count in counts.items())
        return (round(share, 4), -negative) if share >= self._share else None
