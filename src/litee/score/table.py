"""An evaluation as a terminal table, 80 columns wide.

Knows nothing of how the figures were made and prints nothing itself: the caller has the console.
"""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from litee.records import Score
from litee.score.scorecard import Evaluation, SystemScores

#: Roles that have a row, and its style.
_STYLES = {"main": "bold", "system": "", "floor": "dim"}


def evaluation_table(evaluation: Evaluation) -> Table:
    """Systems with log loss and accuracy (95 % intervals), the human ceiling in the last row."""
    title = (
        f"{evaluation.votes:,} votes on {evaluation.pairs:,} pairs, "
        f"{evaluation.groups:,} prompt groups"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, width=80, padding=0, title_justify="left")
    table.add_column("system", overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("log loss", "accuracy %", "decisive", "ECE"):
        table.add_column(name, justify="right", no_wrap=True)
    for system in evaluation.systems:
        if system.role in _STYLES:
            table.add_row(*_cells(system), style=_STYLES[system.role])
    human = evaluation.human
    floor = human.log_loss_floor
    table.add_section()
    table.add_row(
        "people, pair by pair",
        "—" if floor is None else f"≥ {floor:.3f}",
        percent_cell(human.three_way),
        percent_cell(human.decisive, interval=False),
        "",
    )
    return table


def _cells(system: SystemScores) -> tuple[str, ...]:
    metrics = system.metrics
    ece = metrics["ece"].value
    return (
        escape(system.name),
        score_cell(metrics["log_loss"]),
        percent_cell(metrics["accuracy"]),
        percent_cell(metrics["accuracy_decisive"], interval=False),
        "—" if ece is None else f"{ece:.3f}",
    )


def score_cell(score: Score, *, digits: int = 3, interval: bool = True, sign: str = "") -> str:
    """`0.911 [0.897, 0.925]`, or a dash when there is no value.

    Args:
        score: what to show.
        digits: after the point.
        interval: whether to show it.
        sign: "+" shows the sign of positive values too.

    >>> score_cell(Score(0.911, 0.897, 0.925)), score_cell(Score(None, reason="no votes"))
    ('0.911 [0.897, 0.925]', '—')
    >>> score_cell(Score(-0.0001, -0.0002, -0.0001))  # no negative zeros
    '0.000 [0.000, 0.000]'
    """
    if score.value is None:
        return "—"
    shown = f"{score.value:{sign}z.{digits}f}"
    if not interval or score.low is None or score.high is None:
        return shown
    return f"{shown} [{score.low:{sign}z.{digits}f}, {score.high:{sign}z.{digits}f}]"


def percent_cell(score: Score, *, interval: bool = True, sign: str = "") -> str:
    """A share in percent without the sign `%`.

    >>> percent_cell(Score(0.58, 0.561, 0.599))
    '58.0 [56.1, 59.9]'
    """
    if score.value is None:
        return "—"
    ends = [None if x is None else 100 * x for x in (score.low, score.high)]
    in_percent = Score(100 * score.value, ends[0], ends[1])
    return score_cell(in_percent, digits=1, interval=interval, sign=sign)
