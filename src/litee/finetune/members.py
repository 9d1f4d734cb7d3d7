"""Fits the members of an ensemble: out-of-fold predictions first, then a final fit on all votes.

Every member predicts each fold after learning from the other folds only, ridge and early stop
included. What is finished lies in the run's folder, so a killed run goes on where it was.
Knows nothing of pools, calibration and reports.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from litee.encode.forest import Forest
from litee.finetune.branch import save_head
from litee.finetune.heads import HeadName, PairHead
from litee.finetune.lengths import pair_states
from litee.finetune.probe import (
    Ints,
    PairStates,
    fit_probe,
    fit_probes,
    predict_head,
)
from litee.finetune.task import Task, cross_entropy, stop_split
from litee.rundir import RunDir, atomic_path

#: Share of the training prompts that stops a branch.
STOP_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted member.

    Attributes:
        name: of the member and its folder.
        out_of_fold: (pairs, 3) probabilities for prompts that the fit had not seen.
        best_steps: per fold and for the final fit, the step at which a branch stopped; empty for
            probes.
        ridges: of a probe's fits: one per fold, and that of the final fit.
        branches: names of the branches a LoRA member predicts with.
        sources: names of the sources that have a head each; empty for one head.
    """

    name: str
    out_of_fold: npt.NDArray[np.float64]
    best_steps: tuple[int, ...] = ()
    ridges: tuple[float, ...] = ()
    branches: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


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
        ridges: candidates; for fold k they are compared by a cross-validation over the others.
        head: which head.
    """
    file = run.path / "run" / f"{name}.safetensors"

    def work() -> int:
        fold, count = task.fold, task.folds.count
        out = np.zeros((len(fold), 3))
        inner = np.zeros((count, len(ridges)))
        if len(ridges) > 1:
            inner = ridge_losses(data, task, ridges=ridges, head=head)
        taken = [ridges[number] for number in (*inner.argmin(1), inner.sum(0).argmin())]
        for k in range(count):
            heads = _fit(data, task, np.flatnonzero(fold != k), (taken[k],), head)
            own = np.flatnonzero(fold == k)
            out[own] = _predict(heads[0], data.of(own))
        (final,) = _fit(data, task, np.arange(len(fold)), (taken[-1],), head)
        for number, one in enumerate(final):
            place = run.path / "members" / name / (f"source{number}" if task.apart else "")
            save_head(one, place / "head.safetensors")
        with atomic_path(file) as temporary:
            save_file({"out_of_fold": out, "ridges": np.array(taken)}, temporary)
        return 0

    run.run(f"member-{name}", work)
    found = load_file(file)
    sources = task.source_names if task.apart else ()
    taken = tuple(map(float, found["ridges"]))
    return Fitted(name, found["out_of_fold"], ridges=taken, sources=sources)


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


def ridge_losses(
    data: PairStates, task: Task, *, ridges: Sequence[float], head: HeadName
) -> npt.NDArray[np.float64]:
    """(folds, ridges) held-out loss of each ridge, in nats, without a look at fold k for row k.

    Row k is a cross-validation over the other folds. A fit that leaves out the folds j and k serves
    twice: its loss on fold j helps to choose the ridge for k, and the other way round. With two
    folds nothing is left to learn from: half of the other fold's prompts judge.

    Args:
        data: states of all pairs.
        task: the votes.
        ridges: candidates.
        head: which head.
    """
    fold, count = task.fold, task.folds.count
    total, weight = np.zeros((count, len(ridges))), np.zeros(count)

    def judge(train: Ints, judges: Sequence[tuple[int, Ints]]) -> None:
        heads = _fit(data, task, train, ridges, head)
        for row, pairs in judges:
            if not len(pairs):
                continue
            size = float(task.weights[pairs].sum())
            weight[row] += size
            for number, one in enumerate(heads):
                p = _predict(one, data.of(pairs))
                loss = cross_entropy(p, task.shares[pairs], task.weights[pairs])
                total[row, number] += size * loss

    if len(set(fold.tolist())) == 2:
        for k in range(count):
            rest = np.flatnonzero(fold != k)
            train, valid = stop_split(task.folds, rest, task.seed, share=0.5)
            judge(train, [(k, valid)])
    else:
        for j, k in itertools.combinations(range(count), 2):
            train = np.flatnonzero((fold != j) & (fold != k))
            judge(train, [(k, np.flatnonzero(fold == j)), (j, np.flatnonzero(fold == k))])
    return total / np.maximum(weight, 1e-12)[:, None]


def _fit(
    data: PairStates, task: Task, pairs: Ints, ridges: Sequence[float], head: HeadName
) -> list[list[PairHead]]:
    """Per ridge one head, or one per source among the pairs, in the order of their names."""
    parts = [
        fit_probes(
            data.of(part),
            task.targets[part],
            task.weights[part],
            ridges=ridges,
            head=head,
            sources=task.sources_of(part),
            own=task.own,
        )
        for part in task.parts(pairs)
    ]
    return [list(heads) for heads in zip(*parts, strict=True)]


def _predict(heads: Sequence[PairHead], data: PairStates) -> npt.NDArray[np.float64]:
    """(pairs, 3) mean of the heads' probabilities.

    Where sources disagree, the mean is unsure; the mean of logits would follow the surest head.
    """
    mean: npt.NDArray[np.float64] = np.mean([predict_head(head, data) for head in heads], axis=0)
    return mean


def probe_depths(
    states: npt.NDArray[np.float32],
    forest: Forest,
    task: Task,
    *,
    pairs: Ints,
    columns: Sequence[int],
    ridge: float,
    head: HeadName,
    lengths: bool,
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
        lengths: whether it reads the answers' lengths, too.

    Returns:
        One log loss per depth, in nats.
    """
    fold = task.fold[pairs]
    losses = []
    for depth in range(states.shape[1]):
        flat = states[:, depth][:, list(columns)].reshape(len(states), -1)
        data = pair_states(flat, forest, lengths=lengths)
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
                own=task.own,
            )
            out[own] = predict_head(model, data.of(own))
        losses.append(cross_entropy(out, task.shares[pairs], task.weights[pairs]))
    return losses
