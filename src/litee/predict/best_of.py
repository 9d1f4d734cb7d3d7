"""Best-of-n: rewards of many answers to a prompt, the best one, and what more samples would gain.

All answers to a prompt go to the judge at once, so that its forest runs the prompt once. Knows
nothing of how answers are written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from litee.errors import ModelError
from litee.records import Pair, Prediction

Floats = npt.NDArray[np.float64]


class Predictor(Protocol):
    """What is needed of a judge."""

    def predict(self, pairs: Sequence[Pair]) -> Sequence[Prediction]:
        """Predictions in the order of the pairs."""
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """Answers to one prompt.

    Attributes:
        prompt: the user's turns, at least one.
        responses: per answer its turns, as many as the prompt has.
    """

    prompt: tuple[str, ...]
    responses: tuple[tuple[str, ...], ...]


def candidate_pairs(candidates: Candidates) -> list[Pair]:
    """A pair of every answer with itself, whose texts a judge reads once.

    Beside another answer it would share the token budget, and its reward would hang on that one.

    >>> two = Candidates(("q",), (("x",), ("y",)))
    >>> [(p.response_a[0], p.response_b[0]) for p in candidate_pairs(two)]
    [('x', 'x'), ('y', 'y')]
    """
    return [
        Pair(str(k), candidates.prompt, response, response)
        for k, response in enumerate(candidates.responses)
    ]


def candidate_rewards(judge: Predictor, sets: Sequence[Candidates]) -> list[tuple[float, ...]]:
    """The judge's scalar reward of every answer, in nats of log odds; only differences count.

    Args:
        judge: predicts pairs.
        sets: answers by prompt; all go to the judge in one call.

    Raises:
        ModelError: the judge has no reward (joint or verdict members only), or it is not finite.
    """
    pairs = [candidate_pairs(one) for one in sets]
    predictions = iter(judge.predict([pair for part in pairs for pair in part]))
    return [pair_rewards([next(predictions) for _ in part]) for part in pairs]


def pair_rewards(predictions: Sequence[Prediction]) -> tuple[float, ...]:
    """Rewards of the answers from the predictions for their `candidate_pairs`.

    Raises:
        ModelError: the judge has no reward, or it is not finite.
    """
    return tuple(map(_reward, predictions))


def _reward(prediction: Prediction) -> float:
    found = prediction.reward_a
    if found is None:
        raise ModelError(
            "this judge has joint or verdict members only, which have no reward",
            fix="fit one with statistics, probe or lora among --members",
        )
    if not math.isfinite(found):
        raise ModelError("the judge's reward is not finite", fix="fit the judge again")
    return found


def best_index(rewards: Sequence[float]) -> int:
    """Where the highest reward is; of equal ones the first.

    >>> best_index([0.1, 2.0, 2.0])
    1
    """
    return max(range(len(rewards)), key=lambda k: (rewards[k], -k))


def kl_bound(n: int) -> float:
    """Upper bound of KL(best-of-n ‖ one sample) in nats: log n − (n − 1)/n.

    Stiennon et al. 2020 (arXiv 2009.01325, appendix G.3); it is an equality where no two samples
    have the same reward, and only a bound otherwise (Beirami et al. 2024, arXiv 2401.01879).

    >>> kl_bound(1), round(kl_bound(4), 4)
    (0.0, 0.6363)

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}")
    return math.log(n) - (n - 1) / n


def order_weights(samples: int, n: int) -> Floats:
    """Chance that the i-th smallest of `samples` rewards is the best of n drawn without return.

    C(i − 1, n − 1) / C(samples, n), i = 1 … samples: the unbiased estimator of best-of-n from one
    set of samples (WebGPT, arXiv 2112.09332, appendix I; the same as pass@k's).

    >>> order_weights(3, 2).round(3).tolist()
    [0.0, 0.333, 0.667]

    Raises:
        ValueError: n is not in 1 … samples.
    """
    if not 1 <= n <= samples:
        raise ValueError(f"n must be in 1 … {samples}, got {n}")
    total = math.comb(samples, n)
    return np.array([math.comb(i, n - 1) / total for i in range(samples)])


def best_of_curve(rewards: npt.ArrayLike, values: npt.ArrayLike, sizes: Sequence[int]) -> Floats:
    """Expected value of the answer that best-of-n picks, without bias, for several n.

    Args:
        rewards: (prompts, samples) by which the best one is picked.
        values: (prompts, samples) what is asked of the picked one: the same rewards, those of
            an independent judge, lengths …
        sizes: the n, each in 1 … samples.

    Returns:
        (prompts, sizes) expectations over the draw of the n; samples of equal reward are equally
        likely to be picked.

    >>> best_of_curve([[1.0, 3.0, 2.0]], [[10.0, 30.0, 20.0]], [1, 2, 3]).round(2).tolist()
    [[20.0, 26.67, 30.0]]
    """
    by, what = np.asarray(rewards, np.float64), np.asarray(values, np.float64)
    if by.shape != what.shape or by.ndim != 2:
        raise ValueError(f"rewards {by.shape} and values {what.shape} must be (prompts, samples)")
    order = np.argsort(by, axis=1, kind="stable")
    ranked = np.take_along_axis(what, order, axis=1)
    sorted_by = np.take_along_axis(by, order, axis=1)
    for row, reward in zip(ranked, sorted_by, strict=True):
        _level_ties(row, reward)
    weights = np.stack([order_weights(by.shape[1], n) for n in sizes], axis=1)
    return ranked @ weights


def _level_ties(row: Floats, rewards: Floats) -> None:
    """Give samples of equal reward their mean value, in place."""
    starts = np.flatnonzero(np.diff(rewards, prepend=-np.inf))
    for start, end in zip(starts, [*starts[1:], len(rewards)], strict=True):
        row[start:end] = row[start:end].mean()
