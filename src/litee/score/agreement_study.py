"""The outcome of comparing metrics with people: one frozen record per metric and per comparison.

Knows nothing of how the figures were made or how they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from litee.records import Score
from litee.rundir import Json
from litee.score.enough import Needed
from litee.score.rated import Reliability

#: Figure by which metrics are ordered and compared; the next is used when it has no value.
PRIMARY = ("decisive_accuracy", "spearman_item")


@dataclass(frozen=True, slots=True)
class MetricAgreement:
    """One metric's agreement with people.

    Attributes:
        name: of the metric.
        scored: answers (or pairs) with a score.
        pairs_scored: pairs it has an opinion on.
        unscored: reason → rows without a score.
        scores: figure → score; the names are explained in docs/agree.md.
        lower_is_better: its sign was turned.
        seconds_per_1000: cost, None when unknown.
        price_per_1000: likewise.
    """

    name: str
    scored: int
    pairs_scored: int
    unscored: Mapping[str, int]
    scores: Mapping[str, Score]
    lower_is_better: bool = False
    seconds_per_1000: float | None = None
    price_per_1000: float | None = None

    def score(self, figure: str) -> Score:
        """A figure; without a value when it was not computed."""
        return self.scores.get(figure, Score(None, reason="not computed"))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two metrics on the same pairs.

    Attributes:
        better: the one ahead.
        worse: the other.
        figure: what is compared.
        difference: better − worse, with its paired interval.
        needed: what it takes to settle it.
    """

    better: str
    worse: str
    figure: str
    difference: Score
    needed: Needed


@dataclass(frozen=True, slots=True)
class BesideRater:
    """A metric, or a single rater, against the mean of the other raters.

    Attributes:
        name: of the metric, or `one rater`.
        decisive: decisive accuracy.
        three_way: three-way accuracy; a rater calls a tie by giving equal ratings.
        spearman: over the answers.
        difference: metric minus rater in decisive accuracy, paired; no value for the raters.
    """

    name: str
    decisive: Score
    three_way: Score
    spearman: Score
    difference: Score


