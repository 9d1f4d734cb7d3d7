"""Which demonstrations may be chosen at all, and for the others the reason why not.

In this order: a missing quality, length, leaks, the worst quality, repeats. Of repeats the best
stays. Knows nothing of diversity and quotas.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from litee.curate.duplicates import Repeats
from litee.curate.pool import RULES, Pool
from litee.curate.settings import CurateSettings

NO_QUALITY = "no quality value"
SHORT = "answer too short"
LONG = "answer too long"
LEAK = "leaks an evaluation prompt"
WORST = "among the worst in quality"
SAME_PROMPT = "repeats a prompt"
SAME_ANSWER = "repeats an answer"


@dataclass(frozen=True, slots=True)
class Screened:
    """What may be chosen.

    Attributes:
        quality: 0 … 1 per demonstration, NaN where it has none.
        reasons: per demonstration "" or the reason why it may not be chosen.
        details: row → more about the reason.
        leaking: rows that leak an evaluation prompt, whatever else is wrong with them.
    """

    quality: NDArray[np.float64]
    reasons: list[str]
    details: dict[int, str]
    leaking: NDArray[np.bool_]

    @property
    def usable(self) -> NDArray[np.int64]:
        """Rows that may be chosen."""
        return np.array([k for k, reason in enumerate(self.reasons) if not reason], dtype=np.int64)

    def counts(self) -> dict[str, int]:
        """Reason → number of demonstrations, in the order of the checks."""
        found = Counter(self.reasons)
        order = (NO_QUALITY, SHORT, LONG, LEAK, WORST, SAME_PROMPT, SAME_ANSWER)
        return {reason: found[reason] for reason in order if found[reason]}


def joined_quality(pool: Pool) -> NDArray[np.float64]:
    """One quality per demonstration: rules as they are, other columns as ranks from 0 to 1.

    Several columns are averaged; without a value in one of them the result is NaN.
    """
    parts = []
    for name in pool.quality:
        column = pool.column(name)
        known = np.isfinite(column)
        if name != RULES:
            ranks = rankdata(column[known], method="average")
            column = column.copy()
            column[known] = (ranks - 1) / (len(ranks) - 1) if len(ranks) > 1 else 1.0
        parts.append(column)
    joined: NDArray[np.float64] = np.mean(parts, axis=0)
    return joined


def screen(pool: Pool, repeats: Repeats, settings: CurateSettings) -> Screened:
    """Check every demonstration."""
    quality = joined_quality(pool)
    reasons = [""] * len(pool)
    details: dict[int, str] = {}
    leaking = repeats.evaluated >= 0
    leaking[list(pool.leaks)] = True
    for row in range(len(pool)):
        chars = pool.answer_chars[row]
        if not np.isfinite(quality[row]):
            reasons[row] = NO_QUALITY
        elif chars < settings.min_chars or chars > settings.max_chars:
            reasons[row] = SHORT if chars < settings.min_chars else LONG
            details[row] = f"{chars:,} characters"
        elif leaking[row]:
            reasons[row] = LEAK
            details[row] = _leak(pool, repeats, row)
    _drop_worst(quality, reasons, settings.drop_worst)
    _keep_best(pool, repeats, quality, settings.per_prompt, reasons, details)
    return Screened(quality, reasons, details, leaking)


def _leak(pool: Pool, repeats: Repeats, row: int) -> str:
    if row in pool.leaks:
        share, prompt = pool.leaks[row]
        return f"holds {share:.0%} of the word runs of evaluation prompt {prompt + 1}"
    return f"the prompt is nearly that of evaluation prompt {int(repeats.evaluated[row]) + 1}"


def _drop_worst(quality: NDArray[np.float64], reasons: list[str], share: float) -> None:
    """Leave out at most a share of what is still usable, the lowest quality first.

    Of equals either all go or all stay.
    """
    left = [row for row, reason in enumerate(reasons) if not reason]
    count = int(share * len(left))
    if not count:
        return
    limit = np.sort(quality[left])[count]
    for row in left:
        if quality[row] < limit:
            reasons[row] = WORST


def _keep_best(
    pool: Pool,
    repeats: Repeats,
    quality: NDArray[np.float64],
    per_prompt: int,
    reasons: list[str],
    details: dict[int, str],
) -> None:
    """Keep the best `per_prompt` of a repeated prompt and the best of a repeated answer.

    Of equals the first stays.
    """
    prompts: dict[int, list[int]] = {}
    answers: dict[int, int] = {}
    for row in np.argsort(-np.nan_to_num(quality, nan=-1.0), kind="stable").tolist():
        if reasons[row]:
            continue
        prompt, answer = int(repeats.prompts[row]), int(repeats.answers[row])
        beside = prompts.setdefault(prompt, [])
        if len(beside) == per_prompt:
            reasons[row], details[row] = SAME_PROMPT, f"of {pool.ids[beside[0]]}"
        elif answer in answers:
            reasons[row], details[row] = SAME_ANSWER, f"of {pool.ids[answers[answer]]}"
        else:
            beside.append(row)
            answers[answer] = row
