"""What tuning needs of a reward: a number per answer. The judge fits it, so do rules.

Knows nothing of judges: the command line wires one in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from litee.errors import ModelError
from litee.records import Message


@dataclass(frozen=True, slots=True)
class Exchange:
    """A conversation that ends with the user, and an answer to it.

    Attributes:
        messages: the last is the user's.
        answer: the text to be rewarded; it may be empty.
        finished: whether the answer ended by itself and was not cut off.
    """

    messages: tuple[Message, ...]
    answer: str
    finished: bool = True


class RewardFunction(Protocol):
    """Gives one finite number per exchange, higher for better answers; only differences count."""

    def __call__(self, exchanges: Sequence[Exchange]) -> Sequence[float]:
        """Rewards in the order of the exchanges."""


@dataclass(frozen=True, slots=True)
class RuleRewards:
    """Rewards from simple rules on the text, to be added to a judge's.

    Attributes:
        length_penalty: taken off per 100 characters.
        unfinished_penalty: taken off an answer that was cut off.
        pattern: regular expression; "" for none.
        pattern_reward: added when the pattern is found.

    >>> rules = RuleRewards(length_penalty=0.5)
    >>> rules([Exchange((), "x" * 200)])
    [-1.0]
    """

    length_penalty: float = 0.0
    unfinished_penalty: float = 0.0
    pattern: str = ""
    pattern_reward: float = 0.0

    def __call__(self, exchanges: Sequence[Exchange]) -> list[float]:
        """The sum of the rules, per exchange."""
        found = re.compile(self.pattern, re.DOTALL) if self.pattern else None
        return [
            -self.length_penalty * len(one.answer) / 100
            - (0.0 if one.finished else self.unfinished_penalty)
            + (self.pattern_reward if found and found.search(one.answer) else 0.0)
            for one in exchanges
        ]

    @property
    def active(self) -> bool:
        """Whether any rule counts."""
        return bool(self.length_penalty or self.unfinished_penalty or self.pattern)


def checked_rewards(
    reward: RewardFunction, exchanges: Sequence[Exchange], *, limit: float = math.inf
) -> list[float]:
    """Rewards that are finite, one per exchange, and not above the limit in size.

    Raises:
        ModelError: too many or too few rewards, one that is not finite, or one that explodes.
    """
    values = [float(value) for value in reward(exchanges)]
    if len(values) != len(exchanges):
        raise ModelError(
            f"the reward gave {len(values)} numbers for {len(exchanges)} answers",
            fix="give one number per answer",
        )
    for value, one in zip(values, exchanges, strict=True):
        if not math.isfinite(value):
            raise ModelError(
                f"the reward of an answer is {value}",
                place=f"answer {one.answer[:60]!r}",
                fix="check the judge with `litee predict`; what was saved so far is intact",
            )
        if abs(value) > limit:
            raise ModelError(
                f"the reward explodes: {value:.4g} for one answer",
                place=f"answer {one.answer[:60]!r}",
                fix="check the judge, or raise reward_limit; what was saved so far is intact",
            )
    return values
