"""One figure of a vote summary: outcomes, answer lengths, votes per pair, agreement.

Knows nothing of votes files: it draws a finished `VoteSummary`.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from litee.collect.inspect import VoteSummary
from litee.errors import ConfigError
from litee.rundir import atomic_path

_BLUE, _ORANGE, _GREY = "#4477aa", "#ee8866", "#999999"
_ENDINGS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


def summary_figure(summary: VoteSummary, path: Path) -> None:
    """Draw the summary into a PNG, SVG or PDF file.

    Raises:
        ConfigError: another ending.
        ResourceError: the file cannot be written.
    """
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is None:
        fix = f"use one of: {', '.join(_ENDINGS)}"
        raise ConfigError("unknown kind of figure", place=str(path), fix=fix)
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _outcomes(axes[0, 0], summary)
    _lengths(axes[0, 1], summary)
    _votes_per_pair(axes[1, 0], summary)
    _agreement(axes[1, 1], summary)
    title = f"{summary.votes:,} votes on {summary.pairs:,} pairs, {summary.prompt_groups:,} prompts"
    figure.suptitle(title, fontsize=12)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150)


def _bars(axes: Axes, labels: list[str], values: list[float], texts: list[str]) -> None:
    """Bars with a text above each, without the box's upper and right sides."""
    drawn = axes.bar(labels, values, color=_BLUE, width=0.7)
    axes.bar_label(drawn, texts, fontsize=8, padding=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.15)


def _outcomes(axes: Axes, summary: VoteSummary) -> None:
    shown = {name: count for name, count in summary.outcomes.items() if name != "both_bad" or count}
    labels = {"a": "A better", "b": "B better", "tie": "tie", "both_bad": "both bad"}
    texts = [f"{count / summary.votes:.1%}" for count in shown.values()]
    _bars(axes, [labels[name] for name in shown], [float(c) for c in shown.values()], texts)
    axes.set_title(f"Outcomes (prior entropy {summary.prior_entropy:.3f} nats)", fontsize=10)
    axes.set_ylabel("votes")


def _lengths(axes: Axes, summary: VoteSummary) -> None:
    bins = summary.length_bins
    edges = [k for k in (0, *(1 << e for e in range(40))) if min(bins) <= k <= max(bins)]
    axes.bar(range(len(edges)), [bins.get(edge, 0) for edge in edges], width=0.95, color=_BLUE)
    names = ["0" if edge == 0 else f"{edge:,}+" for edge in edges]
    axes.set_xticks(range(len(edges)), names, rotation=45, ha="right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    spread = summary.answer_length
    title = f"Answer length, median {spread.median:,.0f}"
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("characters")
    axes.set_ylabel("answers")


def _votes_per_pair(axes: Axes, summary: VoteSummary) -> None:
    few = {k: n for k, n in summary.votes_per_pair.items() if k < 10}
    many = sum(summary.votes_per_pair.values()) - sum(few.values())
    labels = [str(k) for k in few] + (["10+"] if many else [])
    counts = [*few.values(), *([many] if many else [])]
    _bars(axes, labels, [float(count) for count in counts], [f"{count:,}" for count in counts])
    axes.set_title("Votes per pair", fontsize=10)
    axes.set_ylabel("pairs")


def _agreement(axes: Axes, summary: VoteSummary) -> None:
    rows = {
        "longer answer wins": summary.longer_wins,
        "two decisive votes agree": summary.agreement_decisive.score,
        "two votes agree": summary.agreement.score,
    }
    for place, (name, score) in enumerate(rows.items()):
        value = score.value
        colour = _ORANGE if name.startswith("longer") else _BLUE
        axes.barh(place, value or 0.0, color=colour, height=0.6)
        text = score.reason if value is None else f"{value:.3f}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text((value or 0.0) + 0.02, place, text, va="center", fontsize=8, bbox=box)
    axes.axvline(0.5, color=_GREY, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Agreement and length", fontsize=10)
    axes.set_xlabel("share")
