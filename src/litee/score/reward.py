"""The reward of a fitted judge as a metric of single answers.

Knows nothing of how the judge was fitted, of files and of people.
"""

from __future__ import annotations

from collections.abc import Sequence

from litee.predict.judge import Judge
from litee.records import Pair, Score
from litee.score.answers import Answer
from litee.score.texts import NO_PROMPT, why_not

NO_REWARD = "the judge has no reward"


class Reward:
    """`Judge.reward` of prompt and answer, many at once.

    In nats of log odds: the difference of two answers to one prompt is log P(A) − log P(B) in a
    logarithmic pool of Davidson members without a lapse rate, and near it in the others.

    Args:
        judge: loaded.
    """

    columns: tuple[str, ...] = ("reward",)

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """One number per answer."""
        reasons = [
            why_not(a, reference=False, filled=False) or ("" if a.prompt.strip() else NO_PROMPT)
            for a in answers
        ]
        pairs = [
            Pair(str(k), (a.prompt,), (a.answer or "",), (a.answer or "",))
            for k, (a, reason) in enumerate(zip(answers, reasons, strict=True))
            if not reason
        ]
        rewards = {p.pair_id: p.reward_a for p in self.judge.predict(pairs)}
        rows: list[tuple[Score, ...]] = []
        for k, reason in enumerate(reasons):
            value = rewards.get(str(k))
            if value is None:
                rows.append((Score(None, reason=reason or NO_REWARD),))
            else:
                rows.append((Score(value),))
        return rows
