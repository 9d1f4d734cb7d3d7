"""`litee plan`: what a fit would run here, how long and in how much memory, and why."""

from __future__ import annotations

import inspect
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from litee.amounts import bytes_of, seconds_of
from litee.cli.fit import fit, fit_settings, read_votes

if TYPE_CHECKING:
    from rich.table import Table

    from litee.predict.plan import Machine, Plan

#: Options of `litee fit` that a plan has no use for.
_LEFT_OUT = ("out", "resume", "teacher", "budget", "max_memory")


def plan(
    votes: list[str],
    *,
    config: Path | None = None,
    strict: bool = False,
    format: str = "auto",
    budget: Annotated[
        str | None, typer.Option(help="Wall time, such as 90s, 20m or 2h: plan for it.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Resident memory, such as 8GB: plan for it.")
    ] = None,
    **given: Any,  # noqa: ANN401
) -> None:
    """Say what `litee fit` would run with these votes and settings, and what it would cost.

    Texts are encoded and some are timed, which takes half a minute at most; nothing is written.
    """
    from rich.console import Console

    from litee.predict.measure import calibrate
    from litee.predict.plan import choose

    settings = fit_settings(config, given)
    seconds = None if budget is None else seconds_of(budget)
    limit = None if max_memory is None else bytes_of(max_memory)
    _, voted, folds = read_votes(votes, settings, format=format, strict=strict)
    machine, measured = calibrate([v.pair for v in voted], folds, settings)
    found = choose(settings, folds, machine, measured, seconds=seconds, max_bytes=limit)
    console = Console()
    console.print(plan_table(found))
    for line in plan_lines(found, machine):
        console.print(line, soft_wrap=True, highlight=False)


def _share_options() -> None:
    """Give `plan` the options of `fit`, so that each has its one place."""
    own = inspect.signature(plan)
    others = inspect.signature(fit).parameters
    mine = {n: p for n, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
    taken = {n: p for n, p in others.items() if n not in _LEFT_OUT}
    parameters = [*taken.values(), *(mine[n] for n in ("budget", "max_memory"))]
    plan.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    hints = {n: a for n, a in get_type_hints(fit, include_extras=True).items() if n in taken}
    kept = get_type_hints(plan, include_extras=True)
    plan.__annotations__ = {n: a for n, a in kept.items() if n in mine} | hints


_share_options()


def plan_table(plan: Plan) -> Table:
    """The steps of a plan for the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("step")
    table.add_column("seconds", justify="right")
    table.add_column("from – to", justify="right", no_wrap=True)
    table.add_column("why")
    for step in plan.steps:
        span = f"{step.low:,.0f} – {step.high:,.0f}"
        table.add_row(step.stage, f"{step.seconds:,.1f}", span, step.why)
    return table


def plan_lines(plan: Plan, machine: Machine) -> list[str]:
    """What the table does not say."""
    settings = plan.settings
    lines = []
    for change, same in groupby(plan.changes):
        times = len(list(same))
        lines.append(f"changed to fit: {change}" + (f" ({times} times)" if times > 1 else ""))
    members = ", ".join(settings.members)
    backbones = ", ".join(settings.backbones) or "none"
    lines.append(f"members: {members}; backbones: {backbones}; depth: {settings.depth}")
    lines.append(
        f"{plan.tokens_per_vote:,.0f} tokens per pair after sharing; {machine.threads} threads; "
        f"measured in {machine.calibration:.0f} s"
    )
    lines.append(
        f"about {minutes(plan.seconds)} ({minutes(plan.low)} to {minutes(plan.high)}), "
        f"{plan.peak_bytes / 1e9:.1f} GB"
    )
    return lines


def minutes(seconds: float) -> str:
    """A duration to read.

    >>> minutes(42), minutes(150)
    ('42 s', '2 min 30 s')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
