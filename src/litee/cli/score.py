"""`litee score`: answers through metrics.

Parses, calls `litee.score` and prints; knows nothing of the metrics.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from litee.score.scoring import Scored

_COLUMNS, _MODELS = "Columns", "Models"


def score(
    answers: Annotated[
        Path, typer.Argument(help="Table of answers; with --pairs a votes or pairs file.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output: .csv or .jsonl.")],
    metrics: Annotated[
        str,
        typer.Option(
            help="Names or groups: golden, rouge, text (no model), model, bertscore, all."
        ),
    ] = "text",
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Score both answers of every pair of a votes file.")
    ] = False,
    prompt: Annotated[str, typer.Option(rich_help_panel=_COLUMNS)] = "prompt",
    answer: Annotated[str, typer.Option(rich_help_panel=_COLUMNS)] = "answer",
    reference: Annotated[str, typer.Option(rich_help_panel=_COLUMNS)] = "reference",
    contexts: Annotated[str, typer.Option(rich_help_panel=_COLUMNS)] = "contexts",
    format: Annotated[str, typer.Option(help="With --pairs: layout.", rich_help_panel=_COLUMNS)] = (
        "auto"
    ),
    encoder: Annotated[
        str, typer.Option(help="Sentence encoder for similarity.", rich_help_panel=_MODELS)
    ] = "all-MiniLM-L6-v2",
    bertscore_model: Annotated[
        str, typer.Option(help="Encoder for BERTScore.", rich_help_panel=_MODELS)
    ] = "all-MiniLM-L6-v2",
    bertscore_layer: Annotated[
        int | None, typer.Option(help="Layer for BERTScore.", rich_help_panel=_MODELS)
    ] = None,
    threads: Annotated[int, typer.Option(help="Compute threads; 0 takes all cores.")] = 0,
) -> None:
    """Score answers with text metrics; unscored rows keep their reason."""
    from rich.console import Console

    from litee.collect.rows import open_table
    from litee.progress import progress
    from litee.score.answers import TextColumns, read_answers, read_pair_answers
    from litee.score.receipts import write_costs
    from litee.score.scoring import score_file
    from litee.score.texts import MODEL_COLUMNS, TextMetric, chosen_columns, plain_metrics

    columns = chosen_columns(part.strip() for part in metrics.split(",") if part.strip())
    made: list[TextMetric] = list(plain_metrics(columns))
    if set(columns) & set(MODEL_COLUMNS):
        from litee.finetune.device import use_threads
        from litee.score.neural import make_model_metrics

        use_threads(threads)
        made += make_model_metrics(
            columns, encoder, bertscore_model=bertscore_model, layer=bertscore_layer
        )
    total = sum(1 for _ in open_table(answers).rows) * (2 if pairs else 1)
    if pairs:
        source = read_pair_answers(answers, format)
    else:
        source = read_answers(answers, TextColumns(prompt, answer, reference, contexts))
    with progress("scoring", total, "answers") as advance:
        found = score_file(source, made, columns, out, advance)
    receipt = out.with_name(out.name + ".receipt.json")
    command = shlex.join(["litee", *sys.argv[1:]])
    write_costs(receipt, found.costs, {"command": command, "rows": found.rows})
    console = Console()
    console.print(_table(found, columns))
    console.print(f"{found.rows:,} answers in {out}", highlight=False, soft_wrap=True)


def _table(found: Scored, columns: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("metric")
    for name in ("mean", "scored", "s per 1,000"):
        table.add_column(name, justify="right")
    table.add_column("unscored")
    for column in columns:
        if column not in found.costs:
            continue
        mean = found.mean(column).value
        cost = found.costs[column]
        reasons = found.unscored.get(column, {})
        table.add_row(
            column,
            "—" if mean is None else f"{mean:.4g}",
            f"{cost.scored:,}",
            f"{cost.seconds_per_1000:.3g}",
            ", ".join(f"{number:,} {reason}" for reason, number in reasons.items()),
        )
    return table
