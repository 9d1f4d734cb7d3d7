"""What a study's YAML file may say, and what a finished study is.

Knows nothing of how a study runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from litee.amounts import seconds_of
from litee.config import Settings
from litee.score.figures import Plot
from litee.score.results import BASE, Result
from litee.score.scorecard import Evaluation
from litee.score.study_store import SHARED

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

_WITH_VOTES = ("fit", "transfer", "in_source", "ablations", "judges", "learning_curve", "budgets")

#: Kinds with a base arm that the others are compared with.
WITH_BASE = ("ablations", "judges")

#: Setting, the kinds that have to have it and no others, and how to say so.
_NEEDED = (
    ("votes", _WITH_VOTES, "all studies but those made of parts name votes"),
    ("parts", ("parts",), "a study made of parts names them"),
    ("test", ("transfer",), "a transfer study names votes under test"),
    ("arms", (*WITH_BASE, "budgets"), "ablations, judges and budgets name arms"),
    ("budgets", ("budgets",), "a study of budgets names some"),
    ("sizes", ("learning_curve",), "a learning curve names sizes"),
)

#: Setting, the kinds that may have it, and how to say so.
_ALLOWED = (
    ("verdicts", ("transfer",), "verdicts are compared with in a transfer study only"),
    ("teachers", ("judges",), "teachers belong to a study of judges"),
    ("beside", ("parts",), "beside belongs to a study made of parts"),
    ("headlines", ("parts",), "headlines belong to a study made of parts"),
)


class StudySettings(Settings):
    """A study's YAML file."""

    name: str = Field(description="Name of the results file.")
    kind: Literal[
        "fit", "transfer", "in_source", "ablations", "judges", "learning_curve", "budgets", "parts"
    ] = Field(
        description="fit: held-out prompts of the same votes; transfer: other votes; in_source: "
        "fit each file by itself; ablations: the same votes with some settings changed at a time, "
        "compared out of fold; judges: likewise, but the finished judges are compared, on held-out "
        "prompts, and timed; learning_curve: more and more of the votes, on the same held-out "
        "prompts; budgets: several settings within the same wall times, on the same held-out "
        "prompts; parts: other studies, brought together. The kind demonstrations, which compares "
        "what models learn from them, has settings of its own."
    )
    votes: tuple[str, ...] = Field(
        (), description="Votes files, below the data folder or the study's own folder."
    )
    test: tuple[str, ...] = Field((), description="Votes files of a transfer's test.")
    verdicts: str = Field("", description="LLM verdicts on the test pairs (MT-Bench layout).")
    leave_out_annotators: tuple[str, ...] = Field(
        (), description="Annotators whose votes are not learnt from."
    )
    settings: dict[str, object] = Field({}, description="Settings of the fit, as in docs/settings.")
    arms: dict[str, dict[str, object]] = Field(
        {}, description="Of ablations, judges and budgets: name of an arm → settings it changes."
    )
    teachers: dict[str, str] = Field(
        {},
        description="Of judges: arm → whose opinion it learns from beside the votes: base or an "
        "arm before it, whose out-of-fold predictions it then has, or a file of an LLM judge's "
        "verdicts (PandaLM layout).",
    )
    sizes: tuple[int, ...] = Field(
        (),
        description="Of a learning curve: training pairs of its points, ascending; one more "
        "point takes them all.",
    )
    held_out: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Share of the pairs that judges, a learning curve or budgets are judged on.",
    )
    budgets: tuple[str, ...] = Field(
        (), description="Wall times that every arm gets, ascending, such as 90s or 20m."
    )
    parts: tuple[str, ...] = Field(
        (), description="Of a study made of studies: their files, from this file's folder."
    )
    beside: tuple[str, ...] = Field(
        (), description="Of a study made of studies: names of other results files to show."
    )
    headlines: dict[str, str] = Field(
        {}, description="Of a study made of studies: metric → part.metric that it is taken from."
    )
    notes: str = Field("", description="What falls short and why; goes into the results.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: use small letters, digits, _ and -")
        if self.name == SHARED:
            raise ValueError(
                f"name {SHARED!r}: choose another one, studies share the folder {SHARED}"
            )
        for setting, kinds, rule in _NEEDED:
            if (self.kind in kinds) != bool(getattr(self, setting)):
                raise ValueError(f"{rule}, the others do not")
        for setting, kinds, rule in _ALLOWED:
            if self.kind not in kinds and getattr(self, setting):
                raise ValueError(rule)
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        seconds = [seconds_of(budget, option="budgets") for budget in self.budgets]
        if sorted(set(seconds)) != seconds:
            raise ValueError(f"budgets {', '.join(self.budgets)}: name ascending wall times")
        if sorted(set(self.sizes)) != list(self.sizes) or min(self.sizes, default=1) < 1:
            raise ValueError(f"sizes {list(self.sizes)}: name ascending numbers from 1 up")
        bad = [arm for arm in self.arms if not _NAME.fullmatch(arm) or arm == BASE]
        if bad:
            raise ValueError(f"arm {bad[0]!r}: use small letters, digits, _ and -, not {BASE!r}")
        order = [BASE, *self.arms]
        for arm, teacher in self.teachers.items():
            known = arm in self.arms and teacher in order[: order.index(arm)]
            if not known and (arm not in self.arms or not Path(teacher).suffix):
                raise ValueError(
                    f"teachers: {arm}: {teacher}: name an arm, and one before it or a file"
                )
        return self


@dataclass(frozen=True, slots=True)
class Studied:
    """A finished study.

    Attributes:
        result: the results file's content.
        evaluations: title → evaluation, in order.
        plots: what can be seen of it.
        lines: what it found, in sentences, where evaluations do not say it.
    """

    result: Result
    evaluations: Mapping[str, Evaluation]
    plots: tuple[Plot, ...] = ()
    lines: tuple[str, ...] = ()
