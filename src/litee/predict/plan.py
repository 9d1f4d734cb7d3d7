"""What a fit will cost here, and which settings fit a budget.

A short calibration on the texts themselves gives seconds and bytes; nothing is guessed from the
name of the machine. Knows nothing of reading files and of what the judge will be worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from litee.config import ENCODER_MEMBERS, Encoder, FitSettings
from litee.errors import BudgetError, ConfigError
from litee.finetune.branch_member import PASS_TOKENS
from litee.finetune.rates import Rates, probe_bytes, probe_fits
from litee.predict.leaner import lighter
from litee.records import Folds
from litee.rundir import Json

#: A plan must promise to end this much before its budget.
MARGIN = 0.85

#: Seconds of joining members, intervals, plots and the page, without loading anything.
REPORT_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a plan.

    Attributes:
        stage: what is done.
        seconds: expected.
        low: at least about.
        high: at most about.
        why: the figures behind it.
    """

    stage: str
    seconds: float
    low: float
    high: float
    why: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one encoder of one backbone has to read.

    Attributes:
        encoder: tree, joint or verdict.
        pairs: number of pairs.
        run: tokens after sharing, all pairs.
        kept: of these, tokens whose states are on the disk already.
        sample: tokens of the pairs that choose the exit depth.
        leaves: distinct answers.
    """

    encoder: Encoder
    pairs: int
    run: int
    kept: int
    sample: int
    leaves: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The calibration of one backbone.

    Attributes:
        name: of the backbone.
        layers: of the whole model.
        hidden: width of a state.
        load: seconds of loading it.
        rates: of passes and steps.
        probe: seconds of one probe's fit on all pairs.
        tokens: what its encoders have to read.
        pass_tokens: tokens of all branches that go through the LoRA layers at once.
        on_gpu: memory is that of a GPU, which holds no states and probes.
    """

    name: str
    layers: int
    hidden: int
    load: float
    rates: Rates
    probe: float
    tokens: tuple[Tokens, ...]
    pass_tokens: int = PASS_TOKENS
    on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not depend on a backbone.

    Attributes:
        base_bytes: resident memory before any backbone is loaded.
        fresh: seconds that a fresh process takes until it can load a judge.
        statistics: seconds of the statistics member.
        calibration: seconds that measuring took.
        threads: compute threads.
    """

    base_bytes: int
    fresh: float
    statistics: float
    calibration: float
    threads: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A fit before it runs.

    Attributes:
        settings: what would run.
        steps: in order.
        peak_bytes: largest resident memory.
        changes: what was changed to fit the budget, in words.
        tokens_per_vote: tokens that are run for a vote, over all backbones.
    """

    settings: FitSettings
    steps: tuple[Step, ...]
    peak_bytes: int
    changes: tuple[str, ...]
    tokens_per_vote: float

    @property
    def seconds(self) -> float:
        """Expected wall time."""
        return sum(step.seconds for step in self.steps)

    @property
    def low(self) -> float:
        """Wall time, at least about."""
        return sum(step.low for step in self.steps)

    @property
    def high(self) -> float:
        """Wall time, at most about."""
        return sum(step.high for step in self.steps)

    @property
    def tail(self) -> float:
        """Seconds of what has to follow the members: joining, checking, reporting."""
        return sum(step.high for step in self.steps if step.stage in TAIL)

    def to_json(self) -> Json:
        """For the run's folder: what was promised."""
        return {
            "seconds": round(self.seconds, 1),
            "low": round(self.low, 1),
            "high": round(self.high, 1),
            "peak_rss_mb": round(self.peak_bytes / 1e6, 1),
            "changes": list(self.changes),
            "settings": self.settings.model_dump(mode="json"),
            "steps": [
                {"stage": s.stage, "seconds": round(s.seconds, 2), "why": s.why} for s in self.steps
            ],
        }


#: Where a run keeps its plan.
PLAN_FILE = "plan.json"

#: Stages after the members.
TAIL = ("reload check", "report")


