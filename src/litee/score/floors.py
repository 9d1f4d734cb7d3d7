"""Predictors without a model: what any judge has to beat.

Fitted on the training part only, per vote (a pair with three votes counts three times), and
unable to tell the slots apart unless asked to. Knows nothing of the judge, of files or of metrics.

Lengths are characters of an answer, all its turns together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.records import Pair, Triple, VotedPair
from litee.score.outcomes import Floats
from litee.score.strengths import fit_strengths

#: Names under which `floor_systems` returns its predictors.
UNIFORM, PRIOR, LENGTH, LONGER = "uniform", "prior", "length bins", "longer answer"
#: Name of the predictor that knows who wrote the answers.
SYSTEM_NAMES = "system names"
FLOOR_NAMES: tuple[str, ...] = (UNIFORM, PRIOR, LENGTH, LONGER)

#: Bins of the absolute length difference.
LENGTH_BINS = 5


def uniform(n: int) -> Floats:
    """(n, 3) probabilities of 1/3.

    >>> uniform(1).round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    return np.full((n, 3), 1 / 3)


def prior(training: Sequence[VotedPair], *, symmetric: bool = True) -> Triple:
    """The training votes' shares of a, b and tie, with one vote added to each.

    Args:
        training: at least the training part; may be empty (then 1/3 each).
        symmetric: give a and b their mean, so that the slot carries no information.

    >>> pair = Pair("1", ("q",), ("x",), ("y",))
    >>> [round(x, 3) for x in prior([VotedPair(pair, (1.0, 0.0, 0.0), 3)])]
    [0.417, 0.417, 0.167]
    """
    counts = _counts(training).sum(axis=0) + 1
    a, b, tie = (float(c) for c in counts / counts.sum())
    return ((a + b) / 2, (a + b) / 2, tie) if symmetric else (a, b, tie)


def answer_lengths(pairs: Sequence[Pair]) -> NDArray[np.int_]:
    """(n, 2) characters of answer A and of answer B, all turns together."""
    lengths = [(sum(map(len, p.response_a)), sum(map(len, p.response_b))) for p in pairs]
    return np.array(lengths, dtype=int).reshape(-1, 2)


def longer_answer(pairs: Sequence[Pair]) -> Floats:
    """(n, 3) all probability on the longer answer; one half each when lengths are equal.

    A hard verdict: it has an accuracy but no finite log loss.

    >>> longer_answer([Pair("1", ("q",), ("xx",), ("y",))]).tolist()
    [[1.0, 0.0, 0.0]]
    """
    sign = np.sign(np.diff(answer_lengths(pairs), axis=1)[:, 0])
    return np.column_stack([(1 - sign) / 2, (1 + sign) / 2, np.zeros(len(sign))])


@dataclass(frozen=True, slots=True)
class LengthFloor:
    """Outcome probabilities given how much longer one answer is than the other.

    Attributes:
        edges: ascending inner edges of the bins of |length A − length B|.
        table: (bins, 3) probabilities that the longer answer wins, that the shorter one wins, and
            of a tie. Symmetric by construction: exchanging the answers exchanges the first two.
    """

    edges: Floats
    table: Floats

    @classmethod
    def fit(cls, training: Sequence[VotedPair], bins: int = LENGTH_BINS) -> LengthFloor:
        """Bins with about equal numbers of pairs; one vote is added to every cell.

        >>> pair = Pair("1", ("q",), ("xxxx",), ("y",))
        >>> floor = LengthFloor.fit([VotedPair(pair, (1.0, 0.0, 0.0), 5)], bins=1)
        >>> floor.table.round(3).tolist()
        [[0.75, 0.125, 0.125]]
        """
        difference = _differences([v.pair for v in training])
        quantiles = np.arange(1, bins) / bins
        size = np.abs(difference)
        edges = np.quantile(size, quantiles) if len(size) else np.zeros(bins - 1)
        counts = _counts(training)
        table = np.ones((len(edges) + 1, 3))
        np.add.at(table, np.searchsorted(edges, size, side="left"), _by_length(counts, difference))
        return cls(edges, table / table.sum(axis=1, keepdims=True))

    def predict(self, pairs: Sequence[Pair]) -> Floats:
        """(n, 3) probabilities of a, b and tie; a and b are equal when the lengths are."""
        difference = _differences(pairs)
        number = np.searchsorted(self.edges, np.abs(difference), side="left")
        # The mapping between (longer, shorter) and (a, b) is its own inverse.
        return _by_length(self.table[number], difference)


