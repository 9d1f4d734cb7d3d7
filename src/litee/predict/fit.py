"""Votes to judge: fits the members, joins them, saves the artifact and checks it.

Everything that is finished lies in the run's folder; a killed run resumes to the same bytes.
Knows nothing of vote files and reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import cast

import numpy as np
import torch

from litee.collect.annotators import AnnotatorWeights
from litee.config import ENCODER_MEMBERS, Device, FitSettings
from litee.errors import BudgetError, ConfigError, ModelError
from litee.finetune.backbones import find_backbone
from litee.finetune.deadline import Deadline, TimeUpError
from litee.finetune.device import (
    DtypeName,
    check_trainable,
    choose_device,
    choose_dtype,
    device_name,
    peak_gpu_mb,
    use_threads,
)
from litee.finetune.heap import give_back_memory
from litee.finetune.members import fit_probe_member
from litee.finetune.statistics import GROUPS, statistics_states
from litee.finetune.task import Task, cross_entropy, make_task
from litee.predict.artifact import JudgeFile, MemberEntry, save_judge_file
from litee.predict.backbone_fit import BackboneFit, Cut, Members, slug
from litee.predict.calibration import Floats
from litee.predict.depths import DepthSearch
from litee.predict.ensemble import CrossFit, cross_fit
from litee.predict.familiar import Familiar
from litee.predict.judge import Judge
from litee.predict.plan import PLAN_FILE
from litee.records import Folds, Pair, VotedPair
from litee.rundir import Receipt, RunDir, write_json

#: Pairs whose predictions are compared after reloading in a fresh process.
CHECKED_PAIRS = 8

#: Largest difference of a probability that reloading may make.
RELOAD_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class FitResult:
    """All that a fit leaves behind.

    Attributes:
        judge: as in `judge.json`.
        names: of the members.
        out_of_fold: (members, pairs, 3) probabilities.
        joined: the ensemble and its cross-fitted predictions.
        without: member → cross-fitted (pairs, 3) predictions of the ensemble without it.
        depths: what the depth probes found.
        cuts: encoding → what was cut and shared.
        notes: sentences for the report, such as branches that did not beat their probe.
        receipt: what it cost.
    """

    judge: JudgeFile
    names: tuple[str, ...]
    out_of_fold: Floats
    joined: CrossFit
    without: dict[str, Floats]
    depths: tuple[DepthSearch, ...]
    cuts: dict[str, Cut]
    notes: tuple[str, ...]
    receipt: Receipt


def fit_judge(
    voted: Sequence[VotedPair],
    folds: Folds,
    settings: FitSettings,
    run: RunDir,
    *,
    inputs: dict[str, str],
    deadline: Deadline | None = None,
    teacher: Floats | None = None,
) -> FitResult:
    """Fit a judge on voted pairs and save it in the run's folder.

    Args:
        voted: the pairs.
        folds: split by prompt, checked for leaks.
        settings: everything that can be chosen.
        run: where the judge and the finished stages lie.
        inputs: file → sha256, for the receipt and the artifact.
        deadline: when the members have to be there; those that are not are left out, and a note
            says so.
        teacher: (pairs, 3) probabilities that the members learn from beside the votes, NaN where
            there are none. The ensemble and its calibration are fitted on votes alone.

    Raises:
        BudgetError: no member was there in time.
        ModelError: a backbone cannot be used, or the saved judge does not give the same
            predictions after reloading.
    """
    threads = use_threads(settings.threads)
    device = choose_device(settings.device, settings.dtype)
    check_trainable(settings.dtype, device)
    task = make_task(voted, folds, settings, teacher)
    pairs = [v.pair for v in voted]
    members = _fit_members(
        pairs, task, settings, run, device=device, deadline=deadline or Deadline()
    )
    names = tuple(entry.name for entry in members.entries)
    stacked = np.stack([fitted.out_of_fold for fitted in members.fitted])
    joined = join_members(names, stacked, task, settings)
    judge = _judge_file(members, joined, task, pairs, inputs)
    save_judge_file(judge, run.path)
    give_back_memory()
    run.run("reload-check", lambda: _check_reload(run, pairs[:CHECKED_PAIRS], device))
    return FitResult(
        judge=judge,
        names=names,
        out_of_fold=stacked,
        joined=joined,
        without=_without(names, stacked, task, settings),
        depths=tuple(members.depths),
        cuts=members.cuts,
        notes=(
            *members.late,
            *_counted(task.annotators),
            *_taught(teacher, settings),
            *_notes(members, task),
        ),
        receipt=_receipt(run, settings, threads, device, inputs),
    )


def _judge_file(
    members: Members, joined: CrossFit, task: Task, pairs: Sequence[Pair], inputs: dict[str, str]
) -> JudgeFile:
    return JudgeFile(
        backbones=tuple(members.backbones),
        members=tuple(members.entries),
        ensemble=joined.ensemble,
        metrics={"out_of_fold_log_loss_per_pair": _loss(joined.held_out, task)},
        trained_on=inputs,
        familiar=Familiar.of(pairs),
        litee_version=metadata.version("lora-litee"),
    )


def _counted(annotators: AnnotatorWeights | None) -> tuple[str, ...]:
    """How much annotators' votes count, if not alike, and the sources in which they still do."""
    if annotators is None:
        return ()
    notes = [
        f"Votes of {source or 'unnamed source'} count alike: {reason}."
        for source, reason in annotators.alike.items()
    ]
    weights = [w for (s, _), w in annotators.weights.items() if s not in annotators.alike]
    if weights:
        notes.insert(
            0,
            "Members learnt from votes weighted by their annotators' agreement with the others: "
            f"{len(weights):,} annotators, weights from {min(weights):.2f} to {max(weights):.2f}, "
            f"{weights.count(0.0):,} of them 0.",
        )
    return tuple(notes)


