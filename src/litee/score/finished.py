"""Finished judges side by side: the same votes, a judge for every arm, prompts that none has seen.

What a judge is made of afterwards shows only here: its branches averaged or one fitted on all
prompts, or another judge's opinions learnt. Each is timed, too. Knows nothing of command lines and
never sees a test source.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from litee.collect.folds import check_leak
from litee.collect.verdicts import load_numbered_verdicts
from litee.config import FitSettings
from litee.finetune.states import states_in
from litee.predict.fit import FitResult
from litee.predict.judge import Judge
from litee.records import Pair, VotedPair, VoteSet
from litee.rundir import write_text
from litee.score.ablations import arm_settings, compare_arms, floor_losses
from litee.score.evaluation import evaluate
from litee.score.floors import floor_systems
from litee.score.held_out_predictions import held_out_probabilities
from litee.score.results import BASE
from litee.score.study_fit import OUT_OF_FOLD, find, fit_votes, halves, split
from litee.score.study_settings import Studied, StudySettings

#: Pairs that every judge predicts in a round of timing, and the rounds.
TIMED_PAIRS = 32
ROUNDS = 3


def run_judges(
    study: StudySettings,
    settings: FitSettings,
    learnt: tuple[VoteSet, tuple[VotedPair, ...]],
    *,
    folder: Path,
    out: Path,
    data: Path,
    command: str,
) -> Studied:
    """A judge per arm, or those that are not done yet, on the same held-out prompts.

    Args:
        study: with arms, perhaps with teachers.
        settings: of the base arm.
        learnt: the votes as read, and their pairs.
        folder: the study file's folder.
        out: a folder per arm.
        data: folder of published verdicts that are not beside the study.
        command: that makes the results again.

    Returns:
        What `ablations.compare_arms` gives, and `<arm>.seconds_per_1000_pairs`: the median of
        `ROUNDS` rounds in which all judges predict the same pairs in turns, nothing kept from one
        round to the next.

    Raises:
        ConfigError: a folder was run with other settings or votes.
        InputError: a teacher's verdicts are missing or broken.
    """
    vote_set, voted = learnt
    arms = arm_settings(study, settings)
    parts = halves(voted, share=study.held_out, seed=settings.seed)
    train, pairs = parts.train, [v.pair for v in parts.test]
    check_leak([v.pair for v in train], pairs)
    folds = split(train, settings)
    told = {
        arm: out / name / OUT_OF_FOLD
        if name in arms
        else _published(find(name, folder, data), train, out / f"teacher-of-{arm}.csv")
        for arm, name in study.teachers.items()
    }
    fits: dict[str, FitResult] = {}
    for arm, chosen in arms.items():
        place, teacher = out / arm, told.get(arm)
        fits[arm], _ = fit_votes(
            vote_set, train, folds, chosen, out=place, command=command, teacher=teacher
        )
    floors = floor_systems(train, pairs)
    systems = dict(floors) | {arm: held_out_probabilities(out / arm, pairs) for arm in arms}
    together = evaluate(
        systems, parts.test, parts.groups, main=BASE, seed=settings.seed, floors=tuple(floors)
    )
    speeds = _speeds({arm: out / arm for arm in arms}, pairs)
    return compare_arms(
        study, fits, together, floors=floor_losses(together), command=command, further=speeds
    )


def _published(file: Path, voted: Sequence[VotedPair], table: Path) -> Path:
    """An LLM judge's published verdicts on these pairs alone, as a table of verdicts."""
    pairs = [v.pair for v in voted]
    verdicts = load_numbered_verdicts(file, pairs)
    known = ((p.id, v) for p, v in zip(pairs, verdicts, strict=True) if v is not None)
    lines = (f'"{name}",{verdict.value}\n' for name, verdict in known)
    write_text(table, "".join(("pair_id,verdict\n", *lines)))
    return table


def _speeds(judges: Mapping[str, Path], pairs: Sequence[Pair]) -> dict[str, float]:
    """`<arm>.seconds_per_1000_pairs`, loading left out.

    In turns, so that whatever else runs slows all of them; one judge is in memory at a time.
    """
    some = pairs[:TIMED_PAIRS]
    took: dict[str, list[float]] = {arm: [] for arm in judges}
    for _ in range(ROUNDS):
        for arm, folder in judges.items():
            judge = Judge.from_pretrained(folder)
            with tempfile.TemporaryDirectory() as empty, states_in(Path(empty)):
                started = time.monotonic()
                judge.predict(some)
                took[arm].append(time.monotonic() - started)
    return {
        f"{arm}.seconds_per_1000_pairs": round(1000 * float(np.median(times)) / len(some), 2)
        for arm, times in took.items()
    }
