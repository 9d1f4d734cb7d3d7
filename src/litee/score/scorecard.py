"""The frozen records that hold an evaluation's figures, and their plain JSON form.

Knows nothing of how the figures are computed or shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from litee.records import CLASSES, Score
from litee.rundir import Json
from litee.score.ceiling import Agreement
from litee.score.intervals import RESAMPLES
from litee.score.reliability import Calibration, CoveragePoint


@dataclass(frozen=True, slots=True)
class SystemScores:
    """One system's figures.

    Attributes:
        name: of the system.
        role: "main", "system", "floor", or "ablation": the main system without a part.
        metrics: metric → score; the names are listed in docs/report.md.
        consistency: "ok", or what is wrong between accuracy and log loss.
    """

    name: str
    role: str
    metrics: Mapping[str, Score]
    consistency: str


@dataclass(frozen=True, slots=True)
class SourceScores:
    """All systems on the pairs of one source.

    Attributes:
        source: the data set's name.
        pairs: number of pairs.
        votes: number of votes.
        groups: number of prompt groups.
        metrics: system → metric → score.
        human: human–human agreement, three-way.
    """

    source: str
    pairs: int
    votes: int
    groups: int
    metrics: Mapping[str, Mapping[str, Score]]
    human: Score


@dataclass(frozen=True, slots=True)
class Difference:
    """Main system minus another one on the same pairs; below 0 is better for log loss.

    Attributes:
        other: the other system.
        metrics: metric → difference with the interval of the paired resamples.
    """

    other: str
    metrics: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        main: name of the judged system.
        systems: all systems, main first, then the others, floors last, in the order given.
        pairs: number of pairs.
        votes: number of votes.
        groups: number of prompt groups.
        vote_shares: shares of a, b and tie among the votes.
        differences: main against each other system.
        sources: per source, most votes first.
        confusion: votes by voted (rows) and predicted (columns) outcome, main system.
        calibration: reliability data, main system.
        coverage: accuracy on the most confident part, main system.
        human: agreement between people.
        source_means: system → mean of its log losses per source, in which a source with many
            pairs on few prompts does not outweigh the others.
        main_on_repeated: main system's `accuracy` and `accuracy_decisive` on the pairs with
            repeated votes, the ones `human` is measured on.
        cautions: sentences a reader must know before believing the figures.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """

    main: str
    systems: tuple[SystemScores, ...]
    pairs: int
    votes: int
    groups: int
    vote_shares: tuple[float, float, float]
    differences: tuple[Difference, ...]
    sources: tuple[SourceScores, ...]
    confusion: tuple[tuple[float, float, float], ...]
    calibration: Calibration
    coverage: tuple[CoveragePoint, ...]
    human: Agreement
    source_means: Mapping[str, Score]
    main_on_repeated: Mapping[str, Score]
    cautions: tuple[str, ...] = ()
    seed: int = 0
    resamples: int = RESAMPLES

    def system(self, name: str) -> SystemScores:
        """The figures of one system.

        Raises:
            KeyError: there is no system of this name.
        """
        for system in self.systems:
            if system.name == name:
                return system
        raise KeyError(name)

    def score(self, name: str, metric: str) -> Score:
        """One figure of one system.

        Raises:
            KeyError: unknown system or metric.
        """
        return self.system(name).metrics[metric]

    def to_json(self) -> dict[str, Json]:
        """Plain JSON with flat `metrics` (name → number) and `intervals` (name → two numbers).

        The main system's metrics have their bare names, the others' are `<system>.<metric>`,
        differences `minus.<system>.<metric>`, human agreement `human.<name>`. Scores without a
        value are in `tables.missing` with their reasons.
        """
        scores = self._flat()
        intervals = {
            key: [s.low, s.high]
            for key, s in scores.items()
            if s.value is not None and s.low is not None
        }
        tables: dict[str, Json] = {
            "missing": {key: s.reason for key, s in scores.items() if s.value is None},
            "consistency": {s.name: s.consistency for s in self.systems},
            "roles": {s.name: s.role for s in self.systems},
            "confusion": {"rows_voted_columns_predicted": list(CLASSES), "votes": self.confusion},
            "calibration": asdict(self.calibration),
            "coverage": [asdict(point) for point in self.coverage],
            "per_source": [_source_json(source) for source in self.sources],
            "human": _agreement_json(self.human),
            "cautions": self.cautions,
        }
        return {
            "main": self.main,
            "counts": {"pairs": self.pairs, "votes": self.votes, "groups": self.groups},
            "seed": self.seed,
            "resamples": self.resamples,
            "metrics": {key: s.value for key, s in scores.items() if s.value is not None},
            "intervals": intervals,
            "tables": tables,
        }

    def _flat(self) -> dict[str, Score]:
        flat: dict[str, Score] = {}
        for system in self.systems:
            prefix = "" if system.name == self.main else f"{system.name}."
            flat |= {f"{prefix}{name}": score for name, score in system.metrics.items()}
        for difference in self.differences:
            prefix = f"minus.{difference.other}."
            flat |= {f"{prefix}{name}": score for name, score in difference.metrics.items()}
        for name in (
            "three_way",
            "per_vote",
            "decisive",
            "leave_one_out",
            "leave_one_out_decisive",
        ):
            flat[f"human.{name}"] = getattr(self.human, name)
        return flat | {f"on_repeated.{name}": s for name, s in self.main_on_repeated.items()}


def _score_json(score: Score) -> dict[str, Json]:
    return {key: value for key, value in asdict(score).items() if value not in (None, "")}


def _source_json(source: SourceScores) -> dict[str, Json]:
    return {
        "source": source.source,
        "pairs": source.pairs,
        "votes": source.votes,
        "groups": source.groups,
        "human_three_way": _score_json(source.human),
        "systems": {
            name: {metric: _score_json(score) for metric, score in metrics.items()}
            for name, metrics in source.metrics.items()
        },
    }


def _agreement_json(human: Agreement) -> dict[str, Json]:
    return {
        "pairs": human.pairs,
        "vote_pairs": human.vote_pairs,
        "decisive_vote_pairs": human.decisive_vote_pairs,
        "same_annotator": human.same_annotator,
        "best_accuracy_bounds": human.accuracy_bounds,
        "log_loss_floor": human.log_loss_floor,
    }
