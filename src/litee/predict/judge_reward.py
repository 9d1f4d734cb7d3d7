"""A judge as the reward that tuning asks for: one number per answer, in one pass per call.

Knows nothing of what is tuned with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litee.errors import ModelError
from litee.finetune.rewards import Exchange
from litee.predict.judge import Judge
from litee.records import Pair


class JudgeReward:
    """The reward of a judge (`Judge.reward`) over many exchanges at once.

    Answers to the same conversation share its tokens. A system message is not shown to the judge,
    which was fitted on conversations without one.

    Args:
        judge: with at least one member that has a reward.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @classmethod
    def load(cls, path: str | Path) -> JudgeReward:
        """From a judge's folder or hub name.

        Raises:
            ModelError: no judge there, or one of joint or verdict members only.
        """
        judge = Judge.from_pretrained(path)
        if not any(m.head in ("davidson", "rao-kupper") for m in judge.file.members):
            raise ModelError(
                "this judge has joint or verdict members only, which have no reward",
                place=str(path),
                fix="fit one with statistics, probe or lora among --members",
            )
        return cls(judge)

    def __call__(self, exchanges: Sequence[Exchange]) -> list[float]:
        """Rewards in nats of log odds, in the order of the exchanges; only differences count."""
        pairs = [_pair(k, one) for k, one in enumerate(exchanges)]
        order = sorted(range(len(pairs)), key=lambda k: pairs[k].prompt)
        found = self.judge.predict([pairs[k] for k in order])
        rewards = [0.0] * len(pairs)
        for k, prediction in zip(order, found, strict=True):
            if prediction.reward_a is None:
                raise ModelError(
                    "no member with a reward has weight in this judge",
                    place=str(self.judge.folder),
                    fix="fit one with more weight on probe or lora members",
                )
            rewards[k] = prediction.reward_a
        return rewards


def _pair(number: int, one: Exchange) -> Pair:
    asked = tuple(m.text for m in one.messages if m.role == "user")
    answers = (*(m.text for m in one.messages if m.role == "assistant"), one.answer)
    return Pair(str(number), asked, answers, answers)
