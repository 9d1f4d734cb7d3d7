"""Equal budgets: which settings give the better judge within the same wall time.

Every arm learns from the same pairs, starts without anything computed before, plans what fits its
budget and stops in time; all are judged on the same held-out prompts. Knows nothing of command
lines and never sees a test source.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.amounts import seconds_of
from litee.config import FitSettings
from litee.errors import BudgetError, ConfigError
from litee.finetune.deadline import Deadline, TimeUpError
from litee.finetune.states import states_in
from litee.predict.measure import calibrate
from litee.predict.plan import Plan, choose
from litee.records import Folds, Score, VotedPair, VoteSet
from litee.rundir import Json, Receipt, with_new_settings, write_json
from litee.score.ablations import arm_settings, floor_losses
from litee.score.evaluation import evaluate
from litee.score.figures import Plot, line_plot
from litee.score.floors import floor_systems
from litee.score.held_out_predictions import Floats, held_out_probabilities
from litee.score.results import new_result
from litee.score.scorecard import Evaluation
from litee.score.study_fit import (
    fit_votes,
    halves,
    made_of,
    split,
    usual_settings,
)
from litee.score.study_settings import Studied, StudySettings

#: Written last into an arm's folder: what it took and what it left out.
SPENT = "spent.json"

_COLD = ".cold"


@dataclass(frozen=True, slots=True)
class Spent:
    """What became of a budget.

    Attributes:
        seconds: wall time, calibration and report included; of a fit that stopped short, until
            then.
        changes: what was given up to fit, in words.
        members: those that were fitted.
        reason: why there is no judge; empty when there is one.
    """

    seconds: float
    changes: tuple[str, ...]
    members: tuple[str, ...]
    reason: str = ""

    def to_json(self) -> dict[str, Json]:
        """An object for a file."""
        return {
            "seconds": self.seconds,
            "changes": list(self.changes),
            "members": list(self.members),
            "reason": self.reason,
        }


def run_budgets(
    study: StudySettings,
    settings: FitSettings,
    learnt: tuple[VoteSet, tuple[VotedPair, ...]],
    *,
    out: Path,
    command: str,
) -> Studied:
    """Every arm at every budget, or those that are not done yet.

    Args:
        study: with arms and budgets.
        settings: of all arms.
        learnt: the votes as read, and their pairs.
        out: a folder per budget and arm, and the plot `budgets.png`.
        command: that makes the results again.

    Returns:
        Metrics `<budget>.<arm>.log_loss`, `.accuracy` and `.ece`; `.source_log_loss`, the mean of
        the sources' log losses; `.log_loss_difference`, the arm minus the first one that has a
        judge, above 0 when that is better, with the interval of the paired bootstrap over prompt
        groups; `.seconds`, and `.seconds_per_vote` of those learnt from. An arm that fits no
        budget has its reason in the table.

    Raises:
        ConfigError: a folder was run with other settings or votes.
    """
    vote_set, voted = learnt
    arms = arm_settings(study, settings)
    parts = halves(voted, share=study.held_out, seed=settings.seed)
    train, test, groups = parts.train, parts.test, parts.groups
    task = _Task(vote_set, train, split(train, settings), command)
    floors = floor_systems(train, [v.pair for v in test])
    spent: dict[tuple[str, str], Spent] = {}
    found: dict[str, Evaluation] = {}
    receipt = Receipt()
    for budget in study.budgets:
        judges: dict[str, Floats] = {}
        for arm, chosen in arms.items():
            folder = out / budget / arm
            spent[budget, arm] = one = _spend(task, chosen, budget, folder)
            if not one.reason:
                judges[arm] = held_out_probabilities(folder, [v.pair for v in test])
                receipt.include(Receipt.of(folder))
        if judges:
            systems, main = dict(floors) | judges, next(iter(judges))
            found[budget] = evaluate(
                systems, test, groups, main=main, seed=settings.seed, floors=tuple(floors)
            )
    plots = budget_plots(found, spent, tuple(arms))
    for plot in plots:
        plot.png(out / "budgets.png")
    votes = sum(v.votes for v in train)
    return _result(study, found, spent, receipt, plots, votes=votes, command=command)


@dataclass(frozen=True, slots=True)
class _Task:
    """What all arms learn from."""

    vote_set: VoteSet
    voted: tuple[VotedPair, ...]
    folds: Folds
    command: str

    def asked(self, settings: FitSettings) -> Json:
        """All that an arm's outcome hangs on."""
        inputs = {Path(name).name: digest for name, digest in self.vote_set.inputs.items()}
        return made_of(settings, inputs, self.voted, self.folds)