def expect(
    settings: FitSettings, folds: Folds, machine: Machine, measured: Sequence[Measured]
) -> Plan:
    """The plan of these settings.

    Args:
        settings: to be fitted.
        folds: of the pairs.
        machine: its calibration.
        measured: one per backbone of the settings, in order.
    """
    steps = [_step("measuring", machine.calibration, 0.0, "done")]
    peak = machine.base_bytes
    if "statistics" in settings.members:
        steps.append(_step("statistics", machine.statistics, 0.2, f"{folds.count} folds"))
    for backbone in measured:
        steps += _backbone_steps(backbone, settings, folds)
        peak = max(peak, machine.base_bytes + _peak(backbone, settings))
    loads = sum(m.load for m in measured)
    seconds = 2 * loads + machine.fresh
    steps.append(_step("reload check", seconds, 0.2, "loads the judge here and in a fresh process"))
    steps.append(_step("report", REPORT_SECONDS, 0.4, "intervals, plots, page"))
    pairs = len(folds.groups)
    read = sum(t.run for m in measured for t in m.tokens) / pairs
    return Plan(settings, tuple(steps), peak, (), read)


def _step(stage: str, seconds: float, spread: float, why: str) -> Step:
    return Step(stage, seconds, seconds * (1 - spread), seconds * (1 + spread), why)


def _exit(backbone: Measured, settings: FitSettings) -> tuple[int, int, int]:
    """Expected, lowest and highest exit depth."""
    if settings.encodes("verdict"):
        return backbone.layers, backbone.layers, backbone.layers
    asked = settings.depths_of(backbone.name)
    if asked is None:
        return round(backbone.layers * 2 / 3), backbone.layers // 3, backbone.layers
    return asked[-1], asked[-1], asked[-1]


def _backbone_steps(backbone: Measured, settings: FitSettings, folds: Folds) -> Iterator[Step]:
    rates, name = backbone.rates, backbone.name
    spread = min(0.5, 0.1 + rates.spread)
    depth, lowest, highest = _exit(backbone, settings)
    yield _step(f"load {name}", backbone.load, 0.3, f"{rates.model_bytes / 1e6:,.0f} MB")
    searched = settings.depth == "auto" and not settings.encodes("verdict")
    if searched:
        sample = backbone.tokens[0].sample
        seconds = sample * backbone.layers * rates.frozen + backbone.load
        yield _step(
            f"depth of {name}", seconds, spread, f"{sample:,} tokens x {backbone.layers} layers"
        )
    for number, tokens in enumerate(backbone.tokens):
        read = tokens.sample if searched and number == 0 else 0
        kept = max(tokens.kept, read)  # texts that chose the depth have been through its layers
        fresh = max(0, tokens.run - kept)
        cost = fresh * rates.frozen
        why = f"{fresh:,} tokens x {depth} layers; {kept:,} tokens are on the disk by then"
        low, high = cost * lowest * (1 - spread), cost * highest * (1 + spread)
        yield Step(f"{tokens.encoder} states of {name}", cost * depth, low, high, why)
        if tokens.encoder != "verdict":
            fits = probe_fits(folds.count, len(settings.ridge))
            share = (folds.count - 1) / folds.count
            fits *= len(settings.depths_of(name) or (depth,))
            why = f"{fits:.0f} fits of {tokens.pairs:,} pairs"
            probe = "probe" if tokens.encoder == "tree" else "joint probe"
            yield _step(f"{probe} on {name}", fits * share * backbone.probe, 0.4, why)
        if ENCODER_MEMBERS[tokens.encoder][1] in settings.members:
            yield _lora_step(backbone, tokens, settings, folds, depth=depth, spread=spread)


