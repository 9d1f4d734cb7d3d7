"""Progress of long jobs: share done, rate, time left; a bar on a terminal, lines in a log.

Knows nothing of the job.
"""

from __future__ import annotations

import time
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


def rate(speed: float, unit: str = "") -> str:
    """A speed in words: per second, or per minute or hour when less than two would be done in it.

    >>> rate(12345.6), rate(1.5, " prompts"), rate(0.02), rate(0.01)
    ('12,346/s', '90 prompts/min', '72/h', '36/h')
    """
    for seconds, name in ((1, "s"), (60, "min")):
        if speed * seconds >= 2:
            return f"{speed * seconds:,.0f}{unit}/{name}"
    return f"{speed * 3600:,.0f}{unit}/h"


class _RateColumn(ProgressColumn):
    """Units per second since the start."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "rows")
        return Text(rate(speed, f" {unit}") if speed else "", style="progress.data.speed")


@contextmanager
def progress(title: str, total: int, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """Show a bar, or lines in a log; the yielded function advances it by n units.

    >>> with progress("reading", 2) as advance:
    ...     advance(2)
    """
    if not console.is_terminal:
        yield _Lines(title, total, unit).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, unit=unit)
        yield lambda n: bar.advance(task, n)


class _Lines:
    """A line every half minute, for logs; jobs shorter than that say nothing."""

    EVERY = 30.0

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.started = self.shown = time.monotonic()

    def advance(self, n: int) -> None:
        """Count n units, and say so when it is time."""
        self.done += n
        now = time.monotonic()
        if now - self.shown < self.EVERY or self.done < self.total / 100:
            return
        self.shown = now
        speed = self.done / (now - self.started)
        left = (self.total - self.done) / speed if speed else 0.0
        console.print(
            f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {rate(speed)}, "
            f"{left / 60:.1f} minutes left",
            highlight=False,
            soft_wrap=True,
        )
