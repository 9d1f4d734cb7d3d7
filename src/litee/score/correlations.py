"""Correlation of a metric with people's ratings at three levels, with its bootstrap draws.

Item level: over all answers. Prompt level: within each prompt, then averaged. System level: over
the systems' means. All are recomputed exactly on every resample of prompts, ranks included: the
resample only changes how often each answer counts. Knows nothing of texts, files or pairs.

Shapes: n answers; c resamples at once; g prompts; s systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats

#: Figures at item level, in the order they are shown.
ITEM_MEASURES: tuple[str, ...] = (
    "spearman_item",
    "kendall_item",
    "pearson_item",
    "spearman_item_length",
    "pearson_item_length",
)
PROMPT_MEASURES: tuple[str, ...] = ("spearman_prompt", "kendall_prompt", "pearson_prompt")
SYSTEM_MEASURES: tuple[str, ...] = ("spearman_system", "kendall_system", "pearson_system")

#: Above this number of answers Kendall's tau gets no interval (its cost is quadratic).
TAU_LIMIT = 20_000

_BLOCK = 4_000_000
_SMALL_BLOCK = 200_000  # stays in the cache
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Draws:
    """One figure on the full sample and on the resamples.

    Attributes:
        value: None when undefined (one side is constant, too few systems).
        draws: (resamples,), NaN where undefined; may be empty.
    """

    value: float | None
    draws: Floats


def weighted_pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """(c,) Pearson correlation under each row of (c, n) weights; x and y are (n,) or (c, n).

    >>> w = np.ones((1, 3))
    >>> weighted_pearson(np.array([1.0, 2, 3]), np.array([2.0, 4, 6]), w).round(6).tolist()
    [1.0]
    """
    shape = weights.shape
    x, y = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
    total = weights.sum(axis=1)
    wx, wy = weights * x, weights * y
    mean_x, mean_y = wx.sum(axis=1) / total, wy.sum(axis=1) / total
    raw_x, raw_y = np.einsum("cn,cn->c", wx, x), np.einsum("cn,cn->c", wy, y)
    xx, yy = raw_x - total * mean_x**2, raw_y - total * mean_y**2
    xy = np.einsum("cn,cn->c", wx, y) - total * mean_x * mean_y
    varies = (xx > _TINY * raw_x) & (yy > _TINY * raw_y)  # what is left of a constant is rounding
    correlation = np.full(len(weights), np.nan)
    np.divide(xy, np.sqrt(np.abs(xx * yy)), out=correlation, where=varies)
    return correlation


def weighted_ranks(x: Floats, weights: Floats) -> Floats:
    """(c, n) mid-ranks of (n,) values when value i occurs weights[·, i] times.

    >>> weighted_ranks(np.array([5.0, 1.0, 5.0]), np.array([[1.0, 1, 1], [2, 1, 0]])).tolist()
    [[2.5, 1.0, 2.5], [2.5, 1.0, 2.5]]
    """
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered) > 0) + 1])
    level = np.empty(len(x), dtype=int)
    level[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(x))))
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: Floats = (np.cumsum(size, axis=1) - (size - 1) / 2)[:, level]
    return ranks


def partial_correlation(xy: Floats, xz: Floats, yz: Floats) -> Floats:
    """Correlation of x and y with z held fixed, from the three plain ones (Yule 1907).

    >>> partial_correlation(np.array([0.5]), np.array([0.0]), np.array([0.0])).tolist()
    [0.5]
    """
    scale = np.sqrt(np.maximum((1 - xz**2) * (1 - yz**2), 0))
    found = np.full(len(xy), np.nan)
    np.divide(xy - xz * yz, scale, out=found, where=scale > 1e-9)
    return found


@dataclass(frozen=True, slots=True)
class Sample:
    """The answers a metric has scored.

    Attributes:
        x: (n,) the metric, higher is better.
        y: (n,) people's rating.
        z: (n,) length of the answer, or None when unknown.
        systems: (n,) number of the answer's system, 0 … s − 1.
        bootstrap: over the prompts of exactly these answers.
    """

    x: Floats
    y: Floats
    z: Floats | None
    systems: NDArray[np.int_]
    bootstrap: GroupBootstrap

    def weights(self) -> Iterator[Floats]:
        """The full sample as one row of ones, then blocks (c, n) of resampled weights."""
        n = len(self.x)
        yield np.ones((1, n))
        if self.bootstrap.count < 2:
            return
        size = max(1, _SMALL_BLOCK // n)
        for counts in self.bootstrap.counts():
            for start in range(0, len(counts), size):
                yield counts[start : start + size][:, self.bootstrap.index]


def _split(values: Floats) -> Draws:
    """The first number is the full sample's."""
    first = values[0]
    return Draws(float(first) if np.isfinite(first) else None, values[1:])


