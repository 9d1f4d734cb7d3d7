"""One progress bar for every long job: share done, rate, time left; silent when not on a terminal.

Knows nothing of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: Where progress and messages go; results go to standard output.
console = Console(stderr=True)


class _RateColumn(ProgressColumn):
    """Units per second since the start."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "rows")
        return Text(f"{speed:,.0f} {unit}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress(title: str, total: int, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """Show a bar; the yielded function advances it by n units.

    >>> with progress("reading", 2) as advance:
    ...     advance(2)
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, unit=unit)
        yield lambda n: bar.advance(task, n)