def _lora_step(
    backbone: Measured,
    tokens: Tokens,
    settings: FitSettings,
    folds: Folds,
    *,
    depth: int,
    spread: float,
) -> Step:
    rates, layers = backbone.rates, settings.lora_layers
    below = tokens.run * max(0, depth - layers) * rates.frozen
    fold_tokens = tokens.run * (folds.count - 1) / folds.count
    branches = folds.count + (settings.lora_final == "refit")
    forward = max(rates.frozen, rates.trained / 3)  # through adapted layers, no gradients
    # an eighth of the prompts stops the branch, and is run at the start and at each validation
    judged = 0.12 * (1 + settings.evaluations_per_epoch * settings.num_train_epochs)
    again = forward if settings.gradient_checkpointing else 0.0
    epochs = 0.88 * (rates.trained + again) * settings.num_train_epochs + judged * forward
    held_out = tokens.run / folds.count * layers * forward
    full = branches * (fold_tokens * layers * epochs + held_out)
    # patience can end a branch after this share of its epochs at the earliest
    least = min(1.0, settings.patience / settings.evaluations_per_epoch / settings.num_train_epochs)
    why = (
        f"{branches} branches of at most {settings.num_train_epochs} epochs, {layers} layers, "
        f"{fold_tokens:,.0f} tokens an epoch"
    )
    low, high = below + full * least, below + full
    kind = "LoRA" if tokens.encoder == "tree" else f"{tokens.encoder} LoRA"
    stage = f"{kind} on {backbone.name}"
    return Step(stage, (low + high) / 2, low * (1 - spread), high * (1 + spread), why)


def _peak(backbone: Measured, settings: FitSettings) -> int:
    rates, most = backbone.rates, 0
    width = backbone.hidden * len(settings.pooling.split("+"))
    for tokens in backbone.tokens:
        depths = len(settings.depths_of(backbone.name) or (0,))
        states = tokens.leaves * 2 * backbone.hidden * 4 * (depths + 1)  # and one of them flat
        step = 0
        if settings.tuned:
            branches = max(1, backbone.pass_tokens // settings.batch_tokens)
            together = branches * min(settings.batch_tokens, tokens.run)
            step = round(rates.step_bytes + together * _token_bytes(backbone, settings))
        fit = probe_bytes(tokens.pairs, width)
        if backbone.on_gpu:
            states = fit = 0
        most = max(most, states + max(rates.frozen_bytes, fit, step))
    return max(rates.load_bytes, rates.model_bytes + most)


def _token_bytes(backbone: Measured, settings: FitSettings) -> float:
    """Memory of a LoRA step per token: of all layers, or of one and the inputs of the others."""
    one, layers = backbone.rates.trained_bytes, settings.lora_layers
    if not settings.gradient_checkpointing:
        return one * layers
    return one + layers * backbone.hidden * 4


def choose(
    settings: FitSettings,
    folds: Folds,
    machine: Machine,
    measured: Sequence[Measured],
    *,
    seconds: float | None,
    max_bytes: int | None,
) -> Plan:
    """The richest plan that fits, taking away what costs most for the least first.

    Args:
        settings: what was asked for.
        folds: of the pairs.
        machine: its calibration.
        measured: one per backbone of the settings.
        seconds: budget, None for any.
        max_bytes: of resident memory, None for any.

    Raises:
        BudgetError: nothing fits.
    """
    left = None if seconds is None else seconds * MARGIN
    plan = None
    for changed, said in lighter(settings, measured, checkpoint=max_bytes is not None):
        own = [
            replace(m, tokens=tuple(t for t in m.tokens if _encoded(t, changed)))
            for m in measured
            if m.name in changed.backbones
        ]
        plan = replace(expect(changed, folds, machine, own), changes=said)
        in_time = left is None or plan.seconds <= left
        if in_time and (max_bytes is None or plan.peak_bytes <= max_bytes):
            return plan
    assert plan is not None
    raise BudgetError(
        f"even the leanest fit needs about {plan.seconds:.0f} seconds and "
        f"{plan.peak_bytes / 1e6:,.0f} MB",
        fix="raise --budget or --max-memory, or give fewer votes",
    )


def _encoded(tokens: Tokens, settings: FitSettings) -> bool:
    return settings.encodes(tokens.encoder)


def kept_settings(folder: Path) -> FitSettings | None:
    """The settings that an earlier session of this run has planned with, if it has."""
    file = folder / PLAN_FILE
    if not file.is_file():
        return None
    try:
        return FitSettings.model_validate(json.loads(file.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"damaged: {str(error).splitlines()[0]}", place=str(file), fix="choose a new --out"
        ) from error
