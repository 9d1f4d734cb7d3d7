"""Learning curves: judges of more and more votes, on the same held-out prompts.

Smaller sets of prompts are part of larger ones, so that two points differ by the votes between
them. Knows nothing of command lines and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from litee.errors import InputError
from litee.predict.fit import FitResult
from litee.records import Score, VotedPair
from litee.rundir import Json, Receipt
from litee.score.figures import Plot, line_plot
from litee.score.fit_report import ENSEMBLE
from litee.score.results import new_result
from litee.score.scorecard import Evaluation
from litee.score.study_fit import halves
from litee.score.study_settings import Studied, StudySettings


@dataclass(frozen=True, slots=True)
class Parts:
    """Who learns from what.

    Attributes:
        held_out: pairs that every point is judged on.
        groups: their prompt groups.
        points: for each point of the curve, its training pairs; nested, in file order.
    """

    held_out: tuple[VotedPair, ...]
    groups: tuple[int, ...]
    points: tuple[tuple[VotedPair, ...], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A finished point.

    Attributes:
        pairs: training pairs.
        prompts: training prompt groups.
        result: its fit.
        evaluation: of its judge on the held-out pairs.
    """

    pairs: int
    prompts: int
    result: FitResult
    evaluation: Evaluation


def make_parts(
    voted: Sequence[VotedPair], sizes: Sequence[int], *, share: float, seed: int, folds: int
) -> Parts:
    """Hold prompts out and deal the others to the points of the curve.

    Prompt groups are drawn in an order that depends on the seed alone, and a point takes groups
    until it has at least its number of pairs. The last point takes all.

    Args:
        voted: the pairs.
        sizes: wanted numbers of training pairs, ascending.
        share: of the pairs that are held out.
        seed: of both.
        folds: prompt groups that every point needs.

    Raises:
        InputError: a size is beyond the votes there are, or a point has too few prompts.
    """
    found = halves(voted, share=share, seed=seed)
    train, group = found.train, np.asarray(found.train_groups)
    if sizes and sizes[-1] >= len(train):
        raise InputError(
            f"a point of {sizes[-1]:,} pairs was asked for, but {len(train):,} are left to learn "
            "from: the last point takes them all",
            fix=f"remove sizes of {len(train):,} and more",
        )
    order = np.random.default_rng([seed, len(train)]).permutation(np.unique(group))
    members = [np.flatnonzero(group == one) for one in order]
    counts = np.cumsum([len(one) for one in members])
    points = []  # numbers of pairs
    for size in (*sizes, len(train)):
        taken = int(np.searchsorted(counts, size)) + 1
        if taken < folds:
            raise InputError(
                f"a point of {size:,} pairs has {taken} prompts, and a fit needs {folds}",
                fix="ask for larger sizes, or for fewer folds in settings",
            )
        points.append(tuple(sorted(int(i) for one in members[:taken] for i in one)))
    nested = tuple(tuple(train[i] for i in numbers) for numbers in dict.fromkeys(points))
    return Parts(found.test, found.groups, nested)


def curve_result(
    study: StudySettings, points: Sequence[Point], plot: Plot, *, command: str
) -> Studied:
    """The points beside each other.

    Args:
        study: what was asked.
        points: in order of size.
        plot: of them.
        command: that makes the results again.

    Returns:
        Metrics `<pairs>.log_loss`, `.accuracy` and `.ece` of the ensemble, `.source_log_loss`, the
        mean of the sources' log losses, `.floor_source_log_loss`, that of the best floor, and
        `.<member>_log_loss` of its members and of the floors.
    """
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    tables: dict[str, Json] = {}
    receipt = Receipt()
    for point in points:
        for name, score in _scores(point).items():
            if score.value is not None:
                metrics[f"{point.pairs}.{name}"] = score.value
            if score.low is not None and score.high is not None:
                intervals[f"{point.pairs}.{name}"] = (score.low, score.high)
        tables[str(point.pairs)] = {
            "log_loss_per_source": {
                str(source.source): source.metrics[ENSEMBLE]["log_loss"].value
                for source in point.evaluation.sources
            },
            "prompt_groups": point.prompts,
            "weights": dict(
                zip(point.result.names, point.result.joined.ensemble.weights, strict=True)
            ),
            "seconds": point.result.receipt.seconds,
        }
        receipt.include(point.result.receipt)
    last = points[-1].evaluation
    tables["held_out"] = {"pairs": last.pairs, "prompt_groups": last.groups}
    result = new_result(
        study.name, command, receipt, metrics, intervals=intervals, tables=tables, notes=study.notes
    )
    return Studied(result, {f"{study.name}, {points[-1].pairs:,} pairs": last}, (plot,))


def _scores(point: Point) -> dict[str, Score]:
    evaluation = point.evaluation
    scores = {
        f"{system.name.replace(' ', '_')}_log_loss": system.metrics["log_loss"]
        for system in evaluation.systems
        if system.name != ENSEMBLE
    }
    main = evaluation.system(ENSEMBLE).metrics
    scores |= {name: main[name] for name in ("log_loss", "accuracy", "ece")}
    scores["source_log_loss"] = evaluation.source_means[ENSEMBLE]
    floors = [evaluation.source_means[s.name] for s in evaluation.systems if s.role == "floor"]
    known = [(score.value, score) for score in floors if score.value is not None]
    if known:
        scores["floor_source_log_loss"] = min(known, key=lambda one: one[0])[1]
    return scores


def curve_plot(points: Sequence[Point]) -> Plot:
    """Log losses of the ensemble, its best member and the best floor over training pairs.

    With several sources also the ensemble's mean over them.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        for label, loss in _losses(point).items():
            curves.setdefault(label, []).append((point.pairs, loss))
    alt = "Log loss on the same held-out prompts over the number of training pairs: " + "; ".join(
        f"{label} " + ", ".join(f"{loss:.3f} at {pairs:,}" for pairs, loss in line)
        for label, line in curves.items()
    )
    return line_plot("learning-curve", curves, x="training pairs", y="log loss", alt=alt)


def _losses(point: Point) -> Mapping[str, float]:
    scores = {s.name: s.metrics["log_loss"].value for s in point.evaluation.systems}
    floors = [s.name for s in point.evaluation.systems if s.role == "floor"]
    members = [name for name in point.result.names if name not in floors]
    found: dict[str, float] = {}
    for label, names in (
        ("ensemble", [ENSEMBLE]),
        ("best single member", members),
        ("best floor", floors),
    ):
        losses = [loss for name in names if (loss := scores.get(name)) is not None]
        if losses:
            found[label] = min(losses)
    mean = point.evaluation.source_means[ENSEMBLE].value
    if mean is not None and len(point.evaluation.sources) > 1:
        found["ensemble, mean of sources"] = mean
    return found
