"""A language model's opinion on single answers, as metrics: criteria, a scale, correctness.

Knows nothing of how the model is run, of files and of people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litee.records import JudgeQuestion, JudgeVerdict, Score
from litee.score.answers import Answer
from litee.score.llm_judge_engine import CachedJudge
from litee.score.llm_judge_prompts import (
    CRITERIA,
    YES_NO,
    correct_question,
    criterion_question,
    scale_question,
)
from litee.score.texts import NO_PROMPT, why_not

SCALE_COLUMN, CORRECT_COLUMN = "llm_scale", "llm_correct"

#: Columns of yes/no criteria.
CRITERIA_COLUMNS: tuple[str, ...] = tuple(f"llm_{name}" for name in CRITERIA)

#: All columns of this kind.
LLM_COLUMNS: tuple[str, ...] = (*CRITERIA_COLUMNS, SCALE_COLUMN, CORRECT_COLUMN)


@dataclass(frozen=True, slots=True)
class LlmMetric:
    """Asks a model about every answer, once per column.

    Yes is 1 and no is 0; a model that gives probabilities scores P(yes). The scale is 1 … 6; with
    probabilities it is the expected point. An empty answer is judged like any other.

    Attributes:
        columns: some of `LLM_COLUMNS`.
        judge: that is asked.
    """

    columns: tuple[str, ...]
    judge: CachedJudge

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """One tuple per answer, in the order of `columns`."""
        rows: list[list[Score | None]] = []
        questions: list[JudgeQuestion] = []
        for answer in answers:
            reasons = [_why_not(answer, column) for column in self.columns]
            rows.append([Score(None, reason=r) if r else None for r in reasons])
            questions += [
                _question(answer, column)
                for column, reason in zip(self.columns, reasons, strict=True)
                if not reason
            ]
        verdicts = iter(self.judge.ask(questions))
        return [
            tuple(_score(next(verdicts)) if cell is None else cell for cell in row) for row in rows
        ]


def _why_not(answer: Answer, column: str) -> str:
    reason = why_not(answer, reference=column == CORRECT_COLUMN, filled=False)
    return reason or ("" if answer.prompt.strip() else NO_PROMPT)


def _question(answer: Answer, column: str) -> JudgeQuestion:
    text = answer.answer or ""
    if column == SCALE_COLUMN:
        return scale_question(answer.prompt, text)
    if column == CORRECT_COLUMN:
        return correct_question(answer.prompt, text, answer.reference or "")
    return criterion_question(column.removeprefix("llm_"), answer.prompt, text)


def _score(verdict: JudgeVerdict) -> Score:
    """A verdict as a number.

    >>> _score(JudgeVerdict("no", (0.4, 0.6))).value, _score(JudgeVerdict("5")).value
    (0.4, 5.0)
    """
    if verdict.label is None:
        return Score(None, reason=verdict.reason)
    if verdict.label in YES_NO:
        return Score(verdict.probabilities[0] if verdict.probabilities else _yes(verdict.label))
    if verdict.probabilities:
        points = range(1, len(verdict.probabilities) + 1)
        return Score(sum(k * p for k, p in zip(points, verdict.probabilities, strict=True)))
    return Score(float(verdict.label))


def _yes(label: str) -> float:
    return float(label == YES_NO[0])
