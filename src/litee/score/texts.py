"""Text metrics that need no model: overlap with a golden answer, length, variety, repetition.

ROUGE, BLEU, chrF and METEOR come from rouge-score, sacrebleu and nltk and equal them exactly; all
are on the scale 0 … 1. `meteor` has all three stages of Banerjee and Lavie (2005): the same word,
the same stem, a synonym in WordNet; `meteor_stem` has the first two and needs no data. Knows
nothing of files, people or models.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from litee.errors import ConfigError
from litee.records import Score
from litee.score.answers import Answer
from litee.score.synonyms import NO_WORDNET, NoSynonyms, Synonyms, wordnet

#: Reasons for having no score.
NO_ANSWER, EMPTY_ANSWER = "no answer", "empty answer"
NO_REFERENCE, NO_PROMPT = "no reference", "no prompt"

_ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
#: Tokenised lines that sacrebleu may remember: a block of answers and references.
_LINES = 2048

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"\w+")


class TextMetric(Protocol):
    """Anything that scores answers.

    Attributes:
        columns: names of its numbers.
        lower_is_better: those of them for which less is better.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its numbers."""

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """One tuple per answer, in the order of `columns`."""


@dataclass(frozen=True, slots=True)
class PlainMetric:
    """A metric that looks at one answer at a time.

    Attributes:
        columns: names of its numbers.
        function: answer → numbers, or a reason for having none.
        reference: whether it needs a golden answer.
        filled: whether it needs at least one word in the answer.
        missing: says what is not installed, "" when nothing is missing.
    """

    columns: tuple[str, ...]
    function: Callable[[Answer], Sequence[float]]
    reference: bool = False
    filled: bool = False
    missing: Callable[[], str] = str

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """One tuple per answer, in the order of `columns`."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> tuple[Score, ...]:
        reason = why_not(answer, reference=self.reference, filled=self.filled) or self.missing()
        if reason:
            return (Score(None, reason=reason),) * len(self.columns)
        return tuple(Score(float(value)) for value in self.function(answer))


def why_not(answer: Answer, *, reference: bool, filled: bool) -> str:
    """The reason why an answer cannot be scored, "" when it can."""
    if answer.answer is None:
        return NO_ANSWER
    if filled and not _WORD.search(answer.answer):
        return EMPTY_ANSWER
    if reference and not (answer.reference or "").strip():
        return NO_REFERENCE
    return ""


def normalised(text: str) -> str:
    """Lower case without punctuation, articles and extra white space (Rajpurkar et al. 2016).

    >>> normalised("The  Cat's pyjamas!")
    'cats pyjamas'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words of both normalised texts as multisets (SQuAD, Rajpurkar et al. 2016).

    >>> round(token_f1("the red hotel", "a red old inn"), 3)
    0.4
    """
    one, two = Counter(normalised(answer).split()), Counter(normalised(reference).split())
    if not one or not two:
        return float(one == two)
    return 2 * sum((one & two).values()) / (sum(one.values()) + sum(two.values()))


def distinct(words: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016); 1 for a text shorter than n.

    >>> distinct("a b a b".split(), 2)
    0.6666666666666666
    """
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


@dataclass(frozen=True, slots=True)
class _Libraries:
    """The libraries' scorers, made once."""

    rouge: RougeScorer = field(default_factory=lambda: RougeScorer(list(_ROUGE)))
    bleu: BLEU = field(default_factory=lambda: BLEU(effective_order=True))
    bleu_plain: BLEU = field(
        default_factory=lambda: BLEU(smooth_method="none", effective_order=True)
    )
    chrf: CHRF = field(default_factory=CHRF)
    stemmer: PorterStemmer = field(default_factory=PorterStemmer)


_LIBRARIES = _Libraries()


def _texts(answer: Answer) -> tuple[str, str]:
    return answer.answer or "", answer.reference or ""


def _rouge(answer: Answer) -> list[float]:
    text, reference = _texts(answer)
    scores = _LIBRARIES.rouge.score(reference, text)
    return [scores[name].fmeasure for name in _ROUGE]


def _keep_few_lines() -> None:
    """Empty sacrebleu's memory of tokenised lines, which would grow to 65,536 texts."""
    if Tokenizer13a.__call__.cache_info().currsize > _LINES:
        Tokenizer13a.__call__.cache_clear()
        TokenizerRegexp.__call__.cache_clear()


def _bleu(answer: Answer) -> list[float]:
    _keep_few_lines()
    text, reference = _texts(answer)
    return [_LIBRARIES.bleu.sentence_score(text, [reference]).score / 100]