def system_names(training: Sequence[VotedPair], pairs: Sequence[Pair]) -> Floats | None:
    """(n, 3) what the names of the two systems tell, without a look at any text.

    Davidson's (1970) model of one strength per system and one tie parameter, fitted on the training
    votes; one vote, a third of each outcome, is added to every two systems that met. No floor: a
    judge of unnamed answers need not reach it. Systems that the training votes do not name are as
    strong as the average.

    Returns:
        None where a pair does not name both of its systems.

    >>> pair = Pair("1", ("q",), ("x",), ("y",), model_a="strong", model_b="weak")
    >>> votes = [VotedPair(pair, (0.75, 0.25, 0.0), 8)]
    >>> system_names(votes, [pair, pair.swapped()]).round(3).tolist()
    [[0.704, 0.259, 0.037], [0.259, 0.704, 0.037]]
    """
    both = [*(v.pair for v in training), *pairs]
    if not both or not all(p.model_a and p.model_b for p in both):
        return None
    numbers = {name: k for k, name in enumerate(dict.fromkeys(_names(both)))}
    met: dict[tuple[int, int], Floats] = {}
    for voted, counts in zip(training, _counts(training), strict=True):
        a, b = numbers[voted.pair.model_a], numbers[voted.pair.model_b]
        one, two, tie = counts if a <= b else counts[[1, 0, 2]]
        total = met.setdefault((min(a, b), max(a, b)), np.full(3, 1 / 3))
        total += (one, two, tie)
    apart = {key: counts for key, counts in met.items() if key[0] != key[1]}
    if not apart:
        return None
    found = fit_strengths(
        np.array(list(apart.values()))[None], np.array(list(apart)), len(numbers), "davidson"
    )
    theta, tie_log = found.theta[0], float(found.tie[0])
    seen = {number for key in apart for number in key}
    theta = np.where([k in seen for k in range(len(theta))], theta, 0.0)
    gaps = np.array([theta[numbers[p.model_a]] - theta[numbers[p.model_b]] for p in pairs])
    likely = np.exp(np.column_stack([gaps / 2, -gaps / 2, np.full(len(pairs), tie_log)]))
    result: Floats = likely / likely.sum(axis=1, keepdims=True)
    return result


def _names(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        yield from (pair.model_a, pair.model_b)


def floor_systems(training: Sequence[VotedPair], pairs: Sequence[Pair]) -> dict[str, Floats]:
    """All floors, fitted on `training`, as (n, 3) predictions for `pairs`, by name."""
    n = len(pairs)
    return {
        UNIFORM: uniform(n),
        PRIOR: np.tile(np.array(prior(training)), (n, 1)),
        LENGTH: LengthFloor.fit(training).predict(pairs),
        LONGER: longer_answer(pairs),
    }


def _counts(voted: Sequence[VotedPair]) -> Floats:
    """(n, 3) votes per outcome."""
    shares = np.array([v.shares for v in voted], dtype=float).reshape(-1, 3)
    counts: Floats = shares * np.array([v.votes for v in voted], dtype=float)[:, None]
    return counts


def _differences(pairs: Sequence[Pair]) -> NDArray[np.int_]:
    """(n,) length of A minus length of B."""
    lengths = answer_lengths(pairs)
    return lengths[:, 0] - lengths[:, 1]


def _by_length(values: Floats, difference: NDArray[np.int_]) -> Floats:
    """Columns (a, b, tie) as (longer, shorter, tie) or back; equal lengths share a's and b's."""
    swapped = values[:, [1, 0, 2]]
    sign = np.sign(difference)[:, None]
    ordered: Floats = values * (1 + sign) / 2 + swapped * (1 - sign) / 2
    return ordered
