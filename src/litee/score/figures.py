"""Plots of an evaluation, as inline SVG for the report or as PNG files.

One plain style, the colour-blind-safe palette of Okabe and Ito, and a text alternative for every
figure. In SVG the colours become CSS variables, so that the page decides about light and dark.
Knows nothing of the page around a figure or of how the numbers were made.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from litee.records import Score
from litee.rundir import atomic_path
from litee.score.reliability import Calibration, CoveragePoint, ReliabilityBin

#: Okabe and Ito's palette by use, and the CSS variable each becomes in SVG.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#8a8f98"
_INK, _LINE = "#1b1f24", "#d4d8dd"
_VARIABLES = {
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PURPLE: "--purple",
    GREY: "--grey",
    _INK: "--ink",
    _LINE: "--line",
}
_STYLE: Any = {  # matplotlib's type of its settings differs between versions
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "litee",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_CLASS_LOOK = {"a": (BLUE, "o", "A"), "b": (ORANGE, "s", "B"), "tie": (GREEN, "^", "tie")}
_LINES = (BLUE, ORANGE, GREEN, PURPLE)
_WIDTH = 5.0


@dataclass(frozen=True, slots=True)
class Plot:
    """A finished figure and what it shows in words.

    Attributes:
        name: short, unique on a page; letters and hyphens.
        figure: the drawing.
        alt: text alternative.
    """

    name: str
    figure: Figure
    alt: str

    def svg(self) -> str:
        """An `<svg>` element to put into a page: no outside references, ids made unique.

        Colours are CSS variables with the light colour as fallback; the text takes the font of
        the page.
        """
        buffer = io.StringIO()
        with mpl.rc_context(_STYLE):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return _inline(buffer.getvalue(), self.name, self.alt)

    def png(self, path: Path, *, dpi: int = 200) -> None:
        """Write a PNG with a white background."""
        with mpl.rc_context(_STYLE), atomic_path(path) as temporary:
            self.figure.set_facecolor("white")
            self.figure.savefig(temporary, format="png", dpi=dpi)


def _inline(svg: str, name: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable}, {colour})")
    view = re.search(r'viewBox="[^"]*"', svg)
    label = html.escape(alt, quote=True)
    start = (
        f'<svg role="img" aria-label="{label}" {view.group(0) if view else ""} '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return start + svg[svg.index(">") + 1 :].strip()


def _axes(height: float, *, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def whiskers(
    name: str,
    scores: Mapping[str, Score],
    *,
    label: str,
    main: str,
    quiet: Sequence[str] = (),
    line: tuple[float, str] | None = None,
    percent: bool = False,
) -> Plot | None:
    """One dot with its 95 % interval per system, best read from top to bottom.

    Args:
        name: of the plot.
        scores: system → score; systems without a value are left out.
        label: of the horizontal axis.
        main: system drawn in colour.
        quiet: systems drawn in grey (floors).
        line: a vertical line to compare with: its place and what it is.
        percent: the scores are shares.

    Returns:
        None when no score has a value.
    """
    shown = {key: s for key, s in scores.items() if s.value is not None}
    if not shown:
        return None
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(0.95 + 0.3 * len(shown))
        for row, (key, score) in enumerate(shown.items()):
            colour = BLUE if key == main else GREY if key in quiet else _INK
            _whisker(axes, row, score, colour)
        axes.set_yticks(range(len(shown)), [_shortened(key) for key in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        if line is not None:
            axes.axvline(line[0], color=GREEN, linestyle=(0, (4, 2)), linewidth=1.4, label=line[1])
            figure.legend(loc="outside upper right")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        if percent:  # whole per cent, unless all lies within a few of them
            low, high = axes.get_xlim()
            axes.xaxis.set_major_formatter(
                PercentFormatter(1, decimals=0 if high - low > 0.03 else 1)
            )
    parts = [f"{key} {_spoken(s, percent=percent)}" for key, s in shown.items()]
    end = f"; {line[1]} {_number(line[0], percent=percent)}" if line else ""
    return Plot(name, figure, f"{label}: {'; '.join(parts)}{end}.")


def _whisker(axes: Axes, row: int, score: Score, colour: str) -> None:
    if score.low is not None and score.high is not None:
        axes.plot([score.low, score.high], [row, row], color=colour, linewidth=2)
    if score.value is not None:
        axes.plot([score.value], [row], "o", color=colour, markersize=6)


def weights_bar(members: Mapping[str, float]) -> Plot:
    """How the ensemble divides its weight.

    Args:
        members: name → weight; shown as shares of 1 as given.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(0.7 + 0.32 * len(members))
        axes.barh(range(len(members)), list(members.values()), color=BLUE, height=0.6)
        for row, weight in enumerate(members.values()):
            axes.text(weight + 0.01, row, f"{weight:.2f}", va="center")
        axes.set_yticks(range(len(members)), [_shortened(key) for key in members])
        axes.set_ylim(len(members) - 0.5, -0.5)
        axes.set_xlim(0, max(members.values()) * 1.15 + 0.01)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("weight in the ensemble")
    parts = [f"{key} {weight:.2f}" for key, weight in members.items()]
    return Plot("weights", figure, f"Weight of each member: {'; '.join(parts)}.")


