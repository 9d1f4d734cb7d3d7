"""What a reader must know before believing an evaluation, in whole sentences.

Knows nothing of how the figures were computed or where the sentences are shown.
"""

from __future__ import annotations

from litee.score.scorecard import Evaluation, SystemScores

#: Fewer prompt groups than this make percentile intervals too narrow to trust.
FEW_GROUPS = 30

#: Log loss differences below this are a tie whatever the interval says.
SMALL_DIFFERENCE = 0.002


def cautions(evaluation: Evaluation) -> tuple[str, ...]:
    """The sentences that apply, most serious first; empty when there are none."""
    found = [
        *_inconsistent(evaluation),
        *_against_floors(evaluation),
        *_against_people(evaluation),
        *_few_groups(evaluation),
        *_order(evaluation),
    ]
    return tuple(found)


def best_floor(evaluation: Evaluation) -> SystemScores | None:
    """The floor with the lowest log loss, None when no floor has one."""
    floors = [s for s in evaluation.systems if s.role == "floor"]
    with_loss = [s for s in floors if s.metrics["log_loss"].value is not None]
    return min(with_loss, key=lambda s: s.metrics["log_loss"].value or 0.0, default=None)


def _inconsistent(evaluation: Evaluation) -> list[str]:
    return [
        f"{system.name}: {system.consistency}."
        for system in evaluation.systems
        if system.role != "ablation" and system.consistency.startswith("miscalibrated")
    ]


def _against_floors(evaluation: Evaluation) -> list[str]:
    floor = best_floor(evaluation)
    if floor is None or floor.name == evaluation.main:
        return []
    gap = next(d for d in evaluation.differences if d.other == floor.name).metrics["log_loss"]
    if gap.value is None:
        return [f"{evaluation.main} has no log loss: {gap.reason}."]
    if gap.value >= -SMALL_DIFFERENCE:
        return [f"{evaluation.main} does not beat the floor “{floor.name}” in log loss."]
    if gap.high is not None and gap.high >= 0:
        return [
            f"{evaluation.main} beats the floor “{floor.name}” by {-gap.value:.3f}, but the "
            "interval of the difference includes 0: more votes are needed to be sure."
        ]
    return []


def _against_people(evaluation: Evaluation) -> list[str]:
    human = evaluation.human
    if human.three_way.value is None or human.accuracy_bounds is None:
        return [
            "No pair was judged by two people, so there is no human ceiling to compare with. "
            "A few hundred repeated votes would give one."
        ]
    found = []
    repeated = evaluation.main_on_repeated["accuracy"].value
    limit = human.accuracy_bounds[1]
    if repeated is not None and repeated > limit + 0.01:
        found.append(
            f"On pairs with repeated votes {evaluation.main} has accuracy {repeated:.3f}, above "
            f"{limit:.3f}, the most that human agreement allows: look for a leak."
        )
    if human.three_way.value > 0.9:
        found.append(
            f"People agree on {human.three_way.value:.0%} of vote pairs. That is more than free "
            "judgements usually reach: the set was probably filtered, and is no general ceiling."
        )
    return found


def _few_groups(evaluation: Evaluation) -> list[str]:
    found = []
    if evaluation.groups < FEW_GROUPS:
        found.append(
            f"Only {evaluation.groups} prompt groups: the intervals are too narrow to trust."
        )
    if len(evaluation.sources) > 1:
        found += [
            f"Source “{source.source}” has only {source.groups} prompt groups: its intervals are "
            "too narrow to trust."
            for source in evaluation.sources
            if source.groups < FEW_GROUPS
        ]
    return found


def _order(evaluation: Evaluation) -> list[str]:
    flips = evaluation.system(evaluation.main).metrics.get("swap_flip_rate")
    if flips is None or flips.value is None or flips.value <= 0.01:
        return []
    return [
        f"{evaluation.main} changes its verdict on {flips.value:.1%} of pairs when the answers "
        "change places: it looks at the order."
    ]
