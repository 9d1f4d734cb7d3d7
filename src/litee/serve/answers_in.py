"""What a campaign asks about: pairs from a file, pairs made of systems' answers, attention checks.

Knows nothing of databases and people.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from itertools import combinations
from pathlib import Path

import numpy as np

from litee.collect.cells import Row, name_cell, turns_of
from litee.collect.rows import open_table
from litee.collect.votes import load_pairs, load_votes
from litee.errors import InputError
from litee.records import Outcome, Pair

#: Words for the columns of a file of answers, the first that is there counts.
_SYSTEM = ("system", "model")
_ANSWER = ("answer", "response", "output")

#: Checks are made from pairs only when there are at least this many prompts.
ENOUGH = 10


def read_pairs(path: str, *, seed: int = 0) -> tuple[Pair, ...]:
    """Pairs from a file of pairs, or every two systems' answers to the same prompt.

    Args:
        path: any file that `load_pairs` reads, or one with prompt, system and answer per row.
        seed: of which answer is a.

    Raises:
        InputError: the file cannot be read, or gives no pair.
    """
    file = Path(path)
    if file.suffix.lower() not in {".db", ".sqlite"} and file.is_file():
        columns = open_table(file).columns
        system = next((name for name in _SYSTEM if name in columns), "")
        answer = next((name for name in _ANSWER if name in columns), "")
        if "prompt" in columns and system and answer and "response_a" not in columns:
            return _from_answers(file, system, answer, seed)
    return load_pairs(path)


def _from_answers(path: Path, system: str, answer: str, seed: int) -> tuple[Pair, ...]:
    by_prompt: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
    for row in open_table(path).rows:
        if not row.cells:
            continue
        name = name_cell(row, system)
        prompt, text = _turns(row, "prompt"), _turns(row, answer)
        if not name:
            fix = f"write the system's name into column {system!r}"
            raise InputError("the system has no name", place=row.place, fix=fix)
        if len(prompt) != len(text):
            fix = "give one answer per user turn"
            raise InputError(
                "prompt and answer have other numbers of turns", place=row.place, fix=fix
            )
        known = by_prompt.setdefault(prompt, {})
        if known.setdefault(name, text) != text:
            fix = "keep one answer per system and prompt"
            raise InputError(f"{name!r} answers the prompt twice", place=row.place, fix=fix)
    source = path.name.split(".")[0]
    rng = np.random.default_rng(seed)
    pairs = [
        _pair(prompt, list(answers.items()), two, source, swap=bool(rng.random() < 0.5))
        for prompt, answers in by_prompt.items()
        for two in combinations(range(len(answers)), 2)
    ]
    if not pairs:
        fix = "let at least two systems answer the same prompts"
        raise InputError("no prompt has two answers", place=str(path), fix=fix)
    return tuple(pairs)


def _turns(row: Row, column: str) -> tuple[str, ...]:
    return turns_of(row, column, row.cells.get(column))


def _pair(
    prompt: tuple[str, ...],
    answers: Sequence[tuple[str, tuple[str, ...]]],
    two: tuple[int, int],
    source: str,
    *,
    swap: bool,
) -> Pair:
    first, second = two[::-1] if swap else two
    (name_a, a), (name_b, b) = answers[first], answers[second]
    text = json.dumps([prompt, sorted([name_a, name_b]), source], ensure_ascii=False)
    name = blake2b(text.encode(), digest_size=8).hexdigest()
    return Pair(name, prompt, a, b, name_a, name_b, source)


def read_checks(path: str) -> list[tuple[Pair, Outcome]]:
    """Attention checks from a votes file: each pair with the winner everybody should name.

    Raises:
        InputError: the file cannot be read, or a winner is neither a nor b.
    """
    found: list[tuple[Pair, Outcome]] = []
    for vote in load_votes([path]).votes:
        if vote.winner not in (Outcome.A, Outcome.B):
            fix = "give every check a winner a or b"
            raise InputError(f"the check {vote.id!r} has no better answer", place=path, fix=fix)
        pair = vote.pair
        named = Pair(f"check:{pair.id}", pair.prompt, pair.response_a, pair.response_b)
        found.append((named, vote.winner))
    return found


def make_checks(pairs: Sequence[Pair], *, share: float, seed: int) -> list[tuple[Pair, Outcome]]:
    """Attention checks from the pairs: an answer to the question against one to another question.

    Args:
        pairs: of the campaign.
        share: checks per pair; at least one is made, unless the share is 0 or there are fewer than
            ten prompts.
        seed: of the choice.
    """
    single = [p for p in pairs if len(p.prompt) == 1 and p.response_a[0].strip()]
    one_each = list({p.prompt: p for p in single}.values())
    if share <= 0 or len(one_each) < ENOUGH:
        return []
    rng = np.random.default_rng(seed)
    count = min(max(1, round(share * len(pairs))), len(one_each) - 1, 50)
    order = rng.permutation(len(one_each))
    found = []
    for k in range(count):
        right, other = one_each[order[k]], one_each[order[k + 1]]
        if right.response_a[0].strip() == other.response_a[0].strip():
            continue
        name = f"check:{right.id}:{other.id}"  # so that more pairs make other checks
        pair = Pair(name, right.prompt, right.response_a, other.response_a)
        found.append((pair, Outcome.A))
    return found
