"""Evaluations as the metrics of a results file.

Knows nothing of fits and votes files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from litee.predict.fit import FitResult
from litee.records import Score
from litee.rundir import Json
from litee.score.results import Result, new_result
from litee.score.scorecard import Evaluation
from litee.score.study_settings import StudySettings

#: Kinds of members, as their names begin.
_KINDS = {"statistics", "probe", "lora", "joint", "verdict"}


def main_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Metrics of the main system that have a value."""
    scores = evaluation.system(evaluation.main).metrics
    return {name: score.value for name, score in scores.items() if score.value is not None}


def other_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Log loss of every other system, its floors and best member among them."""
    found: dict[str, float] = {}
    best: float | None = None
    for system in evaluation.systems:
        for metric in ("log_loss", "accuracy"):
            value = system.metrics[metric].value
            if value is None or system.role == "main":
                continue
            found[f"{system.name.replace(' ', '_')}_{metric}"] = value
        loss = system.metrics["log_loss"].value
        is_member = system.role != "main" and system.name.split("-")[0] in _KINDS
        if is_member and loss is not None:
            best = loss if best is None else min(best, loss)
    if best is not None:
        found["best_member_log_loss"] = best
    floors = [
        s.metrics["log_loss"].value
        for s in evaluation.systems
        if s.role == "floor" and s.metrics["log_loss"].value is not None
    ]
    found["floor_log_loss"] = min(x for x in floors if x is not None)
    for system in evaluation.systems:
        if system.name == "GPT-4":
            found["gpt4_accuracy"] = found.pop("GPT-4_accuracy")
            both = system.metrics["accuracy_both_decisive"].value
            if both is not None:
                found["gpt4_accuracy_both_decisive"] = both
    longest = evaluation.score("longer answer", "accuracy").value
    if longest is not None:
        found["longest_accuracy"] = longest
    return found


def intervals_of(evaluation: Evaluation) -> dict[str, tuple[float, float]]:
    """95 % intervals of the main system's metrics that have one."""
    scores = evaluation.system(evaluation.main).metrics
    return {
        name: (score.low, score.high)
        for name, score in scores.items()
        if score.low is not None and score.high is not None
    }


def less_best_member(evaluation: Evaluation) -> Score:
    """Log loss of the ensemble minus that of the best of its members, paired; below 0 it helps.

    The best member is chosen by the same votes, which is to its advantage.
    """
    losses = {
        system.name: system.metrics["log_loss"].value
        for system in evaluation.systems
        if system.role != "main" and system.name.split("-")[0] in _KINDS
    }
    known = {name: loss for name, loss in losses.items() if loss is not None}
    if not known:
        return Score(None, reason="no member has a log loss of its own")
    best = min(known, key=lambda name: known[name])
    (found,) = [d.metrics["log_loss"] for d in evaluation.differences if d.other == best]
    return found


def as_result(
    study: StudySettings,
    evaluation: Evaluation,
    result: FitResult,
    *,
    command: str,
    started: float,
    extra: Mapping[str, float],
) -> Result:
    """A fit's results file: metrics of the main system, and `extra` ones beside them.

    Args:
        study: what was asked.
        evaluation: what it came to.
        result: the fit.
        command: that makes it again.
        started: of this session, by the monotonic clock.
        extra: further metrics.
    """
    # a resumed study has the stages of earlier sessions; a fresh one also has what lies between
    seconds = round(max(time.monotonic() - started, result.receipt.seconds), 1)
    metrics = main_metrics(evaluation) | dict(extra) | {"seconds": seconds}
    tables: dict[str, Json] = {
        "pairs": evaluation.pairs,
        "votes": evaluation.votes,
        "prompt_groups": evaluation.groups,
        "weights": dict(zip(result.names, result.joined.ensemble.weights, strict=True)),
        "depths": {d.backbone: list(d.taken) for d in result.depths},
        "stages": dict(result.receipt.stages),
    }
    return new_result(
        study.name,
        command,
        result.receipt,
        metrics,
        intervals=intervals_of(evaluation),
        tables=tables,
        notes=" ".join([study.notes, *result.notes]).strip(),
    )
