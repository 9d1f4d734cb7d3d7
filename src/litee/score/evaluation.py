"""Everything there is to say about some systems on one set of voted pairs.

A system is a name and its (n, 3) probabilities; it does not matter where they come from. Knows
nothing of models, training, files or of how the figures are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from litee.records import Score, VotedPair
from litee.score.cautions import cautions
from litee.score.ceiling import agreement, agreement_rows, consistency, vote_counts
from litee.score.floors import FLOOR_NAMES
from litee.score.intervals import RESAMPLES, GroupBootstrap, Resampled, mean_over_strata
from litee.score.outcomes import (
    Floats,
    Rows,
    Truth,
    check_probabilities,
    confusion,
    length_rows,
    metric_rows,
    swap_difference,
    swap_flips,
)
from litee.score.reliability import calibration, coverage_curve, ece_by_chance, ece_rows
from litee.score.scorecard import Difference, Evaluation, SourceScores, SystemScores

__all__ = ["COMPARED", "PER_SOURCE", "Difference", "Evaluation", "SourceScores", "SystemScores"]
__all__ += ["evaluate"]

#: Metrics on which the main system is compared with the others.
COMPARED = ("log_loss", "accuracy", "accuracy_decisive", "brier", "ece")

#: Metrics shown per source.
PER_SOURCE = ("log_loss", "accuracy", "accuracy_decisive", "ece")

_ROLES = ("main", "system", "floor", "ablation")


@dataclass(frozen=True, slots=True)
class _Sample:
    """The checked input of `evaluate`.

    Attributes:
        systems: name → (n, 3) probabilities.
        swapped: the same with the answers exchanged.
        voted: the pairs.
        truth: their votes.
        groups: (n,) prompt groups.
        rows: (system, metric) → rows of the metric.
    """

    systems: dict[str, Floats]
    swapped: dict[str, Floats]
    voted: Sequence[VotedPair]
    truth: Truth
    groups: NDArray[np.int_]
    rows: dict[tuple[str, str], Rows] = field(default_factory=dict)


def evaluate(
    systems: Mapping[str, Floats],
    voted: Sequence[VotedPair],
    groups: Sequence[int],
    *,
    main: str,
    seed: int,
    swapped: Mapping[str, Floats] | None = None,
    floors: Sequence[str] = FLOOR_NAMES,
    ablations: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Score systems on voted pairs, with intervals over prompt groups.

    Args:
        systems: name → (n, 3) probabilities of a, b, tie.
        voted: the n pairs with their votes.
        groups: (n,) prompt group of each pair.
        main: which system is judged.
        seed: of the bootstrap.
        swapped: for some systems, (n, 3) probabilities with the answers exchanged, as given (column
            0 is the answer then shown first); gives `swap_flip_rate` and `swap_difference`.
        floors: names of systems that are floors.
        ablations: names of systems that are the main one without a part; tables leave them out.
        resamples: of the bootstrap.

    Raises:
        ValueError: no pairs, shapes do not match, rows are not distributions, or `main` or a name
            in `swapped` is not a system.
    """
    sample = _checked(systems, voted, groups, swapped or {}, main)
    bootstrap = GroupBootstrap(sample.groups, seed=seed, resamples=resamples)
    resampled = bootstrap.resample(sample.rows)
    roles = dict.fromkeys(floors, "floor") | dict.fromkeys(ablations, "ablation") | {main: "main"}
    scored = [
        _system_scores(sample, resampled, name, roles.get(name, "system"), (seed, resamples))
        for name in sample.systems
    ]
    ordered = sorted(scored, key=lambda system: _ROLES.index(system.role))
    evaluation = Evaluation(
        main=main,
        systems=tuple(ordered),
        pairs=len(voted),
        votes=round(float(sample.truth.votes.sum())),
        groups=bootstrap.count,
        vote_shares=_triple(sample.truth.votes @ sample.truth.shares / sample.truth.votes.sum()),
        differences=_differences(resampled, main, [s.name for s in ordered if s.name != main]),
        sources=_sources(sample, seed, resamples),
        confusion=tuple(_triple(row) for row in confusion(sample.systems[main], sample.truth)),
        calibration=calibration(sample.systems[main], sample.truth),
        coverage=coverage_curve(sample.systems[main], sample.truth),
        human=agreement(voted, bootstrap),
        source_means=_source_means(sample, seed, resamples),
        main_on_repeated=_on_repeated(sample, main, seed, resamples),
        seed=seed,
        resamples=resamples,
    )
    return replace(evaluation, cautions=cautions(evaluation))


