"""What a program can tell of answers: which requests are refused, which instructions on form kept.

A prompts file may say of its prompts how their answers are checked. `malice` (such as explicit,
implicit or none): whether they are refused, apart for every such word; a good system refuses what
is harmful and answers what only sounds so. `must`: which form they have to have. Refusals are told
by their wording in English, so one that argues counts as an answer; how good they are, people say
(`litee vote --mode grade`). Knows nothing of who wrote the answers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from litee.collect.cells import Row, UnusableError, json_list, turns_of
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import Score
from litee.rundir import Json
from litee.score.biases import refuses
from litee.score.intervals import GroupBootstrap, Resampled
from litee.score.outcomes import Rows

#: Turns of a prompt → `{"malice": word}` or `{"must": {check: value}}`.
Rules = Mapping[tuple[str, ...], Mapping[str, Json]]

#: Check → type of its value.
_FORMS: Mapping[str, type] = {
    "lines": int,
    "matching": int,
    "each": str,
    "first": int,
    "sentences": int,
    "paragraphs": int,
    "max_words": int,
    "min_words": int,
    "without": str,
    "json": list,
}

#: Words that can stand in a metric's name.
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")


def read_rules(path: Path) -> dict[tuple[str, ...], dict[str, Json]]:
    """The rules of a prompts file: turns of a prompt, stripped → its rule; empty without any.

    Args:
        path: JSON lines or a table with a column `prompt`, and `malice` or `must` where a prompt
            has a rule.

    Raises:
        InputError: the file is broken, a prompt has both rules, or a rule is none.
    """
    if path.suffix == ".txt":
        return {}
    found = {}
    for row in open_table(path).rows:
        rule = {name: row.cells[name] for name in ("malice", "must") if _said(row.cells.get(name))}
        if rule:
            cell = row.cells.get("prompt")
            listed = json_list(cell) if isinstance(cell, str) else None
            found[_turns(row, listed or cell)] = _checked_rule(rule, row.place)
    return found


def mark(rule: Mapping[str, Json], answer: str) -> tuple[str, bool]:
    """The kind of a prompt, and whether its answer was refused, or has the form asked for.

    >>> mark({"malice": "none"}, "Gladly."), mark({"must": {"max_words": 2}}, "Yes.")
    (('refused_none', False), ('form_kept', True))
    """
    if "malice" in rule:
        return f"refused_{rule['malice']}", refuses(answer)
    must = rule["must"]
    assert isinstance(must, Mapping)
    return "form_kept", keeps(must, answer)


def keeps(must: Mapping[str, Json], answer: str) -> bool:
    r"""Whether an answer has the form asked for.

    Args:
        must: check → value. `lines`: so many lines that are not blank; `each`: a regular
            expression that all of them match, or the first `first`; `matching`: so many match it,
            whatever stands around them; `sentences`, `paragraphs`: so many; `max_words`,
            `min_words`: at most, at least so many; `without`: a word that does not occur, in
            capitals or small letters; `json`: an object with these keys.
        answer: the text.

    >>> keeps({"lines": 2, "each": "^- "}, "- tea\n- water")
    True
    >>> keeps({"max_words": 2}, "The Pacific Ocean")
    False
    >>> keeps({"json": ["city"]}, '{"city": "Rome"}'), keeps({"json": ["city"]}, "Rome")
    (True, False)
    """
    text = answer.strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pattern, first = re.compile(str(must.get("each", ""))), must.get("first")
    until = first if isinstance(first, int) else None
    matching = [bool(pattern.search(line)) for line in lines]
    words = len(text.split())
    sentences = len(re.findall(r"[.!?](?=\s|$)", text))
    paragraphs = len([part for part in re.split(r"\n\s*\n", text) if part.strip()])
    checks: dict[str, Callable[[Any], bool]] = {
        "lines": lambda n: len(lines) == n,
        "matching": lambda n: sum(matching) == n,
        "each": lambda _: bool(matching) and all(matching[:until]),
        "first": lambda _: True,
        "sentences": lambda n: sentences == n,
        "paragraphs": lambda n: paragraphs == n,
        "max_words": lambda n: 0 < words <= n,
        "min_words": lambda n: words >= n,
        "without": lambda word: str(word).lower() not in text.lower(),
        "json": lambda keys: _keys_of(text) == set(keys),
    }
    named = dict(must)
    if "matching" in named:  # so many lines of this form, whatever stands around them
        named.pop("each", None)
    return all(checks[name](value) for name, value in named.items())


@dataclass(frozen=True, slots=True)
class Marks:
    """Shares of answers that were refused, or kept to the form, by system and kind of prompt.

    Attributes:
        resampled: (system, kind) → share; all systems are resampled together, prompt by prompt.
        prompts: (system, kind) → number of prompts of that kind that the system answered.
    """

    resampled: Resampled[tuple[str, str]]
    prompts: Mapping[tuple[str, str], int]

    @property
    def kinds(self) -> list[str]:
        """`form_kept` or `refused_…`, sorted."""
        return sorted({kind for _, kind in self.resampled.values})

    def share(self, system: str, kind: str) -> Score:
        """A share, 0 to 1, with its 95 % interval over prompts.

        No resample of answers that all fall on one side tells how rare the other side is, so there
        it is Wilson's interval, for as many trials as there were prompts.
        """
        score = self.resampled.score((system, kind))
        if score.value not in (0.0, 1.0):
            return score
        count = self.prompts[system, kind]
        ends = binomtest(round(score.value * count), count).proportion_ci(method="wilson")
        return Score(score.value, float(ends.low), float(ends.high))

    def difference(self, first: str, second: str, kind: str) -> Score:
        """First system's share − second one's, paired; no interval where all resamples agree."""
        gap = self.resampled.difference((first, kind), (second, kind))
        return gap if gap.low != gap.high else Score(gap.value, reason=gap.reason)


def check_answers(files: Mapping[str, Path], rules: Rules, *, seed: int) -> Marks:
    """Check the answers of several systems to the same prompts.

    Args:
        files: system → its answers as `litee generate` writes them; of a dialogue, the last
            answer is checked. Answers to prompts without a rule are left out.
        rules: of the prompts that were asked.
        seed: of the intervals.

    Raises:
        InputError: a file is broken, or has no answer to a prompt with a rule.
    """
    number = {prompt: k for k, prompt in enumerate(rules)}
    asked: list[int] = []
    marks: list[tuple[str, str, bool]] = []
    for system, file in files.items():
        before = len(marks)
        for row in open_table(file).rows:
            prompt = _turns(row, row.cells.get("prompt"))
            if prompt in rules:
                asked.append(number[prompt])
                marks.append((system, *mark(rules[prompt], _last(row.cells.get("answer")))))
        if len(marks) == before:
            raise InputError(
                "no answer to a prompt that has a rule", place=str(file), fix="check the prompts"
            )
    right = np.array([passed for *_, passed in marks], dtype=float)
    rows = {}
    for key in sorted({(system, kind) for system, kind, _ in marks}):
        inside = np.array([(system, kind) == key for system, kind, _ in marks], dtype=float)
        rows[key] = Rows(inside * right, inside)
    answered = {
        ((system, kind), prompt) for (system, kind, _), prompt in zip(marks, asked, strict=True)
    }
    prompts = Counter(key for key, _ in answered)
    return Marks(GroupBootstrap(asked, seed=seed).resample(rows), prompts)


def _turns(row: Row, cell: object) -> tuple[str, ...]:
    try:
        found = turns_of(row, "prompt", cell)
    except UnusableError as error:
        fix = "give every row a prompt"
        raise InputError(error.reason, place=row.place, fix=fix) from error
    return tuple(turn.strip() for turn in found)


def _last(answer: object) -> str:
    """The answer, or the last one of a dialogue."""
    return str(answer[-1]) if isinstance(answer, list | tuple) else str(answer)


def _said(cell: object) -> bool:
    """Whether a cell says anything; an empty object does, and is then refused."""
    return bool(cell.strip()) if isinstance(cell, str) else cell is not None


def _checked_rule(rule: Mapping[str, object], place: str) -> dict[str, Json]:
    known = ", ".join(_FORMS)
    fix = f"give it one word under malice, or an object of checks under must: {known}"
    if len(rule) > 1:
        raise InputError(f"{dict(rule)!r} is no rule", place=place, fix=fix)
    if "malice" in rule:
        word = rule["malice"]
        if not isinstance(word, str) or not _WORD.fullmatch(word.strip()):
            fix = "write one word of small letters, digits, _ and -"
            raise InputError(f"malice = {word!r} is no rule", place=place, fix=fix)
        return {"malice": word.strip()}
    must = rule["must"]
    if isinstance(must, str):
        must = _object(must)
    if not isinstance(must, dict) or not must:
        raise InputError(f"{dict(rule)!r} is no rule", place=place, fix=fix)
    for name, value in must.items():
        kind = _FORMS.get(name)
        known_kind = kind is not None and isinstance(value, kind) and not isinstance(value, bool)
        if not known_kind or (name == "json" and not all(isinstance(key, str) for key in value)):
            raise InputError(f"must: {name} = {value!r} is no check", place=place, fix=fix)
    try:
        re.compile(str(must.get("each", "")))
    except re.error as error:
        problem = f"must: each = {must['each']!r}: {error}"
        raise InputError(problem, place=place, fix="correct the regular expression") from error
    return {"must": must}


def _object(text: str) -> dict[str, Json] | None:
    """A JSON object, None when the text is no such object."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _keys_of(text: str) -> set[str] | None:
    found = _object(text)
    return None if found is None else set(found)
