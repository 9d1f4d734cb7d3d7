"""One page for a study made of studies: headlines, and every part's figures and plots.

Knows nothing of how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from litee.records import Score
from litee.score.page import inline, render
from litee.score.results import Result
from litee.score.study_settings import Studied

#: Figures of a grid, in this order, as far as there are any.
FIGURES = (
    "log_loss",
    "source_log_loss",
    "accuracy",
    "ece",
    "best_member_log_loss",
    "floor_log_loss",
    "log_loss_difference",
    "win_rate",
    "win_rate_length_controlled",
    "stop_rate",
    "seconds",
)


@dataclass(frozen=True, slots=True)
class Grid:
    """Figures of a results file by row.

    Attributes:
        columns: names of the figures.
        rows: name of a row → its figures, None where there is none.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Score | None, ...]]


def grid(result: Result) -> Grid:
    """Metrics called `row.figure` in rows, those without a dot in a first row.

    >>> from litee.rundir import Receipt
    >>> from litee.score.results import new_result
    >>> found = grid(new_result("x", "c", Receipt(), {"a.ece": 0.1, "b.ece": 0.2, "log_loss": 1}))
    >>> found.columns, list(found.rows), found.rows["b"][1].value
    (('log_loss', 'ece'), ['all', 'a', 'b'], 0.2)
    """
    cells: dict[str, dict[str, Score]] = {}
    for name, value in result.metrics.items():
        row, _, figure = name.rpartition(".")
        if figure in FIGURES:
            low, high = result.intervals.get(name, (None, None))
            cells.setdefault(row or "all", {})[figure] = Score(float(value), low, high)
    columns = tuple(f for f in FIGURES if any(f in row for row in cells.values()))
    ordered = sorted(cells, key=lambda name: name != "all")
    return Grid(columns, {name: tuple(cells[name].get(c) for c in columns) for name in ordered})


@dataclass(frozen=True, slots=True)
class Section:
    """A part on the page.

    Attributes:
        name: of the part.
        result: its results file.
        grid: its first figures.
        plots: names of its plots.
    """

    name: str
    result: Result
    grid: Grid
    plots: tuple[str, ...] = ()


def study_page(
    made: Result,
    headlines: Mapping[str, str],
    parts: Mapping[str, Studied],
    beside: Mapping[str, Result],
) -> str:
    """The page as HTML.

    Args:
        made: the study's own result.
        headlines: metric → where it comes from.
        parts: name → finished part.
        beside: name → results file of something else that is shown.
    """
    plots = []
    sections = []
    for name, part in parts.items():
        own = [
            replace(plot, name=f"{name.replace('_', '-')}-{number}")
            for number, plot in enumerate(part.plots)
        ]
        plots += own
        sections.append(Section(name, part.result, grid(part.result), tuple(p.name for p in own)))
    sections += [Section(name, result, grid(result)) for name, result in beside.items()]
    lines = [
        (name, Score(value, *made.intervals.get(name, (None, None))), headlines[name])
        for name, value in made.metrics.items()
    ]
    return render(
        "study.html",
        title=f"Study: {made.name}",
        headline=_lead(sections),
        cautions=(),
        made=made,
        lines=lines,
        sections=sections,
        plots=inline(plots),
    )


def _lead(sections: Sequence[Section]) -> str:
    return "Parts: " + ", ".join(section.name for section in sections) + "."
