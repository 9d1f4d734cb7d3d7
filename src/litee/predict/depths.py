"""Which depths of a backbone are looked at, and which were taken.

Knows nothing of how probes are fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litee.config import FitSettings

#: Ridge of the probes that compare depths.
DEPTH_RIDGE = 500.0


@dataclass(frozen=True, slots=True)
class DepthSearch:
    """Probe loss by depth, and the depth taken.

    Attributes:
        backbone: its name.
        points: (layers, log loss) pairs; empty when the depth was given.
        taken: the depth with the lowest loss, or those that were asked for, ascending.
        layers: of the whole backbone.
    """

    backbone: str
    points: tuple[tuple[int, float], ...]
    taken: tuple[int, ...]
    layers: int

    @property
    def exit_depth(self) -> int:
        """The deepest: layers that are run."""
        return self.taken[-1]


def sample_pairs(count: int, settings: FitSettings) -> npt.NDArray[np.int64]:
    """Numbers of the pairs that the depth search looks at, ascending, of `count` in all."""
    if count <= settings.probe_pairs:
        return np.arange(count)
    rng = np.random.default_rng([settings.seed, count])
    return np.sort(rng.choice(count, settings.probe_pairs, replace=False))


def candidate_depths(layers: int, lora_layers: int) -> list[int]:
    """Depths to probe: every second layer of the upper two thirds, and the last one.

    >>> candidate_depths(12, 2)
    [4, 6, 8, 10, 12]
    """
    lowest = max(2, lora_layers, layers // 3)
    return sorted({*range(lowest, layers + 1, 2), layers})
