"""Ablation studies: the same votes and folds, a fit for every arm, and what each changes.

An arm is some settings that differ from the study's own. Its ensemble is compared with the base
arm's pair by pair, on prompts or whole sources that neither had seen. Knows nothing of command
lines and never sees a test source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from litee.config import FitSettings, load_settings
from litee.errors import ConfigError
from litee.predict.fit import FitResult
from litee.records import Score
from litee.rundir import Json, Receipt
from litee.score.figures import Plot, whiskers
from litee.score.results import BASE, new_result
from litee.score.scorecard import Evaluation
from litee.score.study_settings import WITH_BASE, Studied, StudySettings

#: Settings that decide which pairs are learnt from and held out: the same in every arm.
FIXED = ("fold_by", "folds", "seed")


def arm_settings(study: StudySettings, base: FitSettings) -> dict[str, FitSettings]:
    """Arm → all of its settings; where arms are compared with a base arm, that one first.

    Raises:
        ConfigError: an arm changes the split, names a setting or value that does not exist, or
            changes nothing from the base arm.
    """
    with_base = study.kind in WITH_BASE
    found = {BASE: base} if with_base else {}
    for arm, changes in study.arms.items():
        place = f"study {study.name}, arm {arm}"
        split = [name for name in FIXED if name in changes]
        if split:
            raise ConfigError(
                f"{split[0]} = {changes[split[0]]!r}: arms of one study hold the same pairs out",
                place=place,
                fix="set it under settings, for all arms",
            )
        try:
            found[arm] = load_settings(FitSettings, None, study.settings | changes)
        except ConfigError as error:
            raise ConfigError(error.problem, place=place, fix=error.fix) from error
        if with_base and found[arm] == base and arm not in study.teachers:
            raise ConfigError("changes nothing", place=place, fix="remove the arm")
    return found


def compare_arms(
    study: StudySettings,
    fits: Mapping[str, FitResult],
    together: Evaluation,
    *,
    floors: Mapping[str, float],
    command: str,
    further: Mapping[str, float] | None = None,
) -> Studied:
    """Arms beside the base arm, on the same held-out pairs.

    Args:
        study: what was asked.
        fits: arm → its fit, the base arm among them.
        together: of all arms, the base arm as the main one.
        floors: their log losses by name.
        command: the command that makes the results again.
        further: metrics beside those of the evaluation.

    Returns:
        Metrics `<arm>.log_loss`, `<arm>.accuracy`, `<arm>.ece`; `<arm>.source_log_loss`, the mean
        of the sources' log losses, in which a source with many pairs on few prompts does not
        outweigh the others; and, but for the base, `<arm>.log_loss_difference`: the arm minus the
        base in nats, below 0 when the arm is better, with the interval of the paired bootstrap
        over prompt groups.
    """
    differences = {d.other: d.metrics["log_loss"] for d in together.differences}
    scores: dict[str, Score] = {}
    arms: dict[str, Json] = {}
    receipt = Receipt()
    for arm, fit in fits.items():
        metrics = together.system(arm).metrics
        scores |= {f"{arm}.{name}": metrics[name] for name in ("log_loss", "accuracy", "ece")}
        if arm != BASE:  # the scorecard has main − other
            scores[f"{arm}.log_loss_difference"] = differences[arm].negated()
        losses = {s.source: s.metrics[arm]["log_loss"].value for s in together.sources}
        scores[f"{arm}.source_log_loss"] = together.source_means[arm]
        arms[arm] = _told(study.arms.get(arm, {}), fit) | {
            "log_loss_per_source": {str(source): loss for source, loss in losses.items()}
        }
        receipt.include(fit.receipt)
    known = {name: s.value for name, s in scores.items() if s.value is not None}
    result = new_result(
        study.name,
        command,
        receipt,
        known | dict(floors) | dict(further or {}),
        intervals={
            name: (s.low, s.high)
            for name, s in scores.items()
            if s.low is not None and s.high is not None
        },
        tables={"arms": arms, "pairs": together.pairs, "prompt_groups": together.groups},
        notes=study.notes,
    )
    return Studied(result, {study.name: together}, _plots(scores, fits))


def _plots(scores: Mapping[str, Score], arms: Iterable[str]) -> tuple[Plot, ...]:
    """Every arm's difference from the base; none when there is nothing to draw."""
    plot = whiskers(
        "ablations",
        {arm: scores[f"{arm}.log_loss_difference"] for arm in arms if arm != BASE},
        label="log loss less that of the base (below 0 is better)",
        main="",
        line=(0.0, "base"),
    )
    return () if plot is None else (plot,)


def _told(changes: Mapping[str, object], fit: FitResult) -> dict[str, Json]:
    """An arm in the table: what it changes, its members, what it took."""
    return {
        "changes": {name: _plain(value) for name, value in changes.items()},
        "weights": dict(zip(fit.names, fit.joined.ensemble.weights, strict=True)),
        "held_out_log_loss_per_pair": {
            member.name: member.held_out_log_loss for member in fit.judge.members
        },
        "seconds": fit.receipt.seconds,
    }


def floor_losses(evaluation: Evaluation) -> dict[str, float]:
    """`<floor>_log_loss` of the systems that are there to be beaten."""
    losses = {s.name: s.metrics["log_loss"].value for s in evaluation.systems if s.role == "floor"}
    return {
        f"{name.replace(' ', '_')}_log_loss": loss
        for name, loss in losses.items()
        if loss is not None
    }


def _plain(value: object) -> Json:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if isinstance(value, (str, int, float, bool)) else str(value)
