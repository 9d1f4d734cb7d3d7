"""How good an answer looks by rules alone: a number from 0 to 1 with what lowered it.

The rules and their weights are this project's own; they find what is broken, not what is wise.
Knows nothing of files, and of other scores, which come as columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from litee.records import Demonstration

_WORD = re.compile(r"\w+")
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_ASSISTANT = re.compile(
    r"\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b"
    r"|\bI(?:'m| am) (?:just )?an? (?:AI|language model)\b"
    r"|\bmy (?:training data|knowledge cutoff)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\A\W*(?:I(?:'m| am) (?:sorry|afraid)|sorry|unfortunately|I can(?:no|')t|I am unable)\b",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\[(?:your|insert|name|company|date)\b[^\]]*\]|\blorem ipsum\b|<(?:your|insert)[^>]*>"
    r"|\bTODO\b|\{\{[^}]*\}\}",
    re.IGNORECASE,
)
_ENDED = re.compile(r"""[.!?…。！？:;)\]}>"'”’`*_|~]\s*\Z""")
_LIST_END = re.compile(r"(?:^|\n)\s*(?:[-*•+]|\d{1,3}[.)])\s+[^\n]*\Z")
_COMMON = frozenset(("about", "does", "have", "that", "this", "what", "when", "which", "with"))


@dataclass(frozen=True, slots=True)
class Judged:
    """A quality by rules.

    Attributes:
        value: 0 … 1.
        faults: rule → what it took away, > 0.
    """

    value: float
    faults: Mapping[str, float]


def judge_by_rules(item: Demonstration) -> Judged:
    """1 less the weights of the rules that the answer breaks, at least 0.

    >>> from litee.records import Message
    >>> def quality(answer):
    ...     both = (Message("user", "Why is grass green?"), Message("assistant", answer))
    ...     return judge_by_rules(Demonstration("1", both))
    >>> quality("Grass is green since it holds chlorophyll, which reflects green.").value
    1.0
    >>> quality("As an AI language model, I have no eyes for grass").faults
    {'speaks as an AI': 0.3, 'ends in the middle': 0.2}
    """
    answer = item.answer
    words = [w.casefold() for w in _WORD.findall(answer)]
    faults: dict[str, float] = {}
    for name, rule in RULES.items():
        taken = rule(item, answer, words)
        if taken > 0:
            faults[name] = round(taken, 4)
    return Judged(max(0.0, round(1.0 - sum(faults.values()), 4)), faults)


Rule = Callable[[Demonstration, str, list[str]], float]


def _speaks_as_ai(item: Demonstration, answer: str, words: list[str]) -> float:
    return 0.3 if _ASSISTANT.search(answer) else 0.0


def _refuses(item: Demonstration, answer: str, words: list[str]) -> float:
    """A bare refusal; one that explains itself at length is a good demonstration."""
    return 0.3 if len(words) < 40 and _REFUSAL.search(answer) else 0.0


def _cut(item: Demonstration, answer: str, words: list[str]) -> float:
    """Answers of a few words and lists need no full stop."""
    if len(words) < 8 or _ENDED.search(answer) or _LIST_END.search(answer):
        return 0.0
    return 0.2


def _repeats(item: Demonstration, answer: str, words: list[str]) -> float:
    """The share of word triples that occurred before, from a quarter on, up to 0.5."""
    if len(words) < 12:
        return 0.0
    triples = list(zip(words, words[1:], words[2:], strict=False))
    repeated = 1 - len(set(triples)) / len(triples)
    return min(0.5, repeated) if repeated > 0.25 else 0.0


def _placeholders(item: Demonstration, answer: str, words: list[str]) -> float:
    return 0.2 if _PLACEHOLDER.search(_CODE.sub("", answer)) else 0.0


def _shouts(item: Demonstration, answer: str, words: list[str]) -> float:
    letters = sum(map(str.isalpha, answer))
    capitals = sum(map(str.isupper, answer))
    return 0.2 if letters >= 30 and capitals > 0.4 * letters else 0.0


def _garbage(item: Demonstration, answer: str, words: list[str]) -> float:
    """Few letters or digits outside code, or characters that show a wrong encoding."""
    if "\ufffd" in answer or "Ã¢â‚¬" in answer or "â€™" in answer:
        return 0.3
    text = _CODE.sub("", answer)
    shown = len(text) - sum(map(str.isspace, text))
    good = sum(map(str.isalnum, text))
    return 0.3 if shown >= 20 and good < 0.6 * shown else 0.0


def _echoes(item: Demonstration, answer: str, words: list[str]) -> float:
    """The answer is the prompt again."""
    prompt = [w.casefold() for w in _WORD.findall(item.prompt)]
    return 0.5 if words and len(prompt) >= 4 and words == prompt else 0.0


def _off_topic(item: Demonstration, answer: str, words: list[str]) -> float:
    """A long answer that takes up no word of a long prompt."""
    asked = {w.casefold() for w in _WORD.findall(item.prompt) if len(w) > 3} - _COMMON
    if len(asked) < 5 or len(words) < 60:
        return 0.0
    stems = {w[:5] for w in words}
    return 0.0 if any(w[:5] in stems for w in asked) else 0.1


def _wall(item: Demonstration, answer: str, words: list[str]) -> float:
    """Over 300 words in one paragraph."""
    return 0.1 if len(words) > 300 and "\n" not in answer.strip() else 0.0


#: Rule → the function that says what it takes away.
RULES: Mapping[str, Rule] = {
    "speaks as an AI": _speaks_as_ai,
    "bare refusal": _refuses,
    "ends in the middle": _cut,
    "repeats itself": _repeats,
    "placeholder": _placeholders,
    "capitals": _shouts,
    "garbled": _garbage,
    "repeats the prompt": _echoes,
    "off the topic": _off_topic,
    "one long paragraph": _wall,
}
