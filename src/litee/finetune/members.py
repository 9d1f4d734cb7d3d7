"""Fits the members of an ensemble: out-of-fold predictions first, then a final fit on all votes.

Every member predicts each fold after learning from the other folds only, ridge and early stop
included. What is finished lies in the run's folder, so a killed run goes on where it was.
Knows nothing of pools, calibration and reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from litee.config import FitSettings
from litee.encode.forest import Forest
from litee.errors import ConfigError
from litee.finetune.branch import save_head
from litee.finetune.heads import HeadName, PairHead
from litee.finetune.probe import Floats, Ints, PairStates, fit_probe, predict_head
from litee.records import Folds, VotedPair
from litee.rundir import RunDir, atomic_path

#: Share of the training prompts that stops a branch.
STOP_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class Task:
    """The votes as arrays.

    Attributes:
        shares: (pairs, 3) vote shares.
        weights: (pairs,) training weights.
        folds: the split.
        seed: of everything random.
        sources: (pairs,) number of each pair's source, when sources have weights of their own.
        source_names: of those numbers.
        apart: every source has a head of its own, instead of deviations from a shared one.
        taught: (pairs, 3) what is learnt from instead of the shares: labels that a teacher or a
            majority has changed.
    """

    shares: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    folds: Folds
    seed: int
    sources: Ints | None = None
    source_names: tuple[str, ...] = ()
    apart: bool = False
    taught: npt.NDArray[np.float64] | None = None

    @property
    def targets(self) -> npt.NDArray[np.float64]:
        """(pairs, 3) what members learn from; they are chosen and judged by the shares."""
        return self.shares if self.taught is None else self.taught

    def sources_of(self, pairs: Ints) -> Ints | None:
        """The sources of some pairs, None unless they deviate from shared weights."""
        return None if self.sources is None or self.apart else self.sources[pairs]

    def parts(self, pairs: Ints) -> list[Ints]:
        """Some pairs, divided into those that one head learns from."""
        if self.sources is None or not self.apart:
            return [pairs]
        own = self.sources[pairs]
        return [pairs[own == source] for source in np.unique(own)]

    @property
    def fold(self) -> Ints:
        """(pairs,) fold that holds each pair out."""
        return np.asarray(self.folds.folds, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted member.

    Attributes:
        name: of the member and its folder.
        out_of_fold: (pairs, 3) probabilities for prompts that the fit had not seen.
        best_steps: per fold and for the final fit, the step at which a branch stopped; empty for
            probes.
        ridge: of a probe's final fit.
        branches: names of the branches a LoRA member predicts with.
        sources: names of the sources that have a head each; empty for one head.
    """

    name: str
    out_of_fold: npt.NDArray[np.float64]
    best_steps: tuple[int, ...] = ()
    ridge: float = 0.0
    branches: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def make_task(
    voted: Sequence[VotedPair],
    folds: Folds,
    settings: FitSettings,
    teacher: npt.NDArray[np.float64] | None = None,
) -> Task:
    """Arrays of shares and weights; weights have mean 1.

    Args:
        voted: the pairs.
        folds: their split.
        settings: how they are weighted, and how much the teacher counts.
        teacher: (pairs, 3) its probabilities; rows of NaN where it has none, and votes alone count.

    Raises:
        ConfigError: sources shall differ, and there is only one.
    """
    shares = np.array([v.shares for v in voted], dtype=np.float64)
    if settings.pair_weight == "votes":
        weights = np.array([v.votes for v in voted], dtype=np.float64)
    elif settings.pair_weight == "prompt":
        sizes = np.bincount(folds.groups)
        weights = np.array([sizes[g] ** -0.5 for g in folds.groups])
    else:
        weights = np.ones(len(voted))
    sources, names = None, np.array([v.pair.source for v in voted])
    if settings.sources != "together":
        if len(set(names)) < 2:
            raise ConfigError(
                f"sources = {settings.sources!r} needs votes of two sources; all are of "
                f"{str(names[0])!r}",
                fix="leave it out, or add votes whose source has another name",
            )
        names, sources = np.unique(names, return_inverse=True)
    taught = None if settings.soft_labels else majority(shares)
    if teacher is not None:
        votes = shares if taught is None else taught
        taught = blend(votes, teacher, settings.teacher_weight)
    return Task(
        shares,
        weights / weights.mean(),
        folds,
        settings.seed,
        sources=None if sources is None else sources.astype(np.int64),
        source_names=() if sources is None else tuple(map(str, names)),
        apart=settings.sources == "apart",
        taught=taught,
    )