def _taught(teacher: Floats | None, settings: FitSettings) -> tuple[str, ...]:
    """How many pairs a teacher has an opinion on, if there is one."""
    if teacher is None:
        return ()
    known = int(np.isfinite(teacher).all(axis=1).sum())
    return (
        f"Members learnt from a teacher's opinion too, with a weight of "
        f"{settings.teacher_weight:g}: it has one on {known:,} of {len(teacher):,} pairs, the "
        "others have votes alone. A teacher that learnt from these votes knows what is held out "
        "here, and this report is too kind then: judge it on votes that neither has learnt from.",
    )


def _receipt(
    run: RunDir, settings: FitSettings, threads: int, device: torch.device, inputs: dict[str, str]
) -> Receipt:
    """What the fit cost, written into its folder."""
    receipt = run.receipt(
        seed=settings.seed, threads=threads, device=device_name(device), inputs=inputs
    )
    receipt.peak_gpu_mb = peak_gpu_mb(device)
    receipt.predicted = _promised(run)
    write_json(run.path / "receipt.json", receipt.to_json())
    return receipt


def _fit_members(
    pairs: Sequence[Pair],
    task: Task,
    settings: FitSettings,
    run: RunDir,
    *,
    device: torch.device,
    deadline: Deadline,
) -> Members:
    members = Members()
    if "statistics" in settings.members:
        groups = settings.statistics_groups
        entry = MemberEntry(
            name="statistics",
            kind="statistics",
            head=settings.head,
            statistics=() if set(groups) == set(GROUPS) else groups,
        )
        fitted = fit_probe_member(
            entry.name,
            statistics_states(pairs, groups),
            task,
            run=run,
            ridges=settings.ridge,
            head=settings.head,
        )
        members.add(entry, fitted, task)
    if set(settings.members) - {"statistics"}:
        _check_slugs(settings.backbones)
        dtype = _dtype(settings, run, device)
        for name in settings.backbones:
            one = BackboneFit(
                find_backbone(name),
                dtype=dtype,
                device=device,
                pairs=pairs,
                task=task,
                settings=settings,
                run=run,
                deadline=deadline,
            )
            try:
                one.fit(members)
            except TimeUpError:
                members.time_up(name)
    if not members.entries:
        raise BudgetError(
            "the time was up before any member was fitted",
            place=str(run.path),
            fix="raise --budget and go on with --resume, or add statistics to --members",
        )
    return members


def _promised(run: RunDir) -> dict[str, float]:
    """Seconds and memory that the run's plan has named, if there is one."""
    file = run.path / PLAN_FILE
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return {name: float(found[name]) for name in ("seconds", "peak_rss_mb")}


