"""The prompts that all arms of a study of demonstrations answer, and the rules they bring along.

Knows nothing of who answers them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.errors import InputError
from litee.predict.generation_prompts import Prompt, PromptSet, read_prompts
from litee.rundir import sha256_json, write_text
from litee.score.rules import Rules, read_rules
from litee.score.study_store import Store


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked.

    Attributes:
        prompts: distinct ones, in file order.
        rules: of those prompts that have one, by their turns.
        file: JSON lines of the prompts, for the commands that read them.
        left_out: why other prompts of the file are not asked → how many.
    """

    prompts: tuple[Prompt, ...]
    rules: Rules
    file: Path
    left_out: Mapping[str, int]


def read_asked(path: Path, *, turns: int, every: int, system: str, store: Store) -> Asked:
    """Prompts of a file of prompts or votes.

    Args:
        path: as for `read_prompts`.
        turns: user turns of a prompt that are asked.
        every: 1 asks all of them, 2 every second one.
        system: system message of prompts without one.
        store: gets the file of prompts.

    Raises:
        InputError: the file is broken, no prompt has so many turns, or one with a rule has more.
    """
    found = read_prompts(path, system=system)
    prompts = take(found.prompts, turns=turns, every=every)
    if not prompts:
        raise InputError(
            f"no prompt has {turns} user turns", place=str(path), fix="lower turns in the study"
        )
    rules = read_rules(path)
    longest = max(map(len, rules), default=0)
    if longest > turns:
        raise InputError(
            f"a prompt with a rule has {longest} user turns, and {turns} would be asked: the rule "
            "is for the answer to the last one",
            place=str(path),
            fix="raise turns in the study, or take the rule out",
        )
    known = {p.turns: rules[p.turns] for p in prompts if p.turns in rules}
    content = [[p.id, list(p.turns)] for p in prompts]
    file = store.folder("prompts", {"prompts": sha256_json(content)}) / "prompts.jsonl"
    lines = [json.dumps({"id": p.id, "prompt": list(p.turns)}, ensure_ascii=False) for p in prompts]
    write_text(file, "\n".join(lines) + "\n")
    return Asked(prompts, known, file, _left_out(found, turns=turns, every=every))


def _left_out(found: PromptSet, *, turns: int, every: int) -> dict[str, int]:
    """Reason → number of prompts; the rows that hold no usable one come first."""
    short = sum(len(prompt.turns) < turns for prompt in found.prompts)
    distinct = len(take(found.prompts, turns=turns, every=1))
    asked = len(take(found.prompts, turns=turns, every=every))
    counts = {
        **found.dropped.counts,
        f"fewer than {turns} user turns": short,
        "asks the same as an earlier one": len(found.prompts) - short - distinct,
        f"only one in {every} is asked": distinct - asked,
    }
    return {reason: count for reason, count in counts.items() if count}


def take(prompts: Sequence[Prompt], *, turns: int, every: int) -> tuple[Prompt, ...]:
    """The first `turns` turns of prompts that have as many: all of them, or one in `every`.

    Texts are stripped. Prompts that then are the same are asked once, and those that begin alike
    stand together, where the first one of them stood.

    >>> found = [Prompt("1", ("a ",)), Prompt("2", ("b",)), Prompt("3", ("a", "c"))]
    >>> [p.turns for p in take(found, turns=1, every=1)], take(found, turns=2, every=1)[0].id
    ([('a',), ('b',)], '3')
    """
    by_opening: dict[tuple[str, str], dict[tuple[str, ...], Prompt]] = {}
    for prompt in prompts:
        own = tuple(turn.strip() for turn in prompt.turns)
        alike = by_opening.setdefault((prompt.system, own[0]), {})
        if len(own) >= turns:
            alike.setdefault(own[:turns], Prompt(prompt.id, own[:turns], prompt.system))
    return tuple(one for alike in by_opening.values() for one in alike.values())[::every]
