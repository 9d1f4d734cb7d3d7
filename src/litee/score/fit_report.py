"""The evaluation and report of a fit, and of a judge on other votes.

Puts floors, members and the ensemble on the same held-out pairs. Knows nothing of command lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from litee.predict.fit import FitResult
from litee.predict.judge import Judge
from litee.predict.runner import MemberOutput
from litee.records import Dropped, Folds, Score, VotedPair, VoteSet
from litee.score.evaluation import evaluate
from litee.score.figures import Plot, whiskers
from litee.score.floors import FLOOR_NAMES, SYSTEM_NAMES, floor_systems, system_names
from litee.score.report import DepthCurve, MemberLine, ReportInput, Truncation
from litee.score.scorecard import Evaluation

Floats = npt.NDArray[np.float64]

#: The system that is judged.
ENSEMBLE = "ensemble"

#: The member without a model; it is also a floor.
STATISTICS = "statistics"

_FLOORS = (*FLOOR_NAMES, STATISTICS)

#: Share of pairs that may be cut to the token budget without a caution.
MANY_CUT = 0.05

#: How pairs were held out, by `fold_by`.
_SPLITS = {
    "prompt": "{} folds by prompt: every prediction below is for a prompt that was in no training "
    "part, that of the weights and of the calibration included.",
    "source": "{} sources, each held out whole: every prediction below is for a source that was in "
    "no training part, that of the weights and of the calibration included.",
}


def evaluate_fit(result: FitResult, voted: Sequence[VotedPair], folds: Folds) -> Evaluation:
    """Score the ensemble, its members and the floors on held-out prompts.

    Every prediction is for a prompt that neither the member, nor the floor, nor the weights and
    calibration had seen; only an exit depth that was looked for is chosen on a sample of all
    prompts. The judge is swap-equivariant by construction; the swapped predictions come from
    exchanging columns and are not shown here.
    """
    systems: dict[str, Floats] = dict(_floors_out_of_fold(voted, folds))
    for name, probabilities in zip(result.names, result.out_of_fold, strict=True):
        systems[name] = probabilities
    systems["equal weights"] = result.out_of_fold.mean(0)
    systems[ENSEMBLE] = result.joined.held_out
    for name, probabilities in result.without.items():
        systems[_without(name)] = probabilities
    return evaluate(
        systems,
        voted,
        folds.groups,
        main=ENSEMBLE,
        seed=result.receipt.seed,
        floors=_FLOORS,
        ablations=[_without(name) for name in result.without],
    )


def _without(member: str) -> str:
    """Name of the ensemble refitted without a member."""
    return f"without {member}"


def _floors_out_of_fold(voted: Sequence[VotedPair], folds: Folds) -> Mapping[str, Floats]:
    found: dict[str, Floats] = {}
    fold = np.asarray(folds.folds)
    all_named = all(v.pair.model_a and v.pair.model_b for v in voted)
    for k in range(folds.count):
        own = np.flatnonzero(fold == k).tolist()
        if not own:
            continue
        train = [voted[i] for i in np.flatnonzero(fold != k).tolist()]
        held_out = [voted[i].pair for i in own]
        known = floor_systems(train, held_out)
        named = system_names(train, held_out) if all_named else None
        if named is not None:
            known[SYSTEM_NAMES] = named
        for name, p in known.items():
            found.setdefault(name, np.zeros((len(voted), 3)))[own] = p
    if SYSTEM_NAMES in found and not found[SYSTEM_NAMES].any(axis=1).all():
        del found[SYSTEM_NAMES]  # not fitted in every fold
    return found


def fit_report(
    result: FitResult,
    evaluation: Evaluation,
    vote_set: VoteSet,
    *,
    title: str,
    command: str,
    folds: Folds,
    fold_by: Literal["prompt", "source"] = "prompt",
) -> ReportInput:
    """Everything the report of a fit shows."""
    weights = dict(zip(result.names, result.joined.ensemble.weights, strict=True))
    lines = tuple(_member_line(name, weights[name], result, evaluation) for name in result.names)
    ensemble = result.joined.ensemble
    pool = f"Pool: {ensemble.pool}; calibration: {ensemble.calibration.name}"
    pool += f", temperature {ensemble.calibration.temperature:.3f}"
    pool += f", lapse rate {ensemble.calibration.lapse:.1%}." if ensemble.calibration.lapse else "."
    shared = [
        f"{name}: {cut.tokens_run:,} tokens run instead of {cut.tokens:,}, because prompts and "
        "answers that occur in several pairs are run once."
        for name, cut in result.cuts.items()
    ]
    return ReportInput(
        evaluation=evaluation,
        title=title,
        command=command,
        split=_SPLITS[fold_by].format(folds.count),
        members=lines,
        depths=tuple(DepthCurve(d.backbone, d.points) for d in result.depths if d.points),
        dropped=vote_set.dropped,
        noticed=vote_set.noticed,
        truncation=_truncation(result),
        receipt=result.receipt,
        notes=(pool, *shared, *result.notes),
    )


def _member_line(name: str, weight: float, result: FitResult, evaluation: Evaluation) -> MemberLine:
    alone, only = evaluation.score(name, "log_loss"), Score(None, reason="the only member")
    if name not in result.without:
        return MemberLine(name, weight, alone, only, only)
    without = _without(name)
    gap = next(d for d in evaluation.differences if d.other == without).metrics["log_loss"]
    return MemberLine(name, weight, alone, evaluation.score(without, "log_loss"), gap)


def _truncation(result: FitResult) -> Truncation | None:
    if not result.cuts:
        return None
    cut = next(iter(result.cuts.values()))
    return Truncation(
        budget=f"{cut.max_tokens} tokens per pair",
        pairs=cut.pairs,
        pairs_cut=cut.pairs_cut,
        tokens=cut.tokens,
        tokens_cut=cut.tokens_cut,
    )


def evaluate_judge(
    judge: Judge,
    voted: Sequence[VotedPair],
    groups: Sequence[int],
    *,
    seed: int,
    training: Sequence[VotedPair] | None = None,
    others: Mapping[str, Floats] | None = None,
) -> Evaluation:
    """Score a judge, its members and the floors on votes it was not fitted on.

    Both orders are run, so that the swap-flip rate is measured, not assumed.

    Args:
        judge: the judge.
        voted: the test pairs.
        groups: (n,) prompt group of each pair.
        seed: of the intervals.
        training: votes the floors are fitted on; when None, they are fitted on the test votes
            themselves, which flatters them.
        others: further systems to compare with, name → (n, 3) probabilities.
    """
    pairs = [v.pair for v in voted]
    # a pair beside its mirror image: both orders share all texts, so the second one is free
    both = [pair for v in voted for pair in (v.pair, v.pair.swapped())]
    outputs = judge.member_outputs(both, keep_states=True)
    ensemble = judge.file.ensemble
    stacked = np.stack([outputs[name].probabilities for name in ensemble.members])
    joined = ensemble.apply(stacked)
    systems: dict[str, Floats] = dict(floor_systems(training or voted, pairs))
    systems |= {name: output.probabilities[::2] for name, output in outputs.items()}
    systems["equal weights"] = stacked[:, ::2].mean(0)
    systems |= others or {}
    systems[ENSEMBLE] = joined[::2]
    evaluation = evaluate(
        systems,
        voted,
        groups,
        main=ENSEMBLE,
        seed=seed,
        swapped={ENSEMBLE: joined[1::2]},
        floors=_FLOORS,
    )
    familiar = judge.file.familiar
    said = familiar.cautions(familiar.count(pairs, {}), len(pairs))
    cut = _cut_caution(outputs.values(), len(pairs))
    return replace(evaluation, cautions=(*evaluation.cautions, *said, *cut))


def _cut_caution(outputs: Iterable[MemberOutput], count: int) -> tuple[str, ...]:
    """How many pairs were cut for a member, if that is more than a few."""
    cut = np.any([output.cut[::2].any(axis=1) for output in outputs], axis=0)
    if cut.mean() <= MANY_CUT:
        return ()
    return (
        f"{int(cut.sum()):,} of {count:,} pairs were cut to the judge's token budget: it did not "
        "read all of their texts.",
    )


def judge_report(
    judge: Judge,
    evaluation: Evaluation,
    vote_set: VoteSet,
    *,
    title: str,
    command: str,
    split: str,
) -> ReportInput:
    """Everything the report of a judge on other votes shows."""
    notes = [
        f"Member {m.name}: out-of-fold log loss per pair {m.held_out_log_loss:.4f} when fitted."
        for m in judge.file.members
        if m.held_out_log_loss is not None
    ]
    return ReportInput(
        evaluation=evaluation,
        title=title,
        command=command,
        split=split,
        dropped=vote_set.dropped if vote_set.dropped.total else Dropped(),
        noticed=vote_set.noticed,
        notes=tuple(notes),
    )


def draw(evaluation: Evaluation, path: Path) -> None:
    """The same as a picture, if any system has a log loss."""
    for plot in loss_plots(evaluation):
        path.parent.mkdir(parents=True, exist_ok=True)
        plot.png(path)


def loss_plots(evaluation: Evaluation) -> tuple[Plot, ...]:
    """The log loss of every system that has one, in one plot; none when no system has."""
    systems = [s for s in evaluation.systems if s.role != "ablation"]
    plot = whiskers(
        "log-loss",
        {s.name: s.metrics["log_loss"] for s in systems},
        label="log loss per vote (lower is better)",
        main=evaluation.main,
        quiet=[s.name for s in systems if s.role == "floor"],
    )
    return () if plot is None else (plot,)


def report_path(folder: Path) -> Path:
    """Where a fit writes its report."""
    return folder / "report.html"
