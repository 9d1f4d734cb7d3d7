"""Studies: an experiment in a YAML file becomes a results file, and nothing in between by hand.

A study names votes to learn from and, for a transfer study, votes of another source to be tested
on once. Knows nothing of command lines.
"""

from __future__ import annotations

import time
from pathlib import Path

from litee.collect.folds import check_leak, group_prompts
from litee.collect.pairs import gather
from litee.collect.verdicts import load_verdicts
from litee.collect.votes import load_votes
from litee.config import FitSettings
from litee.predict.judge import Judge
from litee.records import Folds, VotedPair, VoteSet
from litee.rundir import Json, Receipt, write_json
from litee.score.ablations import arm_settings, compare_arms, floor_losses
from litee.score.budgets import run_budgets
from litee.score.evaluation import evaluate
from litee.score.finished import run_judges
from litee.score.fit_report import draw, evaluate_judge, judge_report, loss_plots
from litee.score.learning_curve import Point, curve_plot, curve_result, make_parts
from litee.score.report import write_report
from litee.score.results import BASE, new_result
from litee.score.scorecard import Evaluation
from litee.score.study_fit import find, fit_votes, one_hot, read, split
from litee.score.study_members import members_alone
from litee.score.study_result import (
    as_result,
    intervals_of,
    less_best_member,
    main_metrics,
    other_metrics,
)
from litee.score.study_settings import Studied, StudySettings


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
    if study.kind == "judges":
        return run_judges(
            study, settings, learnt[:2], folder=folder, out=out, data=data, command=command
        )
    if study.kind == "learning_curve":
        return _learning_curve(study, settings, learnt[:2], out=out, command=command)
    if study.kind == "budgets":
        return run_budgets(study, settings, learnt[:2], out=out, command=command)
    result, evaluation = fit_votes(*learnt, settings, out=out, command=command)
    extra = other_metrics(evaluation)
    made = as_result(study, evaluation, result, command=command, started=started, extra=extra)
    return Studied(made, {study.name: evaluation}, loss_plots(evaluation))


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
    held_out = {arm: fit.joined.held_out for arm, fit in fits.items()}
    base = done[BASE][1]
    together = evaluate(held_out, voted, folds.groups, main=BASE, seed=base.seed)
    return compare_arms(study, fits, together, floors=floor_losses(base), command=command)


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
    points = []
    for some in parts.points:
        folder = out / str(len(some))
        folds = split(some, settings)
        result, _ = fit_votes(vote_set, some, folds, settings, out=folder, command=command)
        found = evaluate_judge(
            Judge.from_pretrained(folder),
            parts.held_out,
            parts.groups,
            seed=settings.seed,
            training=some,
        )
        points.append(Point(len(some), len(set(folds.groups)), result, found))
    plot = curve_plot(points)
    plot.png(out / "learning_curve.png")
    return curve_result(study, points, plot, command=command)


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
    extra = other_metrics(transfer) | {
        f"out_of_fold_{k}": v
        for k, v in main_metrics(evaluation).items()
        if k in {"log_loss", "ece"}
    }
    return Studied(
        as_result(study, transfer, result, command=command, started=started, extra=extra),
        {f"{study.name}, held-out prompts": evaluation, study.name: transfer},
        loss_plots(transfer),
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
        found = main_metrics(evaluation) | other_metrics(evaluation)
        metrics |= {f"{source}.{key}": value for key, value in found.items()}
        intervals |= {f"{source}.{key}": ends for key, ends in intervals_of(evaluation).items()}
        bounds = members_alone(result, voted, folds, settings)
        metrics |= {f"{source}.{key}": value for key, value in bounds.items()}
        gain = less_best_member(evaluation)
        if gain.value is not None:
            metrics[f"{source}.less_best_member"] = gain.value
        if gain.low is not None and gain.high is not None:
            intervals[f"{source}.less_best_member"] = (gain.low, gain.high)
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
