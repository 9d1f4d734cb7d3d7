"""How many more prompts or votes until a difference is settled.

Knows nothing of metrics or systems: it takes a difference with its interval and the number of
prompts behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from litee.records import Score

#: Normal quantiles: 95 % two-sided, and 80 % chance of finding a difference that is there.
_CONFIDENCE, _POWER = 1.959964, 0.841621

#: Differences smaller than this are not worth settling.
NEGLIGIBLE = 0.002

#: Multiples of the present data beyond which no number is given.
FAR = 100


@dataclass(frozen=True, slots=True)
class Needed:
    """What it takes to settle a difference.

    Attributes:
        settled: whether the 95 % interval already excludes 0.
        prompts: prompts needed in all, None when it cannot be said.
        more_prompts: prompts needed beyond the present ones.
        more_votes: votes (or ratings) needed beyond the present ones, at the present number per
            prompt.
        reason: why `prompts` is None; empty otherwise.
    """

    settled: bool
    prompts: int | None = None
    more_prompts: int | None = None
    more_votes: int | None = None
    reason: str = ""

    def in_words(self) -> str:
        """For tables: `settled`, `1,200 more votes (150 more prompts)`, or the reason.

        Large numbers are rounded to two digits; beyond `FAR` times the present data, only that is
        said.

        >>> Needed(False, 30, 20, 60).in_words(), Needed(False, 9010, 9000, 27000).in_words()
        ('60 more votes (20 more prompts)', 'over 100 times as many votes')
        """
        if self.settled:
            return "settled"
        if self.prompts is None or self.more_prompts is None or self.more_votes is None:
            return self.reason
        if self.more_prompts > FAR * (self.prompts - self.more_prompts):
            return f"over {FAR} times as many votes"
        return (
            f"{_rounded(self.more_votes)} more votes ({_rounded(self.more_prompts)} more prompts)"
        )


def _rounded(number: int) -> str:
    """Two significant digits from 1,000 on.

    >>> _rounded(28167), _rounded(941)
    ('28,000', '941')
    """
    if number < 1000:
        return str(number)
    unit = 10 ** (len(str(number)) - 2)
    return f"{round(number / unit) * unit:,}"


def needed(difference: Score, *, prompts: int, votes: int) -> Needed:
    """Prompts and votes until a difference of this size would be found with 80 % probability.

    Derived here. A bootstrap over prompts gives the standard error s at n prompts as half the 95 %
    interval / 1.96, and s falls as 1/√n. A true difference d is found (interval above 0) with 80 %
    probability once d / s(n') = 1.96 + 0.84, so n' = n (2.80 s / d)². It supposes that the present
    difference is the true one and that new prompts are like the old ones.

    Args:
        difference: with its 95 % interval.
        prompts: prompt groups behind it.
        votes: votes or ratings behind it.

    >>> needed(Score(0.02, -0.02, 0.06), prompts=100, votes=300).prompts
    818
    """
    if difference.value is None:
        return Needed(False, reason=difference.reason)
    if difference.low is None or difference.high is None or prompts < 2:
        return Needed(False, reason="no interval")
    if difference.low > 0 or difference.high < 0:
        return Needed(True, prompts, 0, 0)
    if abs(difference.value) < NEGLIGIBLE:
        return Needed(False, reason=f"no difference to speak of (below {NEGLIGIBLE})")
    error = (difference.high - difference.low) / (2 * _CONFIDENCE)
    total = math.ceil(prompts * ((_CONFIDENCE + _POWER) * error / abs(difference.value)) ** 2)
    more = max(total - prompts, 1)
    return Needed(False, prompts + more, more, math.ceil(more * votes / prompts))
