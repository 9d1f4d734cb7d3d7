"""Two files of answers to the same prompts as pairs, and other judges' verdicts on those pairs.

Knows nothing of how the pairs are judged here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litee.collect.cells import UnusableError, turns_of
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import CLASSES, Dropped, Pair, VotedPair
from litee.score.outcomes import Floats

#: What a column may be called, the first one found.
_PROMPTS = ("prompt", "question", "instruction")
_ANSWERS = ("response", "answer", "output")
_SYSTEMS = ("system", "model")
_IDS = ("pair_id", "id")
_PROBABILITIES = ("p_a", "p_b", "p_tie")

_LABELS = {"a": 0, "b": 1, "tie": 2, "both_bad": 2, "neither": 2}


@dataclass(frozen=True, slots=True)
class Meetings:
    """Pairs of answers of two systems, first system's answer as A.

    Attributes:
        names: of the systems.
        pairs: one per prompt and sample that both answered, in the order of the first file.
        groups: (n,) number of each pair's prompt.
        dropped: answers that have no partner, by reason.
    """

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    groups: tuple[int, ...]
    dropped: Dropped


def meet(first: Path, second: Path, names: tuple[str, str] | None = None) -> Meetings:
    """Pair the answers of two files by prompt: the k-th answer to it with the k-th.

    Args:
        first: JSON lines or a table with columns of prompts and answers, as `litee generate`
            writes them.
        second: likewise.
        names: of the systems; taken from the files (`model`, `system`, file name) when None.

    Raises:
        InputError: a file is broken, lacks a column, or no prompt is answered by both.
    """
    one, two = _answers(first), _answers(second)
    named = names or _names((first, one.system), (second, two.system))
    pairs: list[Pair] = []
    groups: list[int] = []
    dropped: Counter[str] = Counter(one.unusable + two.unusable)
    for number, (prompt, answers) in enumerate(one.by_prompt.items()):
        others = two.by_prompt.get(prompt, [])
        for k, (left, right) in enumerate(zip(answers, others, strict=False)):
            if len(left) != len(right):
                dropped["the numbers of turns differ"] += 1
                continue
            asked = prompt[: len(left)]
            pairs.append(Pair(f"{number + 1}-{k + 1}", asked, left, right, *named, first.stem))
            groups.append(number)
        extra = abs(len(answers) - len(others))
        if extra:
            dropped["an answer without one of the other system to the same prompt"] += extra
    alone = sum(len(a) for p, a in two.by_prompt.items() if p not in one.by_prompt)
    if alone:
        dropped["an answer without one of the other system to the same prompt"] += alone
    if not pairs:
        raise InputError(
            "no prompt was answered by both systems",
            place=f"{first}, {second}",
            fix="answer the same prompts file with both",
        )
    return Meetings(named, tuple(pairs), tuple(groups), Dropped(dict(dropped)))


def read_verdicts(path: Path, pairs: Sequence[Pair]) -> Floats:
    """(n, 3) probabilities of A, B, tie by a table of `pair_id` and `verdict` (or p_a, p_b, p_tie).

    Pairs without a row or a verdict are rows of NaN. Probabilities count as they are, a verdict as
    certain.

    Raises:
        InputError: the table is broken, or holds no verdict on these pairs.
    """
    table = open_table(path)
    key = next((c for c in _IDS if c in table.columns), None)
    with_p = all(c in table.columns for c in _PROBABILITIES)
    if key is None or not (with_p or "verdict" in table.columns):
        raise InputError(
            f"no column pair_id, or neither verdict nor p_a, p_b, p_tie "
            f"(found: {', '.join(table.columns)})",
            place=str(path),
            fix="name a file that `litee score` wrote for the pairs of this comparison",
        )
    places = {pair.id: k for k, pair in enumerate(pairs)}
    found = np.full((len(pairs), len(CLASSES)), np.nan)
    for row in table.rows:
        place = places.get(str(row.cells.get(key)))
        if place is not None:
            found[place] = _verdict(row.cells, path, with_probabilities=with_p)
    if not np.isfinite(found).all(axis=1).any():
        raise InputError("no verdict on these pairs", place=str(path), fix="check the pair ids")
    return found


def shares_of(voted: Sequence[VotedPair], pairs: Sequence[Pair]) -> Floats:
    """(n, 3) people's vote shares on the same texts, in either order; NaN where nobody voted."""
    shares = {(v.pair.prompt, v.pair.response_a, v.pair.response_b): v.shares for v in voted}
    found = np.full((len(pairs), len(CLASSES)), np.nan)
    for k, pair in enumerate(pairs):
        straight = shares.get((pair.prompt, pair.response_a, pair.response_b))
        crossed = shares.get((pair.prompt, pair.response_b, pair.response_a))
        if straight is not None:
            found[k] = straight
        elif crossed is not None:
            found[k] = (crossed[1], crossed[0], crossed[2])
    return found


@dataclass(frozen=True, slots=True)
class _Answers:
    by_prompt: dict[tuple[str, ...], list[tuple[str, ...]]]
    system: str
    unusable: Counter[str]


def _answers(path: Path) -> _Answers:
    table = open_table(path)
    prompt = next((c for c in _PROMPTS if c in table.columns), None)
    answer = next((c for c in _ANSWERS if c in table.columns), None)
    if prompt is None or answer is None:
        raise InputError(
            f"no column of prompts or of answers (found: {', '.join(table.columns)})",
            place=str(path),
            fix=f"name them {_PROMPTS[0]} and {_ANSWERS[0]}",
        )
    named = next((c for c in _SYSTEMS if c in table.columns), None)
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    unusable: Counter[str] = Counter()
    systems: Counter[str] = Counter()
    for row in table.rows:
        try:
            asked = turns_of(row, "prompt", row.cells.get(prompt))
            answered = turns_of(row, "response", row.cells.get(answer))
        except UnusableError as error:
            unusable[error.reason] += 1
            continue
        found.setdefault(asked, []).append(answered)
        if named is not None:
            systems[str(row.cells.get(named) or "")] += 1
    system = next(iter(systems)) if len(systems) == 1 else ""
    return _Answers(found, system, unusable)


def _names(*given: tuple[Path, str]) -> tuple[str, str]:
    """The systems' names, or the files' when those are missing or equal."""
    (first, one), (second, two) = given
    if one and two and one != two:
        return one, two
    if first.stem != second.stem:
        return first.stem, second.stem
    return "A", "B"


def _verdict(
    cells: Mapping[str, object], path: Path, *, with_probabilities: bool
) -> tuple[float, float, float] | float:
    if with_probabilities:
        try:
            values = [float(str(cells.get(c))) for c in _PROBABILITIES]
        except ValueError:
            return float("nan")
        return values[0], values[1], values[2]
    label = str(cells.get("verdict") or "").strip().lower()
    if not label:
        return float("nan")
    if label not in _LABELS:
        raise InputError(
            f"verdict {label!r} is not a, b or tie", place=str(path), fix="correct the file"
        )
    k = _LABELS[label]
    return float(k == 0), float(k == 1), float(k == 2)
