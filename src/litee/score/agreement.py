"""Which metric agrees with people: every metric against ratings or votes, at every level.

Puts together the pair figures of `litee.score.pairwise` and the correlations of
`litee.score.correlations`, with people's agreement with each other as ceiling, a random verdict
as floor, and paired differences between metrics. Knows nothing of files, texts or pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from litee.progress import progress
from litee.records import Score, VotedPair
from litee.score.agreement_study import AgreementStudy, BesideRater, MetricAgreement
from litee.score.beside_raters import beside_raters, mean_of_others
from litee.score.ceiling import vote_counts
from litee.score.comparisons import compare
from litee.score.correlations import (
    Draws,
    Sample,
    item_correlations,
    prompt_correlations,
    system_correlations,
)
from litee.score.floors import answer_lengths
from litee.score.intervals import GroupBootstrap, Resampled
from litee.score.outcomes import Floats
from litee.score.pairwise import (
    PAIR_MEASURES,
    PairTruth,
    Verdicts,
    human_sums,
    pair_sums,
    resample_pairs,
    threshold_for_ties,
)
from litee.score.rated import Metric, Rated, derived_pairs, reliability, within_prompt_pairs

#: Names of the rows that are no metrics.
PEOPLE, CHANCE = "people", "chance"

#: The metric that is always added when texts are known.
LENGTH = "length"

_CONSTANT = "constant, or too few answers"
_NO_PAIRS = "no two answers to one prompt"

Figures = dict[tuple[str, str], Draws]


def agree_with_ratings(
    rated: Rated, *, seed: int, resamples: int = 1000, title: str = ""
) -> AgreementStudy:
    """Every metric of `rated` against people's mean rating.

    Args:
        rated: answers, ratings and scores.
        seed: of the bootstrap over prompts and of the folds of the tie threshold.
        resamples: of the bootstrap.
        title: of the study.
    """
    first, second = within_prompt_pairs(rated.prompts)
    truth = derived_pairs(rated, rated.mean, first, second)
    verdicts = {
        m.name: _from_answers(m.oriented, first, second, truth, seed) for m in rated.metrics
    }
    figures: Figures = {}
    with progress("correlations", len(rated.metrics), "metrics") as advance:
        for metric in rated.metrics:
            sample = _answers(rated, metric.oriented, rated.mean, seed, resamples)
            figures |= {(metric.name, key): d for key, d in _correlations(sample).items()}
            advance(1)
    people, people_figures = _raters(rated, first, second, seed=seed, resamples=resamples)
    beside = beside_raters(rated, first, second, seed=seed, resamples=resamples)
    return _study(
        metrics=rated.metrics,
        truth=truth,
        verdicts=verdicts,
        figures=figures | people_figures,
        people=people,
        beside=beside,
        seed=seed,
        resamples=resamples,
        facts=AgreementStudy(
            title=title,
            kind="ratings",
            source=rated.source,
            answers=len(rated.prompts),
            pairs=len(first),
            votes=int(np.isfinite(rated.ratings).sum()),
            prompts=len(np.unique(rated.prompts)),
            systems=rated.system_names,
            outcome_shares=_shares(truth.counts, mirrored=True),
            reliability=reliability(rated.ratings),
            seed=seed,
            resamples=resamples,
        ),
    )


def agree_with_votes(
    voted: Sequence[VotedPair],
    groups: Sequence[int],
    metrics: Sequence[Metric],
    *,
    seed: int,
    resamples: int = 1000,
    title: str = "",
    source: str = "",
) -> AgreementStudy:
    """Every metric against single votes on pairs; the length of the answers is always among them.

    Args:
        voted: the m pairs.
        groups: (m,) prompt group of each.
        metrics: with (m, 2) scores or (m, 3) probabilities.
        seed: as `agree_with_ratings`.
        resamples: likewise.
        title: of the study.
        source: of the votes, for the reader.
    """
    lengths = answer_lengths([v.pair for v in voted]).astype(float)
    if all(m.name != LENGTH for m in metrics):
        metrics = [*metrics, Metric(LENGTH, lengths)]
    counts = vote_counts(voted)
    truth = PairTruth(counts, np.asarray(groups, dtype=int), np.sign(lengths[:, 0] - lengths[:, 1]))
    verdicts = {m.name: _from_pairs(m.oriented, truth, seed) for m in metrics}
    gap = lengths[:, 0] - lengths[:, 1]
    systems = _systems(voted)
    figures: Figures = {}
    with progress("correlations", len(metrics), "metrics") as advance:
        for name, verdict in verdicts.items():
            found = _pair_correlations(verdict, truth, gap, systems, (seed, resamples))
            figures |= {(name, key): draws for key, draws in found.items()}
            advance(1)
    names = sorted({v.pair.model_a for v in voted} | {v.pair.model_b for v in voted} - {""})
    return _study(
        metrics=metrics,
        truth=truth,
        verdicts=verdicts,
        figures=figures,
        people=human_sums(counts),
        seed=seed,
        resamples=resamples,
        facts=AgreementStudy(
            title=title,
            kind="votes",
            source=source,
            answers=2 * len(voted),
            pairs=len(voted),
            votes=round(float(counts.sum())),
            prompts=len(set(groups)),
            systems=tuple(names),
            outcome_shares=_shares(counts),
            reliability=None,
            seed=seed,
            resamples=resamples,
        ),
    )


def _shares(counts: Floats, *, mirrored: bool = False) -> tuple[float, float, float]:
    """Shares of a, b, tie; every pair in both orders when their order is arbitrary."""
    a, b, tie = (float(x) for x in counts.sum(axis=0) / max(counts.sum(), 1.0))
    return ((a + b) / 2, (a + b) / 2, tie) if mirrored else (a, b, tie)


def _from_answers(
    values: Floats,
    first: NDArray[np.int_],
    second: NDArray[np.int_],
    truth: PairTruth,
    seed: int,
) -> Verdicts:
    a, b = values[first], values[second]
    return Verdicts.from_scores(a, b, threshold_for_ties(a, b, truth, seed=seed))


def _from_pairs(values: Floats, truth: PairTruth, seed: int) -> Verdicts:
    if values.shape[1] == 3:
        return Verdicts.from_probabilities(values)
    a, b = values[:, 0], values[:, 1]
    return Verdicts.from_scores(a, b, threshold_for_ties(a, b, truth, seed=seed))


def _answers(rated: Rated, x: Floats, y: Floats, seed: int, resamples: int) -> Sample | None:
    """The answers with a score and a rating; None when there are fewer than three."""
    keep = np.isfinite(x) & np.isfinite(y)
    z = rated.lengths
    if z is not None:
        known = np.isfinite(z)
        z = z[keep] if known[keep].all() else None
    if keep.sum() < 3:
        return None
    bootstrap = GroupBootstrap(rated.prompts[keep], seed=seed, resamples=resamples)
    return Sample(x[keep], y[keep], z, rated.systems[keep], bootstrap)


def _correlations(sample: Sample | None) -> dict[str, Draws]:
    if sample is None:
        return {}
    found = item_correlations(sample) | prompt_correlations(sample)
    return found | system_correlations(sample)


def _pair_correlations(
    verdict: Verdicts,
    truth: PairTruth,
    gap: Floats,
    systems: NDArray[np.int_] | None,
    draws: tuple[int, int],
) -> dict[str, Draws]:
    """Correlation of the metric's lean with the vote margin, and of the systems' win rates.

    Every pair counts in both orders, so that the figures do not depend on which answer is A.
    """
    keep = verdict.scored & (truth.counts.sum(axis=1) > 0)
    if keep.sum() < 3:
        return {}
    lean, margin, length = verdict.lean[keep], truth.margin[keep], gap[keep]
    groups = np.tile(truth.groups[keep], 2)
    bootstrap = GroupBootstrap(groups, seed=draws[0], resamples=draws[1])
    sides = np.repeat([0, 1], keep.sum())
    both = Sample(_both(lean), _both(margin), _both(length), sides, bootstrap)
    found = item_correlations(both) | prompt_correlations(both)
    if systems is None:
        return found
    credit, shares = verdict.credit[keep], truth.counts[keep]
    shares = shares / shares.sum(axis=1, keepdims=True)
    wins = [np.concatenate([p[:, s] + p[:, 2] / 2 for s in (0, 1)]) for p in (credit, shares)]
    named = np.concatenate([systems[keep, 0], systems[keep, 1]])
    return found | system_correlations(Sample(wins[0], wins[1], None, named, bootstrap))


def _both(values: Floats) -> Floats:
    return np.concatenate([values, -values])


def _systems(voted: Sequence[VotedPair]) -> NDArray[np.int_] | None:
    """(m, 2) numbers of the systems of A and B; None unless all are named."""
    names = [name for v in voted for name in (v.pair.model_a, v.pair.model_b)]
    if not all(names):
        return None
    return np.unique(names, return_inverse=True)[1].reshape(-1, 2)


def _raters(
    rated: Rated,
    first: NDArray[np.int_],
    second: NDArray[np.int_],
    *,
    seed: int,
    resamples: int,
) -> tuple[Floats, Figures]:
    """Each rater against the mean of the others, averaged over raters."""
    count = rated.ratings.shape[1]
    sums = np.zeros((len(first), 15))
    if count < 2:
        return sums, {}
    found: list[dict[str, Draws]] = []
    for k in range(count):
        mean = mean_of_others(rated.ratings, k)
        alone = rated.ratings[:, k]
        truth = derived_pairs(rated, mean, first, second)
        sums += pair_sums(truth, Verdicts.from_scores(alone[first], alone[second]))
        found.append(_correlations(_answers(rated, alone, mean, seed, resamples)))
    figures: Figures = {}
    for key in set.intersection(*(set(f) for f in found)):
        values = [f[key].value for f in found]
        known_values = [v for v in values if v is not None]
        value = float(np.mean(known_values)) if len(known_values) == count else None
        same = len({len(f[key].draws) for f in found}) == 1
        draws = np.mean([f[key].draws for f in found], axis=0) if same else np.empty(0)
        figures[PEOPLE, key] = Draws(value, draws)
    return sums, figures


def _study(
    *,
    metrics: Sequence[Metric],
    truth: PairTruth,
    verdicts: Mapping[str, Verdicts],
    figures: Figures,
    people: Floats,
    seed: int,
    resamples: int,
    facts: AgreementStudy,
    beside: Sequence[BesideRater] = (),
) -> AgreementStudy:
    sums = {name: pair_sums(truth, verdict) for name, verdict in verdicts.items()}
    third = np.full((len(truth.counts), 3), 1 / 3)
    every = sums | {CHANCE: pair_sums(truth, Verdicts.from_probabilities(third)), PEOPLE: people}
    bootstrap = GroupBootstrap(truth.groups, seed=seed, resamples=resamples)
    pairs = resample_pairs(every, bootstrap) if len(truth.groups) else _no_pairs(every)
    values = dict(pairs.values) | {key: d.value for key, d in figures.items()}
    draws = dict(pairs.draws) | {key: d.draws for key, d in figures.items()}
    reasons = {key: _CONSTANT for key in figures} | dict(pairs.reasons)
    resampled = Resampled(values, draws, reasons, frozenset())
    rows = [_row(m, resampled, verdicts[m.name]) for m in metrics]
    compared = compare(
        resampled, sums, bootstrap, metrics, prompts=facts.prompts, votes=facts.votes
    )
    return facts.finished(
        metrics=rows,
        people=_scores(PEOPLE, resampled),
        chance=_scores(CHANCE, resampled),
        comparisons=compared,
        beside=beside,
    )


def _no_pairs(sums: Mapping[str, Floats]) -> Resampled[tuple[str, str]]:
    keys = [(name, measure) for name in sums for measure in PAIR_MEASURES]
    nothing = dict.fromkeys(keys, np.empty(0))
    return Resampled(dict.fromkeys(keys), nothing, dict.fromkeys(keys, _NO_PAIRS), frozenset())


def _row(
    metric: Metric, resampled: Resampled[tuple[str, str]], verdict: Verdicts
) -> MetricAgreement:
    known = np.isfinite(metric.values)
    scored = known if known.ndim == 1 else known.all(axis=1)
    return MetricAgreement(
        name=metric.name,
        scored=int(scored.sum()),
        pairs_scored=int(verdict.scored.sum()),
        unscored=dict(metric.unscored),
        scores=_scores(metric.name, resampled),
        lower_is_better=metric.lower_is_better,
        seconds_per_1000=metric.seconds_per_1000,
        price_per_1000=metric.price_per_1000,
    )


def _scores(name: str, resampled: Resampled[tuple[str, str]]) -> dict[str, Score]:
    return {key[1]: resampled.score(key) for key in resampled.values if key[0] == name}
