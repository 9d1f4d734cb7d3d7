"""Typed settings: defaults, a YAML file, and overrides from the command line, in that order.

Every setting has its one default here. Unknown or contradictory settings are errors that name
the setting, the value, what is allowed and the fix. Knows nothing of what the settings do.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from litee.amounts import bytes_of
from litee.errors import ConfigError

#: Where backbones run.
Device = Literal["auto", "cpu", "cuda"]

#: How the weights of frozen layers are kept and multiplied.
DtypeSetting = Literal["auto", "float32", "bfloat16", "int8", "nf4"]

MemberKind = Literal[
    "statistics", "probe", "lora", "joint", "joint-lora", "verdict", "verdict-lora"
]

#: Layers of a backbone after which its states are read.
Depths = int | tuple[int, ...]

#: Groups of text statistics.
StatisticsGroup = Literal["length", "structure", "wording", "prompt", "ending"]

#: How a pair is written for a backbone: answers apart over one prompt; one sequence per order; such
#: a sequence with a question at its end.
Encoder = Literal["tree", "joint", "verdict"]

#: Encoder → its member on frozen states, and the one with LoRA.
ENCODER_MEMBERS: Mapping[Encoder, tuple[MemberKind, MemberKind]] = {
    "tree": ("probe", "lora"),
    "joint": ("joint", "joint-lora"),
    "verdict": ("verdict", "verdict-lora"),
}


#: Members whose heads give every answer a reward.
_REWARDED: Set[MemberKind] = {"statistics", *ENCODER_MEMBERS["tree"]}


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FitSettings(Settings):
    """Settings of `litee fit`."""

    backbones: tuple[str, ...] = Field(
        ("smollm2-135m-instruct",),
        description="Backbones: a packaged name, a folder, a .gguf file or owner/name on the hub.",
    )
    members: tuple[MemberKind, ...] = Field(
        ("statistics", "probe", "lora"),
        description="Kinds of members, all but statistics once per backbone. probe, lora: answers "
        "apart (pair tree); joint, joint-lora: the paper's one sequence, prompt, A and B; verdict, "
        "verdict-lora: such a sequence and a question, answered by the model's own A, B or tie.",
    )
    template: Literal["auto", "chat", "plain"] = Field(
        "auto", description="Prompt template: the backbone's chat template, a plain one, or auto."
    )
    verdict_shots: int = Field(
        0, ge=0, le=3, description="Solved examples before the question of the verdict members."
    )
    max_tokens: int = Field(
        1024, ge=8, description="Text tokens per pair, shared by prompt, A and B."
    )
    prompt_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="The prompt's share of max_tokens, A and B halve the rest; 0 hides the prompt "
        "from the backbones.",
    )
    depth: Depths | dict[str, Depths] | Literal["auto"] = Field(
        "auto",
        description="Depths whose states are read: a number of layers, or several, such as "
        "12,18,24, for one frozen member at each of them (LoRA is at the deepest, where the "
        "backbone is left); the same per backbone (name: numbers, in a file); or auto, which "
        "probes for the best one.",
    )
    probe_pairs: int = Field(
        600, ge=50, description="Pairs that are run through all layers to choose the exit depth."
    )
    pooling: Literal["last", "mean", "last+mean"] = Field(
        "last+mean", description="What of an answer's states the head reads."
    )
    branch_pooling: Literal["states", "attention"] = Field(
        "states",
        description="How LoRA branches pool: states, as `pooling` says; attention, with a learnt "
        "weighted mean in place of the mean.",
    )
    answer_length: bool = Field(
        True,
        description="Heads of answers apart also read how many characters each answer has.",
    )
    head: Literal["davidson", "rao-kupper"] = Field(
        "davidson", description="Tie model of the tree encoder's heads."
    )
    statistics_groups: tuple[StatisticsGroup, ...] = Field(
        get_args(StatisticsGroup),
        min_length=1,
        description="What the statistics member reads: how long answers are, their structure "
        "(lists, headers, code), their wording, what they share with the prompt, how they end "
        "(refused, cut short, empty).",
    )
    ridge: tuple[float, ...] = Field(
        (150.0, 500.0, 2000.0, 8000.0),
        min_length=1,
        description="Prior precisions of the probe's weights, in pairs; the best on held-out "
        "prompts of the training part is taken.",
    )
    lora_r: int = Field(16, ge=1, description="LoRA rank.")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale is alpha / r.")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    lora_layers: int = Field(4, ge=1, description="Topmost layers below the exit that get LoRA.")
    lora_final: Literal["bag", "average", "refit"] = Field(
        "bag",
        description="What a LoRA member predicts with: bag, the branches of all folds, whose "
        "logits are averaged; average, one branch with the means of their weights; refit, one more "
        "branch that learns from all prompts.",
    )
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of the LoRA weights.")
    head_learning_rate: float = Field(0.0, ge=0, description="Peak rate of the head; 0 holds it.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decay of the LoRA weights.")
    num_train_epochs: int = Field(3, ge=1, description="Most passes over the training prompts.")
    batch_tokens: int = Field(
        2048, ge=64, description="Branch tokens that go through the LoRA layers at once."
    )
    gradient_accumulation_steps: int = Field(4, ge=1, description="Batches per optimiser step.")
    evaluations_per_epoch: int = Field(
        2, ge=1, description="Validations, each with a checkpoint, per epoch."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm above which it is scaled.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of steps with rising rate.")
    patience: int = Field(2, ge=1, description="Validations without gain before a branch stops.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target spread evenly over A, B and tie."
    )
    soft_labels: bool = Field(
        True,
        description="Learn from every pair's vote shares; false takes the outcome with most votes. "
        "Ridge, early stop, weights and calibration go by the shares either way.",
    )
    annotators: Literal["equal", "agreement"] = Field(
        "equal",
        description="How much votes count in what is learnt from: equally, or by how well their "
        "annotator agrees with the others on the same pairs, beyond chance. Ridge, early stop, "
        "weights, calibration and report count them equally either way.",
    )
    pair_weight: Literal["pair", "votes", "prompt"] = Field(
        "prompt",
        description="Weight of a pair in training: 1, its number of votes, or 1 / √(pairs of its "
        "prompt), so that a prompt with many pairs does not drown the others.",
    )
    teacher_weight: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of a teacher's opinion in what members learn from, where there is a "
        "teacher (--teacher); votes have the rest.",
    )
    sources: Literal["together", "lengths", "effects", "apart"] = Field(
        "together",
        description="How several sources of votes are learnt from: together, one set of weights; "
        "lengths, every source has its own taste for length and for ties while fitting, and what "
        "they share predicts; effects, the same for all weights; apart, a head per source, whose "
        "probabilities are averaged. The last three are for votes of yet another source.",
    )
    folds: int = Field(5, ge=2, description="Folds by prompt for out-of-fold predictions.")
    fold_by: Literal["prompt", "source"] = Field(
        "prompt",
        description="What a fold holds out: prompts, or whole sources, when the judge is meant for "
        "votes unlike those it learns from (folds is then the number of sources).",
    )
    pool: Literal["auto", "linear", "log", "power"] = Field(
        "linear",
        description="How members' probabilities are joined: linear, the weighted mean; log, the "
        "weighted geometric mean; power, between the two; auto, the best on held-out prompts.",
    )
    member_weights: Literal["fitted", "equal"] = Field(
        "fitted",
        description="Weights of the members: fitted on held-out prompts, or equal, since fitted "
        "ones are right for the sources learnt from.",
    )
    calibration: Literal["auto", "none", "temperature", "vector", "lapse"] = Field(
        "auto",
        description="Scaling after pooling: a temperature, a vector with scales and a bias for "
        "ties, or a vector under a lapse rate; auto, a temperature unless held-out prompts show "
        "that votes lapse.",
    )
    dtype: DtypeSetting = Field(
        "auto",
        description="Data type of the frozen layers; auto takes bfloat16 on a GPU, and the faster "
        "of float32 and bfloat16 on a CPU; int8 also rounds the products that stand it, on a CPU; "
        "nf4 keeps the weights in 4 bits, on a GPU.",
    )
    device: Device = Field(
        "auto",
        description="Where the backbones run: cpu, cuda, or auto, which takes a CUDA GPU when "
        "there is one. A judge does not depend on it.",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Forget what is inside each LoRA layer and compute it again for the gradients: "
        "less memory, more time, the same result.",
    )
    cache_size: str = Field(
        "20GB",
        description="Disk space for states of frozen layers, such as 500MB or 20GB: for those kept "
        "between runs, the least recently used of which are deleted, and for those that LoRA "
        "branches train from, which are computed again and again where they do not fit.",
    )
    threads: int = Field(0, ge=0, description="Compute threads; 0 takes all usable cores.")
    seed: int = Field(0, ge=0, description="Seed of folds, branches and intervals.")

    def depths_of(self, backbone: str) -> tuple[int, ...] | None:
        """Depths that were asked for, ascending, of a backbone; None for auto.

        >>> FitSettings(depth=(24, 12)).depths_of("smollm2-135m-instruct")
        (12, 24)
        """
        asked = self.depth[backbone] if isinstance(self.depth, dict) else self.depth
        if asked == "auto":
            return None
        return (asked,) if isinstance(asked, int) else tuple(sorted(asked))

    @property
    def tuned(self) -> bool:
        """Whether any member has LoRA branches."""
        return bool({tuned for _, tuned in ENCODER_MEMBERS.values()} & set(self.members))

    def encodes(self, encoder: Encoder) -> bool:
        """Whether any member reads pairs written so."""
        return bool(set(ENCODER_MEMBERS[encoder]) & set(self.members))

    @property
    def cache_bytes(self) -> int:
        """`cache_size` in bytes."""
        return bytes_of(self.cache_size, option="cache_size")

    @field_validator("cache_size")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        try:
            bytes_of(value, option="cache_size")
        except ConfigError as error:
            raise ValueError(f"{value!r} is no size: {error.fix}") from error
        return value

    @model_validator(mode="after")
    def _depths_agree(self) -> Self:
        if isinstance(self.depth, dict) and set(self.depth) != set(self.backbones):
            raise ValueError(f"depth names {sorted(self.depth)}, but backbones names others")
        found = [self.depths_of(name) for name in self.backbones]
        for depths in [depths for depths in found if depths is not None]:
            if min(depths, default=0) < 1:
                raise ValueError("depth must be 1 or more, or auto")
            if len(set(depths)) < len(depths):
                raise ValueError(f"depth names {list(depths)}, one of them twice")
            if self.tuned and self.lora_layers > depths[-1]:
                raise ValueError(
                    f"lora_layers = {self.lora_layers} is more than depth = {depths[-1]}: lower one"
                )
        return self

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for names, what in (
            (self.members, "members names a kind"),
            (self.statistics_groups, "statistics_groups names a group"),
            (self.backbones, "backbones names a backbone"),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} twice")
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.members:
            known = ", ".join(get_args(MemberKind))
            raise ValueError(f"members is empty; name one or more of {known}")
        if set(self.members) - {"statistics"} and not self.backbones:
            raise ValueError("backbones is empty, but members other than statistics need one")
        for branch, start in (("lora", "probe"), ("joint-lora", "joint")):
            if branch in self.members and start not in self.members:
                raise ValueError(f"member {branch} starts from {start}: add {start} to members")
        if self.verdict_shots and not self.encodes("verdict"):
            raise ValueError(
                f"verdict_shots = {self.verdict_shots}, but no member asks for a verdict: add "
                "verdict or verdict-lora to members"
            )
        if self.annotators == "agreement" and self.members == ("verdict",):
            raise ValueError(
                "annotators = 'agreement' is about votes that members learn from, and verdict "
                "learns from none: add a member"
            )
        read = "last" if "verdict-lora" in self.members else self.pooling
        if self.branch_pooling == "attention" and read == "last":
            raise ValueError(
                "branch_pooling = 'attention' weighs a mean, which pooling = 'last' and "
                "verdict-lora do not read: use pooling last+mean or mean, without verdict-lora"
            )
        if min(self.ridge) < 0:
            raise ValueError("ridge must not be negative")
        return self

    @model_validator(mode="after")
    def _sources_agree(self) -> Self:
        if self.sources == "apart" and self.tuned:
            raise ValueError(
                "sources = 'apart' has heads on frozen states only: leave lora, joint-lora and "
                "verdict-lora out of members"
            )
        rewarded = set(self.members) <= _REWARDED
        if self.sources == "lengths" and not (rewarded and self.answer_length):
            raise ValueError(
                "sources = 'lengths' is about rewards that read lengths: leave answer_length on, "
                f"and take members from {', '.join(sorted(_REWARDED))}"
            )
        return self


S = TypeVar("S", bound=Settings)


def load_settings(
    kind: type[S], file: Path | None, overrides: Mapping[str, object] | None = None
) -> S:
    """Settings from defaults, then a YAML file, then overrides (None = not given).

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value is out of range, or
            settings contradict each other.

    >>> load_settings(FitSettings, None, {"folds": 3, "seed": None}).folds
    3
    """
    values: dict[str, object] = {}
    place = "command line"
    if file is not None:
        place = str(file)
        values.update(read_yaml(file))
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(kind, error, place) from error


def read_yaml(file: Path) -> dict[str, object]:
    """The `name: value` lines of a file, not checked further.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise ConfigError(
            f"cannot read: {reason}", place=str(file), fix="check the file"
        ) from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(
            "expected `name: value` lines", place=str(file), fix="see docs/settings.md"
        )
    return {str(k): v for k, v in loaded.items()}


def _explain(kind: type[Settings], error: ValidationError, place: str) -> ConfigError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = sorted(kind.model_fields)
        near = [k for k in known if k[:4] == name[:4]] or known
        fix = f"known settings: {', '.join(near)}"
        return ConfigError(f"unknown setting {name!r}", place=place, fix=fix)
    if not name:
        return ConfigError(message, place=place, fix="change one of the settings named")
    field = kind.model_fields.get(name)
    described = field.description if field is not None else ""
    return ConfigError(
        f"{name} = {first['input']!r}: {message}", place=place, fix=f"{name}: {described}"
    )
