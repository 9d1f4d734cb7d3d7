"""Fits LoRA members: a branch per fold, trained side by side from the same kept states.

Knows nothing of probes of other depths, pools, calibration and reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from litee.config import FitSettings
from litee.finetune.adapters import Adapters
from litee.finetune.attention_pooling import (
    average_queries,
    load_query,
    save_query,
    start_query,
)
from litee.finetune.branch import (
    Branch,
    Examples,
    Lesson,
    load_head,
    save_head,
    train_together,
)
from litee.finetune.deadline import Deadline
from litee.finetune.heads import HeadName, PairHead, average_heads
from litee.finetune.loop import History
from litee.finetune.members import STOP_SHARE, Fitted
from litee.finetune.probe import Floats, Ints, PairStates, fit_probe
from litee.finetune.states import TokenStore
from litee.finetune.task import Task, stop_split
from litee.rundir import Json, RunDir, atomic_path, write_json

#: Branches train in one pass as long as their batches together have no more tokens: beyond it a
#: pass takes memory and no longer gains speed.
PASS_TOKENS = 4096

#: The same for a GPU.
PASS_TOKENS_GPU = 32768


def pass_tokens(device: torch.device) -> int:
    """Tokens of all branches that go through the adapted layers at once on this device.

    >>> pass_tokens(torch.device("cpu"))
    4096
    """
    return PASS_TOKENS_GPU if device.type == "cuda" else PASS_TOKENS


@dataclass(frozen=True, slots=True)
class BranchPlan:
    """What all folds of a LoRA member share.

    Attributes:
        name: of the member.
        states: pooled states at the exit depth, for the probes that branches start from.
        store: token states below the branches.
        adapters: where they are added.
        head: of the probe.
        start: ridges of the probes that branches start from, one per fold and one for all pairs,
            none of them chosen with pairs its branch does not see; or a head that is not learnt.
        pooling: what of an answer's states the head reads.
        attends: whether a mean weighted by attention takes the place of the plain one.
    """

    name: str
    states: PairStates
    store: TokenStore
    adapters: Adapters
    head: HeadName
    start: PairHead | tuple[float, ...]
    pooling: str
    attends: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """A branch: its name and number, what it learns from, what stops it, what it predicts."""

    label: str
    number: int
    train: Ints
    stop: Ints
    own: Ints
    seed: int


def fit_branch_member(
    plan: BranchPlan,
    task: Task,
    *,
    settings: FitSettings,
    run: RunDir,
    deadline: Deadline,
) -> Fitted:
    """A LoRA member: one branch per fold; they are kept, averaged, or followed by one on all folds.

    Every branch starts from a probe fitted on its own training prompts only. Branches train
    together as long as their batches fit into one pass of `pass_tokens`. Each group has an equal
    share of the time that is left.

    Raises:
        TimeUpError: the deadline passed before any branch could train.
    """
    folder = run.path / "run" / plan.name
    parts = _parts(task, settings)
    size = max(1, pass_tokens(plan.store.trunk.device) // settings.batch_tokens)
    for first in range(0, len(parts), size):
        group = parts[first : first + size]
        share = len(group) / (len(parts) - first)
        run.run(
            f"branch-{plan.name}-{'+'.join(part.label for part in group)}",
            _branch_work(
                plan, task, group, settings=settings, run=run, deadline=deadline, share=share
            ),
        )
    if settings.lora_final == "average":
        labels = [part.label for part in parts]
        run.run(f"branch-{plan.name}-average", lambda: _average(plan, labels, run))
    out = np.zeros((len(task.fold), 3))
    for part in parts:
        if len(part.own):
            out[part.own] = load_file(folder / f"{part.label}.safetensors")["probabilities"]
    steps = [json.loads((folder / f"{p.label}.json").read_text())["best_step"] for p in parts]
    return Fitted(plan.name, out, tuple(steps), branches=kept_branches(task, settings))


def kept_branches(task: Task, settings: FitSettings) -> tuple[str, ...]:
    """Names of the branches that a LoRA member predicts with."""
    if settings.lora_final == "refit":
        return ("final",)
    if settings.lora_final == "average":
        return ("average",)
    return tuple(f"fold{k}" for k in range(task.folds.count))


def _average(plan: BranchPlan, labels: Sequence[str], run: RunDir) -> int:
    """One branch with the means of the folds' branches, which stay in the run's folder."""
    folder = run.path / "run" / plan.name
    for label in labels:
        plan.adapters.load(label, folder / label)
    plan.adapters.average("average", labels)
    target = run.path / "members" / plan.name / "average"
    plan.adapters.save("average", target)
    heads = [load_head(plan.head, folder / label / "head.safetensors") for label in labels]
    save_head(average_heads(heads), target / "head.safetensors")
    if plan.attends:
        save_query(average_queries([load_query(folder / label) for label in labels]), target)
    for label in (*labels, "average"):
        plan.adapters.drop(label)
    return 0


def _parts(task: Task, settings: FitSettings) -> list[_Part]:
    fold, everything = task.fold, np.arange(len(task.fold))
    parts = []
    for k in range(task.folds.count):
        rest = np.flatnonzero(fold != k)
        train, stop = stop_split(task.folds, rest, task.seed + k, share=STOP_SHARE)
        own = np.flatnonzero(fold == k)
        parts.append(_Part(f"fold{k}", k, train, stop, own, settings.seed * 1000 + k))
    if settings.lora_final == "refit":
        train, stop = stop_split(task.folds, everything, task.seed, share=STOP_SHARE)
        seed = settings.seed * 1000 + task.folds.count
        parts.append(_Part("final", task.folds.count, train, stop, everything[:0], seed))
    return parts


def _branch_work(
    plan: BranchPlan,
    task: Task,
    parts: Sequence[_Part],
    *,
    settings: FitSettings,
    run: RunDir,
    deadline: Deadline,
    share: float,
) -> Callable[[], int]:
    folder = run.path / "run" / plan.name
    name = "+".join(part.label for part in parts)

    def work() -> int:
        before = plan.store.tokens_run
        plan.store.fill(title=f"states below {plan.name}", deadline=deadline)
        deadline.check()
        own_time = deadline.part(share)
        branches = [_fresh(plan, task, part) for part in parts]
        histories = train_together(
            branches,
            [
                Lesson(_examples(task, p.train, task.targets), _examples(task, p.stop), p.seed)
                for p in parts
            ],
            settings=settings,
            checkpoint=folder / f"{name}.checkpoint",
            title=f"{plan.name} {name}",
            out_of_time=own_time.passed,
        )
        for part, branch, history in zip(parts, branches, histories, strict=True):
            target = _target(plan, part, task, settings=settings, run=run)
            if target is not None:
                plan.adapters.save(part.label, target)
                save_head(branch.head, target / "head.safetensors")
                if branch.query is not None:
                    save_query(branch.query, target)
            if len(part.own):
                probabilities = branch.log_probabilities(part.own).softmax(-1).numpy()
                with atomic_path(folder / f"{part.label}.safetensors") as temporary:
                    save_file({"probabilities": probabilities}, temporary)
            plan.adapters.drop(part.label)
            write_json(folder / f"{part.label}.json", _story(history))
        (folder / f"{name}.checkpoint").unlink(missing_ok=True)
        return plan.store.tokens_run - before

    return work


def _target(
    plan: BranchPlan, part: _Part, task: Task, *, settings: FitSettings, run: RunDir
) -> Path | None:
    """Where a branch is kept: in the judge, until it is averaged, or not at all."""
    if settings.lora_final == "average":
        return run.path / "run" / plan.name / part.label
    if part.label in kept_branches(task, settings):
        return run.path / "members" / plan.name / part.label
    return None


def _fresh(plan: BranchPlan, task: Task, part: _Part) -> Branch:
    """A branch at the solution of a probe on its own training prompts, or at the head given."""
    head = plan.start
    if not isinstance(head, PairHead):
        head = fit_probe(
            plan.states.of(part.train),
            task.targets[part.train],
            task.weights[part.train],
            ridge=head[part.number],
            head=plan.head,
            sources=task.sources_of(part.train),
            own=task.own,
        )
    plan.adapters.add(part.label, seed=part.seed)
    trunk = plan.store.trunk
    return Branch(
        plan.adapters,
        part.label,
        head=head,
        store=plan.store,
        pooling=plan.pooling,
        query=start_query(trunk.hidden_size, trunk.device) if plan.attends else None,
        lengths=bool(plan.states.lengths),
    )


def _examples(task: Task, pairs: Ints, targets: Floats | None = None) -> Examples:
    """Pairs with what they are learnt from, or judged by: their vote shares when None."""
    return Examples(
        pairs, (task.shares if targets is None else targets)[pairs], task.weights[pairs]
    )


def _story(history: History) -> Json:
    return {
        "best_step": history.best_step,
        "best_loss": history.best_loss,
        "start_loss": history.validation[0][1],
        "steps": history.step,
        "stopped": history.stopped,
        "validation": [list(point) for point in history.validation],
    }
