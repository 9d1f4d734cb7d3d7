"""Text statistics of two answers: a member that needs no model, and the floor to beat.

Length, structure, repetition, overlap with the prompt, refusal. Knows nothing of meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from litee.config import StatisticsGroup
from litee.finetune.lengths import TERMS, length_terms
from litee.finetune.probe import PairStates
from litee.records import Pair

#: Texts whose statistics are remembered: neighbouring pairs share prompts and answers.
_REMEMBERED = 2048

_WORD = re.compile(r"\w+(?:'\w+)?")
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.M)
_HEADER = re.compile(r"^\s*#{1,6}\s", re.M)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:'t|not)|won't)|"
    r"as an? (?:ai|language model)|i apologi[sz]e|i do(?:n't| not) (?:know|have))\b",
    re.I,
)

#: Names of the statistics of one answer, in the order of the columns; `TERMS` lengths come first.
ANSWER_STATISTICS = (
    "log_characters",
    "root_characters",
    "thousand_characters",
    "log_words",
    "log_sentences",
    "mean_word_length",
    "log_list_items",
    "log_headers",
    "log_bold",
    "has_code",
    "digit_share",
    "capital_share",
    "non_ascii_share",
    "log_lines",
    "log_questions",
    "log_exclamations",
    "distinct_words",
    "repeated_trigrams",
    "prompt_words_used",
    "answer_words_new",
    "refusal",
    "ends_cleanly",
    "empty",
)

#: Names of the symmetric statistics of a pair.
PAIR_STATISTICS = (
    "word_overlap",
    "identical",
    "length_gap",
    "log_prompt_characters",
    "prompt_question",
    "prompt_code",
    "later_turns",
)


#: Group → its statistics. Every statistic is in one of them.
GROUPS: Mapping[StatisticsGroup, tuple[str, ...]] = {
    "length": (
        *("log_characters", "root_characters", "thousand_characters", "log_words"),
        *("log_sentences", "log_lines", "length_gap"),
    ),
    "structure": ("log_list_items", "log_headers", "log_bold", "has_code"),
    "wording": (
        *("mean_word_length", "digit_share", "capital_share", "non_ascii_share", "log_questions"),
        *("log_exclamations", "distinct_words", "repeated_trigrams", "word_overlap", "identical"),
    ),
    "prompt": (
        *("prompt_words_used", "answer_words_new", "log_prompt_characters", "prompt_question"),
        *("prompt_code", "later_turns"),
    ),
    "ending": ("refusal", "ends_cleanly", "empty"),
}


def answer_statistics(prompt: Sequence[str], answer: Sequence[str]) -> npt.NDArray[np.float64]:
    """Statistics of one answer to a conversation, all turns joined.

    Args:
        prompt: user turns.
        answer: assistant turns.

    Returns:
        (23,) in the order of `ANSWER_STATISTICS`; shares in 0 … 1, counts as log(1 + count).

    >>> row = answer_statistics(["Is it far?"], ["No. No. No. No."])
    >>> float(row[ANSWER_STATISTICS.index("repeated_trigrams")])
    0.5
    """
    return np.array(_answer(tuple(prompt), tuple(answer)))


@lru_cache(maxsize=_REMEMBERED)
def _answer(prompt: tuple[str, ...], answer: tuple[str, ...]) -> tuple[float, ...]:
    text = "\n".join(answer)
    words = [w.lower() for w in _WORD.findall(text)]
    asked = _content_words("\n".join(prompt))
    used = set(words)
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    size = max(len(text), 1)
    number = max(len(words), 1)
    log = np.log1p
    return (
        *length_terms(np.array([len(text)]))[0].tolist(),
        log(len(words)),
        log(len(_SENTENCE.findall(text))),
        sum(map(len, words)) / number,
        log(len(_LIST.findall(text))),
        log(len(_HEADER.findall(text))),
        log(text.count("**") // 2),
        float("```" in text),
        sum(c.isdigit() for c in text) / size,
        sum(c.isupper() for c in text) / size,
        sum(ord(c) > 127 for c in text) / size,
        log(text.count("\n")),
        log(text.count("?")),
        log(text.count("!")),
        len(used) / number,
        1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0,
        len(asked & used) / max(len(asked), 1),
        len(used - asked) / max(len(used), 1),
        float(bool(_REFUSAL.search(text.replace("’", "'")))),
        float(text.rstrip()[-1:] in set(".!?`)\"'*|")),
        float(not text.strip()),
    )


@lru_cache(maxsize=_REMEMBERED)
def _content_words(text: str) -> frozenset[str]:
    return frozenset(w.lower() for w in _WORD.findall(text) if len(w) > 3)


def pair_statistics(pair: Pair) -> npt.NDArray[np.float64]:
    """Statistics that do not change when the answers are exchanged.

    Returns:
        (7,) in the order of `PAIR_STATISTICS`.

    >>> row = pair_statistics(Pair("1", ("Why?",), ("a b",), ("b c",)))
    >>> round(float(row[0]), 3)  # one shared word of three
    0.333
    """
    prompt = "\n".join(pair.prompt)
    left, right = "\n".join(pair.response_a), "\n".join(pair.response_b)
    first, second = ({w.lower() for w in _WORD.findall(t)} for t in (left, right))
    return np.array(
        [
            len(first & second) / max(len(first | second), 1),
            float(left.strip() == right.strip()),
            abs(np.log1p(len(left)) - np.log1p(len(right))),
            np.log1p(len(prompt)),
            float("?" in prompt),
            float("```" in prompt),
            float(len(pair.prompt) > 1),
        ]
    )


def columns_of(groups: Sequence[StatisticsGroup]) -> list[int]:
    """Columns of `statistics_states` that belong to some groups, ascending.

    >>> [(ANSWER_STATISTICS + PAIR_STATISTICS)[k] for k in columns_of(["ending"])]
    ['refusal', 'ends_cleanly', 'empty']
    """
    names = ANSWER_STATISTICS + PAIR_STATISTICS
    return sorted({names.index(name) for group in groups for name in GROUPS[group]})


def statistics_states(
    pairs: Sequence[Pair], groups: Sequence[StatisticsGroup] = tuple(GROUPS)
) -> PairStates:
    """Statistics as states of a linear head: one row per distinct answer.

    Args:
        pairs: n pairs.
        groups: of statistics to read.

    Returns:
        (answers, 23 + 7) states when all groups are read: answer statistics, then the pair's own.
        The latter are equal on both sides, so they cancel in the reward and reach the tie score
        alone.
    """
    rows: list[npt.NDArray[np.float64]] = []
    for pair in pairs:
        own = pair_statistics(pair)
        rows.append(np.concatenate([answer_statistics(pair.prompt, pair.response_a), own]))
        rows.append(np.concatenate([answer_statistics(pair.prompt, pair.response_b), own]))
    index = np.arange(2 * len(pairs), dtype=np.int64)
    read = columns_of(groups)
    states = np.stack(rows)[:, read].astype(np.float32)
    lengths = tuple(read.index(column) for column in range(TERMS) if column in read)
    return PairStates(states, index[::2], index[1::2], lengths)
