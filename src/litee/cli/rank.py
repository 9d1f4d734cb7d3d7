"""`litee rank`: a leaderboard of systems from votes or from a judge's verdicts.

Parses, calls `litee.score` and prints; knows nothing of how strengths are fitted.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError

if TYPE_CHECKING:
    from litee.score.ranking import Bouts
    from litee.score.ranking_page import RankingPage


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
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for ranking.html and ranking.json.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Which system is best?",
    resamples: Annotated[int, typer.Option(help="Of the bootstrap over prompts.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    format: Annotated[str, typer.Option(help="Layout of the votes files.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Rank systems by votes: strengths with intervals, win rates, ranks, what is settled."""
    from litee.score import ranking
    from litee.score.ranking_page import RankingPage
    from litee.score.strengths import MODELS

    if model not in MODELS:
        raise ConfigError(f"unknown model {model!r}", fix=f"use one of: {', '.join(MODELS)}")
    if out is not None and out.suffix:
        fix = f"name a folder, e.g. --out {out.stem}"
        raise ConfigError("--out is a folder for ranking.html and ranking.json", fix=fix)
    bouts, inputs = _bouts(votes, verdicts, format)
    found = ranking.rank(
        bouts,
        model=next(m for m in MODELS if m == model),
        style=style,
        seed=seed,
        resamples=resamples,
    )
    command = shlex.join(["litee", *sys.argv[1:]])
    page = RankingPage(found, title, command, inputs, judged=bool(verdicts))
    if out is not None:
        _write(page, out)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(page, out)


def _bouts(votes: list[str], verdicts: str, format: str) -> tuple[Bouts, dict[str, str]]:
    """What happened between systems, and the files' digests."""
    from litee.collect.folds import group_prompts
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.rundir import sha256_file
    from litee.score.pair_table import read_verdicts
    from litee.score.ranking import bouts_of

    loaded = load_votes(votes, format=format)
    voted = gather(loaded.votes)
    credit = read_verdicts(verdicts, voted) if verdicts else None
    inputs = dict(loaded.inputs)
    if verdicts:
        inputs[verdicts] = sha256_file(Path(verdicts.rpartition("=")[2]))
    return bouts_of(voted, group_prompts([v.pair for v in voted]), credit), inputs


def _write(page: RankingPage, folder: Path) -> None:
    from litee.rundir import write_json
    from litee.score.ranking_page import write_ranking_page

    write_ranking_page(page, folder / "ranking.html")
    write_json(folder / "ranking.json", page.ranking.to_json())


def _print(page: RankingPage, out: Path | None) -> None:
    from rich.console import Console

    from litee.score.ranking_page import ranking_tables

    console, found = Console(), page.ranking
    for table in ranking_tables(found, unit=page.unit):
        console.print(table)
    if found.without_name or found.against_itself:
        left = f"{found.without_name:,} without a name, {found.against_itself:,} against itself"
        console.print(f"pairs left out: {left}", highlight=False)
    if out is not None:
        console.print(f"page: {out / 'ranking.html'}", highlight=False, soft_wrap=True)
