"""The report: one HTML file that holds an evaluation and how it came about.

Knows nothing of how judges are trained or scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.records import CLASSES, Dropped, Score
from litee.rundir import Receipt, write_text
from litee.score.cautions import best_floor
from litee.score.ceiling import max_calibrated_accuracy
from litee.score.figures import (
    Plot,
    coverage_plot,
    depth_plot,
    reliability_diagram,
    weights_bar,
    whiskers,
)
from litee.score.page import in_percent, inline, render
from litee.score.scorecard import Evaluation, SystemScores
from litee.score.table import score_cell

#: Metrics of the full table: name, heading, whether it is a share.
METRICS: tuple[tuple[str, str, bool], ...] = (
    ("log_loss", "Log loss per vote", False),
    ("log_loss_pair", "Log loss per pair", False),
    ("brier", "Brier score", False),
    ("ece", "Calibration error (ECE)", False),
    ("ece_by_chance", "ECE that chance alone gives", False),
    ("accuracy", "Accuracy per vote, %", True),
    ("accuracy_pair", "Accuracy per pair, %", True),
    ("accuracy_decisive", "Decisive votes, %", True),
    ("accuracy_longer_won", "Votes for the longer answer, %", True),
    ("accuracy_shorter_won", "Votes for the shorter answer, %", True),
    ("accuracy_both_decisive", "Vote and verdict decisive, %", True),
    ("accuracy_tie_discounted", "Tie-discounted, %", True),
    ("accuracy_one_vs_rest", "One-vs-rest, %", True),
    ("swap_flip_rate", "Verdicts that flip with the order, %", True),
)


@dataclass(frozen=True, slots=True)
class MemberLine:
    """One member of the judged ensemble.

    Attributes:
        name: of the member.
        weight: in the ensemble.
        alone: log loss of the member by itself.
        without: log loss of the ensemble refitted without it.
        gap: the ensemble's log loss minus that, paired; below 0 the member helps.
    """

    name: str
    weight: float
    alone: Score
    without: Score
    gap: Score


@dataclass(frozen=True, slots=True)
class DepthCurve:
    """Log loss of a probe by layer.

    Attributes:
        backbone: the model.
        points: (layer, log loss), at least one.
    """

    backbone: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Truncation:
    """What did not fit the token budget.

    Attributes:
        budget: the budget in words, e.g. "prompt 256, answers 256 each".
        pairs: number of pairs.
        pairs_cut: pairs of which something was cut.
        tokens: tokens of all texts.
        tokens_cut: tokens that were left out.
    """

    budget: str
    pairs: int
    pairs_cut: int
    tokens: int
    tokens_cut: int


@dataclass(frozen=True, slots=True)
class ReportInput:
    """All a report can show; only `evaluation` is required, empty parts are left out.

    Attributes:
        evaluation: the figures.
        title: of the page.
        command: the command line that made the run.
        split: one or more sentences on what was trained on and what was tested on.
        members: the ensemble's members; the evaluation's main system is the ensemble.
        depths: probe results, at most four curves.
        dropped: rows left out.
        noticed: odd rows that were used.
        truncation: what was cut.
        receipt: what the run cost.
        notes: further sentences for the reader.
    """

    evaluation: Evaluation
    title: str = "Judge report"
    command: str = ""
    split: str = ""
    members: tuple[MemberLine, ...] = ()
    depths: tuple[DepthCurve, ...] = ()
    dropped: Dropped | None = None
    noticed: Dropped | None = None
    truncation: Truncation | None = None
    receipt: Receipt | None = None
    notes: tuple[str, ...] = ()


def write_report(report: ReportInput, path: Path) -> None:
    """Write the report to `path` atomically."""
    write_text(path, render_report(report))


def render_report(report: ReportInput) -> str:
    """The report as HTML text."""
    evaluation = report.evaluation
    return render(
        "report.html",
        title=report.title,
        headline=headline(evaluation),
        cautions=evaluation.cautions,
        r=report,
        e=evaluation,
        plots=inline(_plots(report)),
        classes=CLASSES,
        metrics=METRICS,
        bound=_bound(evaluation),
        floors=_floors_by_source(evaluation),
        systems=_shown(evaluation),
        has_floors=any(s.role == "floor" for s in evaluation.systems),
    )


def headline(evaluation: Evaluation) -> str:
    """The result in one or two sentences."""
    main = evaluation.system(evaluation.main)
    loss, accuracy = main.metrics["log_loss"], main.metrics["accuracy"]
    parts = [
        f"On {evaluation.votes:,} votes over {evaluation.groups:,} prompt groups, "
        f"{main.name} has a log loss of {score_cell(loss)}{_against_floor(evaluation)}."
    ]
    if accuracy.value is not None:
        parts.append(f"It names the voted outcome for {in_percent(accuracy)} of votes")
        human = evaluation.human.three_way
        people = f"; two people agree in {in_percent(human)} of cases."
        parts[-1] += people if human.value is not None else "."
    return " ".join(parts)


def _against_floor(evaluation: Evaluation) -> str:
    floor = best_floor(evaluation)
    if floor is None or floor.name == evaluation.main:
        return ""
    gap = next(d for d in evaluation.differences if d.other == floor.name).metrics["log_loss"]
    if gap.value is None:
        return ""
    word = "below" if gap.value < 0 else "above"
    return f", {abs(gap.value):.3f} {word} the best floor ({floor.name})"


def _shown(evaluation: Evaluation) -> list[SystemScores]:
    """Systems with a row of their own: all but the ensemble without a member."""
    return [s for s in evaluation.systems if s.role != "ablation"]


def _bound(evaluation: Evaluation) -> float | None:
    """The highest accuracy a calibrated judge with the main system's log loss can have."""
    loss = evaluation.score(evaluation.main, "log_loss").value
    return None if loss is None else max_calibrated_accuracy(loss)


def _floors_by_source(evaluation: Evaluation) -> dict[str, str]:
    """Source → its lowest floor's log loss and name, in words."""
    floors = [s.name for s in evaluation.systems if s.role == "floor"]
    found: dict[str, str] = {}
    for source in evaluation.sources:
        losses = [(source.metrics[name]["log_loss"].value, name) for name in floors]
        known = [(value, name) for value, name in losses if value is not None]
        found[source.source] = "{:.3f} {}".format(*min(known)) if known else "—"
    return found


def _plots(report: ReportInput) -> Sequence[Plot | None]:
    evaluation = report.evaluation
    names = [s.name for s in _shown(evaluation)]
    quiet = [s.name for s in evaluation.systems if s.role == "floor"]
    human = evaluation.human.three_way.value
    found: list[Plot | None] = [
        whiskers(
            "log-loss",
            {name: evaluation.score(name, "log_loss") for name in names},
            label="log loss per vote (lower is better)",
            main=evaluation.main,
            quiet=quiet,
        ),
        whiskers(
            "accuracy",
            {name: evaluation.score(name, "accuracy") for name in names},
            label="three-way accuracy per vote",
            main=evaluation.main,
            quiet=quiet,
            line=None if human is None else (human, "people agree with each other"),
            percent=True,
        ),
        reliability_diagram(evaluation.calibration),
        coverage_plot(evaluation.coverage, human),
    ]
    if report.members:
        found.append(weights_bar({m.name: m.weight for m in report.members}))
    if report.depths:
        found.append(depth_plot({curve.backbone: curve.points for curve in report.depths}))
    return found
