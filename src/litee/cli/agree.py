"""`litee agree`: which metric agrees with people.

Parses, calls `litee.score` and prints; knows nothing of how figures are made.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError

if TYPE_CHECKING:
    from litee.rundir import Json, Receipt
    from litee.score.agreement_study import AgreementStudy
    from litee.score.score_table import Choice, Joined, Keys

_READING = "Reading"

#: Rows of a criterion's table of metrics beside raters in a results file.
_BESIDE = 6

#: Figures in a results file over several human criteria.
_RESULT_FIGURES = ("spearman_item", "pairwise_accuracy", "pearson_item")


_Tables = Annotated[
    list[str],
    typer.Argument(
        help="Tables with scores (CSV, TSV, JSON, JSON lines, parquet), joined on their keys; "
        "with --votes each may be given as NAME=FILE."
    ),
]
_Human = Annotated[
    str,
    typer.Option(
        help="Columns with people's ratings, one per rater, or one of lists. Several criteria: "
        "'Fluency=f1,f2; Accuracy=a1,a2'."
    ),
]
_Votes = Annotated[
    list[str] | None, typer.Option(help="Votes files to compare with, instead of --human.")
]
_Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for agreement.html and .json.")
]
_Metrics = Annotated[str, typer.Option(help="Columns to compare; all numeric ones if empty.")]
_Lower = Annotated[str, typer.Option(help="Metrics for which less is better.")]
_Prompt = Annotated[
    str, typer.Option(help="Column that names the prompt.", rich_help_panel=_READING)
]
_System = Annotated[
    str, typer.Option(help="Column that names the system.", rich_help_panel=_READING)
]
_Answer = Annotated[
    str, typer.Option(help="Column with the answer, for its length.", rich_help_panel=_READING)
]
_Format = Annotated[str, typer.Option(help="Layout of the votes files.", rich_help_panel=_READING)]
_Receipts = Annotated[
    list[Path] | None,
    typer.Option(help="Receipts of `litee score`: cost per metric.", rich_help_panel=_READING),
]
_Prices = Annotated[str, typer.Option(help="Price per 1,000 rows, e.g. gpt4=12.5.")]
_Title = Annotated[str, typer.Option(help="Title of the page.")]
_Result = Annotated[str, typer.Option(help="Also write results/<NAME>.json.")]
_Notes = Annotated[str, typer.Option(help="Notes for the results file.")]
_Resamples = Annotated[int, typer.Option(help="Of the bootstrap over prompts.")]
_Seed = Annotated[int, typer.Option(help="Of the bootstrap.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def agree(
    tables: _Tables,
    *,
    human: _Human = "",
    votes: _Votes = None,
    out: _Out = None,
    metrics: _Metrics = "",
    lower: _Lower = "",
    prompt: _Prompt = "prompt",
    system: _System = "system",
    answer: _Answer = "answer",
    format: _Format = "auto",
    receipts: _Receipts = None,
    prices: _Prices = "",
    title: _Title = "Which metric agrees?",
    result: _Result = "",
    notes: _Notes = "",
    resamples: _Resamples = 1000,
    seed: _Seed = 0,
    as_json: _AsJson = False,
) -> None:
    """Compare metrics with human ratings or votes: accuracy, kappa, correlations, intervals."""
    from litee.score.score_table import Keys

    if bool(human) == bool(votes):
        fix = "give either --human COLUMNS or --votes FILE"
        raise ConfigError("people's judgements are given by --human or by --votes", fix=fix)
    started = time.monotonic()
    choice = _choice(metrics, lower, receipts or (), prices)
    draws = (seed, resamples)
    if votes:
        found = {"": _with_votes(tables, votes, choice, format=format, title=title, draws=draws)}
    else:
        keys = Keys(prompt, system, answer, (), _all_columns(human))
        found = {
            name: _with_ratings(
                tables,
                replace(keys, human=columns),
                choice,
                title=f"{title} ({name})" if name else title,
                draws=draws,
            )
            for name, columns in _criteria(human).items()
        }
    command = shlex.join(["litee", *sys.argv[1:]])
    rows = next(iter(found.values()))[1]
    studies = {name: study for name, (study, _) in found.items()}
    if out is not None:
        for name, study in studies.items():
            _write_pages(study, rows, out / name, command)
    if result:
        receipt = _receipt(time.monotonic() - started, seed, rows.inputs)
        _write_result(studies, result, command, receipt, notes)
    if as_json:
        _print_json(studies)
    else:
        _print(studies, rows, out)


def _print_json(studies: Mapping[str, AgreementStudy]) -> None:
    """One object, or a list when there are several criteria."""
    shown = [study.to_json() for study in studies.values()]
    whole: Json = shown if len(shown) > 1 else shown[0]
    typer.echo(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))


def _print(studies: Mapping[str, AgreementStudy], rows: Joined, out: Path | None) -> None:
    from rich.console import Console

    from litee.score.agreement_page import agreement_table

    console = Console()
    for name, study in studies.items():
        if name:
            console.print(name, style="bold")
        console.print(agreement_table(study))
    for reason, number in rows.dropped.counts.items():
        console.print(f"rows left out: {number:,} ({reason})", highlight=False)
    for name in studies if out is not None else ():
        page = (out or Path()) / name / "agreement.html"
        console.print(f"page: {page}", highlight=False, soft_wrap=True)


def _write_pages(study: AgreementStudy, rows: Joined, folder: Path, command: str) -> None:
    from litee.rundir import write_json
    from litee.score.agreement_page import PageInput, write_page

    write_page(PageInput(study, command, rows.inputs, rows.dropped), folder / "agreement.html")
    write_json(folder / "agreement.json", study.to_json())


def _criteria(human: str) -> dict[str, tuple[str, ...]]:
    """Criterion → rating columns; one unnamed criterion when there are no names.

    >>> _criteria("r1,r2"), _criteria("Fluency=f1,f2; Truth=t")
    ({'': ('r1', 'r2')}, {'Fluency': ('f1', 'f2'), 'Truth': ('t',)})
    """
    if "=" not in human:
        return {"": _names(human)}
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (p.strip() for p in human.split(";"))):
        name, _, columns = part.partition("=")
        if not name.strip() or not _names(columns) or "/" in name:
            fix = "write --human 'Name=column,column; Name=column'"
            raise ConfigError(f"--human: cannot read {part!r}", fix=fix)
        found[name.strip()] = _names(columns)
    return found


def _all_columns(human: str) -> tuple[str, ...]:
    return tuple(column for columns in _criteria(human).values() for column in columns)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _choice(metrics: str, lower: str, receipts: Sequence[Path], prices: str) -> Choice:
    from litee.score.receipts import read_costs
    from litee.score.score_table import Choice

    paid: dict[str, float] = {}
    for part in _names(prices):
        name, sign, price = part.partition("=")
        try:
            paid[name.strip()] = float(price)
        except ValueError as error:
            fix = "write --prices name=number,name=number"
            raise ConfigError(f"--prices: cannot read {part!r}", fix=fix) from error
        if not sign:
            raise ConfigError(f"--prices: cannot read {part!r}", fix="write name=number")
    costs: Mapping[str, float] = read_costs(receipts)
    return Choice(_names(metrics), frozenset(_names(lower)), costs, paid)


def _with_ratings(
    tables: Sequence[str], keys: Keys, choice: Choice, *, title: str, draws: tuple[int, int]
) -> tuple[AgreementStudy, Joined]:
    from litee.score.agreement import agree_with_ratings
    from litee.score.score_table import read_rated

    rated, rows = read_rated(tables, keys, choice)
    study = agree_with_ratings(rated, seed=draws[0], resamples=draws[1], title=title)
    return study, rows


def _with_votes(
    tables: Sequence[str],
    votes: Sequence[str],
    choice: Choice,
    *,
    format: str,
    title: str,
    draws: tuple[int, int],
) -> tuple[AgreementStudy, Joined]:
    from litee.collect.folds import group_prompts
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.score.agreement import agree_with_votes
    from litee.score.pair_table import read_pair_metrics
    from litee.score.score_table import Joined

    found = load_votes(votes, format=format)
    voted = gather(found.votes)
    metrics, rows = read_pair_metrics(tables, voted, choice)
    groups = group_prompts([v.pair for v in voted])
    study = agree_with_votes(
        voted,
        groups,
        metrics,
        seed=draws[0],
        resamples=draws[1],
        title=title,
        source=", ".join(Path(v).name for v in votes),
    )
    return study, Joined((), (), rows.dropped, {**found.inputs, **rows.inputs})


def _receipt(seconds: float, seed: int, inputs: Mapping[str, str]) -> Receipt:
    from litee.rundir import Receipt, cpu_name, peak_rss_mb, versions

    receipt = Receipt(seconds=round(seconds, 1), seed=seed, device=cpu_name())
    receipt.peak_rss_mb = round(peak_rss_mb(), 1)
    receipt.versions = versions()
    receipt.inputs = {Path(file).name: digest for file, digest in inputs.items()}
    return receipt


def _write_result(
    studies: Mapping[str, AgreementStudy], name: str, command: str, receipt: Receipt, notes: str
) -> None:
    from litee.score.agreement_study import comparison_json, mean_over
    from litee.score.results import new_result, write_result

    study = next(iter(studies.values()))
    intervals: dict[str, tuple[float, float]] = {}
    tables: dict[str, Json] = {
        "counts": {
            "answers": study.answers,
            "pairs": study.pairs,
            "votes": study.votes,
            "prompts": study.prompts,
        }
    }
    if len(studies) > 1:
        values, by_figure = mean_over(studies, _RESULT_FIGURES)
        tables |= {f"{figure} by criterion": rows for figure, rows in by_figure.items()}
        tables["reliability"] = {key: s.reliability_json() for key, s in studies.items()}
        tables |= {
            f"against the other raters: {key}": s.beside_json()[:_BESIDE]
            for key, s in studies.items()
            if s.beside
        }
    else:
        values, intervals = study.flat()
        tables["comparisons"] = [comparison_json(c) for c in study.comparisons]
        tables["reliability"] = study.reliability_json()
        tables["against the other raters"] = study.beside_json()
    result = new_result(
        name, command, receipt, values, intervals=intervals, tables=tables, notes=notes
    )
    write_result(Path("results"), result)