def item_correlations(sample: Sample) -> dict[str, Draws]:
    """`ITEM_MEASURES`; those that hold length fixed only when lengths are known.

    Kendall's tau-b: Kendall (1945). Spearman: Pearson on mid-ranks. All with bootstrap draws,
    tau up to `TAU_LIMIT` answers.
    """
    blocks = [_item_block(sample, weights) for weights in sample.weights()]
    found = {key: _split(np.concatenate([b[key] for b in blocks])) for key in blocks[0]}
    found["kendall_item"] = _split(_kendall(sample))
    return {key: found[key] for key in ITEM_MEASURES if key in found}


def _item_block(sample: Sample, weights: Floats) -> dict[str, Floats]:
    columns = [sample.x, sample.y] + ([] if sample.z is None else [sample.z])
    centred = [np.broadcast_to(_levelled(c), weights.shape) for c in columns]
    middle = (weights.sum(axis=1)[:, None] + 1) / 2
    ranks = [weighted_ranks(c, weights) - middle for c in columns]
    found: dict[str, Floats] = {}
    for name, values in (("pearson_item", centred), ("spearman_item", ranks)):
        found[name] = weighted_pearson(values[0], values[1], weights)
        if sample.z is not None:
            found[f"{name}_length"] = partial_correlation(
                found[name],
                weighted_pearson(values[0], values[2], weights),
                weighted_pearson(values[1], values[2], weights),
            )
    return found


def _kendall(sample: Sample) -> Floats:
    """Tau-b on the full sample, then on every resample.

    Concordant minus discordant pairs is a quadratic form in how often each prompt was drawn,
    S = Σ_gh c_g c_h S_gh, and so are the numbers of untied pairs (derived here): the n² signs are
    summed once per pair of prompts, and a resample costs g² instead of n log n.
    """
    index, count = sample.bootstrap.index, sample.bootstrap.count
    if len(sample.x) > TAU_LIMIT:
        return np.array([_tau_only(sample.x, sample.y)])
    forms = _sign_forms(sample.x, sample.y, index, count)
    blocks = [_tau(np.ones((1, count)), forms)]
    if count > 1:
        blocks += [_tau(counts, forms) for counts in sample.bootstrap.counts()]
    return np.concatenate(blocks)


def _tau_only(x: Floats, y: Floats) -> float:
    """Tau-b of a large sample, block by block of rows."""
    forms = _sign_forms(x, y, np.zeros(len(x), dtype=int), 1)
    return float(_tau(np.ones((1, 1)), forms)[0])


def _tau(counts: Floats, forms: tuple[Floats, Floats, Floats]) -> Floats:
    agree, untied_x, untied_y = (((counts @ form) * counts).sum(axis=1) for form in forms)
    scale = np.sqrt(untied_x * untied_y)
    tau = np.full(len(counts), np.nan)
    np.divide(agree, scale, out=tau, where=scale > 0)
    return tau


