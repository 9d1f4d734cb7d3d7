"""Scaling of probabilities after pooling, equal for both orders of the answers.

Knows nothing of where probabilities come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student_t

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CalibrationName = Literal["none", "temperature", "vector", "lapse"]
CalibrationSetting = Literal["auto", "none", "temperature", "vector", "lapse"]

_TINY = 1e-12

#: Scale of the prior on log scales and on the tie's bias: votes on a few prompts make the
#: probabilities neither certain nor vague.
PRIOR_SCALE = 0.25

#: The same for the scales and the bias beside a lapse rate, which have to be free to be sharp
#: where votes lapse.
LAPSE_PRIOR_SCALE = 2.0

#: A lapse rate is taken where it is better by so many standard errors on held-out prompts, of
#: which there are many; with few it has to be more.
STANDARD_ERRORS = 3.0


class Calibration(BaseModel):
    """log p → scale · log p + bias, normalised, and lapses; A and B are treated alike.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599, eq. 9) has scale = tie_scale = 1 / T
    and no bias; vector scaling (the same paper, section 4.2) is tied between A and B here, or
    exchanging the answers would change more than the order of the result. With a lapse rate λ the
    result is (1 − λ) · scaled + λ · u, where u shares what the tie leaves equally between A and B:
    votes that do not follow the evidence, however strong (Wichmann and Hill 2001, Perception &
    Psychophysics 63, 1293–1313, eq. 1).

    Attributes:
        name: which of them.
        scale: of log p of A and B.
        tie_scale: of log p of the tie.
        tie_bias: added to the tie's.
        lapse: λ, share of votes that lapse.
        lapse_tie: share of ties among these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: CalibrationName = "none"
    scale: float = Field(1.0, gt=0)
    tie_scale: float = Field(1.0, gt=0)
    tie_bias: float = 0.0
    lapse: float = Field(0.0, ge=0, lt=1)
    lapse_tie: float = Field(0.0, ge=0, le=1)

    @property
    def temperature(self) -> float:
        """T of the decisive classes; above 1 the raw probabilities were too sure."""
        return 1 / self.scale

    def apply(self, probabilities: Floats) -> Floats:
        """(n, 3) → (n, 3).

        >>> sharper = Calibration(name="temperature", scale=2.0, tie_scale=2.0)
        >>> sharper.apply(np.array([[0.5, 0.25, 0.25]])).round(3).tolist()
        [[0.667, 0.167, 0.167]]
        >>> lapsing = Calibration(name="lapse", lapse=0.5, lapse_tie=0.2)
        >>> lapsing.apply(np.array([[0.8, 0.1, 0.1]])).round(3).tolist()
        [[0.6, 0.25, 0.15]]
        """
        return np.exp(self.log_apply(probabilities))

    def log_apply(self, probabilities: Floats) -> Floats:
        """(n, 3) probabilities → (n, 3) logarithms of the scaled ones."""
        scaled = self.log_scaled(probabilities)
        if self.lapse == 0:
            return scaled
        mixed: Floats = np.logaddexp(np.log1p(-self.lapse) + scaled, self.log_lapsed())
        return mixed

    def log_lapsed(self) -> Floats:
        """(3,) logarithms of the votes that lapse on each outcome; minus infinity for none."""
        half = (1 - self.lapse_tie) / 2
        with np.errstate(divide="ignore"):
            found: Floats = np.log(self.lapse * np.array([half, half, self.lapse_tie]))
        return found

    def log_scaled(self, probabilities: Floats) -> Floats:
        """(n, 3) probabilities → (n, 3) logarithms of the scaled ones where no vote lapses."""
        scale = np.array([self.scale, self.scale, self.tie_scale])
        bias = np.array([0.0, 0.0, self.tie_bias])
        logits = np.log(np.maximum(probabilities, _TINY)) * scale + bias
        highest = logits.max(1, keepdims=True)
        total = np.log(np.exp(logits - highest).sum(1, keepdims=True))
        result: Floats = logits - highest - total
        return result


