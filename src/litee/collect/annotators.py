"""How much an annotator's votes count: by agreement with the others who judged the same pairs.

Knows nothing of files, folds and what is learnt from the votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from litee.records import CLASSES, VotedPair

#: Pairs that the mean agreement of a source's annotators counts for in everyone's own.
PRIOR_PAIRS = 10

#: Agreement above chance that is rounding, not agreement.
_ROUNDING = 1e-9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AnnotatorWeights:
    """How much votes count.

    Attributes:
        weights: (source, annotator) → weight, at least 0, with mean 1 in every source. Whoever is
            not in it, such as the unknown "", has 1.
        alike: source → why all its votes count alike, for sources where they do.
    """

    weights: Mapping[tuple[str, str], float]
    alike: Mapping[str, str] = field(default_factory=dict)

    def shares(self, voted: Sequence[VotedPair]) -> Floats:
        """(n, 3) vote shares of pairs, every vote multiplied by its annotator's weight.

        A pair keeps the shares it has where its votes' weights are all 0, or its votes are unknown.

        >>> from litee.records import Outcome, Pair
        >>> pair = Pair("1", ("q",), ("x",), ("y",), source="s")
        >>> two = VotedPair(pair, (0.5, 0.5, 0.0), 2, (Outcome.A, Outcome.B), ("ann", "bob"))
        >>> AnnotatorWeights({("s", "ann"): 1.5, ("s", "bob"): 0.5}).shares([two]).tolist()
        [[0.75, 0.25, 0.0]]
        """
        found = np.array([v.shares for v in voted], dtype=np.float64)
        for row, item in zip(found, voted, strict=True):
            sums = np.zeros(len(CLASSES))
            for name, outcome, weight in _votes(item):
                sums[outcome] += weight * self.weights.get((item.pair.source, name), 1.0)
            if sums.sum() > 0:
                row[:] = sums / sums.sum()
        return found


def agreement_weights(voted: Sequence[VotedPair]) -> AnnotatorWeights:
    """Weights of annotators by how often they agree with the others, source by source.

    Derived here; agreement with the others is that of inter-annotator agreement. An annotator's
    agreement is the mean, over the n pairs on which others voted too, of the share of the others'
    votes with the same outcome; then (n · agreement + 10 · mean) / (n + 10) with the mean of the
    source's annotators who have such pairs. The weight is what exceeds chance, or 0, divided by its
    mean over the annotators. Chance is Σ p_k² with the outcomes' shares p among the source's votes.
    All votes count once here, whatever weight they came with; those without a name are others.

    Args:
        voted: the pairs. Annotators of one name in two sources are two.

    Returns:
        The weights; all are 1 in a source where nobody shares a pair or exceeds chance.

    In the example ann and bob agree on all ten pairs, and cat agrees with them on five. So ann and
    bob have an agreement of 3/4, cat has 1/2, their mean is 2/3, and chance is 1/2, since half of
    the votes are for A: 17/24, 17/24 and 14/24 less 12/24.

    >>> from litee.records import Outcome, Pair
    >>> cast = ["aaa"] * 2 + ["bbb"] * 3 + ["aab"] * 4 + ["bba"]
    >>> def pair(votes: str) -> VotedPair:
    ...     winners = tuple(map(Outcome, votes))
    ...     shown = Pair("1", ("q",), ("x",), ("y",))
    ...     return VotedPair(shown, (0.5, 0.5, 0.0), 3, winners, ("ann", "bob", "cat"))
    >>> found = agreement_weights([pair(votes) for votes in cast])
    >>> [round(weight, 3) for weight in found.weights.values()]
    [1.25, 1.25, 0.5]
    """
    by_source: dict[str, list[VotedPair]] = {}
    for item in voted:
        by_source.setdefault(item.pair.source, []).append(item)
    weights: dict[tuple[str, str], float] = {}
    alike: dict[str, str] = {}
    for source, items in by_source.items():
        found, reason = _weights_of(_agreements(items), _chance(items))
        weights |= {(source, name): weight for name, weight in found.items()}
        if reason:
            alike[source] = reason
    return AnnotatorWeights(weights, alike)


def _weights_of(
    agreements: Mapping[str, Sequence[float]], chance: float
) -> tuple[dict[str, float], str]:
    """Weights of a source's annotators; why they are all 1, or ""."""
    own = [float(np.mean(shared)) for shared in agreements.values() if shared]
    if not own:
        return dict.fromkeys(
            agreements, 1.0
        ), "no pair has votes of a named annotator and of another"
    mean = float(np.mean(own))
    above = {
        name: (sum(shared) + PRIOR_PAIRS * mean) / (len(shared) + PRIOR_PAIRS) - chance
        for name, shared in agreements.items()
    }
    above = {name: gain if gain > _ROUNDING else 0.0 for name, gain in above.items()}
    total = sum(above.values())
    if not total:
        return dict.fromkeys(agreements, 1.0), "nobody agrees with the others more than by chance"
    return {name: gain * len(above) / total for name, gain in above.items()}, ""


def _agreements(voted: Sequence[VotedPair]) -> dict[str, list[float]]:
    """Named annotator → share of the others' votes like the own, of each pair others voted on."""
    found: dict[str, list[float]] = {}
    for item in voted:
        counts: dict[str, Floats] = {}
        for name, outcome, _ in _votes(item):
            counts.setdefault(name, np.zeros(len(CLASSES)))[outcome] += 1
        for name, own in counts.items():
            if not name:
                continue
            shared = found.setdefault(name, [])
            others = sum(counts.values()) - own
            if others.sum():
                shared.append(float(own @ others / (own.sum() * others.sum())))
    return found


def _chance(voted: Sequence[VotedPair]) -> float:
    """Chance that two votes have the same outcome; 0 where no vote is known."""
    outcomes = [outcome for item in voted for _, outcome, _ in _votes(item)]
    shares = np.bincount(outcomes, minlength=len(CLASSES)) / max(1, len(outcomes))
    return float(shares @ shares)


def _votes(item: VotedPair) -> Iterator[tuple[str, int, float]]:
    """Annotator, class and weight of every vote that is known."""
    names = item.annotators or ("",) * len(item.winners)
    weights = item.weights or (1.0,) * len(item.winners)
    for name, winner, weight in zip(names, item.winners, weights, strict=True):
        yield name, winner.class_index, weight
