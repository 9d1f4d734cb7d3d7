"""Which of two systems answers better, by one or several judges: wins, ties, losses, intervals.

Intervals resample prompts. The length-controlled win rate is what would be left if both systems
wrote equally long answers. Knows nothing of files and models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.records import Pair, Score
from litee.rundir import Json
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats, Rows, choices

#: Weight of the squared length coefficient against the mean log likelihood.
_RIDGE = 1e-3

#: Largest log odds a resample may give, where every verdict is the same.
_MOST = 12.0


@dataclass(frozen=True, slots=True)
class JudgedComparison:
    """What one judge says of the first system against the second.

    Attributes:
        judge: its name.
        pairs: pairs with a verdict.
        wins: share of pairs whose likeliest outcome is that the first is better.
        ties: likewise, that neither is.
        losses: likewise, that the second is better.
        win_rate: mean of P(first better) + P(tie) / 2.
        length_controlled: the same at equal length; see `length_controlled`.
        unscored: pairs without a verdict.
    """

    judge: str
    pairs: int
    wins: Score
    ties: Score
    losses: Score
    win_rate: Score
    length_controlled: Score
    unscored: int

    @property
    def better(self) -> bool | None:
        """Whether the first system is better; None when the interval holds one half."""
        low, high = self.win_rate.low, self.win_rate.high
        if low is None or high is None or low <= 0.5 <= high:
            return None
        return low > 0.5

    def to_json(self) -> dict[str, Json]:
        """Flat JSON: every score as its value and its ends."""
        record: dict[str, Json] = {"judge": self.judge, "pairs": self.pairs}
        for name in ("wins", "ties", "losses", "win_rate", "length_controlled"):
            score: Score = getattr(self, name)
            record |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
            if score.reason:
                record[f"{name}_reason"] = score.reason
        record["unscored"] = self.unscored
        return record


@dataclass(frozen=True, slots=True)
class SystemComparison:
    """Two systems on the same prompts.

    Attributes:
        names: of the systems.
        pairs: judged pairs.
        prompts: distinct prompts.
        characters: mean length of their answers.
        judged: one entry per judge, in the order given.
        seed: of the intervals.
    """

    names: tuple[str, str]
    pairs: int
    prompts: int
    characters: tuple[float, float]
    judged: tuple[JudgedComparison, ...]
    seed: int

    def to_json(self) -> dict[str, Json]:
        """Everything, for a file."""
        return {
            "systems": list(self.names),
            "pairs": self.pairs,
            "prompts": self.prompts,
            "characters": list(self.characters),
            "seed": self.seed,
            "judges": [one.to_json() for one in self.judged],
        }


def compare_systems(
    pairs: Sequence[Pair],
    verdicts: Mapping[str, Floats],
    *,
    names: tuple[str, str],
    groups: Sequence[int],
    seed: int = 0,
) -> SystemComparison:
    """Wins, ties, losses and win rates by every judge.

    Args:
        pairs: n pairs; the first system's answer is A.
        verdicts: judge → (n, 3) probabilities of A, B, tie; NaN where it has no verdict.
        names: of the systems.
        groups: (n,) prompt of each pair.
        seed: of the resamples.
    """
    lengths = np.array([[_length(p.response_a), _length(p.response_b)] for p in pairs], dtype=float)
    judged = tuple(
        _judged(judge, p, lengths, np.asarray(groups), seed) for judge, p in verdicts.items()
    )
    first, second = lengths.mean(0).tolist()
    return SystemComparison(names, len(pairs), len(set(groups)), (first, second), judged, seed)


def length_controlled(preferences: Floats, lengths: Floats, weights: Floats) -> Floats:
    """Win rates of the first system at equal length, one per row of weights.

    Logistic regression of the preference on a constant θ and tanh of the standardised length
    difference; the win rate is σ(θ). This is the length-controlled win rate of AlpacaEval (Dubois
    et al., 2024, arXiv 2404.04475, equation 3) for one pair of systems, without its term for the
    instruction's difficulty.

    Args:
        preferences: (n,) P(first better) + P(tie) / 2.
        lengths: (n, 2) characters of both answers.
        weights: (m, n) weight of each pair in each sample, e.g. how often it was drawn.

    Returns:
        (m,) win rates.

    >>> y, n = np.array([1.0, 1.0, 0.0, 0.0]), np.array([[9, 1], [9, 1], [1, 9], [1, 9.0]])
    >>> float(length_controlled(y, n, np.ones((1, 4))).round(3)[0])
    0.5
    """
    gap = lengths[:, 0] - lengths[:, 1]
    spread = gap.std()
    x = np.tanh(gap / spread) if spread > 0 else np.zeros_like(gap)
    total = weights.sum(1, keepdims=True)
    share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    found = np.zeros((len(weights), 2))
    for _ in range(60):
        logits = found[:, :1] + found[:, 1:] * x
        p = 0.5 * (1 + np.tanh(logits / 2))
        left = share * (preferences - p)
        curve = share * np.maximum(p * (1 - p), 1e-6)
        slope = np.stack([left.sum(1), (left * x).sum(1) - _RIDGE * found[:, 1]], axis=1)
        bend = np.empty((len(weights), 2, 2))
        bend[:, 0, 0] = curve.sum(1) + 1e-9
        bend[:, 0, 1] = bend[:, 1, 0] = (curve * x).sum(1)
        bend[:, 1, 1] = (curve * x * x).sum(1) + _RIDGE
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
        found = np.clip(found + np.clip(step, -2, 2), -_MOST, _MOST)
        if np.abs(step).max() < 1e-9:
            break
    rates: Floats = 0.5 * (1 + np.tanh(found[:, 0] / 2))
    return rates


def _judged(
    judge: str, probabilities: Floats, lengths: Floats, groups: NDArray[np.int_], seed: int
) -> JudgedComparison:
    known = np.asarray(np.isfinite(probabilities).all(axis=1), dtype=np.bool_)
    count = int(known.sum())
    if not count:
        none = Score(None, reason="the judge has no verdict")
        return JudgedComparison(judge, 0, none, none, none, none, none, len(known))
    p = probabilities[known]
    preferences = p[:, 0] + p[:, 2] / 2
    credit, ones = choices(p), np.ones(count)
    bootstrap = GroupBootstrap(groups[known], seed=seed)
    rows = {name: Rows(credit[:, k], ones) for k, name in enumerate(("wins", "losses", "ties"))}
    rows["win_rate"] = Rows(preferences, ones)
    scores = bootstrap.resample(rows)
    return JudgedComparison(
        judge,
        count,
        scores.score("wins"),
        scores.score("ties"),
        scores.score("losses"),
        scores.score("win_rate"),
        _controlled(preferences, lengths[known], bootstrap),
        len(known) - count,
    )


def _controlled(preferences: Floats, lengths: Floats, bootstrap: GroupBootstrap) -> Score:
    gap = lengths[:, 0] - lengths[:, 1]
    if gap[0] != 0 and np.ptp(gap) == 0:
        return Score(None, reason="the answers differ in length by the same number in all pairs")
    value = float(length_controlled(preferences, lengths, np.ones((1, len(lengths))))[0])
    if bootstrap.count < 2:
        return Score(value)
    draws = [
        length_controlled(preferences, lengths, counts[:, bootstrap.index])
        for counts in bootstrap.counts()
    ]
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5])
    return Score(value, float(low), float(high))


def _length(turns: Sequence[str]) -> int:
    return sum(map(len, turns))
