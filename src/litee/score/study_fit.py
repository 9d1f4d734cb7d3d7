"""What all kinds of studies share: votes found and read, a judge fitted with its report.

Knows nothing of the kinds of studies, nor of command lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litee.collect.folds import check_folds, hold_out, make_folds, source_folds
from litee.collect.pairs import check_learnable, gather
from litee.collect.votes import load_votes
from litee.config import FitSettings
from litee.errors import ConfigError, InputError
from litee.finetune.deadline import Deadline
from litee.predict.fit import FitResult, fit_judge
from litee.predict.plan import PLAN_FILE, Plan
from litee.records import Folds, Outcome, VotedPair, VoteSet
from litee.rundir import Json, RunDir, sha256_file, sha256_json, write_json, write_text
from litee.score.fit_report import draw, evaluate_fit, fit_report, report_path
from litee.score.pair_table import read_verdicts
from litee.score.report import write_report
from litee.score.scorecard import Evaluation

#: Settings that say where and how to compute, and that a run may change when it goes on.
NO_PART = {"cache_size", "device", "gradient_checkpointing", "threads"}

#: Settings that earlier versions did not have, where what they did is not the default now.
_EARLIER: dict[str, Json] = {"answer_length": False}


#: Beside a judge: its ensemble's predictions for every pair it learnt from, by fits that had not
#: seen the pair's prompt.
OUT_OF_FOLD = "out_of_fold.jsonl"


def usual_settings() -> dict[str, Json]:
    """What settings were where a run's manifest does not name them."""
    return FitSettings().model_dump(mode="json", exclude=NO_PART) | _EARLIER


def one_hot(verdicts: Sequence[Outcome]) -> npt.NDArray[np.float64]:
    """(n, 3) probabilities of verdicts that come without any."""
    return np.eye(3)[[v.class_index for v in verdicts]]


def find(name: str, folder: Path, data: Path, *, what: str = "votes file") -> Path:
    """A votes file, or something else: beside the study, or in the data folder.

    Args:
        name: of the file.
        folder: of the study.
        data: the data folder.
        what: it is called; what is not called a file may be a folder.

    Raises:
        InputError: in neither.
    """
    for place in (folder / name, data / name):
        if place.is_file() or (place.is_dir() and not what.endswith("file")):
            return place
    raise InputError(
        f"{what} {name} is neither in {folder} nor in {data}",
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


@dataclass(frozen=True, slots=True)
class Halves:
    """Votes to learn from, and votes on other prompts.

    Attributes:
        train: pairs that judges are fitted on.
        test: pairs that they are judged on.
        groups: prompt group of each test pair.
        train_groups: likewise of each pair to learn from.
    """

    train: tuple[VotedPair, ...]
    test: tuple[VotedPair, ...]
    groups: tuple[int, ...]
    train_groups: tuple[int, ...]


def halves(voted: Sequence[VotedPair], *, share: float, seed: int) -> Halves:
    """Hold about a `share` of the pairs out, whole prompt groups of them."""
    side = hold_out(voted, share=share, seed=seed)
    rows = list(zip(voted, side.groups, side.folds, strict=True))
    return Halves(
        tuple(v for v, _, k in rows if k == 0),
        tuple(v for v, _, k in rows if k == 1),
        tuple(g for _, g, k in rows if k == 1),
        tuple(g for _, g, k in rows if k == 0),
    )


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
    teacher: Path | None = None,
) -> tuple[FitResult, Evaluation]:
    """Fit a judge into a folder and write its report and its out-of-fold predictions.

    Args:
        vote_set: the votes as they were read.
        voted: their pairs.
        folds: the split, checked for leaks.
        settings: of the fit.
        out: folder for the judge, `report.html`, `report.json` and `out_of_fold.jsonl`.
        command: the command line, for the report.
        resume: go on with a run that is there instead of refusing the folder.
        plan: what was promised, for the receipt.
        deadline: when the fit has to be done.
        teacher: table of a judge's probabilities or verdicts on these pairs, to learn from too.

    Raises:
        ConfigError: two of the files have the same name, or the folder holds another run.
        InputError: the teacher says nothing on these pairs.
        ModelError: a backbone cannot be used.
    """
    told = None if teacher is None else _opinions(teacher, voted)
    given = dict(vote_set.inputs)
    if teacher is not None:
        given[str(teacher)] = sha256_file(teacher)
    inputs = {Path(k).name: v for k, v in given.items()}
    if len(inputs) < len(given):
        raise ConfigError("two files have the same name", fix="rename one of them")
    manifest = made_of(settings, inputs, voted, folds)
    run = RunDir(out, manifest, resume=resume, settings=usual_settings())
    if plan is not None:
        write_json(out / PLAN_FILE, plan.to_json())
    result = fit_judge(voted, folds, settings, run, inputs=inputs, deadline=deadline, teacher=told)
    write_out_of_fold(voted, result.joined.held_out, out / OUT_OF_FOLD)
    evaluation = evaluate_fit(result, voted, folds)
    title = f"Judge fitted on {', '.join(inputs)}"
    page = fit_report(
        result,
        evaluation,
        vote_set,
        title=title,
        command=command,
        folds=folds,
        fold_by=settings.fold_by,
    )
    write_report(page, report_path(out))
    draw(evaluation, out / "report.png")
    write_json(out / "report.json", evaluation.to_json())
    return result, evaluation


def made_of(
    settings: FitSettings,
    inputs: Mapping[str, str],
    voted: Sequence[VotedPair],
    folds: Folds,
) -> dict[str, Json]:
    """All that a fit's outcome hangs on: settings, files, pairs, votes and folds."""
    return {
        "settings": settings.model_dump(mode="json", exclude=NO_PART),
        "inputs": dict(inputs),
        "pairs": len(voted),
        "votes": votes_digest(voted, folds),
    }


def votes_digest(voted: Sequence[VotedPair], folds: Folds) -> str:
    """Hex SHA-256 of what is learnt from: pairs, their votes, and which fold holds each out.

    Files and settings do not tell: a study may hold prompts out, or leave annotators out.
    """
    rows: list[Json] = [
        [v.pair.id, list(v.shares), v.votes, list(v.annotators), list(v.weights), fold]
        for v, fold in zip(voted, folds.folds, strict=True)
    ]
    return sha256_json(rows)


def _opinions(teacher: Path, voted: Sequence[VotedPair]) -> npt.NDArray[np.float64]:
    """(pairs, 3) what a teacher's table says; NaN where it says nothing."""
    found = read_verdicts(str(teacher), voted)
    if not np.isfinite(found).all(axis=1).any():
        raise InputError(
            f"says nothing on any of the {len(voted):,} pairs",
            place=str(teacher),
            fix="its column id or pair_id must hold the ids of the pairs in the votes",
        )
    return found


def write_out_of_fold(
    voted: Sequence[VotedPair], probabilities: npt.NDArray[np.float64], file: Path
) -> None:
    """Write (n, 3) probabilities as `litee predict` does: a row of JSON per pair."""
    rows = (
        {"id": v.pair.id, **dict(zip(("p_a", "p_b", "p_tie"), map(float, p.round(6)), strict=True))}
        for v, p in zip(voted, probabilities, strict=True)
    )
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
