"""What a study of demonstrations may say, and all settings that follow from it, checked.

Knows nothing of how the study runs, and imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, model_validator

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.demonstrations import READERS
from litee.config import FitSettings, Settings, load_settings
from litee.curate.settings import CurateSettings
from litee.errors import ConfigError
from litee.finetune.chat_settings import SftSettings
from litee.predict.generation_settings import GenerateSettings
from litee.score.study_store import SHARED

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

#: Names that metrics have already.
_TAKEN = ("difference",)

_S = TypeVar("_S", bound=Settings)


class DemonstrationStudySettings(Settings):
    """A study of demonstrations: its YAML file."""

    name: str = Field(description="Name of the results file.")
    kind: Literal["demonstrations"] = Field(
        description="A model is tuned on every arm's demonstrations, answers the same prompts, and "
        "judges compare the answers."
    )
    arms: dict[str, dict[str, object]] = Field(
        description="Name of an arm → its demonstrations, and how they are chosen and learnt; {} "
        "is the untuned model."
    )
    against: str = Field(
        "", description="The arm that all others are compared with; the last one when empty."
    )
    prompts: str = Field(
        description="File of prompts that all arms answer, or a votes file, of which the prompts "
        "alone are read; below the data folder or the study's own folder. Demonstrations that "
        "repeat one are left out."
    )
    turns: int = Field(
        1, ge=1, description="User turns asked of each prompt; prompts with fewer are left out."
    )
    every: int = Field(1, ge=1, description="1 asks all prompts, 2 every second one, and so on.")
    judges: dict[str, str | dict[str, object]] = Field(
        {},
        description="Name of a judge → settings of its fit, or the folder of a finished one. The "
        "first one gives the headline. May be left out when the prompts have rules of their own.",
    )
    votes: tuple[str, ...] = Field(
        (),
        description="Votes files of the judges, below the data folder or the study's own folder; "
        "divided by prompt into equal parts, one for each judge that is fitted.",
    )
    reading: dict[str, dict[str, object]] = Field(
        {},
        description="Demonstrations file → how it is read: settings of litee data demonstrations, "
        "and format.",
    )
    curate: dict[str, object] = Field(
        {}, description="Settings of litee curate for all arms; an arm's own go on top."
    )
    settings: dict[str, object] = Field(
        {}, description="Settings of litee tune sft for all arms; an arm's own go on top."
    )
    answers: dict[str, object] = Field(
        {}, description="Settings of litee generate, the same for all arms."
    )
    threads: int = Field(
        0, ge=0, description="Compute threads of all steps that name none; 0 takes all cores."
    )
    seed: int = Field(0, ge=0, description="Seed of the judges' parts and of the intervals.")
    notes: str = Field("", description="What falls short and why; goes into the results.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name in (self.name, *self.arms, *self.judges):
            if not _NAME.fullmatch(name) or name in _TAKEN:
                raise ValueError(
                    f"name {name!r}: use small letters, digits, _ and -, not {_TAKEN[0]!r}"
                )
        if self.name == SHARED:
            raise ValueError(
                f"name {SHARED!r}: choose another one, studies share the folder {SHARED}"
            )
        twice = [name for name in self.arms if name in self.judges]
        if twice:
            raise ValueError(f"an arm and a judge are called {twice[0]!r}: rename one of them")
        if len(self.arms) < 2:
            raise ValueError(f"arms names {len(self.arms)}: name two or more, {{}} is untuned")
        if self.against and self.against not in self.arms:
            known = ", ".join(self.arms)
            raise ValueError(f"against = {self.against!r} is no arm: name one of {known}")
        fitted = [name for name, judge in self.judges.items() if not isinstance(judge, str)]
        if fitted and not self.votes:
            raise ValueError(f"judge {fitted[0]} is to be fitted: name votes, or a judge's folder")
        if self.votes and not fitted:
            raise ValueError("votes are named, but no judge is fitted: remove them, or name one")
        return self


class ArmSettings(Settings):
    """An arm of a study of demonstrations."""

    demonstrations: tuple[str, ...] = Field(
        (), description="Files of demonstrations, below the data folder or the study's own."
    )
    curate: dict[str, object] = Field({}, description="Settings of litee curate.")
    settings: dict[str, object] = Field({}, description="Settings of litee tune sft.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.demonstrations and (self.curate or self.settings):
            raise ValueError(
                "curate and settings need demonstrations: name some, or write {} for the untuned "
                "model"
            )
        if len(set(self.demonstrations)) < len(self.demonstrations):
            raise ValueError("demonstrations names a file twice")
        by_start: dict[str, str] = {}
        for file in self.demonstrations:
            start = Path(file).name.split(".")[0]
            other = by_start.setdefault(start, file)
            if other != file and start.lower() != "posts":  # a site's dump is called by its folder
                raise ValueError(
                    f"{other} and {file} would give their demonstrations the same ids: rename one "
                    "of the files"
                )
        return self


class ReadSettings(DemonstrationSettings):
    """How a file of demonstrations is read."""

    format: str = Field("auto", description="Format of the file: auto, or one of docs/curate.md.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.format not in ("auto", *READERS):
            known = ", ".join(("auto", *READERS))
            raise ValueError(f"format {self.format!r} is unknown: choose one of {known}")
        return self


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm with all of its settings.

    Attributes:
        name: of the arm.
        demonstrations: files, none for the untuned model.
        curate: how they are chosen.
        tuning: how they are learnt; also says which model an untuned arm is.
        answers: how the prompts are answered.
    """

    name: str
    demonstrations: tuple[str, ...]
    curate: CurateSettings
    tuning: SftSettings
    answers: GenerateSettings


