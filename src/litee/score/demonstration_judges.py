"""The judges of a study of demonstrations: fitted on parts of its votes, or finished ones.

Judges of one study share no prompt of the votes. Their verdicts on pairs of answers are kept, so
that a study that goes on asks nobody twice. Knows nothing of demonstrations.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from litee.collect.folds import check_folds, make_folds
from litee.collect.pairs import check_learnable, gather
from litee.collect.votes import load_votes
from litee.config import FitSettings
from litee.errors import InputError
from litee.finetune.backbones import find_backbone
from litee.predict.artifact import JUDGE_FILE, load_judge_file
from litee.predict.judge import Judge
from litee.records import Pair, VotedPair, VoteSet
from litee.rundir import Json, Receipt, sha256_file, sha256_json, write_json, write_text
from litee.score.comparison_pairs import read_verdicts
from litee.score.outcomes import Floats
from litee.score.study_fit import NO_PART, fit_votes, split
from litee.score.study_store import Store, filling


@dataclass(frozen=True, slots=True)
class NamedJudge:
    """A judge of a study.

    Attributes:
        name: in the study.
        folder: where it lies.
        part: what it learnt from, in words.
        receipt: what its fit cost; nothing for a finished one.
        metrics: of its fit, on prompts that it had not seen; empty for a finished one.
    """

    name: str
    folder: Path
    part: str
    receipt: Receipt
    metrics: Mapping[str, float]

    @property
    def digest(self) -> str:
        """SHA-256 of its description and its members' weights."""
        weights = {
            file.relative_to(self.folder).as_posix(): sha256_file(file)
            for file in sorted((self.folder / "members").rglob("*"))
            if file.is_file()
        }
        return sha256_json({JUDGE_FILE: sha256_file(self.folder / JUDGE_FILE)} | weights)


@dataclass(frozen=True, slots=True)
class VotesPart:
    """The part of a study's votes that one judge learns from.

    Attributes:
        votes: as read.
        voted: their pairs.
        made_of: what determines the part.
        words: which part it is.
    """

    votes: VoteSet
    voted: tuple[VotedPair, ...]
    made_of: Mapping[str, Json]
    words: str


def divide(files: Sequence[Path], count: int, *, seed: int) -> list[VotesPart]:
    """Votes in equal parts that share no prompt and no answer, as `litee data split` divides them.

    Args:
        files: of votes.
        count: number of parts, 0 for none.
        seed: of the split.

    Raises:
        InputError: a file is broken, or there are fewer groups of prompts than parts.
    """
    if not count:
        return []
    votes = load_votes([str(file) for file in files])
    voted = gather(votes.votes)
    numbers = [0] * len(voted)
    if count > 1:
        folds = make_folds(voted, count=count, seed=seed)
        check_folds([v.pair for v in voted], folds)
        numbers = list(folds.folds)
    digests: list[Json] = [votes.inputs[str(file)] for file in files]
    parts = []
    for k in range(count):
        some = tuple(v for v, number in zip(voted, numbers, strict=True) if number == k)
        ids = {v.pair.id for v in some}
        own = replace(votes, votes=tuple(v for v in votes.votes if v.pair.id in ids))
        made_of: dict[str, Json] = {"votes": digests, "seed": seed, "part": k + 1, "of": count}
        parts.append(VotesPart(own, some, made_of, f"part {k + 1} of {count} of the votes"))
    return parts


def check_part(part: VotesPart, settings: FitSettings, place: str) -> None:
    """Refuse a part that no judge can learn from, before anything else is done.

    Raises:
        InputError: it has too few prompts, or votes of one outcome only.
    """
    check_learnable(part.voted, settings.folds, place)
    check_folds([v.pair for v in part.voted], split(part.voted, settings))


def backbones_of(settings: FitSettings) -> tuple[str, ...]:
    """The backbones that a fit uses: none when its only member is that of the statistics."""
    return settings.backbones if set(settings.members) - {"statistics"} else ()


def fit_part(
    name: str, settings: FitSettings, part: VotesPart, store: Store, *, command: str
) -> NamedJudge:
    """A judge of one part, or the one that is there, or one that is gone on with.

    Args:
        name: in the study.
        settings: of the fit.
        part: what it learns from.
        store: where it is kept.
        command: the command line, for its report.

    Raises:
        ModelError: a backbone cannot be used.
    """
    own = settings.model_dump(mode="json", exclude=NO_PART)
    weights: dict[str, Json] = {one: find_backbone(one).sha256 for one in backbones_of(settings)}
    made_of: dict[str, Json] = {"settings": own, "backbones": weights}
    folder = store.folder("judges", made_of | dict(part.made_of))
    report = folder / "report.json"  # written last
    with filling(folder):
        if not report.is_file():
            folds = split(part.voted, settings)
            fit_votes(part.votes, part.voted, folds, settings, out=folder, command=command)
    metrics = json.loads(report.read_text(encoding="utf-8"))["metrics"]
    known = {k: metrics[k] for k in ("log_loss", "accuracy", "ece") if k in metrics}
    return NamedJudge(name, folder, part.words, Receipt.of(folder), known)


def find_judge(name: str, given: str, places: Sequence[Path]) -> NamedJudge:
    """A finished judge, looked for below the places.

    Raises:
        InputError: it is in none of them.
        ModelError: the folder holds no whole judge.
    """
    for place in places:
        if (place / given).is_dir():
            load_judge_file(place / given)
            known = Path(given).name if Path(given).is_absolute() else given
            return NamedJudge(name, place / given, f"finished: {known}", Receipt(), {})
    raise InputError(
        f"judge {name}: no folder {given} in {', '.join(map(str, places))}",
        fix="name a folder made by `litee fit`, or settings of a fit",
    )


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a judge says of pairs of answers.

    Attributes:
        probabilities: (n, 3) of first better, second better, tie.
        seconds: that asking took.
    """

    probabilities: Floats
    seconds: float


class Asking:
    """Asks one judge, which is loaded when it is first needed.

    Args:
        judge: whom.
        store: where verdicts are kept.
    """

    def __init__(self, judge: NamedJudge, store: Store) -> None:
        self._named, self._store = judge, store
        self._judge: Judge | None = None

    def verdicts(self, pairs: Sequence[Pair], answers: Sequence[Path]) -> Verdicts:
        """Its verdicts on pairs of answers.

        Args:
            pairs: n pairs.
            answers: the two files that the pairs were made of.
        """
        made_of: dict[str, Json] = {
            "judge": self._named.digest,
            "answers": [sha256_file(file) for file in answers],
        }
        file = self._store.folder("verdicts", made_of) / "verdicts.jsonl"
        cost = file.with_name("receipt.json")
        with filling(file.parent):
            if not cost.is_file():
                started = time.monotonic()
                self._ask(pairs, file)
                write_json(cost, {"seconds": round(time.monotonic() - started, 3)})
        seconds = json.loads(cost.read_text(encoding="utf-8"))["seconds"]
        return Verdicts(read_verdicts(file, pairs), seconds)

    def _ask(self, pairs: Sequence[Pair], file: Path) -> None:
        if self._judge is None:
            self._judge = Judge.from_pretrained(self._named.folder)
        rows = (
            {
                "pair_id": p.pair_id,
                **dict(zip(("p_a", "p_b", "p_tie"), p.probabilities, strict=True)),
            }
            for p in self._judge.stream(pairs)
        )
        write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
