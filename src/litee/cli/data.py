"""`litee data`: look at votes files, convert them, split them.

Parses, calls `litee.collect` and prints; knows nothing of how votes are read or folds are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from litee.errors import ConfigError
from litee.rundir import Json, write_json

if TYPE_CHECKING:
    from litee.collect.inspect import VoteSummary
    from litee.collect.layouts import ColumnNames
    from litee.records import Dropped, Folds, Score, Vote, VotedPair, VoteSet

app = typer.Typer(no_args_is_help=True, help="Look at votes files, convert them, split them.")

Files = Annotated[list[str], typer.Argument(help="Votes files, or hf://owner/name[:split].")]
File = Annotated[str, typer.Argument(help="A votes file, or hf://owner/name[:split].")]
Format = Annotated[
    str,
    typer.Option(
        help="auto, canonical, pair-votes, arena, mt-bench, trl, evalica, vote-page or columns.",
        rich_help_panel="Reading",
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        help="Your columns, e.g. prompt=question,response_a=first,response_b=second,winner=vote.",
        rich_help_panel="Reading",
    ),
]
Labels = Annotated[
    str,
    typer.Option(help="Your labels, e.g. 1=a,2=b,0=tie.", rich_help_panel="Reading"),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse any dropped or odd row.", rich_help_panel="Reading"),
]


@app.command()
def inspect(
    files: Files,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Also draw a PNG, SVG or PDF.")] = None,
    format: Format = "auto",
    columns: Columns = "",
    labels: Labels = "",
    strict: Strict = False,
) -> None:
    """Count votes, pairs and prompts; show balance, lengths, agreement, dropped and odd rows."""
    from litee.collect.inspect import inspect_votes

    summary = inspect_votes(_read(files, format, columns, labels, strict=strict))
    if figure is not None:
        from litee.collect.figure import summary_figure

        summary_figure(summary, figure)
    if as_json:
        typer.echo(json.dumps(summary.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    for table in _summary_tables(summary):
        console.print(table)
    if figure is not None:
        console.print(f"figure: {figure}", highlight=False, soft_wrap=True)


@app.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(help="The file to write; its ending says which kind.")],
    *,
    to: Annotated[str, typer.Option(help="canonical, trl, arena or evalica.")] = "canonical",
    ties: Annotated[str, typer.Option(help="For trl: drop ties, or write both directions.")] = (
        "drop"
    ),
    format: Format = "auto",
    columns: Columns = "",
    labels: Labels = "",
    strict: Strict = False,
) -> None:
    """Write votes in another format and say what could not be kept."""
    from litee.collect.export import write_votes

    votes = _read([file], format, columns, labels, strict=strict)
    written = write_votes(votes.votes, out, to=to, ties=ties)
    table = _table("converted", "rows")
    table.add_row("votes read", f"{len(votes.votes):,}")
    table.add_row("rows written", f"{written.rows:,}")
    if to == "trl" and written.ties:
        word = "written in both directions" if written.ties_written else "left out (no ties in TRL)"
        table.add_row(f"ties {word}", f"{written.ties:,}")
    if written.unnamed:
        table.add_row("votes left out: a model has no name", f"{written.unnamed:,}")
    if written.merged:
        table.add_row("both_bad written as tie", f"{written.merged:,}")
    console = Console()
    console.print(table)
    for extra in _row_tables(votes.dropped, votes.noticed):
        console.print(extra)


@app.command()
def split(
    files: Files,
    *,
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    folds: Annotated[int | None, typer.Option(help="Number of folds (5 unless --test).")] = None,
    test: Annotated[float | None, typer.Option(help="Share of a single test set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    format: Format = "auto",
    columns: Columns = "",
    labels: Labels = "",
    strict: Strict = False,
) -> None:
    """Split votes by prompt into folds, or into train and test, and check for leaks."""
    from litee.collect.folds import check_folds, hold_out, make_folds
    from litee.collect.pairs import gather

    if folds is not None and test is not None:
        raise ConfigError("--folds and --test exclude each other", fix="leave one of them out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        fix = "choose a new --out folder"
        raise ConfigError("exists and is not an empty folder", place=str(out), fix=fix)
    votes = _read(files, format, columns, labels, strict=strict)
    pairs = gather(votes.votes)
    if test is None:
        made = make_folds(pairs, count=5 if folds is None else folds, seed=seed)
        names = [f"fold-{k}" for k in range(made.count)]
    else:
        made = hold_out(pairs, share=test, seed=seed)
        names = ["train", "test"]
    check_folds(pairs, made)
    _write_parts(votes, pairs, made, names=names, out=out, seed=seed)
    console = Console()
    console.print(_split_table(pairs, made, names, votes.votes))
    console.print(f"no prompt or answer lies on two sides; written to {out}", soft_wrap=True)


def _read(files: Sequence[str], format: str, columns: str, labels: str, *, strict: bool) -> VoteSet:
    from litee.collect.votes import load_votes

    return load_votes(files, format=format, columns=column_names(columns, labels), strict=strict)


def column_names(columns: str, labels: str) -> ColumnNames | None:
    """`--columns` and `--labels` as column names; None when neither was given.

    >>> column_names("prompt=question", "1=a").prompt
    'question'

    Raises:
        ConfigError: not `name=value` pairs, or an unknown name.
    """
    if not columns and not labels:
        return None
    from dataclasses import fields

    from litee.collect.layouts import ColumnNames

    allowed = [f.name for f in fields(ColumnNames) if f.name != "labels"]
    given = _assignments("--columns", columns)
    unknown = [name for name in given if name not in allowed]
    if unknown:
        fix = f"allowed: {', '.join(allowed)}"
        raise ConfigError(f"--columns: unknown name {unknown[0]!r}", fix=fix)
    return ColumnNames(**given, labels=_assignments("--labels", labels))


def _assignments(option: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        if not sign or not name.strip() or not value.strip():
            fix = f"write {option} name=value,name=value"
            raise ConfigError(f"{option}: cannot read {part!r}", fix=fix)
        found[name.strip()] = value.strip()
    return found


def _table(title: str, *headers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    table.add_column("", overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    return table


def _summary_tables(summary: VoteSummary) -> list[Table]:
    return [
        _counts_table(summary),
        _outcome_table(summary),
        _people_table(summary),
        *_row_tables(summary.dropped, summary.noticed),
    ]


def _counts_table(summary: VoteSummary) -> Table:
    table = _table("What is there", "count")
    for name, count in (
        ("votes", summary.votes),
        ("pairs", summary.pairs),
        ("different prompts", summary.prompts),
        ("prompt groups (equal or near first turn)", summary.prompt_groups),
        ("pairs in the largest group", summary.largest_group),
        ("named annotators", summary.annotators),
        ("named models", summary.models),
        ("pairs with the content of an earlier one", summary.same_content),
        ("pairs stored in both orders", summary.reversed_pairs),
        ("pairs with identical answers", summary.identical_answers),
        ("pairs with an empty answer", summary.empty_answers),
    ):
        table.add_row(name, f"{count:,}")
    if len(summary.sources) > 1:
        for source, count in summary.sources.items():
            table.add_row(f"votes from {source or '(no source)'}", f"{count:,}")
    table.add_row("votes per pair: pairs", _histogram(summary.votes_per_pair))
    table.add_row("user turns: pairs", _histogram(summary.turns))
    return table


def _histogram(counts: Mapping[int, int]) -> str:
    shown = [f"{k}: {n:,}" for k, n in list(counts.items())[:6]]
    return ", ".join(shown) + (", …" if len(counts) > 6 else "")


def _outcome_table(summary: VoteSummary) -> Table:
    table = _table("Outcomes", "votes", "share")
    names = {"a": "A better", "b": "B better", "tie": "tie", "both_bad": "both bad"}
    for name, count in summary.outcomes.items():
        table.add_row(names[name], f"{count:,}", f"{count / summary.votes:.3f}")
    table.add_section()
    table.add_row("prior entropy (nats)", "", f"{summary.prior_entropy:.4f}")
    table.add_row("longer answer wins", "", _score(summary.longer_wins))
    return table


def _people_table(summary: VoteSummary) -> Table:
    table = _table("Agreement and length", "value", "of")
    for name, agreement in (
        ("two votes on a pair agree", summary.agreement),
        ("the same, both decisive", summary.agreement_decisive),
    ):
        table.add_row(name, _score(agreement.score), f"{agreement.vote_pairs:,} vote pairs")
    table.add_section()
    for name, spread, of in (
        ("prompt length, characters", summary.prompt_length, summary.pairs),
        ("answer length, characters", summary.answer_length, 2 * summary.pairs),
    ):
        text = f"median {spread.median:,.0f}, 95 % {spread.p95:,.0f}, max {spread.max:,.0f}"
        table.add_row(name, text, f"{of:,}")
    return table


def _score(score: Score) -> str:
    return score.reason if score.value is None else f"{score.value:.3f}"


def _row_tables(dropped: Dropped, noticed: Dropped) -> list[Table]:
    """Tables of rows by reason; none for an empty count."""
    tables: list[Table] = []
    for title, rows in (("Rows dropped", dropped), ("Odd rows kept", noticed)):
        if rows.counts:
            table = _table(title, "rows", "first")
            for reason, count in rows.counts.items():
                table.add_row(reason, f"{count:,}", _short_place(rows.examples[reason][0]))
            tables.append(table)
    return tables


def _short_place(place: str) -> str:
    """`/long/way/votes.csv, row 7` → `votes.csv, row 7`."""
    file, comma, row = place.rpartition(", ")
    return f"{Path(file).name}{comma}{row}"


def _write_parts(
    votes: VoteSet,
    pairs: Sequence[VotedPair],
    made: Folds,
    *,
    names: Sequence[str],
    out: Path,
    seed: int,
) -> None:
    """One canonical JSONL file per part, and `folds.json` with the part and group of each pair."""
    from litee.collect.export import write_votes

    part_of = {item.pair.id: part for item, part in zip(pairs, made.folds, strict=True)}
    parts: list[list[Vote]] = [[] for _ in names]
    for vote in votes.votes:
        parts[part_of[vote.pair.id]].append(vote)
    for name, part in zip(names, parts, strict=True):
        write_votes(part, out / f"{name}.jsonl")
    placed: dict[str, Json] = {
        item.pair.id: {"part": names[part], "group": group}
        for item, part, group in zip(pairs, made.folds, made.groups, strict=True)
    }
    record: dict[str, Json] = {
        "seed": seed,
        "parts": list(names),
        "groups": len(set(made.groups)),
        "inputs": dict(votes.inputs),
        "pairs": placed,
    }
    write_json(out / "folds.json", record)


def _split_table(
    pairs: Sequence[VotedPair], made: Folds, names: Sequence[str], votes: Sequence[Vote]
) -> Table:
    table = _table(f"{len(votes):,} votes split", "votes", "pairs", "groups", "A", "B", "tie")
    for part, name in enumerate(names):
        inside = [item for item, fold in zip(pairs, made.folds, strict=True) if fold == part]
        groups = {g for g, fold in zip(made.groups, made.folds, strict=True) if fold == part}
        shares = [sum(item.shares[k] for item in inside) / len(inside) for k in range(3)]
        table.add_row(
            name,
            f"{sum(item.votes for item in inside):,}",
            f"{len(inside):,}",
            f"{len(groups):,}",
            *(f"{share:.3f}" for share in shares),
        )
    return table
