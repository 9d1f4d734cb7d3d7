"""`litee audit`: what a judge prefers beyond what people prefer.

Parses, calls `litee.score` and prints; knows nothing of how figures are made.
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
    from rich.table import Table

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
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for audit.html and audit.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Audit a judge: position, length, format, refusal, self-preference, flips with the order."""
    if out is not None and out.suffix:
        fix = f"name a folder, e.g. --out {out.stem}"
        raise ConfigError("--out is a folder for audit.html and audit.json", fix=fix)
    files = (verdicts, votes, swapped)
    found, inputs = _audit(files, format, own=own, seed=seed, resamples=resamples)
    if out is not None:
        from litee.rundir import write_json
        from litee.score.audit_page import AuditPage, write_audit_page

        command = shlex.join(["litee", *sys.argv[1:]])
        page = AuditPage(found, _name(verdicts), command, inputs, resamples, seed)
        write_audit_page(page, out / "audit.html")
        write_json(out / "audit.json", found.to_json())
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(found, out)


def _name(verdicts: str) -> str:
    """The judge's name: given before =, else the file's."""
    name, sign, _ = verdicts.partition("=")
    return name if sign else Path(verdicts).name.partition(".")[0]


def _audit(
    files: tuple[str, list[str], str], format: str, *, own: str, seed: int, resamples: int
) -> tuple[Audit, dict[str, str]]:
    """The figures and the files' digests; files are verdicts, votes and swapped verdicts."""
    from litee.collect.folds import group_prompts
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.rundir import sha256_file
    from litee.score.biases import audit as audit_judge
    from litee.score.pair_table import read_orders, read_verdicts

    verdicts, votes, swapped = files
    loaded = load_votes(votes, format=format)
    voted = gather(loaded.votes)
    systems = sorted({name for v in voted for name in (v.pair.model_a, v.pair.model_b) if name})
    if own and own not in systems:
        raise ConfigError(
            f"--own {own!r} names none of the systems",
            fix=f"use one of: {', '.join(systems)}" if systems else "the votes name no systems",
        )
    first, turned = (read_orders(verdicts, voted) or (None, None)) if not swapped else (None, None)
    if swapped:
        turned = read_verdicts(swapped, voted)
    found = audit_judge(
        voted,
        group_prompts([v.pair for v in voted]),
        read_verdicts(verdicts, voted),
        first=first,
        swapped=turned,
        own=own,
        seed=seed,
        resamples=resamples,
    )
    given = [file.rpartition("=")[2] for file in (verdicts, swapped) if file]
    return found, {**loaded.inputs, **{file: sha256_file(Path(file)) for file in given}}


def _print(found: Audit, out: Path | None) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(found))
    flips = found.flip_rate.value
    if flips is not None:
        console.print(f"verdicts that change with the order: {flips:.1%}", highlight=False)
    if found.unscored:
        console.print(f"pairs without a verdict: {found.unscored:,}", highlight=False)
    if out is not None:
        console.print(f"page: {out / 'audit.html'}", highlight=False, soft_wrap=True)


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