def _checked(
    systems: Mapping[str, Floats],
    voted: Sequence[VotedPair],
    groups: Sequence[int],
    swapped: Mapping[str, Floats],
    main: str,
) -> _Sample:
    """The input with every metric's rows, after checking names and shapes."""
    if not voted or len(groups) != len(voted):
        raise ValueError(f"{len(voted)} pairs and {len(groups)} groups: need one group per pair")
    unknown = ({main} | set(swapped)) - set(systems)
    if unknown:
        raise ValueError(f"not among the systems: {', '.join(sorted(unknown))}")
    n, truth = len(voted), Truth.of(voted)
    sample = _Sample(
        {name: check_probabilities(p, n) for name, p in systems.items()},
        {name: check_probabilities(p, n) for name, p in swapped.items()},
        voted,
        truth,
        np.asarray(groups, dtype=int),
    )
    longer = _longer(voted)
    for name, p in sample.systems.items():
        rows = metric_rows(p, truth) | {"ece": ece_rows(p, truth)}
        rows |= length_rows(p, truth, longer)
        if name in sample.swapped:
            rows["swap_flip_rate"] = Rows(swap_flips(p, sample.swapped[name]), np.ones(n))
        sample.rows.update({(name, metric): row for metric, row in rows.items()})
    return sample


def _longer(voted: Sequence[VotedPair]) -> NDArray[np.int_]:
    """(n,) 1 where A has more characters, −1 where B has, 0 where they are as long."""
    a, b = (
        np.array([sum(map(len, getattr(v.pair, side))) for v in voted])
        for side in ("response_a", "response_b")
    )
    found: NDArray[np.int_] = np.sign(a - b)
    return found


def _system_scores(
    sample: _Sample,
    resampled: Resampled[tuple[str, str]],
    name: str,
    role: str,
    draws: tuple[int, int],
) -> SystemScores:
    """Its metrics; `draws` are the seed and the number of resamples."""
    metrics = {key[1]: resampled.score(key) for key in sample.rows if key[0] == name}
    p = sample.systems[name]
    metrics["ece_by_chance"] = ece_by_chance(
        p, sample.truth, sample.groups, seed=draws[0], resamples=draws[1]
    )
    if name in sample.swapped:
        largest = swap_difference(p, sample.swapped[name])
        metrics["swap_difference"] = Score(largest)
    return SystemScores(name, role, metrics, consistency(metrics["log_loss"], metrics["accuracy"]))


def _differences(
    resampled: Resampled[tuple[str, str]], main: str, others: Sequence[str]
) -> tuple[Difference, ...]:
    return tuple(
        Difference(
            other,
            {metric: resampled.difference((main, metric), (other, metric)) for metric in COMPARED},
        )
        for other in others
    )


def _sources(sample: _Sample, seed: int, resamples: int) -> tuple[SourceScores, ...]:
    """All systems on each source's pairs, the source with most votes first."""
    names = np.array([v.pair.source for v in sample.voted])
    found = [
        _one_source(sample, name, names == name, seed=seed, resamples=resamples)
        for name in sorted(set(names.tolist()))
    ]
    return tuple(sorted(found, key=lambda source: -source.votes))


def _one_source(
    sample: _Sample, name: str, keep: NDArray[np.bool_], *, seed: int, resamples: int
) -> SourceScores:
    bootstrap = GroupBootstrap(sample.groups[keep], seed=seed, resamples=resamples)
    truth = sample.truth.where(keep)
    rows: dict[tuple[str, str], Rows] = {}
    for system, p in sample.systems.items():
        # The calibration error gets bins of its own; the other metrics are sums and need no redo.
        rows[system, "ece"] = ece_rows(p[keep], truth)
        for metric in PER_SOURCE:
            if metric != "ece":
                rows[system, metric] = sample.rows[system, metric].where(keep)
    human = agreement_rows(vote_counts([v for v, k in zip(sample.voted, keep, strict=True) if k]))
    resampled = bootstrap.resample(rows)
    return SourceScores(
        source=name,
        pairs=int(keep.sum()),
        votes=round(float(truth.votes.sum())),
        groups=bootstrap.count,
        metrics={
            system: {metric: resampled.score((system, metric)) for metric in PER_SOURCE}
            for system in sample.systems
        },
        human=bootstrap.resample(human).score("three_way"),
    )


def _source_means(sample: _Sample, seed: int, resamples: int) -> dict[str, Score]:
    """Every system's mean of the sources' log losses, each source resampled by itself."""
    names = np.array([v.pair.source for v in sample.voted])
    parts = []
    for number, source in enumerate(sorted(set(names.tolist()))):
        keep = names == source
        bootstrap = GroupBootstrap(
            sample.groups[keep], seed=(seed, number + 1), resamples=resamples
        )
        parts.append(
            bootstrap.resample(
                {name: sample.rows[name, "log_loss"].where(keep) for name in sample.systems}
            )
        )
    return {name: mean_over_strata(parts, name) for name in sample.systems}


def _on_repeated(sample: _Sample, main: str, seed: int, resamples: int) -> dict[str, Score]:
    """The main system's accuracies on the pairs that two or more people judged."""
    keep = vote_counts(sample.voted).sum(axis=1) >= 2
    rows = {m: sample.rows[main, m].where(keep) for m in ("accuracy", "accuracy_decisive")}
    bootstrap = GroupBootstrap(sample.groups[keep], seed=seed, resamples=resamples)
    resampled = bootstrap.resample(rows)
    return {metric: resampled.score(metric) for metric in rows}


def _triple(values: Floats) -> tuple[float, float, float]:
    a, b, tie = (float(v) for v in values)
    return a, b, tie