def reliability_diagram(calibration: Calibration) -> Plot:
    """Predicted against observed shares per class and for the chosen outcome, with a histogram."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=[3.4, 1], sharex=True)
        upper.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 2)), linewidth=1)
        for label, bins in calibration.classes.items():
            colour, marker, shown = _CLASS_LOOK[label]
            _reliability(upper, bins, colour=colour, marker=marker, label=f"P({shown})")
        _reliability(upper, calibration.top, colour=_INK, marker="D", label="chosen outcome")
        upper.set_ylabel("share of votes observed")
        upper.set_ylim(-0.02, 1.02)
        upper.legend(loc="upper left")
        counts = np.array(calibration.histogram)
        edges = np.arange(10) / 10
        lower.bar(edges, counts, width=0.092, align="edge", color=GREY)
        lower.set_xlabel("predicted probability")
        lower.set_ylabel("votes")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        lower.set_xlim(0, 1)
    top = "; ".join(
        f"{b.predicted:.2f} predicted, {b.observed:.2f} observed" for b in calibration.top
    )
    return Plot("reliability", figure, f"Reliability of the chosen outcome, bin by bin: {top}.")


def _reliability(
    axes: Axes, bins: Sequence[ReliabilityBin], *, colour: str, marker: str, label: str
) -> None:
    x, y = [b.predicted for b in bins], [b.observed for b in bins]
    axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.2, label=label)


def coverage_plot(points: Sequence[CoveragePoint], human: float | None = None) -> Plot:
    """Accuracy on the most confident part of the votes against the size of that part.

    Args:
        points: from few to all votes.
        human: human–human agreement, three-way, drawn as a line.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.2)
        x = [p.coverage for p in points]
        axes.plot(x, [p.accuracy for p in points], color=BLUE, marker="o", markersize=3.5,
                  label="three-way")  # fmt: skip
        decisive = [np.nan if p.accuracy_decisive is None else p.accuracy_decisive for p in points]
        axes.plot(x, decisive, color=ORANGE, marker="s", markersize=3.5, label="decisive votes")
        if human is not None:
            axes.axhline(human, color=GREEN, linestyle=(0, (4, 2)), linewidth=1.4,
                         label="people agree, three-way")  # fmt: skip
        axes.set_xlabel("share of votes judged, most confident first")
        axes.set_ylabel("accuracy")
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.legend(loc="outside upper center", ncols=3)
    ends = "; ".join(f"{p.coverage:.0%} of votes {p.accuracy:.1%}" for p in (points[0], points[-1]))
    return Plot("coverage", figure, f"Three-way accuracy on the most confident votes: {ends}.")


def depth_plot(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Plot:
    """Log loss of a linear probe on each layer of one or more backbones.

    Args:
        curves: backbone → (layer, log loss), at most four curves.
    """
    looks = [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D")]
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.2)
        for (label, points), (colour, marker) in zip(curves.items(), looks, strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, marker=marker, markersize=4, label=_shortened(label))
        axes.set_xlabel("layer")
        axes.set_ylabel("log loss of the probe")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        if len(curves) > 1:
            axes.legend()
    best = [
        f"{label} is best at layer {min(points, key=lambda point: point[1])[0]}"
        for label, points in curves.items()
    ]
    return Plot("depth", figure, f"Log loss of a probe by layer: {'; '.join(best)}.")


def line_plot(
    name: str,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    *,
    x: str,
    y: str,
    alt: str,
    zero: bool = False,
) -> Plot:
    """Curves over whole numbers, such as steps.

    Args:
        name: of the plot.
        curves: label → (x, y), at most four.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        alt: what is seen, in words.
        zero: draw the line y = 0.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(2.8)
        for (label, points), colour in zip(curves.items(), _LINES, strict=False):
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, label=label)
        if zero:
            axes.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        if len(curves) > 1:
            axes.legend()
    return Plot(name, figure, alt)


def _shortened(name: str, length: int = 26) -> str:
    """A name for an axis; `$` would start mathematics."""
    name = name.replace("$", r"\$")
    return name if len(name) <= length else name[: length - 1] + "…"


def _number(value: float, *, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.3f}"


def _spoken(score: Score, *, percent: bool) -> str:
    value = "none" if score.value is None else _number(score.value, percent=percent)
    if score.low is None or score.high is None:
        return value
    low, high = (_number(end, percent=percent) for end in (score.low, score.high))
    return f"{value} ({low} to {high})"