def _spend(task: _Task, settings: FitSettings, budget: str, out: Path) -> Spent:
    """One fit within its budget; one that was interrupted begins anew, since its time counts."""
    asked = task.asked(settings)
    kept = _kept(out / SPENT, asked)
    if kept is not None:
        return kept
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    with states_in(out / _COLD):
        plan, members, reason = _fit(task, settings, seconds_of(budget), started, out)
    took = round(time.monotonic() - started, 1)
    shutil.rmtree(out / _COLD, ignore_errors=True)
    spent = Spent(took, plan.changes if plan else (), members, reason)
    write_json(out / SPENT, {"asked": asked, **spent.to_json()})
    return spent


def _fit(
    task: _Task, settings: FitSettings, seconds: float, started: float, out: Path
) -> tuple[Plan | None, tuple[str, ...], str]:
    """The plan, the members that were fitted, and why there is no judge, if there is none."""
    machine, measured = calibrate([v.pair for v in task.voted], task.folds, settings)
    try:
        plan = choose(settings, task.folds, machine, measured, seconds=seconds, max_bytes=None)
    except BudgetError as error:
        return None, (), error.problem
    deadline = Deadline(seconds - (time.monotonic() - started), reserve=plan.tail)
    try:
        result, _ = fit_votes(
            task.vote_set,
            task.voted,
            task.folds,
            plan.settings,
            out=out,
            command=task.command,
            plan=plan,
            deadline=deadline,
        )
    except (BudgetError, TimeUpError):
        return plan, (), "the time was up before a judge was there"
    return plan, tuple(result.names), ""


def _kept(file: Path, asked: Json) -> Spent | None:
    """What an earlier session spent here, if it ended.

    Raises:
        ConfigError: it had other settings or votes, or the file is damaged.
    """
    if not file.is_file():
        return None
    fix = "add --restart, or choose a new --out folder"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        other = with_new_settings(kept.pop("asked"), usual_settings()) != asked
        spent = Spent(
            float(kept["seconds"]),
            tuple(map(str, kept["changes"])),
            tuple(map(str, kept["members"])),
            str(kept["reason"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"damaged: {error!r}", place=str(file), fix=fix) from error
    if other:
        raise ConfigError("was run with other settings or votes", place=str(file.parent), fix=fix)
    return spent


def _result(
    study: StudySettings,
    found: Mapping[str, Evaluation],
    spent: Mapping[tuple[str, str], Spent],
    receipt: Receipt,
    plots: tuple[Plot, ...],
    *,
    votes: int,
    command: str,
) -> Studied:
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for (budget, arm), one in spent.items():
        name = f"{budget}.{arm}"
        metrics[f"{name}.seconds"] = one.seconds
        if one.reason:
            continue
        metrics[f"{name}.seconds_per_vote"] = one.seconds / votes
        for metric, score in _scores(found[budget], arm).items():
            if score.value is not None:
                metrics[f"{name}.{metric}"] = score.value
            if score.low is not None and score.high is not None:
                intervals[f"{name}.{metric}"] = (score.low, score.high)
    for evaluation in list(found.values())[:1]:
        metrics |= floor_losses(evaluation)
    tables: dict[str, Json] = {f"{b}.{arm}": one.to_json() for (b, arm), one in spent.items()}
    result = new_result(
        study.name,
        command,
        receipt,
        metrics,
        intervals=intervals,
        tables=tables | {"votes": votes},
        notes=study.notes,
    )
    evaluations = {f"{study.name}, {budget}": one for budget, one in found.items()}
    return Studied(result, evaluations, plots)


def _scores(evaluation: Evaluation, arm: str) -> dict[str, Score]:
    scores = {metric: evaluation.score(arm, metric) for metric in ("log_loss", "accuracy", "ece")}
    scores["source_log_loss"] = evaluation.source_means[arm]
    for difference in evaluation.differences:
        if difference.other == arm:  # the scorecard has main − other
            scores["log_loss_difference"] = difference.metrics["log_loss"].negated()
    return scores


def budget_plots(
    found: Mapping[str, Evaluation],
    spent: Mapping[tuple[str, str], Spent],
    arms: Sequence[str],
) -> tuple[Plot, ...]:
    """Log loss of every arm over the budget, in seconds; none when no arm has a judge."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for budget, evaluation in found.items():
        for arm in arms:
            if spent[budget, arm].reason:
                continue
            loss = evaluation.score(arm, "log_loss").value
            if loss is not None:
                curves.setdefault(arm, []).append((round(seconds_of(budget)), loss))
    if not curves:
        return ()
    alt = "Log loss on the same held-out prompts over the wall time that each got: " + "; ".join(
        f"{arm} " + ", ".join(f"{loss:.3f} after {seconds} s" for seconds, loss in line)
        for arm, line in curves.items()
    )
    return (line_plot("budgets", curves, x="budget, seconds", y="log loss", alt=alt),)
