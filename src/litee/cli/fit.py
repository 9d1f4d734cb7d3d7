"""`litee fit`: votes to judge."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litee.amounts import bytes_of, seconds_of
from litee.config import FitSettings, load_settings

if TYPE_CHECKING:
    from litee.finetune.deadline import Deadline
    from litee.predict.plan import Plan
    from litee.records import Folds, VotedPair, VoteSet

_DEFAULTS = FitSettings()


def _help(name: str) -> str:
    """Description and default of a setting, from the one place that has them."""
    field = FitSettings.model_fields[name]
    default = getattr(_DEFAULTS, name)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{field.description} (default: {shown})"


def _list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _depth(text: str | None) -> int | tuple[int, ...] | str | None:
    parts = [part.strip() for part in (text or "").split(",")]
    if not all(part.isdigit() for part in parts):
        return text
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


BudgetOption = Annotated[
    str | None,
    typer.Option(help="Wall time, such as 90s, 20m or 2h; the fit is cut to it and stops."),
]
MaxMemoryOption = Annotated[
    str | None, typer.Option(help="Resident memory, such as 8GB; the fit is cut to it.")
]


#: Options of `fit` that are no settings of the judge.
_NO_SETTINGS = (
    *("votes", "out", "config", "teacher", "resume"),
    *("strict", "format", "budget", "max_memory"),
)

_TEACHER = (
    "Table of a judge's probabilities or verdicts on these pairs, to learn from beside the votes: "
    "another judge's out_of_fold.jsonl, or an LLM judge's."
)


def fit(
    votes: Annotated[list[str], typer.Argument(help="Votes files, or hf://owner/name.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the judge and its report.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    teacher: Annotated[Path | None, typer.Option(help=_TEACHER)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse dropped or odd rows.")] = False,
    format: Annotated[str, typer.Option(help="Layout of the files; see docs/data.md.")] = "auto",
    backbone: Annotated[list[str] | None, typer.Option(help=_help("backbones"))] = None,
    members: Annotated[str | None, typer.Option(help=_help("members"))] = None,
    template: Annotated[str | None, typer.Option(help=_help("template"))] = None,
    max_tokens: Annotated[int | None, typer.Option(help=_help("max_tokens"))] = None,
    depth: Annotated[str | None, typer.Option(help=_help("depth"))] = None,
    pooling: Annotated[str | None, typer.Option(help=_help("pooling"))] = None,
    answer_length: Annotated[
        bool | None,
        typer.Option("--answer-length/--no-answer-length", help=_help("answer_length")),
    ] = None,
    head: Annotated[str | None, typer.Option(help=_help("head"))] = None,
    lora_r: Annotated[int | None, typer.Option(help=_help("lora_r"))] = None,
    lora_layers: Annotated[int | None, typer.Option(help=_help("lora_layers"))] = None,
    learning_rate: Annotated[float | None, typer.Option(help=_help("learning_rate"))] = None,
    num_train_epochs: Annotated[int | None, typer.Option(help=_help("num_train_epochs"))] = None,
    pair_weight: Annotated[str | None, typer.Option(help=_help("pair_weight"))] = None,
    folds: Annotated[int | None, typer.Option(help=_help("folds"))] = None,
    fold_by: Annotated[str | None, typer.Option(help=_help("fold_by"))] = None,
    pool: Annotated[str | None, typer.Option(help=_help("pool"))] = None,
    calibration: Annotated[str | None, typer.Option(help=_help("calibration"))] = None,
    dtype: Annotated[str | None, typer.Option(help=_help("dtype"))] = None,
    device: Annotated[str | None, typer.Option(help=_help("device"))] = None,
    cache_size: Annotated[str | None, typer.Option(help=_help("cache_size"))] = None,
    threads: Annotated[int | None, typer.Option(help=_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=_help("seed"))] = None,
    budget: BudgetOption = None,
    max_memory: MaxMemoryOption = None,
) -> None:
    """Fit a judge on votes: probe, LoRA branches, ensemble, calibration, report.

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    given = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
    started = time.monotonic()
    settings = fit_settings(config, given)
    limits = Limits.of(budget, max_memory, started)
    vote_set, voted, folds_made = read_votes(votes, settings, format=format, strict=strict)
    _fit(
        vote_set,
        voted,
        folds_made,
        settings,
        out=out,
        resume=resume,
        limits=limits,
        teacher=teacher,
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a command may cost.

    Attributes:
        seconds: from `started`; None for any.
        bytes: of resident memory; None for any.
        started: seconds of the monotonic clock.
    """

    seconds: float | None
    bytes: int | None
    started: float

    @classmethod
    def of(cls, budget: str | None, max_memory: str | None, started: float) -> Limits:
        """From the options' texts."""
        seconds = None if budget is None else seconds_of(budget)
        return cls(seconds, None if max_memory is None else bytes_of(max_memory), started)


def fit_settings(config: Path | None, given: Mapping[str, Any]) -> FitSettings:
    """Settings from a file and the options of `litee fit`; None means not given."""
    overrides = dict(given)
    backbones = overrides.pop("backbone", None)
    overrides["backbones"] = tuple(backbones) if backbones else None
    overrides["members"] = _list(overrides.get("members"))
    overrides["depth"] = _depth(overrides.get("depth"))
    return load_settings(FitSettings, config, overrides)


def read_votes(
    votes: list[str], settings: FitSettings, *, format: str, strict: bool
) -> tuple[VoteSet, tuple[VotedPair, ...], Folds]:
    """The votes, their pairs and the split; what was dropped is said."""
    from litee.collect.folds import check_folds
    from litee.collect.pairs import check_learnable, gather
    from litee.collect.votes import load_votes
    from litee.progress import console
    from litee.score.study_fit import split

    vote_set = load_votes(votes, format=format, strict=strict)
    voted = gather(vote_set.votes)
    check_learnable(voted, settings.folds, ", ".join(votes))
    folds = split(voted, settings)
    check_folds([v.pair for v in voted], folds)
    console.print(
        f"{len(vote_set.votes):,} votes on {len(voted):,} pairs, "
        f"{len(set(folds.groups)):,} prompts; {vote_set.dropped.total:,} rows dropped"
    )
    for reason, count in vote_set.dropped.counts.items():
        console.print(f"  dropped {count:,}: {reason}")
    for reason, count in vote_set.noticed.counts.items():
        console.print(f"  kept but odd {count:,}: {reason}")
    return vote_set, voted, folds


def _fit(
    vote_set: VoteSet,
    voted: tuple[VotedPair, ...],
    folds: Folds,
    settings: FitSettings,
    *,
    out: Path,
    resume: bool,
    limits: Limits,
    teacher: Path | None,
) -> None:
    from rich.console import Console

    from litee.score.fit_report import report_path
    from litee.score.report import headline
    from litee.score.study_fit import fit_votes
    from litee.score.table import evaluation_table

    command = "litee " + shlex.join(sys.argv[1:])
    plan, deadline = _plan(voted, folds, settings, out=out, limits=limits)
    result, evaluation = fit_votes(
        vote_set,
        voted,
        folds,
        settings if plan is None else plan.settings,
        out=out,
        command=command,
        resume=resume,
        plan=plan,
        deadline=deadline,
        teacher=teacher,
    )
    console = Console()
    console.print(evaluation_table(evaluation))
    console.print(headline(evaluation), soft_wrap=True)
    console.print(f"judge: {out}   report: {report_path(out)}", soft_wrap=True)
    for caution in evaluation.cautions:
        console.print(f"caution: {caution}", soft_wrap=True, style="yellow")
    if plan is not None:
        took = time.monotonic() - limits.started
        console.print(
            f"planned {plan.seconds:.0f} s and {plan.peak_bytes / 1e6:,.0f} MB, "
            f"took {took:.0f} s and {result.receipt.peak_rss_mb:,.0f} MB",
            highlight=False,
        )
        peak = result.receipt.peak_rss_mb * 1e6
        if limits.bytes is not None and peak > limits.bytes:
            console.print(
                f"caution: took {peak / 1e6:,.0f} MB, more than the {limits.bytes / 1e6:,.0f} MB "
                "of --max-memory: the plan's estimate was too low.",
                style="yellow",
            )


def _plan(
    voted: tuple[VotedPair, ...],
    folds: Folds,
    settings: FitSettings,
    *,
    out: Path,
    limits: Limits,
) -> tuple[Plan | None, Deadline | None]:
    """What fits the limits, and when to stop; a run that goes on keeps the plan it has."""
    if limits.seconds is None and limits.bytes is None:
        return None, None
    from litee.cli.plan import plan_lines, plan_table
    from litee.finetune.deadline import Deadline
    from litee.predict.measure import calibrate
    from litee.predict.plan import choose, kept_settings
    from litee.progress import console

    settings = kept_settings(out) or settings
    machine, measured = calibrate([v.pair for v in voted], folds, settings)
    plan = choose(
        settings, folds, machine, measured, seconds=limits.seconds, max_bytes=limits.bytes
    )
    console.print(plan_table(plan))
    for line in plan_lines(plan, machine):
        console.print(line, soft_wrap=True, highlight=False)
    if limits.seconds is None:
        return plan, None
    left = limits.seconds - (time.monotonic() - limits.started)
    return plan, Deadline(left, reserve=plan.tail)
