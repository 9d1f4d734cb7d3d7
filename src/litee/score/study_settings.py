"""What a study's YAML file may say, and what a finished study is.

Knows nothing of how a study runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from litee.config import Settings, seconds_of
from litee.score.results import Result
from litee.score.scorecard import Evaluation

#: The arm of an ablation study that changes nothing.
BASE = "base"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class StudySettings(Settings):
    """A study's YAML file."""

    name: str = Field(description="Name of the results file.")
    kind: Literal["fit", "transfer", "in_source", "ablations", "learning_curve", "budgets"] = Field(
        description="fit: held-out prompts of the same votes; transfer: other votes; in_source: "
        "fit each file by itself; ablations: the same votes with some settings changed at a time; "
        "learning_curve: more and more of the votes, on the same held-out prompts; budgets: "
        "several settings within the same wall times, on the same held-out prompts."
    )
    votes: tuple[str, ...] = Field(
        min_length=1, description="Votes files, below the data folder or the study's own folder."
    )
    test: tuple[str, ...] = Field((), description="Votes files of a transfer's test.")
    verdicts: str = Field("", description="LLM verdicts on the test pairs (MT-Bench layout).")
    leave_out_annotators: tuple[str, ...] = Field(
        (), description="Annotators whose votes are not learnt from."
    )
    settings: dict[str, object] = Field({}, description="Settings of the fit, as in docs/settings.")
    arms: dict[str, dict[str, object]] = Field(
        {}, description="Of ablations and budgets: name of an arm → settings it changes."
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
        description="Share of the pairs that a learning curve or budgets are judged on.",
    )
    budgets: tuple[str, ...] = Field(
        (), description="Wall times that every arm gets, ascending, such as 90s or 20m."
    )
    notes: str = Field("", description="What falls short and why; goes into the results.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: use small letters, digits, _ and -")
        if (self.kind == "transfer") != bool(self.test):
            raise ValueError("a transfer study names votes under test, the others do not")
        if self.verdicts and self.kind != "transfer":
            raise ValueError("verdicts are compared with in a transfer study only")
        if (self.kind in {"ablations", "budgets"}) != bool(self.arms):
            raise ValueError("ablations and budgets name arms, the others do not")
        if (self.kind == "budgets") != bool(self.budgets):
            raise ValueError("a study of budgets names some, the others do not")
        seconds = [seconds_of(budget, option="budgets") for budget in self.budgets]
        if sorted(set(seconds)) != seconds:
            raise ValueError(f"budgets {', '.join(self.budgets)}: name ascending wall times")
        if (self.kind == "learning_curve") != bool(self.sizes):
            raise ValueError("a learning curve names sizes, the others do not")
        if sorted(set(self.sizes)) != list(self.sizes) or min(self.sizes, default=1) < 1:
            raise ValueError(f"sizes {list(self.sizes)}: name ascending numbers from 1 up")
        bad = [arm for arm in self.arms if not _NAME.fullmatch(arm) or arm == BASE]
        if bad:
            raise ValueError(f"arm {bad[0]!r}: use small letters, digits, _ and -, not {BASE!r}")
        return self


@dataclass(frozen=True, slots=True)
class Studied:
    """A finished study.

    Attributes:
        result: the results file's content.
        evaluations: title → evaluation, in order.
    """

    result: Result
    evaluations: Mapping[str, Evaluation]