@dataclass(frozen=True, slots=True)
class AgreementStudy:
    """All metrics against people on one data set.

    Attributes:
        title: of the study.
        kind: `ratings` or `votes`.
        source: of the human judgements, for the reader.
        answers: rated answers, or two per pair.
        pairs: compared pairs; derived from ratings when `kind` is `ratings`.
        votes: votes or single ratings.
        prompts: prompt groups, the unit of the bootstrap.
        systems: names of the systems.
        outcome_shares: share of a, b, tie.
        reliability: of ratings.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        metrics: best first.
        people: with votes, every two votes on one pair; with ratings, each rater against the mean
            of the others; figure → score.
        chance: a random verdict, figure → score.
        comparisons: paired differences, those between neighbours first.
        beside: with several raters, the raters and then the metrics against the mean of the other
            raters, metrics best first.
    """

    title: str
    kind: str
    source: str
    answers: int
    pairs: int
    votes: int
    prompts: int
    systems: tuple[str, ...]
    outcome_shares: tuple[float, float, float]
    reliability: Reliability | None
    seed: int
    resamples: int
    metrics: tuple[MetricAgreement, ...] = ()
    people: Mapping[str, Score] = field(default_factory=dict)
    chance: Mapping[str, Score] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    beside: tuple[BesideRater, ...] = ()

    @property
    def primary(self) -> str:
        """The figure by which metrics are ordered."""
        return primary_figure([m.scores for m in self.metrics])

    def finished(
        self,
        *,
        metrics: Sequence[MetricAgreement],
        people: Mapping[str, Score],
        chance: Mapping[str, Score],
        comparisons: Sequence[Comparison],
        beside: Sequence[BesideRater] = (),
    ) -> AgreementStudy:
        """The same study with its figures; metrics are ordered by the primary one."""
        figure = primary_figure([m.scores for m in metrics])
        ordered = sorted(metrics, key=lambda m: -_number(m.scores.get(figure)))
        return replace(
            self,
            metrics=tuple(ordered),
            people=people,
            chance=chance,
            comparisons=tuple(comparisons),
            beside=(*beside[:1], *sorted(beside[1:], key=lambda b: -_number(b.decisive))),
        )

    def flat(self) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """`<metric>.<figure>` → value, and → (low, high); figures without a value are left out."""
        values: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        rows = [(m.name, m.scores) for m in self.metrics]
        for name, scores in [*rows, ("people", self.people), ("chance", self.chance)]:
            for figure, score in scores.items():
                if score.value is None:
                    continue
                key = f"{name}.{figure}"
                values[key] = round(score.value, 6)
                if score.low is not None and score.high is not None:
                    intervals[key] = (round(score.low, 6), round(score.high, 6))
        return values, intervals

    def to_json(self) -> dict[str, Json]:
        """Everything as plain JSON."""
        values, intervals = self.flat()
        return {
            "title": self.title,
            "kind": self.kind,
            "source": self.source,
            "counts": {
                "answers": self.answers,
                "pairs": self.pairs,
                "votes": self.votes,
                "prompts": self.prompts,
                "systems": list(self.systems),
            },
            "outcome_shares": list(self.outcome_shares),
            "seed": self.seed,
            "resamples": self.resamples,
            "metrics": values,
            "intervals": {key: list(ends) for key, ends in intervals.items()},
            "tables": {
                "reliability": self.reliability_json(),
                "coverage": [
                    {
                        "metric": m.name,
                        "scored": m.scored,
                        "pairs_scored": m.pairs_scored,
                        "lower_is_better": m.lower_is_better,
                        "seconds_per_1000": m.seconds_per_1000,
                        "price_per_1000": m.price_per_1000,
                        "unscored": dict(m.unscored),
                    }
                    for m in self.metrics
                ],
                "comparisons": [comparison_json(c) for c in self.comparisons],
                "against the other raters": self.beside_json(),
                "missing": {
                    f"{m.name}.{figure}": score.reason
                    for m in self.metrics
                    for figure, score in m.scores.items()
                    if score.value is None
                },
            },
        }

    def reliability_json(self) -> dict[str, Json] | None:
        """The raters' reliability as plain JSON."""
        found = self.reliability
        if found is None:
            return None
        return {
            "raters": found.raters,
            "pair_correlations": list(found.pair_correlations),
            "mean_correlation": found.mean_correlation,
            "reliability_of_mean": found.of_mean,
            "exact_agreement": found.exact,
            "alpha_ordinal": found.alpha_ordinal,
            "alpha_interval": found.alpha_interval,
        }

    def beside_json(self) -> list[dict[str, Json]]:
        """The metrics beside single raters as flat records."""
        return [
            {
                "metric": b.name,
                "decisive": _rounded(b.decisive.value),
                "three_way": _rounded(b.three_way.value),
                "spearman": _rounded(b.spearman.value),
                "minus_rater": _rounded(b.difference.value),
                "low": _rounded(b.difference.low),
                "high": _rounded(b.difference.high),
            }
            for b in self.beside
        ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def comparison_json(comparison: Comparison) -> dict[str, Json]:
    """One comparison as a flat JSON record."""
    return {
        "better": comparison.better,
        "worse": comparison.worse,
        "figure": comparison.figure,
        "difference": comparison.difference.value,
        "low": comparison.difference.low,
        "high": comparison.difference.high,
        "needed": comparison.needed.in_words(),
        "more_prompts": comparison.needed.more_prompts,
        "more_votes": comparison.needed.more_votes,
    }


def mean_over(
    studies: Mapping[str, AgreementStudy], figures: Sequence[str]
) -> tuple[dict[str, float], dict[str, list[dict[str, Json]]]]:
    """Several human criteria in one record.

    Args:
        studies: criterion → its study, over the same metrics.
        figures: which figures.

    Returns:
        `<metric>.<figure>` → mean over the criteria that have a value; and per figure a table with
        one row per metric and one column per criterion.
    """
    names = [m.name for m in next(iter(studies.values())).metrics]
    found = {
        criterion: {m.name: m.scores for m in study.metrics} | {"people": study.people}
        for criterion, study in studies.items()
    }
    means: dict[str, float] = {}
    tables: dict[str, list[dict[str, Json]]] = {}
    for figure in figures:
        rows: list[dict[str, Json]] = []
        for name in [*names, "people"]:
            scores = {c: rows_of[name].get(figure) for c, rows_of in found.items()}
            values = {
                c: None if s is None or s.value is None else round(s.value, 4)
                for c, s in scores.items()
            }
            known = [v for v in values.values() if v is not None]
            if known:
                means[f"{name}.{figure}"] = round(sum(known) / len(known), 6)
            rows.append({"metric": name, **values})
        tables[figure] = rows
    return means, tables


def primary_figure(rows: Sequence[Mapping[str, Score]]) -> str:
    """The first of `PRIMARY` that at least one metric has a value for."""
    for figure in PRIMARY:
        if any((score := row.get(figure)) and score.value is not None for row in rows):
            return figure
    return PRIMARY[0]


def _number(score: Score | None) -> float:
    return -2.0 if score is None or score.value is None else score.value