def majority(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, 3) hard labels: all on the outcome with the largest share, divided where several are.

    >>> majority(np.array([[0.6, 0.4, 0.0], [0.5, 0.0, 0.5]])).tolist()
    [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
    """
    most = (shares >= shares.max(axis=1, keepdims=True) - 1e-9).astype(np.float64)
    labels: npt.NDArray[np.float64] = most / most.sum(axis=1, keepdims=True)
    return labels


def blend(
    shares: npt.NDArray[np.float64], teacher: npt.NDArray[np.float64], weight: float
) -> npt.NDArray[np.float64]:
    """(n, 3) targets (1 − w) · shares + w · teacher; the shares where the teacher says nothing.

    Their cross-entropy is that of the votes and that of the teacher, weighted alike: distillation
    at temperature 1 (Hinton et al., 2015, arXiv 1503.02531, section 2).

    >>> votes = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    >>> told = np.array([[0.6, 0.2, 0.2], [np.nan] * 3])
    >>> blend(votes, told, 0.5).tolist()
    [[0.8, 0.1, 0.1], [0.0, 1.0, 0.0]]
    """
    known = np.isfinite(teacher).all(axis=1, keepdims=True)
    targets: npt.NDArray[np.float64] = np.where(
        known, (1 - weight) * shares + weight * teacher, shares
    )
    return targets


def cross_entropy(probabilities: Floats, shares: Floats, weights: Floats) -> float:
    """Weighted mean of −Σ shares · log p, in nats."""
    losses = -(shares * np.log(np.maximum(probabilities, 1e-12))).sum(1)
    return float(np.average(losses, weights=weights))


def fit_probe_member(
    name: str,
    data: PairStates,
    task: Task,
    *,
    run: RunDir,
    ridges: Sequence[float],
    head: HeadName,
) -> Fitted:
    """A linear member on fixed states, with the ridge chosen inside each training part.

    Args:
        name: of the member.
        data: states of all pairs.
        task: the votes.
        run: where results are kept: `members/<name>/head.safetensors`, or one such file per
            source in `source0`, `source1`, …, and `run/<name>.safetensors`.
        ridges: candidates; for fold k they are compared on the next fold, after fitting on the
            rest.
        head: which head.
    """
    file = run.path / "run" / f"{name}.safetensors"

    def work() -> int:
        fold, count = task.fold, task.folds.count
        out = np.zeros((len(fold), 3))
        inner = np.zeros((count, len(ridges)))
        for k in range(count):
            if len(ridges) > 1:
                stop = (k + 1) % count
                inner[k] = _ridge_losses(data, task, fold, k, stop, ridges=ridges, head=head)
            ridge = ridges[int(inner[k].argmin())]
            heads = _fit(data, task, np.flatnonzero(fold != k), ridge, head)
            own = np.flatnonzero(fold == k)
            out[own] = _predict(heads, data.of(own))
        ridge = ridges[int(inner.sum(0).argmin())]
        final = _fit(data, task, np.arange(len(fold)), ridge, head)
        for number, one in enumerate(final):
            place = run.path / "members" / name / (f"source{number}" if task.apart else "")
            save_head(one, place / "head.safetensors")
        with atomic_path(file) as temporary:
            save_file({"out_of_fold": out, "ridge": np.array([ridge])}, temporary)
        return 0

    run.run(f"member-{name}", work)
    found = load_file(file)
    sources = task.source_names if task.apart else ()
    return Fitted(name, found["out_of_fold"], ridge=float(found["ridge"][0]), sources=sources)


def keep_fixed_member(name: str, data: PairStates, head: PairHead, *, run: RunDir) -> Fitted:
    """A member whose head learns nothing, so that all of its predictions are out of fold.

    Args:
        name: of the member.
        data: states of all pairs.
        head: that reads them; kept as `members/<name>/head.safetensors`.
        run: where results are kept.
    """

    def work() -> int:
        save_head(head, run.path / "members" / name / "head.safetensors")
        return 0

    run.run(f"member-{name}", work)
    return Fitted(name, predict_head(head, data))


def _ridge_losses(
    data: PairStates,
    task: Task,
    fold: Ints,
    k: int,
    stop: int,
    *,
    ridges: Sequence[float],
    head: HeadName,
) -> list[float]:
    """Held-out loss of each ridge: fitted without folds k and stop, judged on fold stop.

    With two folds there is no third part: half of the training prompts judge.
    """
    if stop == k or len(set(fold.tolist())) == 2:
        train, valid = stop_split(task.folds, np.flatnonzero(fold != k), task.seed, share=0.5)
    else:
        train = np.flatnonzero((fold != k) & (fold != stop))
        valid = np.flatnonzero(fold == stop)
    losses = []
    for ridge in ridges:
        p = _predict(_fit(data, task, train, ridge, head), data.of(valid))
        losses.append(cross_entropy(p, task.shares[valid], task.weights[valid]))
    return losses


def _fit(data: PairStates, task: Task, pairs: Ints, ridge: float, head: HeadName) -> list[PairHead]:
    """One head, or one per source that is among the pairs, in the order of their names."""
    return [
        fit_probe(
            data.of(part),
            task.targets[part],
            task.weights[part],
            ridge=ridge,
            head=head,
            sources=task.sources_of(part),
        )
        for part in task.parts(pairs)
    ]


def _predict(heads: Sequence[PairHead], data: PairStates) -> npt.NDArray[np.float64]:
    """(pairs, 3) mean of the heads' probabilities.

    Where sources disagree, the mean is unsure; the mean of logits would follow the surest head.
    """
    mean: npt.NDArray[np.float64] = np.mean([predict_head(head, data) for head in heads], axis=0)
    return mean


def stop_split(folds: Folds, pairs: Ints, seed: int, *, share: float) -> tuple[Ints, Ints]:
    """Split pairs into a training and a stopping part, whole prompt groups on each side.

    Args:
        folds: for the groups.
        pairs: to split; from at least two groups, or both parts are all of them.
        seed: which groups stop.
        share: of the pairs that stop, at least one group and never all.
    """
    groups = np.asarray(folds.groups)[pairs]
    distinct = np.unique(groups)
    if len(distinct) < 2:
        return pairs, pairs
    order = np.random.default_rng([seed, len(pairs)]).permutation(distinct)
    chosen: set[int] = set()
    held = 0
    for group in order[:-1]:
        if chosen and held >= share * len(pairs):
            break
        size = int((groups == group).sum())
        if chosen and held + size > 2 * share * len(pairs):
            continue
        chosen.add(int(group))
        held += size
    stops = np.isin(groups, list(chosen))
    return pairs[~stops], pairs[stops]


def probe_depths(
    states: npt.NDArray[np.float32],
    forest: Forest,
    task: Task,
    *,
    pairs: Ints,
    columns: Sequence[int],
    ridge: float,
    head: HeadName,
) -> list[float]:
    """Out-of-fold loss of a probe at each depth, on a sample of pairs.

    Args:
        states: (leaves, depths, 2, hidden) of the sample's forest.
        forest: of the sample.
        task: all votes.
        pairs: numbers of the sample's pairs in the task, in the forest's order.
        columns: which of (last, mean) the probe reads.
        ridge: of the probes.
        head: which head.

    Returns:
        One log loss per depth, in nats.
    """
    fold = task.fold[pairs]
    losses = []
    for depth in range(states.shape[1]):
        flat = states[:, depth][:, list(columns)].reshape(len(states), -1)
        data = PairStates(flat, forest.left, forest.right)
        out = np.full((len(pairs), 3), 1 / 3)
        for k in np.unique(fold):
            rest, own = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            if not len(rest):
                continue
            model = fit_probe(
                data.of(rest),
                task.targets[pairs[rest]],
                task.weights[pairs[rest]],
                ridge=ridge,
                head=head,
                sources=task.sources_of(pairs[rest]),
            )
            out[own] = predict_head(model, data.of(own))
        losses.append(cross_entropy(out, task.shares[pairs], task.weights[pairs]))
    return losses
