"""How many demonstrations of which sources and topics: rules, and what they still allow.

A choice is made one demonstration at a time; each is allowed only when the quotas can still all
be met afterwards, which is decided exactly by an integer programme over cells (source × topic).
Knows nothing of texts and vectors.

Once a cell is closed it stays closed, derived here: if after more picks T the cell c could be
added and completed, then c could have been added before with T in its completion.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from litee.errors import ConfigError

#: Source and topic of a demonstration.
Cell = tuple[str, str]

_RULE = re.compile(r"(?P<axis>source|topic):(?P<pattern>.+)=(?P<low>\d*)(?P<dash>-?)(?P<high>\d*)")
_AXES = ("source", "topic")


@dataclass(frozen=True, slots=True)
class Quota:
    """At least `low` and at most `high` demonstrations whose source or topic fits a pattern.

    Attributes:
        axis: `source` or `topic`.
        pattern: with `*`, `?` and `[…]` as in file names.
        low: ≥ 0.
        high: ≥ low; None for any number.
    """

    axis: str
    pattern: str
    low: int
    high: int | None

    def covers(self, cell: Cell) -> bool:
        """Whether a cell counts here."""
        return fnmatchcase(cell[_AXES.index(self.axis)], self.pattern)

    def __str__(self) -> str:
        high = "" if self.high is None else self.high
        return f"{self.axis}:{self.pattern}={self.low}-{high}"


def parse_quota(text: str) -> Quota:
    """A quota as written in the settings.

    >>> str(parse_quota("source:wikihow=200")), str(parse_quota("topic:0*=-50"))
    ('source:wikihow=200-200', 'topic:0*=0-50')

    Raises:
        ConfigError: it cannot be read, or its ends are the wrong way round.
    """
    found = _RULE.fullmatch(text.strip())
    if found is None or not (found["low"] or found["high"]):
        fix = "write source:NAME=NUMBER, topic:NAME=LOW-HIGH, source:NAME=LOW- or topic:NAME=-HIGH"
        raise ConfigError(f"quota {text!r} cannot be read", fix=fix)
    low = int(found["low"] or 0)
    high = int(found["high"]) if found["high"] else None if found["dash"] else low
    if high is not None and high < low:
        raise ConfigError(f"quota {text!r}: {low} is more than {high}", fix="exchange the ends")
    return Quota(found["axis"], found["pattern"], low, high)


def make_quotas(
    texts: Sequence[str], cells: Sequence[Cell], *, max_per_source: int, max_per_topic: int
) -> tuple[Quota, ...]:
    """The written quotas, and a limit for every source and topic when one is set."""
    quotas = [parse_quota(text) for text in texts]
    for axis, limit in (("source", max_per_source), ("topic", max_per_topic)):
        if limit:
            names = sorted({cell[_AXES.index(axis)] for cell in cells})
            escaped = [re.sub(r"([*?[])", r"[\1]", name) for name in names]
            quotas += [Quota(axis, name, 0, limit) for name in escaped]
    return tuple(quotas)


class Gate:
    """Says which cells may still be chosen from so that n are chosen and all quotas are met.

    Args:
        quotas: the rules.
        cells: the cell of every demonstration that may be chosen.
        n: how many are chosen in the end.

    Raises:
        ConfigError: the quotas cannot be met, whatever is chosen.

    >>> gate = Gate((parse_quota("source:a=1"),), [("a", ""), ("b", ""), ("b", "")], 2)
    >>> gate.take(("b", "")), gate.take(("b", ""))
    (True, False)
    """

    def __init__(self, quotas: Sequence[Quota], cells: Sequence[Cell], n: int) -> None:
        available = Counter(cells)
        self._names = sorted(available)
        self._place = {cell: k for k, cell in enumerate(self._names)}
        self._most = np.array([available[cell] for cell in self._names], dtype=float)
        self._taken = np.zeros(len(self._names))
        self._quotas = tuple(quotas)
        self._n = n
        self._closed: set[Cell] = set()
        _check_each(self._quotas, available, n)
        covers = [[float(q.covers(cell)) for cell in self._names] for q in self._quotas]
        rows = np.array([np.ones(len(self._names)), *covers])
        low = [n, *(q.low for q in self._quotas)]
        high = [n, *(np.inf if q.high is None else q.high for q in self._quotas)]
        self._constraint = LinearConstraint(rows, np.array(low, float), np.array(high, float))
        plan = self._solve(self._taken) if self._quotas else self._most
        if plan is None:
            raise _impossible(self._quotas, available, n)
        self._plan: NDArray[np.float64] = plan

    def is_closed(self, cell: Cell) -> bool:
        """Whether the cell was asked for and refused."""
        return cell in self._closed

    def take(self, cell: Cell) -> bool:
        """Choose one demonstration of a cell; False, and nothing changes, when it may not be."""
        if cell in self._closed:
            return False
        k = self._place[cell]
        after = self._taken.copy()
        after[k] += 1
        # the last plan still holds when it has room for one more of this cell
        plan = self._plan if self._plan[k] > self._taken[k] else self._solve(after)
        if plan is None:
            self._closed.add(cell)
            return False
        self._taken, self._plan = after, plan
        return True

    def _solve(self, taken: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Final numbers per cell, at least those taken, that meet all quotas; None if none do."""
        if (taken > self._most).any():
            return None
        found = milp(
            np.zeros(len(taken)),
            integrality=np.ones(len(taken)),
            bounds=Bounds(taken, self._most),
            constraints=self._constraint,
        )
        return None if found.x is None else np.round(found.x)


def _check_each(quotas: Sequence[Quota], available: Mapping[Cell, int], n: int) -> None:
    """The plain mistakes, one quota at a time.

    Raises:
        ConfigError: a pattern fits nothing, or a quota asks for more than there is or than n.
    """
    for quota in quotas:
        count = sum(number for cell, number in available.items() if quota.covers(cell))
        names = sorted({cell[_AXES.index(quota.axis)] for cell in available})
        if not count and quota.low:
            shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
            fix = f"{quota.axis}s with usable demonstrations: {shown}"
            raise ConfigError(f"quota {quota}: nothing fits {quota.pattern!r}", fix=fix)
        if quota.low > count:
            problem = f"quota {quota} asks for {quota.low:,}, {count:,} are usable"
            raise ConfigError(problem, fix="lower it, or collect more")
        if quota.low > n:
            problem = f"quota {quota} asks for {quota.low:,}, but n = {n:,}"
            raise ConfigError(problem, fix="lower it, or raise --n")


def _impossible(quotas: Sequence[Quota], available: Mapping[Cell, int], n: int) -> ConfigError:
    """Which quotas are in the way: at least so many wanted, at most so many allowed."""
    low = max(sum(q.low for q in quotas if q.axis == axis) for axis in _AXES)
    allowed = []
    for axis in _AXES:
        own = [q for q in quotas if q.axis == axis]
        by_name: Counter[str] = Counter()
        for cell, count in available.items():
            by_name[cell[_AXES.index(axis)]] += count
        total = 0
        for name, count in by_name.items():
            probe = (name, name)
            limits = [q.high for q in own if q.high is not None and q.covers(probe)]
            total += min([count, *limits])
        allowed.append((total, axis))
    room, axis = min(allowed)
    if low > n:
        problem = f"the quotas ask for at least {low:,} demonstrations, but n = {n:,}"
    elif room < n:
        problem = f"the quotas by {axis} leave room for {room:,} demonstrations, but n = {n:,}"
    else:
        problem = f"no choice of {n:,} demonstrations meets all {len(quotas)} quotas together"
    return ConfigError(problem, fix="loosen a quota, or change --n")