def _bleu_plain(answer: Answer) -> list[float]:
    _keep_few_lines()
    text, reference = _texts(answer)
    return [_LIBRARIES.bleu_plain.sentence_score(text, [reference]).score / 100]


def _chrf(answer: Answer) -> list[float]:
    text, reference = _texts(answer)
    return [_LIBRARIES.chrf.sentence_score(text, [reference]).score / 100]


def _meteor(answer: Answer) -> list[float]:
    return _meteor_with(answer, wordnet() or NoSynonyms())


def _meteor_stem(answer: Answer) -> list[float]:
    return _meteor_with(answer, NoSynonyms())


def _meteor_with(answer: Answer, synonyms: Synonyms | NoSynonyms) -> list[float]:
    text, reference = (_WORD.findall(t.lower()) for t in _texts(answer))
    if not text or not reference:
        return [0.0]
    return [single_meteor_score(reference, text, stemmer=_LIBRARIES.stemmer, wordnet=synonyms)]


def _no_wordnet() -> str:
    return NO_WORDNET if wordnet() is None else ""


def _variety(answer: Answer) -> list[float]:
    words = _WORD.findall((answer.answer or "").lower())
    return [distinct(words, 1), distinct(words, 2), 1 - distinct(words, 4)]


def _golden(answer: Answer) -> list[float]:
    text, reference = _texts(answer)
    same = normalised(text) == normalised(reference)
    return [text.strip() == reference.strip(), same, token_f1(text, reference)]


def _length(answer: Answer) -> list[float]:
    text = answer.answer or ""
    return [len(text), len(_WORD.findall(text))]


_METRICS: tuple[PlainMetric, ...] = (
    PlainMetric(("exact", "normalised", "token_f1"), _golden, reference=True),
    PlainMetric(_ROUGE, _rouge, reference=True),
    PlainMetric(("bleu",), _bleu, reference=True),
    PlainMetric(("bleu_unsmoothed",), _bleu_plain, reference=True),
    PlainMetric(("chrf",), _chrf, reference=True),
    PlainMetric(("meteor",), _meteor, reference=True, missing=_no_wordnet),
    PlainMetric(("length", "words"), _length),
    PlainMetric(("distinct_1", "distinct_2", "repetition"), _variety, filled=True),
)

#: Made only when named.
_NAMED: tuple[PlainMetric, ...] = (PlainMetric(("meteor_stem",), _meteor_stem, reference=True),)

#: Columns for which less is better.
LOWER_IS_BETTER: frozenset[str] = frozenset({"repetition", "perplexity"})

#: Columns that need a model and are made elsewhere.
MODEL_COLUMNS: tuple[str, ...] = (
    "similarity",
    "similarity_prompt",
    "bertscore_p",
    "bertscore_r",
    "bertscore_f1",
    "perplexity",
)

#: Names that stand for several columns.
GROUPS: dict[str, tuple[str, ...]] = {
    "golden": ("exact", "normalised", "token_f1"),
    "rouge": _ROUGE,
    "text": tuple(column for metric in _METRICS for column in metric.columns),
    "bertscore": ("bertscore_p", "bertscore_r", "bertscore_f1"),
    "model": MODEL_COLUMNS[:5],
    "all": (*(c for metric in _METRICS for c in metric.columns), *MODEL_COLUMNS[:5]),
}


def chosen_columns(given: Iterable[str]) -> tuple[str, ...]:
    """Columns of metric and group names, in order, each once.

    Raises:
        ConfigError: an unknown name.

    >>> chosen_columns(["golden", "bleu", "bleu"])
    ('exact', 'normalised', 'token_f1', 'bleu')
    """
    named = tuple(column for metric in _NAMED for column in metric.columns)
    known = {*GROUPS["text"], *named, *MODEL_COLUMNS}
    found: list[str] = []
    for name in given:
        if name not in known and name not in GROUPS:
            names = ", ".join([*GROUPS["text"], *named, *MODEL_COLUMNS])
            fix = f"use {', '.join(sorted(GROUPS))} or: {names}"
            raise ConfigError(f"unknown metric {name!r}", fix=fix)
        found += [c for c in GROUPS.get(name, (name,)) if c not in found]
    return tuple(found)


def plain_metrics(columns: Sequence[str]) -> list[PlainMetric]:
    """The metrics that make at least one of the columns."""
    return [m for m in (*_METRICS, *_NAMED) if set(m.columns) & set(columns)]