@dataclass(frozen=True, slots=True)
class DemonstrationPlan:
    """A study of demonstrations that is ready to run.

    Attributes:
        study: its file.
        judges: name → settings of its fit, or its folder.
        reading: demonstrations file → how it is read, for all files of all arms.
        arms: in the order named.
        against: name of the arm that the others are compared with.
    """

    study: DemonstrationStudySettings
    judges: Mapping[str, FitSettings | str]
    reading: Mapping[str, ReadSettings]
    arms: tuple[Arm, ...]
    against: str


def plan_study(study: DemonstrationStudySettings, place: str) -> DemonstrationPlan:
    """All settings of a study, each checked by the command that it belongs to.

    Args:
        study: its file.
        place: of the file, for messages.

    Raises:
        ConfigError: a setting is unknown, out of range or contradicts another one; two arms are
            the same; an arm would not learn to the end.
    """
    threads = {"threads": study.threads} if study.threads else {}
    judges: dict[str, FitSettings | str] = {
        name: judge
        if isinstance(judge, str)
        else _checked(FitSettings, threads | judge, f"{place}, judge {name}")
        for name, judge in study.judges.items()
    }
    arms = tuple(_arm(study, name, f"{place}, arm {name}") for name in study.arms)
    known: dict[tuple[object, ...], str] = {}
    for arm in arms:
        content = (arm.demonstrations, arm.curate, arm.tuning) if arm.demonstrations else ()
        if content in known:
            raise ConfigError(
                f"is the same as arm {known[content]}",
                place=f"{place}, arm {arm.name}",
                fix="remove one of them, or change its demonstrations, curate or settings",
            )
        known[content] = arm.name
    files = dict.fromkeys(file for arm in arms for file in arm.demonstrations)
    for name in study.reading:
        if name not in files:
            raise ConfigError(
                f"reading names {name!r}, which no arm has among its demonstrations",
                place=place,
                fix=f"demonstrations: {', '.join(files) or 'none'}",
            )
    reading = {
        file: _checked(ReadSettings, study.reading.get(file, {}), f"{place}, reading {file}")
        for file in files
    }
    return DemonstrationPlan(study, judges, reading, arms, study.against or arms[-1].name)


def _arm(study: DemonstrationStudySettings, name: str, place: str) -> Arm:
    threads = {"threads": study.threads} if study.threads else {}
    own = _checked(ArmSettings, study.arms[name], place)
    tuning = _checked(SftSettings, threads | study.settings | own.settings, f"{place}, settings")
    unread = tuning.select_last < tuning.num_train_epochs
    if own.demonstrations and unread and not tuning.dev_prompts:
        raise ConfigError(
            f"select_last = {tuning.select_last} and dev_prompts = 0 would take the weights of "
            f"pass {tuning.select_last} of num_train_epochs = {tuning.num_train_epochs}",
            place=f"{place}, settings",
            fix=f"set select_last to {tuning.num_train_epochs}, or lower num_train_epochs",
        )
    for setting, fix in (
        ("backbone", "set it under settings: an arm's own model answers"),
        ("best_of", "remove it, or set samples: a judge must not choose what it then compares"),
    ):
        if setting in study.answers:
            problem = f"{setting} = {study.answers[setting]!r} is not for answers of a study"
            raise ConfigError(problem, place=f"{place}, answers", fix=fix)
    answers = {"backbone": tuning.backbone} | threads | study.answers
    return Arm(
        name,
        own.demonstrations,
        _checked(CurateSettings, study.curate | own.curate, f"{place}, curate"),
        tuning,
        _checked(GenerateSettings, answers, f"{place}, answers"),
    )


def _checked(kind: type[_S], values: Mapping[str, object], place: str) -> _S:
    try:
        return load_settings(kind, None, values)
    except ConfigError as error:
        raise ConfigError(error.problem, place=place, fix=error.fix) from error
