"""Joins members' probabilities: pools, and weights on the simplex fitted by log loss.

Weights are always fitted on predictions for prompts that the members did not see, and judged on
prompts that the weights did not see (cross-fitting). Knows nothing of the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import minimize

from litee.predict.calibration import (
    Calibration,
    CalibrationSetting,
    Floats,
    Ints,
    choose_calibration,
    effective_prompts,
    fit_calibration,
    weighted_log_loss,
)

PoolName = Literal["linear", "log", "power"]
_TINY = 1e-12

#: Strength of the prior on a member's weight around 1 / M.
WEIGHT_PRIOR = 0.1


class Ensemble(BaseModel):
    """A pool, its weights and the calibration after it.

    Pools of member probabilities p_m with weights w_m ≥ 0, Σ w = 1: `linear` Σ w p (LoRA-LiteE's
    weighted averaging), `log` ∝ Π p^w, `power` ∝ (Σ w p^r)^(1/r) with exponent r in (0, 1), which
    lies between them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: tuple[str, ...]
    weights: tuple[float, ...]
    pool: PoolName = "linear"
    exponent: float = Field(1.0, gt=0, le=1)
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _simplex(self) -> Ensemble:
        if len(self.members) != len(self.weights) or not self.members:
            raise ValueError("one weight per member is needed")
        if not (min(self.weights) >= 0 and abs(sum(self.weights) - 1) <= 1e-6):  # NaN fails too
            raise ValueError(f"weights must be >= 0 and sum to 1, got {self.weights}")
        return self

    def apply(self, probabilities: Floats) -> Floats:
        """(members, n, 3) → (n, 3) calibrated probabilities.

        >>> both = np.array([[[0.8, 0.1, 0.1]], [[0.2, 0.7, 0.1]]])
        >>> Ensemble(members=("x", "y"), weights=(0.5, 0.5)).apply(both).round(2).tolist()
        [[0.5, 0.4, 0.1]]
        """
        pooled = pool(probabilities, np.array(self.weights), self.pool, self.exponent)
        return self.calibration.apply(pooled)


@dataclass(frozen=True, slots=True)
class CrossFit:
    """An ensemble fitted on all held-out predictions, and its honest predictions.

    Attributes:
        ensemble: weights and calibration from all folds.
        held_out: (n, 3) predictions of each fold by weights and calibration fitted on the others.
        raw: the same before calibration.
    """

    ensemble: Ensemble
    held_out: Floats
    raw: Floats


def pool(probabilities: Floats, weights: Floats, name: PoolName, exponent: float = 0.5) -> Floats:
    """(members, n, 3) and (members,) → (n, 3); see `Ensemble`."""
    if name == "linear":
        mean: Floats = np.einsum("m,mnk->nk", weights, probabilities)
        return mean
    if name == "log":
        logits = np.einsum("m,mnk->nk", weights, np.log(np.maximum(probabilities, _TINY)))
        joined = np.exp(logits - logits.max(1, keepdims=True))
    else:
        joined = np.einsum("m,mnk->nk", weights, probabilities**exponent) ** (1 / exponent)
    result: Floats = joined / joined.sum(1, keepdims=True)
    return result


def fit_weights(
    probabilities: Floats,
    shares: Floats,
    weights: Floats,
    *,
    name: PoolName,
    exponent: float = 0.5,
    groups: Ints | None = None,
    prior: float = WEIGHT_PRIOR,
) -> Floats:
    """Weights on the simplex that minimise the pooled predictions' log loss and a prior.

    The prior counts prior · M Σ (w − 1/M)² nats in all, for M members: a single member instead of
    equal weights has to earn prior · (M − 1) nats, over all prompts and not by pair. The
    problem is convex for the linear and the log pool. Solved by SLSQP from equal weights; weights
    below 0.005 are set to 0.

    Args:
        probabilities: (members, n, 3) held-out probabilities.
        shares: (n, 3) vote shares.
        weights: (n,) weights of the pairs.
        name: which pool.
        exponent: of the power pool.
        groups: (n,) prompt of each pair, whole numbers from 0; every pair its own when None.
        prior: strength of the prior; with 0 the weights are those that fit best.
    """
    count = len(probabilities)
    if count == 1:
        return np.ones(1)
    strength = prior * count / effective_prompts(weights, groups)

    def loss(w: Floats) -> float:
        w = np.maximum(w, 0) / max(np.maximum(w, 0).sum(), _TINY)
        pooled = pool(probabilities, w, name, exponent)
        away = float(((w - 1 / count) ** 2).sum())
        return weighted_log_loss(pooled, shares, weights) + strength * away

    found = minimize(
        loss,
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1}],
        options={"maxiter": 200, "ftol": 1e-9},
    )
    best = np.maximum(found.x, 0)
    best = np.where(best / best.sum() < 0.005, 0, best)
    result: Floats = best / best.sum()
    return result