def fit_calibration(
    name: CalibrationName,
    probabilities: Floats,
    shares: Floats,
    weights: Floats,
    groups: Ints | None = None,
) -> Calibration:
    """Largest posterior: weighted cross-entropy to vote shares, with a prior around no change.

    The prior counts like Σ q(x) / n nats per pair (derived here), x the logarithms of the scales
    and the bias, n the `effective_prompts`: how sure a judge may be differs by prompt, so pairs of
    one prompt count once. q is x² / 2s², a normal prior, but for softening, x < 0, where it is
    log(1 + x² / s²), a Cauchy prior: probabilities that are certain and wrong can be softened as
    far as it takes. s is `PRIOR_SCALE`. Beside a lapse rate q is x² / 2s² either way with s =
    `LAPSE_PRIOR_SCALE`; the rate itself has none, and its ties are as frequent as all votes'.

    Args:
        name: which scaling.
        probabilities: (n, 3) held-out probabilities.
        shares: (n, 3) vote shares.
        weights: (n,) weights.
        groups: (n,) prompt of each pair, whole numbers from 0; every pair its own when None.
    """
    if name == "none":
        return Calibration()
    prompts = effective_prompts(weights, groups)
    lapse_tie = float(np.average(shares[:, 2], weights=weights)) if name == "lapse" else 0.0

    def build(x: Floats) -> Calibration:
        scale = float(np.exp(x[0]))
        if name == "temperature":
            return Calibration(name=name, scale=scale, tie_scale=scale)
        values = {"scale": scale, "tie_scale": float(np.exp(x[1])), "tie_bias": float(x[2])}
        if name == "lapse":
            values |= {"lapse": float(1 / (1 + np.exp(-x[3]))), "lapse_tie": lapse_tie}
        return Calibration(name=name, **values)

    def loss(x: Floats) -> tuple[float, Floats]:
        value, slope = _loss(build(x), probabilities, shares, weights)
        # one temperature moves both scales
        slope = np.array([slope[:2].sum()]) if name == "temperature" else slope[: len(x)]
        surprise, steeper = _surprise(x, lapses=name == "lapse")
        return value + surprise / prompts, slope + steeper / prompts

    bounds, starts = _SEARCHES[name]
    found = [
        minimize(loss, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    return build(min(found, key=lambda one: float(one.fun)).x)


#: Bounds and starting points by scaling; the second start is where a tail or a steep scaling
#: under many lapses may hide a lower minimum.
_SEARCHES: dict[str, tuple[list[tuple[float, float]], list[list[float]]]] = {
    "temperature": ([(-3.0, 3.0)], [[0.0], [-2.0]]),
    "vector": ([(-3.0, 3.0)] * 3, [[0.0, 0.0, 0.0], [-2.0, -2.0, 0.0]]),
    "lapse": (
        [(-3.0, 3.0)] * 3 + [(-8.0, 2.0)],
        [[0.0, 0.0, 0.0, -4.0], [1.0, 0.5, 0.5, -1.0]],
    ),
}


def _loss(
    scaling: Calibration, probabilities: Floats, shares: Floats, weights: Floats
) -> tuple[float, Floats]:
    """Weighted cross-entropy, and its slope in log scale, log tie_scale, tie_bias and logit λ."""
    logs = np.log(np.maximum(probabilities, _TINY))
    log_scaled, log_mixed = scaling.log_scaled(probabilities), scaling.log_apply(probabilities)
    voted = shares * (np.asarray(weights, dtype=np.float64) / np.sum(weights))[:, None]
    # of the votes on each outcome, those that followed the evidence
    followed = voted * np.exp(np.log1p(-scaling.lapse) + log_scaled - log_mixed)
    by_logit = np.exp(log_scaled) * followed.sum(1, keepdims=True) - followed
    slope = np.array(
        [
            scaling.scale * float((by_logit[:, :2] * logs[:, :2]).sum()),
            scaling.tie_scale * float((by_logit[:, 2] * logs[:, 2]).sum()),
            float(by_logit[:, 2].sum()),
            float(followed.sum() - (1 - scaling.lapse) * voted.sum()),
        ]
    )
    return -float((voted * log_mixed).sum()), slope


def choose_calibration(
    probabilities: Floats,
    shares: Floats,
    weights: Floats,
    folds: Sequence[int] | Ints,
    groups: Ints | None = None,
) -> CalibrationName:
    """`lapse` where cross-validation shows that votes lapse, `temperature` elsewhere.

    Each is fitted on all folds but one and asked about that one. The lapse rate has to be better
    than a temperature, and than vector scaling, which frees ties without any lapses, as surely as
    `STANDARD_ERRORS` standard errors are for a normal variable. The errors are those of a mean
    over prompts, by Student's t with `effective_prompts` − 1 degrees of freedom.

    Args:
        probabilities: (n, 3) held-out probabilities.
        shares: (n, 3) vote shares.
        weights: (n,) weights.
        folds: (n,) fold of each pair; with a single one there is nothing to compare on.
        groups: (n,) prompt of each pair, whole numbers from 0; every pair its own when None.
    """
    fold = np.asarray(folds)
    prompt = np.arange(len(fold)) if groups is None else groups
    freedom = effective_prompts(weights, prompt) - 1
    if len(np.unique(fold)) < 2 or freedom <= 0:
        return "temperature"

    def held_out(name: CalibrationName) -> Floats:
        logs = np.zeros(len(fold))
        for k in np.unique(fold):
            own = fold == k
            rest = (probabilities[~own], shares[~own], weights[~own], prompt[~own])
            fitted = fit_calibration(name, *rest)
            logs[own] = (shares[own] * fitted.log_apply(probabilities[own])).sum(1)
        return logs

    asked = float(student_t.isf(norm.sf(STANDARD_ERRORS), freedom))
    lapsing = held_out("lapse")
    others: tuple[CalibrationName, ...] = ("temperature", "vector")
    sure = all(_errors(lapsing - held_out(name), weights, prompt) > asked for name in others)
    return "lapse" if sure else "temperature"


def _errors(gains: Floats, weights: Floats, prompt: Ints) -> float:
    """The weighted mean of gains in units of its standard error, whole prompts taken together."""
    mean = float(np.average(gains, weights=weights))
    by_prompt = np.bincount(prompt, weights * (gains - mean)) / np.sum(weights)
    count = np.count_nonzero(np.bincount(prompt, weights))
    error = float(np.sqrt((by_prompt**2).sum() * count / (count - 1)))
    return mean / error if error > 0 else 0.0


def effective_prompts(weights: Floats, groups: Ints | None) -> float:
    """(Σ W)² / Σ W² prompts, W the weight of a prompt's pairs together (Kish 1965, section 8.2).

    Args:
        weights: (n,) of the pairs.
        groups: (n,) prompt of each pair, whole numbers from 0; every pair its own when None.

    >>> effective_prompts(np.ones(4), np.array([0, 0, 1, 1]))
    2.0
    """
    together = weights if groups is None else np.bincount(groups, weights)
    return float(together.sum() ** 2 / (together**2).sum())


def _surprise(x: Floats, *, lapses: bool) -> tuple[float, Floats]:
    """Minus the logarithm of the prior's density, 0 at 0, and its slope.

    x holds log scales first, then the tie's bias, then the logit of the lapse rate, if any.
    """
    inner = x[:3]
    if lapses:
        slope = np.zeros(len(x))
        slope[:3] = inner / LAPSE_PRIOR_SCALE**2
        return float((inner**2).sum()) / (2 * LAPSE_PRIOR_SCALE**2), slope
    square = (x / PRIOR_SCALE) ** 2
    softened = (x < 0) & (np.arange(len(x)) < 2)
    value = float(np.where(softened, np.log1p(square), square / 2).sum())
    steep = x / PRIOR_SCALE**2
    return value, np.where(softened, 2 * steep / (1 + square), steep)


def weighted_log_loss(probabilities: Floats, shares: Floats, weights: Floats) -> float:
    """Σ w · (−Σ shares · log p) / Σ w, in nats."""
    losses = -(shares * np.log(np.maximum(probabilities, _TINY))).sum(1)
    return float(np.average(losses, weights=weights))