def _check_slugs(names: Sequence[str]) -> None:
    """Members are filed under their backbone's name without signs and capitals.

    Raises:
        ConfigError: two names differ in nothing else.
    """
    slugs = [slug(name) for name in names]
    for name, short in zip(names, slugs, strict=True):
        if slugs.count(short) > 1:
            raise ConfigError(
                f"two backbones are called {short!r} (one is {name!r})",
                fix="name each backbone once, or rename one of the folders",
            )


def _dtype(settings: FitSettings, run: RunDir, device: torch.device) -> DtypeName:
    """Measured once per run: a resumed run keeps its data type whatever else is running."""
    file = run.path / "run" / "dtype.json"

    def work() -> int:
        write_json(file, {"dtype": choose_dtype(settings.dtype, device)})
        return 0

    run.run("dtype", work)
    return cast(DtypeName, json.loads(file.read_text(encoding="utf-8"))["dtype"])


def join_members(
    names: Sequence[str], stacked: Floats, task: Task, settings: FitSettings
) -> CrossFit:
    """The ensemble of some members, (members, pairs, 3) out of fold, as the settings ask."""
    return cross_fit(
        names,
        stacked,
        task.shares,
        task.weights,
        task.folds.folds,
        pool_name=settings.pool,
        calibration=settings.calibration,
        equal=settings.member_weights == "equal",
        groups=task.folds.groups,
    )


def _without(
    names: Sequence[str], stacked: Floats, task: Task, settings: FitSettings
) -> dict[str, Floats]:
    """What is left of the ensemble when one member goes; empty with a single member."""
    if len(names) == 1:
        return {}
    found = {}
    for number, name in enumerate(names):
        keep = [k for k in range(len(names)) if k != number]
        rest = join_members([names[k] for k in keep], stacked[keep], task, settings)
        found[name] = rest.held_out
    return found


def _loss(probabilities: Floats, task: Task) -> float:
    return round(cross_entropy(probabilities, task.shares, task.weights), 6)


def _notes(members: Members, task: Task) -> tuple[str, ...]:
    """Every branch beside the member on frozen states that it started from, if that is one."""
    loss = {e.name: e.held_out_log_loss for e in members.entries}
    notes = []
    for entry, fitted in zip(members.entries, members.fitted, strict=True):
        if entry.kind != "lora":
            continue
        assert entry.encoder is not None
        start = f"{ENCODER_MEMBERS[entry.encoder][0]}-{entry.name.split('lora-', 1)[1]}"
        own, probe = loss[entry.name], loss.get(start)
        if own is None or probe is None:
            continue
        word = "beats" if own < probe else "does not beat"
        stayed = sum(step == 0 for step in fitted.best_steps[: task.folds.count])
        notes.append(
            f"{entry.name} {word} its probe out of fold: {own:.4f} against {probe:.4f} per pair; "
            f"in {stayed} of {task.folds.count} folds the early stop kept the probe."
        )
    return tuple(notes)


_RELOAD = """
import json, sys
from litee.predict.judge import Judge
from litee.records import Pair
judge = Judge.from_pretrained(sys.argv[1], device=sys.argv[2])
pairs = [Pair(*map(lambda x: tuple(x) if isinstance(x, list) else x, p))
         for p in json.load(sys.stdin)]
json.dump([list(p.probabilities) for p in judge.predict(pairs)], sys.stdout)
"""


def _check_reload(run: RunDir, pairs: Sequence[Pair], device: torch.device) -> int:
    """Predict with the saved judge here and in a fresh process, and compare.

    Raises:
        ModelError: they differ, or the fresh process cannot load the judge.
    """
    name: Device = "cuda" if device.type == "cuda" else "cpu"
    judge = Judge.from_pretrained(run.path, device=name)
    here = [p.probabilities for p in judge.predict(pairs)]
    texts = [[p.id, p.prompt, p.response_a, p.response_b] for p in pairs]
    child = subprocess.run(
        [sys.executable, "-c", _RELOAD, str(run.path), name],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise ModelError(
            f"the saved judge cannot be loaded: {child.stderr.strip().splitlines()[-1:]}",
            place=str(run.path),
            fix="please report this",
        )
    there = json.loads(child.stdout)
    largest = float(np.abs(np.array(here) - np.array(there)).max())
    if largest > RELOAD_TOLERANCE:
        raise ModelError(
            f"probabilities change by {largest:.2g} after reloading",
            place=str(run.path),
            fix="please report this",
        )
    write_json(run.path / "run" / "reload.json", {"pairs": len(pairs), "largest": largest})
    return 0
