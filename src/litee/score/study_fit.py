"""What all kinds of studies share: votes found and read, a judge fitted with its report.

Knows nothing of the kinds of studies, nor of command lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litee.collect.folds import check_folds, make_folds, source_folds
from litee.collect.pairs import check_learnable, gather
from litee.collect.votes import load_votes
from litee.config import FitSettings
from litee.errors import ConfigError, InputError
from litee.finetune.deadline import Deadline
from litee.predict.fit import FitResult, fit_judge
from litee.predict.plan import PLAN_FILE, Plan
from litee.records import Folds, Outcome, VotedPair, VoteSet
from litee.rundir import Json, RunDir, write_json
from litee.score.fit_report import draw, evaluate_fit, fit_report, report_path
from litee.score.report import write_report
from litee.score.scorecard import Evaluation

#: Settings that say where and how to compute, and that a run may change when it goes on.
NO_PART = {"cache_size", "device", "gradient_checkpointing", "threads"}


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
    usual = FitSettings().model_dump(mode="json", exclude=NO_PART)
    run = RunDir(out, manifest, resume=resume, settings=usual)
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
