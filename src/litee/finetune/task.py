"""Votes as arrays: what is learnt from, how much it counts, and what is held out when.

Knows nothing of states, members and how they are fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litee.collect.annotators import AnnotatorWeights, agreement_weights
from litee.config import FitSettings
from litee.errors import ConfigError
from litee.finetune.per_source import Own
from litee.finetune.probe import Floats, Ints
from litee.records import Folds, VotedPair

#: Pairs on which every outcome has a third of the vote, learnt from beside the real ones (Perks
#: 1947, J. Inst. Actuaries 73: 1/K of a vote for each of K outcomes).
PRIOR_PAIRS = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """The votes as arrays.

    Attributes:
        shares: (pairs, 3) vote shares.
        weights: (pairs,) training weights.
        folds: the split.
        seed: of everything random.
        sources: (pairs,) number of each pair's source, when sources have weights of their own.
        source_names: of those numbers.
        apart: every source has a head of its own, instead of deviations from a shared one.
        own: what of a shared head deviates.
        taught: (pairs, 3) what is learnt from instead of the shares: labels that annotators'
            weights, a majority or a teacher have changed, and a prior.
        annotators: how much votes count in them, when not all alike.
    """

    shares: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    folds: Folds
    seed: int
    sources: Ints | None = None
    source_names: tuple[str, ...] = ()
    apart: bool = False
    own: Own = "weights"
    taught: npt.NDArray[np.float64] | None = None
    annotators: AnnotatorWeights | None = None

    @property
    def targets(self) -> npt.NDArray[np.float64]:
        """(pairs, 3) what members learn from; they are chosen and judged by the shares."""
        return self.shares if self.taught is None else self.taught

    def sources_of(self, pairs: Ints) -> Ints | None:
        """The sources of some pairs, None unless they deviate from shared weights."""
        return None if self.sources is None or self.apart else self.sources[pairs]

    def parts(self, pairs: Ints) -> list[Ints]:
        """Some pairs, divided into those that one head learns from."""
        if self.sources is None or not self.apart:
            return [pairs]
        own = self.sources[pairs]
        return [pairs[own == source] for source in np.unique(own)]

    @property
    def fold(self) -> Ints:
        """(pairs,) fold that holds each pair out."""
        return np.asarray(self.folds.folds, dtype=np.int64)


def make_task(
    voted: Sequence[VotedPair],
    folds: Folds,
    settings: FitSettings,
    teacher: npt.NDArray[np.float64] | None = None,
) -> Task:
    """Arrays of shares and weights; weights have mean 1.

    Args:
        voted: the pairs.
        folds: their split.
        settings: how pairs, annotators and the teacher are weighted.
        teacher: (pairs, 3) its probabilities; rows of NaN where it has none, and votes alone count.

    Raises:
        ConfigError: sources shall differ, and there is only one.
    """
    shares = np.array([v.shares for v in voted], dtype=np.float64)
    if settings.pair_weight == "votes":
        weights = np.array([v.votes for v in voted], dtype=np.float64)
    elif settings.pair_weight == "prompt":
        sizes = np.bincount(folds.groups)
        weights = np.array([sizes[g] ** -0.5 for g in folds.groups])
    else:
        weights = np.ones(len(voted))
    sources, names = None, np.array([v.pair.source for v in voted])
    if settings.sources != "together":
        if len(set(names)) < 2:
            raise ConfigError(
                f"sources = {settings.sources!r} needs votes of two sources; all are of "
                f"{str(names[0])!r}",
                fix="leave it out, or add votes whose source has another name",
            )
        names, sources = np.unique(names, return_inverse=True)
    annotators = agreement_weights(voted) if settings.annotators == "agreement" else None
    labels = shares if annotators is None else annotators.shares(voted)
    if not settings.soft_labels:
        labels = majority(labels)
    if teacher is not None:
        labels = blend(labels, teacher, settings.teacher_weight)
    return Task(
        shares,
        weights / weights.mean(),
        folds,
        settings.seed,
        sources=None if sources is None else sources.astype(np.int64),
        source_names=() if sources is None else tuple(map(str, names)),
        apart=settings.sources == "apart",
        own="lengths" if settings.sources == "lengths" else "weights",
        taught=with_prior(labels),
        annotators=annotators,
    )


def with_prior(labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, 3) labels (n · labels + m / 3) / (n + m), with m = `PRIOR_PAIRS`.

    An outcome that nobody has named yet is rare then, not impossible: a head's free bias has a
    finite best value.

    >>> with_prior(np.array([[1.0, 0, 0], [0, 1.0, 0]])).round(3).tolist()
    [[0.778, 0.111, 0.111], [0.111, 0.778, 0.111]]
    """
    count = len(labels)
    mixed: npt.NDArray[np.float64] = (count * labels + PRIOR_PAIRS / 3) / (count + PRIOR_PAIRS)
    return mixed


def majority(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, 3) hard labels: all on the outcome with the largest share, divided where several are.

    >>> majority(np.array([[0.6, 0.4, 0.0], [0.5, 0.0, 0.5]])).tolist()
    [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
    """
    most = (shares >= shares.max(axis=1, keepdims=True) - 1e-9).astype(np.float64)
    labels: npt.NDArray[np.float64] = most / most.sum(axis=1, keepdims=True)
    return labels


def blend(
    shares: npt.NDArray[np.float64], teacher: npt.NDArray[np.float64], weight: float
) -> npt.NDArray[np.float64]:
    """(n, 3) targets (1 − w) · shares + w · teacher; the shares where the teacher says nothing.

    Their cross-entropy is that of the votes and that of the teacher, weighted alike: distillation
    at temperature 1 (Hinton et al., 2015, arXiv 1503.02531, section 2).

    >>> votes = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    >>> told = np.array([[0.6, 0.2, 0.2], [np.nan] * 3])
    >>> blend(votes, told, 0.5).tolist()
    [[0.8, 0.1, 0.1], [0.0, 1.0, 0.0]]
    """
    known = np.isfinite(teacher).all(axis=1, keepdims=True)
    targets: npt.NDArray[np.float64] = np.where(
        known, (1 - weight) * shares + weight * teacher, shares
    )
    return targets


def cross_entropy(probabilities: Floats, shares: Floats, weights: Floats) -> float:
    """Weighted mean of −Σ shares · log p, in nats."""
    losses = -(shares * np.log(np.maximum(probabilities, 1e-12))).sum(1)
    return float(np.average(losses, weights=weights))


def stop_split(folds: Folds, pairs: Ints, seed: int, *, share: float) -> tuple[Ints, Ints]:
    """Split pairs into a training and a stopping part, whole prompt groups on each side.

    Args:
        folds: for the groups.
        pairs: to split; from at least two groups, or both parts are all of them.
        seed: which groups stop.
        share: of the pairs that stop: at least one group, never all, and no group that would make
            it more than twice that unless all groups are as large; then the smallest one.
    """
    groups = np.asarray(folds.groups)[pairs]
    distinct = np.unique(groups)
    if len(distinct) < 2:
        return pairs, pairs
    order = np.random.default_rng([seed, len(pairs)]).permutation(distinct)
    chosen: set[int] = set()
    held = 0
    for group in order[:-1]:
        if held >= share * len(pairs):
            break
        size = int((groups == group).sum())
        if held + size > 2 * share * len(pairs):
            continue
        chosen.add(int(group))
        held += size
    if not chosen:  # all are large
        chosen = {int(distinct[np.unique(groups, return_counts=True)[1].argmin()])}
    stops = np.isin(groups, list(chosen))
    return pairs[~stops], pairs[stops]
