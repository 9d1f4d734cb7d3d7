"""The record of a look at held-out prompts while a reward is being learnt.

Knows nothing of models and of how they are tuned.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RewardLook:
    """Means over the answers to the held-out prompts.

    Attributes:
        step: optimiser steps made.
        training: the reward that is being learnt.
        independent: another judge's; None without one.
        characters: length of an answer.
        finished: share of answers that ended by themselves.
    """

    step: int
    training: float
    independent: float | None
    characters: float
    finished: float