def fit_ensemble(
    names: Sequence[str],
    probabilities: Floats,
    shares: Floats,
    weights: Floats,
    folds: Sequence[int] | Ints,
    *,
    pool_name: PoolName,
    exponent: float = 0.5,
    calibration: CalibrationSetting = "auto",
    equal: bool = False,
    groups: Ints | None = None,
) -> Ensemble:
    """Weights, fitted or equal, then calibration of the pooled predictions.

    The arguments are those of `cross_fit`.
    """
    if equal:
        w = np.full(len(names), 1 / len(names))
    else:
        w = fit_weights(
            probabilities, shares, weights, name=pool_name, exponent=exponent, groups=groups
        )
    pooled = pool(probabilities, w, pool_name, exponent)
    if calibration == "auto":
        calibration = choose_calibration(pooled, shares, weights, folds, groups)
    scaling = fit_calibration(calibration, pooled, shares, weights, groups)
    return Ensemble(
        members=tuple(names),
        weights=tuple(float(x) for x in w),
        pool=pool_name,
        exponent=exponent if pool_name == "power" else 1.0,
        calibration=scaling,
    )


def cross_fit(
    names: Sequence[str],
    probabilities: Floats,
    shares: Floats,
    weights: Floats,
    folds: Sequence[int],
    *,
    pool_name: PoolName | Literal["auto"] = "auto",
    calibration: CalibrationSetting = "auto",
    equal: bool = False,
    groups: Sequence[int] | None = None,
) -> CrossFit:
    """Fit the ensemble, and predict each fold with an ensemble fitted on the other folds.

    Args:
        names: of the members.
        probabilities: (members, n, 3) out-of-fold probabilities.
        shares: (n, 3) vote shares.
        weights: (n,) weights.
        folds: (n,) fold of each pair; prompts lie in one fold.
        pool_name: a pool, or `auto`: the best one of each training part.
        calibration: scaling after pooling, or `auto`: `choose_calibration` of each training part;
            with two folds a temperature.
        equal: all members have the same weight; the pool and calibration are still fitted.
        groups: (n,) prompt of each pair, which the priors of weights and calibration go by; None
            for each its own.
    """
    prompts = None if groups is None else np.asarray(groups, dtype=np.int64)
    pools: tuple[PoolName, ...] = (
        ("linear", "log", "power") if pool_name == "auto" else (pool_name,)
    )
    fold = np.asarray(folds)
    if calibration == "auto" and len(np.unique(fold)) < 3:
        calibration = "temperature"  # the parts without a fold would have nothing to compare on
    held_out = np.zeros_like(probabilities[0])
    raw = np.zeros_like(held_out)

    def best(rows: npt.NDArray[np.bool_]) -> Ensemble:
        found = [
            fit_ensemble(
                names,
                probabilities[:, rows],
                shares[rows],
                weights[rows],
                fold[rows],
                pool_name=kind,
                calibration=calibration,
                equal=equal,
                groups=None if prompts is None else prompts[rows],
            )
            for kind in (pools if len(names) > 1 else pools[:1])
        ]
        return _best(found, probabilities[:, rows], shares[rows], weights[rows])

    for k in np.unique(fold):
        own = fold == k
        part = best(~own)
        held_out[own] = part.apply(probabilities[:, own])
        raw[own] = pool(probabilities[:, own], np.array(part.weights), part.pool, part.exponent)
    return CrossFit(best(np.ones(len(fold), dtype=bool)), held_out, raw)


def _best(
    fitted: Sequence[Ensemble], probabilities: Floats, shares: Floats, weights: Floats
) -> Ensemble:
    """The pool whose fitted ensemble has the lowest log loss on the data it was fitted on.

    The pools have equally many weights, so the comparison is fair among them; how good the winner
    is must be asked on other data.
    """
    losses = [weighted_log_loss(one.apply(probabilities), shares, weights) for one in fitted]
    return fitted[int(np.argmin(losses))]
