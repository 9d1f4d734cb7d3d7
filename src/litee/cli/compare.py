"""`litee compare`: two systems' answers to the same prompts, judged pair by pair."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError

if TYPE_CHECKING:
    from litee.records import Pair
    from litee.score.comparison_pairs import Meetings
    from litee.score.outcomes import Floats


def compare(
    first: Annotated[Path, typer.Argument(help="Answers of the first system.")],
    second: Annotated[Path, typer.Argument(help="Answers of the second, to the same prompts.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the figures, the page and the pairs.")],
    judge: Annotated[
        list[str] | None, typer.Option(help="Judge: a folder or owner/name; may have a name=.")
    ] = None,
    verdicts: Annotated[
        list[str] | None,
        typer.Option(help="Table of verdicts on OUT/pairs.jsonl, e.g. an LLM judge's."),
    ] = None,
    votes: Annotated[
        list[str] | None, typer.Option(help="Votes of people on the same answers.")
    ] = None,
    names: Annotated[str | None, typer.Option(help="Names of the systems: FIRST,SECOND.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
) -> None:
    """Compare two systems pair by pair: wins, ties, losses, length-controlled win rate.

    Writes comparison.json, comparison.html and pairs.jsonl, which an LLM judge (`litee score`) or
    people (`litee vote`) can judge too.
    """
    from rich.console import Console

    from litee.cli.tune import hashes
    from litee.rundir import write_json, write_text
    from litee.score.comparison import compare_systems
    from litee.score.comparison_page import (
        ComparisonPage,
        choose_samples,
        comparison_table,
        headline,
        write_comparison_page,
    )
    from litee.score.comparison_pairs import meet

    met = meet(first, second, _names(names))
    write_text(out / "pairs.jsonl", "".join(_line(pair) for pair in met.pairs))
    console = Console()
    for reason, count in met.dropped.counts.items():
        console.print(f"  left out {count:,}: {reason}", highlight=False, markup=False)
    told = _told(met, judge or [], verdicts or [], votes or [])
    if not told:
        console.print(f"pairs to be judged: {out / 'pairs.jsonl'}", soft_wrap=True)
        return
    found = compare_systems(met.pairs, told, names=met.names, groups=met.groups, seed=seed)
    inputs = hashes([first, second])
    command = "litee " + shlex.join(sys.argv[1:])
    record = {**found.to_json(), "inputs": inputs, "command": command}
    write_json(out / "comparison.json", record)
    samples = choose_samples(met.pairs, next(iter(told.values())))
    page = ComparisonPage(found, samples, met.dropped, command, inputs)
    write_comparison_page(page, out / "comparison.html")
    console.print(comparison_table(found))
    console.print(headline(found), soft_wrap=True, highlight=False, markup=False)
    console.print(f"page: {out / 'comparison.html'}", soft_wrap=True, highlight=False)


def _told(
    met: Meetings, judges: list[str], verdicts: list[str], votes: list[str]
) -> dict[str, Floats]:
    """Judge → (n, 3) probabilities."""
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.score.comparison_pairs import read_verdicts, shares_of

    told: dict[str, Floats] = {}
    for given in judges:
        name, path = _named(given)
        _put(told, name, _by_judge(path, met.pairs))
    for given in verdicts:
        name, path = _named(given)
        _put(told, name, read_verdicts(Path(path), met.pairs))
    if votes:
        _put(told, "people", shares_of(gather(load_votes(votes).votes), met.pairs))
    return told


def _put(told: dict[str, Floats], name: str, found: Floats) -> None:
    if name in told:
        raise ConfigError(
            f"two judges are called {name!r}", fix="name them: --judge one=DIR --judge two=DIR"
        )
    told[name] = found


def _by_judge(path: str, pairs: Sequence[Pair]) -> Floats:
    import numpy as np

    from litee.predict.judge import Judge

    found = Judge.from_pretrained(path).predict(pairs)
    return np.array([prediction.probabilities for prediction in found])


def _named(given: str) -> tuple[str, str]:
    """`name=path`, or a path whose last part is the name."""
    name, sign, path = given.partition("=")
    return (name, path) if sign else (Path(given).stem or given, given)


def _names(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
        raise ConfigError(f"names = {text!r}", fix="give two different names: --names tuned,base")
    return parts[0], parts[1]


def _line(pair: Pair) -> str:
    cells = {
        "id": pair.id,
        "prompt": list(pair.prompt),
        "response_a": list(pair.response_a),
        "response_b": list(pair.response_b),
        "model_a": pair.model_a,
        "model_b": pair.model_b,
    }
    return json.dumps(cells, ensure_ascii=False) + "\n"
