"""Studies: an experiment in a YAML file becomes a results file, and nothing in between by hand.

A study names votes to learn from and, for a transfer study, votes of another source to be tested
on once. Knows nothing of command lines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litee.collect.folds import check_folds, check_leak, group_prompts, make_folds, source_folds
from litee.collect.pairs import check_learnable, gather
from litee.collect.verdicts import load_verdicts
from litee.collect.votes import load_votes
from litee.config import FitSettings
from litee.errors import ConfigError, InputError
from litee.finetune.deadline import Deadline
from litee.predict.fit import FitResult, fit_judge
from litee.predict.judge import Judge
from litee.predict.plan import PLAN_FILE, Plan
from litee.records import Folds, Outcome, VotedPair, VoteSet
from litee.rundir import Json, Receipt, RunDir, write_json
from litee.score.ablations import arm_settings, compare_arms
from litee.score.fit_report import (
    draw,
    evaluate_fit,
    evaluate_judge,
    fit_report,
    judge_report,
    report_path,
)
from litee.score.learning_curve import Point, curve_result, draw_curve, make_parts
from litee.score.report import write_report
from litee.score.results import Result, new_result
from litee.score.scorecard import Evaluation
from litee.score.study_settings import BASE, Studied, StudySettings

#: Settings that say where and how to compute, and that a run may change when it goes on.
NO_PART = {"cache_size", "device", "gradient_checkpointing", "threads"}


def run_study(
    study: StudySettings,
    settings: FitSettings,
    *,
    folder: Path,
    out: Path,
    data: Path,
    command: str,
) -> Studied:
    """Run a study, or go on with it.

    Args:
        study: what to do.
        settings: of the fits, already checked.
        folder: the study file's folder.
        out: folder for judges and reports; a run that is there is continued.
        data: folder of the votes files that are not beside the study.
        command: the command that makes the results again.

    Raises:
        InputError: a votes file is missing or unusable.
        LeakError: a test prompt is among the training prompts.
    """
    started = time.monotonic()
    if study.kind == "in_source":
        return _in_source(study, settings, folder=folder, out=out, data=data, command=command)
    learnt = read(
        [find(name, folder, data) for name in study.votes], settings, study.leave_out_annotators
    )
    if study.kind == "transfer":
        return _transfer(
            study, settings, learnt, folder=folder, out=out, data=data, command=command
        )
    if study.kind == "ablations":
        return _ablations(study, settings, learnt, out=out, command=command)
    if study.kind == "learning_curve":
        return _learning_curve(study, settings, learnt[:2], out=out, command=command)
    result, evaluation = fit_votes(*learnt, settings, out=out, command=command)
    extra = _members(evaluation)
    made = _as_result(study, evaluation, result, command=command, started=started, extra=extra)
    return Studied(made, {study.name: evaluation})


def _ablations(
    study: StudySettings,
    settings: FitSettings,
    learnt: tuple[VoteSet, tuple[VotedPair, ...], Folds],
    *,
    out: Path,
    command: str,
) -> Studied:
    """A fit per arm on what was read, each in a folder of its own."""
    vote_set, voted, folds = learnt
    arms = arm_settings(study, settings)  # all are checked before the first fit
    done = {
        arm: fit_votes(vote_set, voted, folds, chosen, out=out / arm, command=command)
        for arm, chosen in arms.items()
    }
    fits = {arm: result for arm, (result, _) in done.items()}
    return compare_arms(study, fits, done[BASE][1], voted, folds, command=command)


def _learning_curve(
    study: StudySettings,
    settings: FitSettings,
    learnt: tuple[VoteSet, tuple[VotedPair, ...]],
    *,
    out: Path,
    command: str,
) -> Studied:
    """A fit per point on a part of what was read; all are judged on the same held-out pairs."""
    vote_set, voted = learnt
    parts = make_parts(
        voted, study.sizes, share=study.held_out, seed=settings.seed, folds=settings.folds
    )
    tested = [voted[i] for i in parts.held_out]
    points = []
    for numbers in parts.points:
        some = tuple(voted[i] for i in numbers)
        folder = out / str(len(some))
        folds = split(some, settings)
        result, _ = fit_votes(vote_set, some, folds, settings, out=folder, command=command)
        found = evaluate_judge(
            Judge.from_pretrained(folder), tested, parts.groups, seed=settings.seed, training=some
        )
        points.append(Point(len(some), len(set(folds.groups)), result, found))
    draw_curve(points, out / "learning_curve.png")
    return curve_result(study, points, command=command)


def _transfer(
    study: StudySettings,
    settings: FitSettings,
    learnt: tuple[VoteSet, tuple[VotedPair, ...], Folds],
    *,
    folder: Path,
    out: Path,
    data: Path,
    command: str,
) -> Studied:
    """Fit on what was read, test on other votes."""
    started = time.monotonic()
    # all input is read and checked before the fit, which takes long
    tests = [find(name, folder, data) for name in study.test]
    tested = load_votes([str(f) for f in tests])
    pairs = gather(tested.votes)
    check_leak([v.pair for v in learnt[1]], [v.pair for v in pairs])
    groups = group_prompts([v.pair for v in pairs])
    verdicts = {}
    if study.verdicts:
        file = find(study.verdicts, folder, data)
        verdicts["GPT-4"] = one_hot(load_verdicts(file, [v.pair for v in pairs]))
    vote_set, voted, folds = learnt
    result, evaluation = fit_votes(vote_set, voted, folds, settings, out=out, command=command)
    judge = Judge.from_pretrained(out)
    transfer = evaluate_judge(
        judge, pairs, groups, seed=settings.seed, training=voted, others=verdicts
    )
    names = ", ".join(Path(name).name for name in study.votes)
    page = judge_report(
        judge,
        transfer,
        tested,
        title=f"{study.name}: tested on {', '.join(f.stem for f in tests)}",
        command=command,
        split=f"Fitted on {names}; no prompt of the test was seen.",
    )
    write_report(page, out / "test.html")
    draw(transfer, out / "test.png")
    write_json(out / "test.json", transfer.to_json())
    result.receipt.inputs.update({Path(k).name: v for k, v in tested.inputs.items()})
    extra = _members(transfer) | {
        f"out_of_fold_{k}": v for k, v in _numbers(evaluation).items() if k in {"log_loss", "ece"}
    }
    return Studied(
        _as_result(study, transfer, result, command=command, started=started, extra=extra),
        {f"{study.name}, held-out prompts": evaluation, study.name: transfer},
    )


def _in_source(
    study: StudySettings,
    settings: FitSettings,
    *,
    folder: Path,
    out: Path,
    data: Path,
    command: str,
) -> Studied:
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    evaluations: dict[str, Evaluation] = {}
    tables: dict[str, Json] = {}
    receipt = Receipt()
    for name in study.votes:
        file = find(name, folder, data)
        vote_set, voted, folds = read([file], settings, study.leave_out_annotators)
        source = voted[0].pair.source or file.stem
        result, evaluation = fit_votes(
            vote_set, voted, folds, settings, out=out / source, command=command
        )
        evaluations[source] = evaluation
        found = _numbers(evaluation) | _members(evaluation)
        metrics |= {f"{source}.{key}": value for key, value in found.items()}
        score = evaluation.score("ensemble", "log_loss")
        if score.low is not None and score.high is not None:
            intervals[f"{source}.log_loss"] = (score.low, score.high)
        tables[source] = {"pairs": evaluation.pairs, "prompt_groups": evaluation.groups}
        receipt.include(result.receipt)
    made = new_result(
        study.name,
        command,
        receipt,
        metrics,
        intervals=intervals,
        tables=tables,
        notes=study.notes,
    )
    return Studied(made, evaluations)


def one_hot(verdicts: Sequence[Outcome]) -> npt.NDArray[np.float64]:
    """(n, 3) probabilities of verdicts that come without any."""
    return np.eye(3)[[v.class_index for v in verdicts]]


def find(name: str, folder: Path, data: Path) -> Path:
    """A votes file: beside the study, or in the data folder.

    Raises:
        InputError: in neither.
    """
    for place in (folder / name, data / name):
        if place.is_file():
            return place
    raise InputError(
        f"votes file {name} is neither in {folder} nor in {data}",
        fix="name the folder that holds it with --data",
    )


def read(
    files: Sequence[Path], settings: FitSettings, leave_out: Sequence[str] = ()
) -> tuple[VoteSet, tuple[VotedPair, ...], Folds]:
    """Votes, pairs and leak-checked folds."""
    vote_set = load_votes([str(f) for f in files])
    voted = gather([v for v in vote_set.votes if v.annotator not in set(leave_out)])
    check_learnable(voted, settings.folds, ", ".join(f.name for f in files))
    folds = split(voted, settings)
    check_folds([v.pair for v in voted], folds)
    return vote_set, voted, folds


def split(voted: Sequence[VotedPair], settings: FitSettings) -> Folds:
    """Folds by prompt or by source, as the settings ask."""
    if settings.fold_by == "source":
        return source_folds(voted)
    return make_folds(voted, count=settings.folds, seed=settings.seed)


def fit_votes(
    vote_set: VoteSet,
    voted: Sequence[VotedPair],
    folds: Folds,
    settings: FitSettings,
    *,
    out: Path,
    command: str,
    resume: bool = True,
    plan: Plan | None = None,
    deadline: Deadline | None = None,
) -> tuple[FitResult, Evaluation]:
    """Fit a judge into a folder and write its report.

    Args:
        vote_set: the votes as they were read.
        voted: their pairs.
        folds: the split, checked for leaks.
        settings: of the fit.
        out: folder for the judge, `report.html` and `report.json`.
        command: the command line, for the report.
        resume: go on with a run that is there instead of refusing the folder.
        plan: what was promised, for the receipt.
        deadline: when the fit has to be done.

    Raises:
        ConfigError: two votes files have the same name, or the folder holds another run.
        ModelError: a backbone cannot be used.
    """
    inputs = {Path(k).name: v for k, v in vote_set.inputs.items()}
    if len(inputs) < len(vote_set.inputs):
        raise ConfigError("two votes files have the same name", fix="rename one of them")
    manifest: dict[str, Json] = {
        "settings": settings.model_dump(mode="json", exclude=NO_PART),
        "inputs": dict(inputs),
        "pairs": len(voted),
    }
    run = RunDir(out, manifest, resume=resume)
    if plan is not None:
        write_json(out / PLAN_FILE, plan.to_json())
    result = fit_judge(voted, folds, settings, run, inputs=inputs, deadline=deadline)
    evaluation = evaluate_fit(result, voted, folds)
    title = f"Judge fitted on {', '.join(inputs)}"
    page = fit_report(result, evaluation, vote_set, title=title, command=command, folds=folds)
    write_report(page, report_path(out))
    draw(evaluation, out / "report.png")
    write_json(out / "report.json", evaluation.to_json())
    return result, evaluation


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    """Metrics of the main system that have a value."""
    scores = evaluation.system(evaluation.main).metrics
    return {name: score.value for name, score in scores.items() if score.value is not None}


def _members(evaluation: Evaluation) -> dict[str, float]:
    """Log loss of every other system, its floors and best member among them."""
    found: dict[str, float] = {}
    best: float | None = None
    for system in evaluation.systems:
        for metric in ("log_loss", "accuracy"):
            value = system.metrics[metric].value
            if value is None or system.role == "main":
                continue
            found[f"{system.name.replace(' ', '_')}_{metric}"] = value
        loss = system.metrics["log_loss"].value
        member = system.role != "main" and system.name.split("-")[0] in _KINDS
        if member and loss is not None:
            best = loss if best is None else min(best, loss)
    if best is not None:
        found["best_member_log_loss"] = best
    floors = [
        s.metrics["log_loss"].value
        for s in evaluation.systems
        if s.role == "floor" and s.metrics["log_loss"].value is not None
    ]
    found["floor_log_loss"] = min(x for x in floors if x is not None)
    for system in evaluation.systems:
        if system.name == "GPT-4":
            found["gpt4_accuracy"] = found.pop("GPT-4_accuracy")
            both = system.metrics["accuracy_both_decisive"].value
            if both is not None:
                found["gpt4_accuracy_both_decisive"] = both
    longest = evaluation.score("longer answer", "accuracy").value
    if longest is not None:
        found["longest_accuracy"] = longest
    return found


_KINDS = {"statistics", "probe", "lora", "joint"}


def _as_result(
    study: StudySettings,
    evaluation: Evaluation,
    result: FitResult,
    *,
    command: str,
    started: float,
    extra: Mapping[str, float],
) -> Result:
    plain = evaluation.to_json()
    intervals = plain["intervals"]
    assert isinstance(intervals, dict)
    # a resumed study has the stages of earlier sessions; a fresh one also has what lies between
    seconds = round(max(time.monotonic() - started, result.receipt.seconds), 1)
    metrics = _numbers(evaluation) | dict(extra) | {"seconds": seconds}
    tables: dict[str, Json] = {
        "pairs": evaluation.pairs,
        "votes": evaluation.votes,
        "prompt_groups": evaluation.groups,
        "weights": dict(zip(result.names, result.joined.ensemble.weights, strict=True)),
        "exit_depth": {d.backbone: d.exit_depth for d in result.depths},
        "stages": dict(result.receipt.stages),
    }
    return new_result(
        study.name,
        command,
        result.receipt,
        metrics,
        intervals={k: v for k, v in intervals.items() if k in metrics},
        tables=tables,
        notes=" ".join([study.notes, *result.notes]).strip(),
    )
