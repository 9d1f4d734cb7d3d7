"""Perplexity of an answer under a local language model, given its prompt.

exp(−log P(answer | prompt) / tokens), over the answer's tokens only. It depends on the model's
tokenizer, so values of different models are not comparable. Knows nothing of files and people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from litee.predict.labels import LabelModel
from litee.records import Score
from litee.score.answers import Answer
from litee.score.texts import EMPTY_ANSWER, NO_PROMPT, why_not


class Perplexity:
    """Perplexity under one model; less is better.

    Args:
        model: loaded; its `max_text_tokens` bounds prompt and answer each.
    """

    columns: tuple[str, ...] = ("perplexity",)

    def __init__(self, model: LabelModel) -> None:
        self.model = model
        self.cut = 0

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """One number per answer, at least 1."""
        reasons = [self._why_not(answer) for answer in answers]
        texts = [
            (a.prompt, a.answer or "")
            for a, reason in zip(answers, reasons, strict=True)
            if not reason
        ]
        found = iter(self.model.likelihoods(texts))
        rows: list[tuple[Score, ...]] = []
        for reason in reasons:
            if reason:
                rows.append((Score(None, reason=reason),))
                continue
            likelihood = next(found)
            self.cut += likelihood.cut > 0
            rows.append((perplexity(likelihood.log_probability, likelihood.tokens),))
        return rows

    def _why_not(self, answer: Answer) -> str:
        reason = why_not(answer, reference=False, filled=False)
        if reason:
            return reason
        if not answer.prompt.strip():
            return NO_PROMPT
        return "" if self.model.template.encode_text(answer.answer or "") else EMPTY_ANSWER


def perplexity(log_probability: float, tokens: int) -> Score:
    """Exponential of the mean negative log probability; no value where it exceeds every number.

    >>> round(perplexity(2 * math.log(0.25), 2).value, 6)
    4.0
    """
    mean = -log_probability / tokens
    if not mean < 700:
        return Score(None, reason="probability 0")
    return Score(math.exp(mean))
