"""When a run has to be done: a clock that long work asks.

Knows nothing of the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


class TimeUpError(Exception):
    """Work that cannot be cut short was stopped; what it has finished is kept."""


@dataclass(slots=True)
class Deadline:
    """The end of a budget.

    Attributes:
        seconds: from the start; None never ends.
        reserve: seconds kept back for what comes after the work that asks.
        clock: seconds that only grow.
        started: by the clock.

    >>> ticks = iter([0.0, 5.0, 8.0])
    >>> deadline = Deadline(10.0, reserve=3.0, clock=lambda: next(ticks))
    >>> deadline.passed(), deadline.passed()
    (False, True)
    """

    seconds: float | None = None
    reserve: float = 0.0
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def left(self) -> float:
        """Seconds that work may still take, without the reserve; infinity without a budget."""
        if self.seconds is None:
            return float("inf")
        return self.seconds - self.reserve - (self.clock() - self.started)

    def part(self, share: float) -> Deadline:
        """A deadline after this share of what is left."""
        seconds = None if self.seconds is None else max(0.0, self.left() * share)
        return Deadline(seconds, clock=self.clock)

    def passed(self) -> bool:
        """Whether the work has to stop now."""
        return self.left() <= 0

    def check(self) -> None:
        """Stop work that cannot be cut short.

        Raises:
            TimeUpError: the time is up.
        """
        if self.passed():
            raise TimeUpError
