"""The comparison of two systems as one HTML file, and as a table for the terminal.

Knows nothing of how the figures were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from litee.records import Dropped, Pair, Score
from litee.rundir import write_text
from litee.score.comparison import JudgedComparison, SystemComparison
from litee.score.figures import Plot, whiskers
from litee.score.outcomes import Floats
from litee.score.page import by_name, inline, render
from litee.score.table import percent_cell

#: Pairs of answers that the page shows side by side.
SHOWN = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """A pair to read: what was asked, both answers, and what the first judge says."""

    pair: Pair
    preference: float


@dataclass(frozen=True, slots=True)
class ComparisonPage:
    """What the page shows.

    Attributes:
        comparison: the figures.
        samples: pairs to read, the first system's clearest wins and losses.
        dropped: answers without a partner, by reason.
        command: that made it.
        inputs: file → sha256.
    """

    comparison: SystemComparison
    samples: Sequence[Sample] = ()
    dropped: Dropped = field(default_factory=Dropped)
    command: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)


def write_comparison_page(page: ComparisonPage, path: Path) -> None:
    """Write the page atomically."""
    write_text(path, render_comparison(page))


def render_comparison(page: ComparisonPage) -> str:
    """The page as HTML text."""
    c = page.comparison
    return render(
        "comparison.html",
        title=f"{c.names[0]} against {c.names[1]}",
        headline=headline(c),
        cautions=cautions(c),
        c=c,
        samples=page.samples,
        dropped=page.dropped.counts,
        plots=inline(plots(c)),
        inputs=by_name(page.inputs),
        command=page.command,
    )


def headline(comparison: SystemComparison) -> str:
    """The result in a sentence or two."""
    first, second = comparison.names
    parts = []
    for one in comparison.judged:
        if one.win_rate.value is None:
            continue
        rate = percent_cell(one.win_rate).replace(" [", " % [")
        if one.better is None:
            parts.append(f"{one.judge} cannot tell them apart ({rate})")
        else:
            best = first if one.better else second
            parts.append(f"{one.judge} prefers {best} ({rate} for {first})")
    return ("; ".join(parts) or "No judge has a verdict") + "."


def cautions(comparison: SystemComparison) -> tuple[str, ...]:
    """What a reader has to know before believing the figures."""
    found = []
    first, second = comparison.characters
    if comparison.prompts < 30:
        found.append(
            f"Only {comparison.prompts} prompts: the intervals are too narrow, and other prompts "
            "may give another answer."
        )
    if max(first, second) > 1.25 * min(first, second):
        longer = comparison.names[0 if first > second else 1]
        found.append(
            f"{longer} writes longer answers ({first:.0f} against {second:.0f} characters on "
            "average): look at the length-controlled win rate."
        )
    told = {one.better for one in comparison.judged if one.better is not None}
    if len(told) > 1:
        found.append("The judges contradict each other: ask people.")
    if len(comparison.judged) == 1:
        found.append(
            "One judge only. If a system was tuned on this judge's reward, ask one that was "
            "fitted on other votes or another backbone."
        )
    lost = sum(one.unscored for one in comparison.judged)
    if lost:
        found.append(f"{lost} verdicts are missing; they are left out of the figures.")
    return tuple(found)


def plots(comparison: SystemComparison) -> list[Plot | None]:
    """Win rates, plain and at equal length, one row per judge."""
    rows: dict[str, Score] = {}
    for one in comparison.judged:
        rows[one.judge] = one.win_rate
        rows[f"{one.judge}, equal length"] = one.length_controlled
    quiet = [name for name in rows if name.endswith(", equal length")]
    plot = whiskers(
        "win-rate",
        rows,
        label=f"win rate of {comparison.names[0]}, %",
        main=next(iter(rows), ""),
        quiet=quiet,
        line=(0.5, "as good"),
        percent=True,
    )
    return [plot]


def choose_samples(pairs: Sequence[Pair], probabilities: Floats) -> list[Sample]:
    """The clearest wins and the clearest losses of the first system, wins first."""
    known = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    preference = probabilities[:, 0] + probabilities[:, 2] / 2
    order = sorted(known.tolist(), key=lambda k: -preference[k])
    half = SHOWN // 2
    chosen = order if len(order) <= SHOWN else [*order[:half], *order[-half:]]
    return [Sample(pairs[k], float(preference[k])) for k in chosen]


def comparison_table(comparison: SystemComparison) -> Table:
    """One row per judge, in percent with 95 % intervals."""
    first, second = comparison.names
    title = (
        f"{first} against {second}: {comparison.pairs:,} pairs, {comparison.prompts:,} prompts, "
        f"{comparison.characters[0]:.0f} and {comparison.characters[1]:.0f} characters"
    )
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left")
    table.add_column("judge")
    for name in ("wins", "ties", "losses", "win rate %", "equal length %"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in comparison.judged:
        table.add_row(*_cells(one))
    return table


def _cells(one: JudgedComparison) -> tuple[str, ...]:
    shares = (percent_cell(s, interval=False) for s in (one.wins, one.ties, one.losses))
    return (
        escape(one.judge),
        *shares,
        percent_cell(one.win_rate),
        percent_cell(one.length_controlled),
    )
