"""How long answers are, as columns beside their states.

Hidden states tell length only roughly, and a ridge that suits a thousand coordinates holds back
the few that matter most to voters. Knows nothing of heads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from litee.encode.forest import Forest
from litee.finetune.probe import PairStates

#: Number of columns.
TERMS = 3


def length_terms(characters: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(n,) lengths in characters → (n, 3): log(1 + c), √c and c / 1,000.

    Together they follow a taste that turns: longer is better, up to a point.

    >>> length_terms(np.array([0, 99])).round(3).tolist()
    [[0.0, 0.0, 0.0], [4.605, 9.95, 0.099]]
    """
    return np.stack([np.log1p(characters), np.sqrt(characters), characters / 1000], axis=1)


def pair_states(
    states: npt.NDArray[np.float32], forest: Forest, *, lengths: bool, longest: int | None = None
) -> PairStates:
    """What the heads of a forest's pairs read.

    Args:
        states: (leaves, width) pooled states.
        forest: whose leaves they are.
        lengths: whether `length_terms` come behind them.
        longest: characters that a longer answer counts as; None for those it has.
    """
    if not lengths:
        return PairStates(states, forest.left, forest.right)
    width = states.shape[1]
    characters = forest.characters if longest is None else np.minimum(forest.characters, longest)
    both = np.concatenate([states, length_terms(characters).astype(np.float32)], axis=1)
    return PairStates(both, forest.left, forest.right, tuple(range(width, width + TERMS)))
