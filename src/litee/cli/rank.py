"""`litee rank`: a leaderboard of systems from votes or from a judge's verdicts.

Parses, calls `litee.score` and prints; knows nothing of how strengths are fitted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from litee.score.ranking import Ranking


def rank(
    votes: Annotated[list[str], typer.Argument(help="Votes files with model_a and model_b.")],
    *,
    model: Annotated[
        str, typer.Option(help="bradley-terry (a tie is half a win), davidson or rao-kupper.")
    ] = "bradley-terry",
    verdicts: Annotated[
        str, typer.Option(help="A judge's verdicts or predictions, used instead of the votes.")
    ] = "",
    style: Annotated[
        bool, typer.Option("--style", help="Also rank at equal length, lists, bold and headers.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write JSON here.")] = None,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap over prompts.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    format: Annotated[str, typer.Option(help="Layout of the votes files.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Rank systems by votes: strengths with intervals, win rates, ranks, what is settled."""
    from rich.console import Console

    from litee.collect.folds import group_prompts
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.rundir import write_json
    from litee.score import ranking
    from litee.score.pair_table import read_verdicts
    from litee.score.strengths import MODELS

    if model not in MODELS:
        raise ConfigError(f"unknown model {model!r}", fix=f"use one of: {', '.join(MODELS)}")
    voted = gather(load_votes(votes, format=format).votes)
    credit = read_verdicts(verdicts, voted) if verdicts else None
    groups = group_prompts([v.pair for v in voted])
    bouts = ranking.bouts_of(voted, groups, credit)
    found = ranking.rank(
        bouts,
        model=next(m for m in MODELS if m == model),
        style=style,
        seed=seed,
        resamples=resamples,
    )
    if out is not None:
        write_json(out, found.to_json())
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    for table in _tables(found, style=style):
        console.print(table)
    if found.without_name or found.against_itself:
        left = f"{found.without_name:,} without a name, {found.against_itself:,} against itself"
        console.print(f"pairs left out: {left}", highlight=False)


def _tables(found: Ranking, *, style: bool) -> list[Table]:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from litee.score.table import percent_cell, score_cell

    title = f"{found.votes:,.0f} votes, {found.prompts:,} prompts, {found.model}"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("system", overflow="ellipsis", no_wrap=True)
    for name in ("Elo", *(["styled"] if style else []), "wins %", "votes"):
        table.add_column(name, justify="right", no_wrap=True)
    for s in found.standings:
        ranks = f"{s.best_rank}–{s.worst_rank}" if s.best_rank < s.worst_rank else f"{s.best_rank}"
        styled = [score_cell(s.styled, digits=0, interval=False)] if style else []
        elo = "unbounded" if s.warning else score_cell(s.elo, digits=0)
        rate = percent_cell(s.win_rate, interval=False)
        table.add_row(ranks, escape(s.name), elo, *styled, rate, f"{s.votes:,.0f}")
    settle = Table(title="Settled?", box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
    for name in ("neighbours", "Elo difference", "to settle it"):
        settle.add_column(name, justify="left" if name == "neighbours" else "right")
    for upper, lower, gap, need in found.neighbours:
        cell = score_cell(gap, digits=0, sign="+")
        settle.add_row(f"{escape(upper)} > {escape(lower)}", cell, need.in_words())
    tables = [table, settle]
    if found.style:
        terms = Table(title="Style", box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
        terms.add_column("term")
        terms.add_column("log odds per standard deviation", justify="right")
        for name, score in found.style:
            terms.add_row(name, score_cell(score, sign="+"))
        tables.append(terms)
    return tables
