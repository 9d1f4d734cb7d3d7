"""`litee curate`: choose a few good demonstrations and say why.

Parses, calls `litee.curate` and prints; knows nothing of how they are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from litee.curate.settings import CurateSettings

if TYPE_CHECKING:
    from litee.curate.curating import Curated
    from litee.curate.vectors import Encode

_DEFAULTS = CurateSettings()
_MOST_ROWS = 15


def _help(name: str) -> str:
    """Description and default of a setting, from the one place that has them."""
    default = getattr(_DEFAULTS, name)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{CurateSettings.model_fields[name].description} (default: {shown})"


AgainstOption = Annotated[
    list[Path] | None, typer.Option(help="Evaluation prompts that must not leak.")
]
ScoresOption = Annotated[list[Path] | None, typer.Option(help="Table with id and quality columns.")]
SalvageOption = Annotated[
    bool, typer.Option("--salvage", help="Keep what precedes the damage of a broken file.")
]


def curate(
    demos: Annotated[list[Path], typer.Argument(help="Files of demonstrations.")],
    *,
    out: Annotated[Path, typer.Option(help="JSON lines to write.")],
    n: Annotated[int | None, typer.Option("--n", "-n", help=_help("n"))] = None,
    against: AgainstOption = None,
    scores: ScoresOption = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    format: Annotated[str, typer.Option(help="Format of the files; see docs/curate.md.")] = "auto",
    strategy: Annotated[str | None, typer.Option(help=_help("strategy"))] = None,
    quality: Annotated[list[str] | None, typer.Option(help=_help("quality"))] = None,
    quality_weight: Annotated[float | None, typer.Option(help=_help("quality_weight"))] = None,
    drop_worst: Annotated[float | None, typer.Option(help=_help("drop_worst"))] = None,
    min_chars: Annotated[int | None, typer.Option(help=_help("min_chars"))] = None,
    max_chars: Annotated[int | None, typer.Option(help=_help("max_chars"))] = None,
    near: Annotated[float | None, typer.Option(help=_help("near"))] = None,
    embedding: Annotated[str | None, typer.Option(help=_help("embedding"))] = None,
    topics: Annotated[int | None, typer.Option(help=_help("topics"))] = None,
    quota: Annotated[list[str] | None, typer.Option(help=_help("quotas"))] = None,
    max_per_source: Annotated[int | None, typer.Option(help=_help("max_per_source"))] = None,
    max_per_topic: Annotated[int | None, typer.Option(help=_help("max_per_topic"))] = None,
    seed: Annotated[int | None, typer.Option(help=_help("seed"))] = None,
    salvage: SalvageOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Choose few good demonstrations: no repeats, no leaks, good, and unlike each other.

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    from litee.config import load_settings
    from litee.curate.curating import Sources
    from litee.curate.curating import curate as run

    settings = load_settings(
        CurateSettings,
        config,
        {
            "n": n,
            "strategy": strategy,
            "quality": tuple(quality) if quality else None,
            "quality_weight": quality_weight,
            "drop_worst": drop_worst,
            "min_chars": min_chars,
            "max_chars": max_chars,
            "near": near,
            "embedding": embedding,
            "topics": topics,
            "quotas": tuple(quota) if quota else None,
            "max_per_source": max_per_source,
            "max_per_topic": max_per_topic,
            "seed": seed,
        },
    )
    files = (tuple(demos), format, tuple(against or ()), tuple(scores or ()))
    sources = Sources(*files, salvage=salvage)
    found = run(sources, out, settings, encode=_encoder(settings.embedding))
    if as_json:
        typer.echo(found.summary.read_text(encoding="utf-8"), nl=False)
    else:
        _show(found)


def _show(found: Curated) -> None:
    console = Console()
    for table in (_counts(found), _comparison(found), *_shares(found)):
        console.print(table)
    console.print(
        f"chosen: {found.out}   every choice explained: {found.explanations}",
        highlight=False,
        soft_wrap=True,
    )


def _encoder(name: str) -> Encode | None:
    if name == "tfidf":
        return None
    from litee.score.neural import SentenceEncoder

    return SentenceEncoder(name).encode


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    return table


def _counts(found: Curated) -> Table:
    table = _table("curated", "what", "demonstrations")
    for reason, count in found.lost.items():
        table.add_row(f"lost: {reason}", f"{count:,}")
    table.add_row("read", f"{found.read:,}")
    for reason, count in found.refused.items():
        table.add_row(f"  {reason}", f"{count:,}")
    table.add_row("usable", f"{found.usable:,}")
    chosen = sum(count for *_, count in found.sources.values())
    table.add_row("chosen", f"{chosen:,}", style="bold")
    return table


def _comparison(found: Curated) -> Table:
    table = _table("as many chosen, random (mean of 10) and longest", "what", *found.profiles)
    rows = {
        "repeat another one": ("repeats", ",.1f"),
        "leak an evaluation prompt": ("leaks", ",.1f"),
        "topics": ("topics", ",.1f"),
        "effective topics": ("effective_topics", ",.1f"),
        "quality": ("quality", ".3f"),
        "answer, characters": ("answer_chars", ",.0f"),
        "distance to the nearest other": ("distance", ".3f"),
        "coverage": ("coverage", ".3f"),
    }
    for words, (name, form) in rows.items():
        table.add_row(words, *(format(getattr(p, name), form) for p in found.profiles.values()))
    return table


def _shares(found: Curated) -> list[Table]:
    groups: Mapping[str, dict[str, tuple[int, int, int]]] = {
        "topics": found.topics,
        "sources": found.sources,
    }
    tables = []
    for title, shares in groups.items():
        table = _table(title, title.removesuffix("s"), "read", "usable", "chosen")
        for name, counts in list(shares.items())[:_MOST_ROWS]:
            table.add_row(name or "unknown", *(f"{count:,}" for count in counts))
        if len(shares) > _MOST_ROWS:
            table.add_row(f"{len(shares) - _MOST_ROWS} more, see the summary", "", "", "")
        tables.append(table)
    return tables