def _sign_forms(
    x: Floats, y: Floats, index: NDArray[np.int_], count: int
) -> tuple[Floats, Floats, Floats]:
    """(count, count) sums over pairs of answers of sign·sign, |sign of x| and |sign of y|."""
    order = np.argsort(index, kind="stable")
    x, y, index = x[order], y[order], index[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(index) > 0) + 1])
    forms = tuple(np.zeros((count, count)) for _ in range(3))
    size = max(1, _BLOCK // len(x))
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        sx = np.sign(x[rows, None] - x[None]).astype(np.int8)
        sy = np.sign(y[rows, None] - y[None]).astype(np.int8)
        inside = index[rows]
        first = np.concatenate([[0], np.flatnonzero(np.diff(inside) > 0) + 1])
        for form, signs in zip(forms, (sx * sy, np.abs(sx), np.abs(sy)), strict=True):
            columns = np.add.reduceat(signs, starts, axis=1, dtype=np.int32)
            form[inside[first]] += np.add.reduceat(columns, first, axis=0)
    return forms[0], forms[1], forms[2]


def prompt_correlations(sample: Sample) -> dict[str, Draws]:
    """`PROMPT_MEASURES`: mean over prompts where the correlation is defined (3 answers or more).

    A prompt on which people or the metric give everybody the same number has no correlation and
    is left out, as in the "no grouping"/"group by item" comparison of Deutsch et al. (2023).
    """
    index, count = sample.bootstrap.index, sample.bootstrap.count
    per_prompt = np.full((count, 3), np.nan)
    order = np.argsort(index, kind="stable")
    for group, rows in enumerate(np.split(order, np.cumsum(np.bincount(index))[:-1])):
        if len(rows) >= 3:
            per_prompt[group] = small_correlations(sample.x[rows], sample.y[rows])
    defined = np.isfinite(per_prompt).astype(float)
    filled = np.where(defined > 0, per_prompt, 0.0)
    sums = [np.ones((1, count))]
    if count > 1:
        sums += list(sample.bootstrap.counts())
    top = np.concatenate([counts @ filled for counts in sums])
    bottom = np.concatenate([counts @ defined for counts in sums])
    means = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=means, where=bottom > 0)
    return {key: _split(means[:, k]) for k, key in enumerate(PROMPT_MEASURES)}


def small_correlations(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Spearman, Kendall's tau-b and Pearson of a few numbers; NaN where one side is constant.

    >>> small_correlations(np.array([1.0, 2, 3]), np.array([1.0, 3, 2]))[1].round(4).item()
    0.3333
    """
    x, y, one = _levelled(x), _levelled(y), np.ones((1, len(x)))
    spearman = weighted_pearson(weighted_ranks(x, one), weighted_ranks(y, one), one)[0]
    sx, sy = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    scale = np.sqrt(np.abs(sx).sum() * np.abs(sy).sum())
    tau = (sx * sy).sum() / scale if scale > 0 else np.float64(np.nan)
    return spearman, tau, weighted_pearson(x, y, one)[0]


def system_correlations(sample: Sample) -> dict[str, Draws]:
    """`SYSTEM_MEASURES`: over the systems' mean scores and mean ratings (3 systems or more)."""
    names, index = np.unique(sample.systems, return_inverse=True)
    groups = sample.bootstrap
    cell = groups.index * len(names) + index
    shape = (groups.count, len(names))
    sums = [
        np.bincount(cell, values, groups.count * len(names)).reshape(shape)
        for values in (sample.x, sample.y, np.ones(len(cell)))
    ]
    draws = [np.ones((1, groups.count))]
    if groups.count > 1:
        draws += list(groups.counts())
    rows = np.full((sum(map(len, draws)), 3), np.nan)
    at = 0
    for counts in draws:
        x, y, n = (counts @ values for values in sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            rows[at : at + len(counts)] = mean_correlations(x / n, y / n)
        at += len(counts)
    return {key: _split(rows[:, k]) for k, key in enumerate(SYSTEM_MEASURES)}


def _levelled(values: Floats) -> Floats:
    """Centred along the last axis, with differences that are only rounding taken out."""
    size = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    step = np.maximum(size * 1e-10, np.finfo(float).tiny)
    levelled: Floats = np.round((values - values[..., :1]) / step) * step
    return levelled


def mean_correlations(x: Floats, y: Floats) -> Floats:
    """(c, 3) Spearman, tau-b and Pearson between rows of (c, s); NaN rows with fewer than three.

    A system that is absent from a resample (NaN) makes that resample undefined.
    """
    found = np.full((len(x), 3), np.nan)
    if x.shape[1] < 3:
        return found
    keep = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    x, y = _levelled(x[keep]), _levelled(y[keep])
    sx, sy = np.sign(x[:, :, None] - x[:, None]), np.sign(y[:, :, None] - y[:, None])
    ones = np.ones(x.shape)
    scale = np.sqrt(np.abs(sx).sum(axis=(1, 2)) * np.abs(sy).sum(axis=(1, 2)))
    tau = np.full(len(x), np.nan)
    np.divide((sx * sy).sum(axis=(1, 2)), scale, out=tau, where=scale > 0)
    # a mid-rank is half the sum of signs plus a constant
    spearman = weighted_pearson(sx.sum(axis=2), sy.sum(axis=2), ones)
    found[keep] = np.column_stack([spearman, tau, weighted_pearson(x, y, ones)])
    return found
