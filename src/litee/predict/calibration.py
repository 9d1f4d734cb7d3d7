"""Scaling of probabilities after pooling, equal for both orders of the answers.

Knows nothing of where probabilities come from.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CalibrationName = Literal["none", "temperature", "vector"]

_TINY = 1e-12

#: Scale of the prior on log scales and on the tie's bias: votes on a few prompts make the
#: probabilities neither certain nor vague.
PRIOR_SCALE = 0.25


class Calibration(BaseModel):
    """log p → scale · log p + bias, normalised; A and B share scale, only the tie has a bias.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599, eq. 9) has scale = tie_scale = 1 / T
    and no bias; vector scaling (the same paper, section 4.2) is tied between A and B here, or
    exchanging the answers would change more than the order of the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: CalibrationName = "none"
    scale: float = Field(1.0, gt=0)
    tie_scale: float = Field(1.0, gt=0)
    tie_bias: float = 0.0

    @property
    def temperature(self) -> float:
        """T of the decisive classes; above 1 the raw probabilities were too sure."""
        return 1 / self.scale

    def apply(self, probabilities: Floats) -> Floats:
        """(n, 3) → (n, 3).

        >>> sharper = Calibration(name="temperature", scale=2.0, tie_scale=2.0)
        >>> sharper.apply(np.array([[0.5, 0.25, 0.25]])).round(3).tolist()
        [[0.667, 0.167, 0.167]]
        """
        return np.exp(self.log_apply(probabilities))

    def log_apply(self, probabilities: Floats) -> Floats:
        """(n, 3) probabilities → (n, 3) logarithms of the scaled ones."""
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
    far as it takes. s is `PRIOR_SCALE`.

    Args:
        name: which scaling.
        probabilities: (n, 3) held-out probabilities.
        shares: (n, 3) vote shares.
        weights: (n,) weights.
        groups: (n,) prompt of each pair, whole numbers from 0; every pair its own when None.
    """
    if name == "none":
        return Calibration()

    def build(x: Floats) -> Calibration:
        if name == "temperature":
            scale = float(np.exp(x[0]))
            return Calibration(name=name, scale=scale, tie_scale=scale)
        return Calibration(
            name=name,
            scale=float(np.exp(x[0])),
            tie_scale=float(np.exp(x[1])),
            tie_bias=float(x[2]),
        )

    def loss(x: Floats) -> float:
        losses = -(shares * build(x).log_apply(probabilities)).sum(1)
        return float(np.average(losses, weights=weights)) + _surprise(x) / prompts

    prompts = effective_prompts(weights, groups)
    size = 1 if name == "temperature" else 3
    bounds = [(-3.0, 3.0)] * size
    starts = [np.zeros(size), np.array([-2.0, -2.0, 0.0][:size])]  # the tail may hide a minimum
    found = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    return build(min(found, key=lambda one: float(one.fun)).x)


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


def _surprise(x: Floats) -> float:
    """Minus the logarithm of the prior's density, 0 at 0: log scales first, then the bias."""
    square = (x / PRIOR_SCALE) ** 2
    softened = (x < 0) & (np.arange(len(x)) < 2)
    return float(np.where(softened, np.log1p(square), square / 2).sum())


def weighted_log_loss(probabilities: Floats, shares: Floats, weights: Floats) -> float:
    """Σ w · (−Σ shares · log p) / Σ w, in nats."""
    losses = -(shares * np.log(np.maximum(probabilities, _TINY))).sum(1)
    return float(np.average(losses, weights=weights))
