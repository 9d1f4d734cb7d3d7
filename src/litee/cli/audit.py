"""`litee audit`: what a judge prefers beyond what people prefer.

Parses, calls `litee.score` and prints; knows nothing of how figures are made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from litee.rundir import Json
    from litee.score.biases import Audit


def audit(
    verdicts: Annotated[
        str, typer.Argument(help="A judge's verdicts or predictions, with a pair id.")
    ],
    *,
    votes: Annotated[list[str], typer.Option(help="Votes files on the same pairs.")],
    swapped: Annotated[
        str, typer.Option(help="The same judge's verdicts with the answers exchanged.")
    ] = "",
    own: Annotated[str, typer.Option(help="Name of the judge's own model among the systems.")] = "",
    format: Annotated[str, typer.Option(help="Layout of the votes files.")] = "auto",
    resamples: Annotated[int, typer.Option(help="Of the bootstrap over prompts.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Audit a judge: position, length, format, refusal, self-preference, flips with the order."""
    from rich.console import Console

    from litee.collect.folds import group_prompts
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.score.biases import audit as audit_judge
    from litee.score.pair_table import read_verdicts

    voted = gather(load_votes(votes, format=format).votes)
    found = audit_judge(
        voted,
        group_prompts([v.pair for v in voted]),
        read_verdicts(verdicts, voted),
        swapped=read_verdicts(swapped, voted) if swapped else None,
        own=own,
        seed=seed,
        resamples=resamples,
    )
    if as_json:
        typer.echo(json.dumps(_record(found), indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    console.print(_table(found))
    flips = found.flip_rate.value
    if flips is not None:
        console.print(f"verdicts that change with the order: {flips:.1%}", highlight=False)
    if found.unscored:
        console.print(f"pairs without a verdict: {found.unscored:,}", highlight=False)


def _record(found: Audit) -> dict[str, Json]:
    return {
        "biases": [bias.to_json() for bias in found.biases],
        "flip_rate": found.flip_rate.value,
        "unscored": found.unscored,
    }


def _table(found: Audit) -> Table:
    from rich import box
    from rich.table import Table

    from litee.score.table import percent_cell

    table = Table(
        title="Share of decisive pairs, %", box=box.SIMPLE_HEAD, title_justify="left", width=80
    )
    table.add_column("picks the answer that is")
    for name in ("judge", "people", "judge − people", "pairs"):
        table.add_column(name, justify="right", no_wrap=True)
    for bias in found.biases:
        table.add_row(
            bias.trait,
            percent_cell(bias.judge, interval=False),
            percent_cell(bias.people, interval=False),
            percent_cell(bias.difference, sign="+"),
            f"{bias.pairs:,}",
        )
    return table
