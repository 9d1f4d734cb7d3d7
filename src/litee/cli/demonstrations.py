"""`litee data demonstrations`: dumps and chat files to demonstrations, removals shown.

Parses, calls `litee.collect` and prints; knows nothing of how the formats are read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from litee.collect.reading import Reading
    from litee.records import Demonstration


def demonstrations(
    files: Annotated[list[Path], typer.Argument(help="Dumps, chat files, or folders of tasks.")],
    *,
    out: Annotated[Path, typer.Option(help="JSON lines to write: id, messages, source, …")],
    format: Annotated[str, typer.Option(help="auto, or a format of docs/curate.md.")] = "auto",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    n: Annotated[int | None, typer.Option(help="Demonstrations to sample; all by default.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Lowest score of an answer.")] = None,
    min_chars: Annotated[int | None, typer.Option(help="Shortest answer, characters.")] = None,
    max_chars: Annotated[int | None, typer.Option(help="Longest answer, characters.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling.")] = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Keep what precedes the damage of a broken file.")
    ] = False,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Reddit: titles alone, as test prompts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
) -> None:
    """Turn public dumps into demonstrations with LIMA's filters; count what each one removes.

    Every setting is in docs/settings.md; what is not a flag goes into the --config file.
    """
    from litee.collect.demonstration_settings import DemonstrationSettings
    from litee.collect.reading import Reading
    from litee.config import load_settings

    settings = load_settings(
        DemonstrationSettings,
        config,
        {
            "n": n,
            "min_score": min_score,
            "min_chars": min_chars,
            "max_chars": max_chars,
            "seed": seed,
            "salvage": salvage or None,
        },
    )
    reading = Reading(settings)
    if prompts:
        counts = _write_prompts(files, reading, out)
    else:
        counts = _write(files, reading, format, out)
    if as_json:
        typer.echo(json.dumps(_summary(reading, counts), indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(_table(reading, counts))
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _write(files: list[Path], reading: Reading, format: str, out: Path) -> Counter[str]:
    from litee.collect.demonstrations import read_demonstrations, write_demonstrations

    counts: Counter[str] = Counter()

    def counted() -> Iterator[Demonstration]:
        for item in read_demonstrations(files, reading, format):
            counts[item.source] += 1
            yield item

    write_demonstrations(out, counted())
    return counts


def _write_prompts(files: list[Path], reading: Reading, out: Path) -> Counter[str]:
    from litee.collect.reddit_dump import read_prompts
    from litee.errors import InputError
    from litee.rundir import atomic_writer

    counts: Counter[str] = Counter()
    with atomic_writer(out) as handle:
        for name, subreddit, prompt in read_prompts(files, reading):
            row = {"id": name, "prompt": prompt, "source": f"reddit/{subreddit}"}
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            counts[f"reddit/{subreddit}"] += 1
        if not counts:
            place = ", ".join(map(str, files))
            problem = f"no usable prompt among {reading.read:,} submissions"
            raise InputError(problem, place=place, fix="give a dump with questions as titles")
    return counts


def _summary(reading: Reading, counts: Counter[str]) -> dict[str, object]:
    return {
        "candidates": reading.read,
        "lost": dict(reading.lost.counts),
        "removed": dict(reading.removed.counts),
        "noticed": dict(reading.noticed.counts),
        "kept": counts.total(),
        "sources": dict(counts.most_common()),
    }


def _table(reading: Reading, counts: Counter[str]) -> Table:
    table = Table(title="demonstrations", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_row("candidates read", f"{reading.read:,}")
    for title, tally in (
        ("lost", reading.lost),
        ("removed", reading.removed),
        ("kept, but", reading.noticed),
    ):
        for reason, count in tally.counts.items():
            table.add_row(f"  {title}: {reason}", f"{count:,}")
    table.add_row("kept", f"{counts.total():,}", style="bold")
    for source, count in counts.most_common(12):
        table.add_row(f"  from {source}", f"{count:,}")
    if len(counts) > 12:
        table.add_row(f"  from {len(counts) - 12} more sources", "")
    return table
