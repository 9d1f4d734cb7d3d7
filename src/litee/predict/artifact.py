"""The judge on disk: `judge.json` and one folder per member. Safetensors and JSON, never pickle.

Knows nothing of torch: it reads and writes the description; weights are read by `predict.judge`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from litee.config import Encoder, StatisticsGroup
from litee.errors import ModelError
from litee.predict.ensemble import Ensemble
from litee.predict.familiar import Familiar
from litee.records import CLASSES
from litee.rundir import write_json

#: Raised when judges written before can no longer be read as they are.
FORMAT_VERSION = 2

JUDGE_FILE = "judge.json"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneEntry(_Entry):
    """A backbone a judge needs.

    Attributes:
        name: packaged name, hub name or path, as it was given.
        sha256: of its config and weights.
        dtype: data type the members were fitted with.
        int8_layers: so many of the lowest layers use 8-bit products.
        nf4: the layers keep their weights in 4 bits.
        exit_depth: layers that are run.
        template: id of the prompt template.
        max_tokens: text tokens per pair.
        prompt_share: the prompt's share of them.
        verdict_shots: solved examples before a verdict's question.
    """

    name: str
    sha256: str
    dtype: Literal["float32", "bfloat16"]
    exit_depth: int
    template: str
    max_tokens: int
    prompt_share: float
    verdict_shots: int = 0
    int8_layers: int = 0
    nf4: bool = False


class MemberEntry(_Entry):
    """A member of the ensemble.

    Attributes:
        name: unique in the judge; also its folder below `members/`.
        kind: statistics, probe (frozen states) or lora (adapted states).
        encoder: tree, joint or verdict; None for statistics.
        backbone: name of its backbone, None for statistics.
        head: davidson, rao-kupper, joint or verdict.
        pooling: what of an answer's states the head reads.
        branch_pooling: states, or attention, where each LoRA branch weighs its mean by a query.
        answer_length: the head reads the length of an answer, behind its states.
        longest_answer: characters of the longest one it learnt from, which longer ones count as;
            None for no bound.
        depth: layers below the frozen states it reads; None for all that are run.
        start_depth: frozen layers below a LoRA branch, None for the others.
        sources: of votes, one head each in `source0`, `source1`, …, whose probabilities are
            averaged; empty for one head.
        statistics: groups of text statistics that a statistics member reads; empty for all.
        branches: folders of a LoRA member's branches below its own; their logits are averaged.
        held_out_log_loss: out-of-fold log loss per pair when it was fitted.
        best_steps: step at which each branch stopped; 0 means that it stayed its probe.
    """

    name: str
    kind: Literal["statistics", "probe", "lora"]
    encoder: Encoder | None = None
    backbone: str | None = None
    head: Literal["davidson", "rao-kupper", "joint", "verdict"] = "davidson"
    pooling: Literal["last", "mean", "last+mean"] = "last"
    branch_pooling: Literal["states", "attention"] = "states"
    answer_length: bool = False
    longest_answer: int | None = None
    depth: int | None = None
    start_depth: int | None = None
    sources: tuple[str, ...] = ()
    statistics: tuple[StatisticsGroup, ...] = ()
    branches: tuple[str, ...] = ()
    held_out_log_loss: float | None = None
    best_steps: tuple[int, ...] = ()


class JudgeFile(_Entry):
    """Everything in `judge.json`."""

    format_version: int = FORMAT_VERSION
    classes: tuple[str, str, str] = ("a", "b", "tie")
    backbones: tuple[BackboneEntry, ...]
    members: tuple[MemberEntry, ...]
    ensemble: Ensemble
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    trained_on: dict[str, str] = {}
    familiar: Familiar = Familiar()
    litee_version: str = ""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        names = [m.name for m in self.members]
        if self.classes != CLASSES:
            raise ValueError(f"classes are {self.classes}, not {CLASSES}")
        if len(set(names)) < len(names) or set(self.ensemble.members) != set(names):
            raise ValueError("the ensemble's members are not those listed")
        depths = {b.name: b.exit_depth for b in self.backbones}
        for member in self.members:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", member.name):
                raise ValueError(f"{member.name!r} is no name of a member")
            if member.kind == "statistics":
                continue
            if member.encoder is None or member.backbone not in depths:
                raise ValueError(f"member {member.name} has no encoder or no backbone")
            if (member.kind == "lora") != bool(member.branches):
                raise ValueError(f"member {member.name} is {member.kind} with {member.branches}")
            if any(not re.fullmatch(r"[A-Za-z0-9]+", name) for name in member.branches):
                raise ValueError(f"member {member.name} has a branch with no proper name")
            _check_depths(member, depths[member.backbone])
            weighs = member.kind == "lora" and "mean" in member.pooling
            if member.branch_pooling == "attention" and not weighs:
                raise ValueError(f"member {member.name} has no branches that read a mean to weigh")
        return self

    def backbone(self, name: str) -> BackboneEntry:
        """The entry of a backbone."""
        return next(b for b in self.backbones if b.name == name)


def _check_depths(member: MemberEntry, exit_depth: int) -> None:
    if member.sources and member.kind == "lora":
        raise ValueError(f"member {member.name} is lora and has a head per source")
    start = -1 if member.start_depth is None else member.start_depth
    if member.kind == "lora" and not 0 <= start < exit_depth:
        raise ValueError(f"start_depth of {member.name} is not below its exit depth")
    if member.depth is None:
        return
    if member.kind == "lora" or not 0 < member.depth <= exit_depth:
        raise ValueError(f"depth = {member.depth} of {member.name} is not one of frozen states")


def save_judge_file(judge: JudgeFile, folder: Path) -> None:
    """Write `judge.json` atomically."""
    write_json(folder / JUDGE_FILE, json.loads(judge.model_dump_json()))


def load_judge_file(folder: Path) -> JudgeFile:
    """Read and check `judge.json`.

    Raises:
        ModelError: no judge there, a damaged file, or a newer format.
    """
    file = folder / JUDGE_FILE
    if not file.is_file():
        raise ModelError(
            "no judge here (judge.json is missing)",
            place=str(folder),
            fix="name a folder made by `litee fit`; an unfinished one goes on with --resume",
        )
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"format version {version}, this litee reads {FORMAT_VERSION}",
                place=str(file),
                fix="install the litee that wrote it, or fit the judge again",
            )
        return JudgeFile.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        problem = f"damaged: {where + ': ' if where else ''}{message}"
        raise ModelError(problem, place=str(file), fix="fit the judge again") from error
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"damaged: {str(error).splitlines()[0]}", place=str(file), fix="fit the judge again"
        ) from error
