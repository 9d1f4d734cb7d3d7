"""What is counted while demonstrations are read: seen, removed by which filter, lost to damage.

Knows nothing of any format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.gathering import Tally
from litee.collect.sampling import sample_sites
from litee.collect.zst import DamagedError, json_lines

NOT_DRAWN = "not drawn into the sample"
DAMAGED = "file damaged: nothing read from there on"

T = TypeVar("T")


class Reading:
    """Counts of one run over one or more files.

    Attributes:
        settings: the filters' values.
        read: candidates seen, whether used or not.
        removed: candidates that a filter took out, by reason, in the order of the filters.
        noticed: demonstrations that were changed while reading, by reason.
        lost: records that could not be read, by reason.
        random: draws of this run.
        made_ids: ids that were made from a file's name and row, because there was none.
    """

    def __init__(self, settings: DemonstrationSettings) -> None:
        self.settings = settings
        self.read = 0
        self.removed = Tally()
        self.noticed = Tally()
        self.lost = Tally()
        self.random = np.random.default_rng(settings.seed)
        self.made_ids: set[str] = set()

    def salvaged(self, items: Iterable[T]) -> Iterator[T]:
        """The items up to a damaged place, which ends them when `salvage` is set.

        Raises:
            DamagedError: without `salvage`; it says how many candidates were read before.
        """
        try:
            yield from items
        except DamagedError as error:
            if not self.settings.salvage:
                problem = f"{error.problem}; {self.read:,} candidates were read before"
                raise DamagedError(problem, place=error.place, fix=error.fix) from error
            self.lost.add(DAMAGED, f"{error.place} ({error.problem})")

    def json_lines(self, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
        """`zst.json_lines`, counted here and salvaged."""
        return self.salvaged(json_lines(path, self.lost))

    def sample(
        self, pools: Mapping[str, Sequence[T]], count: int, temperature: float
    ) -> Iterator[T]:
        """`sampling.sample_sites`; what is not drawn is counted as removed."""
        drawn = 0
        for item in sample_sites(pools, count, temperature, self.random):
            drawn += 1
            yield item
        for _ in range(sum(map(len, pools.values())) - drawn):
            self.removed.add(NOT_DRAWN, ", ".join(sorted(pools)[:5]))
