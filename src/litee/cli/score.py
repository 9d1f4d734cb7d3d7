"""`litee score`: answers through metrics, pairs through a judging language model.

Parses, calls `litee.score` and prints; knows nothing of the metrics.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from litee.rundir import Json
    from litee.score.answers import AnswerFile
    from litee.score.llm_judge_engine import CachedJudge
    from litee.score.llm_judge_settings import LlmJudgeSettings
    from litee.score.metric_names import Chosen
    from litee.score.retrieval_writers import StoredWriter
    from litee.score.scoring import Scored
    from litee.score.texts import TextMetric

_COLUMNS, _MODELS, _LLM = "Columns", "Models", "Judging language model"

#: Rows in memory at once when a slow model scores them.
_SLOW_BLOCK = 32


AnswersArgument = Annotated[
    Path, typer.Argument(help="Table of answers; with --pairs a votes or pairs file.")
]
MetricsOption = Annotated[
    str,
    typer.Option(
        help="Names or groups: golden, rouge, text (no model), model, bertscore, all; "
        "criteria, llm, pairwise (a language model); retrieval (ragas); perplexity; reward."
    ),
]
PairsOption = Annotated[
    bool, typer.Option("--pairs", help="Score both answers of every pair of a votes file.")
]
LlmOption = Annotated[
    str,
    typer.Option(
        help="Model that judges: local, or the name it has at --llm-url.", rich_help_panel=_LLM
    ),
]
LlmUrlOption = Annotated[
    str,
    typer.Option(
        help="OpenAI-compatible endpoint, e.g. http://localhost:8000/v1.", rich_help_panel=_LLM
    ),
]
LlmConfigOption = Annotated[
    Path | None,
    typer.Option(help="YAML file of further settings of the model.", rich_help_panel=_LLM),
]


def score(
    answers: AnswersArgument,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output: .csv or .jsonl.")],
    metrics: MetricsOption = "text",
    pairs: PairsOption = False,
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
    perplexity_model: Annotated[
        str, typer.Option(help="Local model for perplexity.", rich_help_panel=_MODELS)
    ] = "smollm2-135m-instruct",
    judge: Annotated[
        str, typer.Option(help="Folder of a fitted judge, for reward.", rich_help_panel=_MODELS)
    ] = "",
    llm: LlmOption = "",
    llm_url: LlmUrlOption = "",
    llm_config: LlmConfigOption = None,
    threads: Annotated[int, typer.Option(help="Compute threads; 0 takes all cores.")] = 0,
) -> None:
    """Score answers with metrics and judging models; unscored rows keep their reason."""
    from litee.cli.models import llm_settings, open_judge
    from litee.score.metric_names import choose

    chosen = choose(part.strip() for part in metrics.split(",") if part.strip())
    settings = llm_settings(llm_config, llm, llm_url)
    if out.suffix not in {".csv", ".jsonl"}:
        wrong = out.suffix or "a file without suffix"
        raise ConfigError(f"cannot write {wrong}", place=str(out), fix="name a .csv or .jsonl file")
    if chosen.pairwise:
        if not pairs:
            fix = "add --pairs and give a votes or pairs file"
            raise ConfigError("pairwise compares two answers", fix=fix)
        _use_threads(threads)
        _score_pairs(answers, format, open_judge(settings), settings, out)
        return
    made, asked = _metrics(
        chosen,
        settings,
        threads=threads,
        judge=judge,
        perplexity_model=perplexity_model,
        encoder=(encoder, bertscore_model, bertscore_layer),
    )
    names = (prompt, answer, reference, contexts)
    source, total = _source(answers, names, format if pairs else None)
    _score_answers(source, total, made, chosen, out, asked=asked, settings=settings)


def _use_threads(threads: int) -> None:
    from litee.finetune.device import use_threads

    use_threads(threads)


def _metrics(
    chosen: Chosen,
    settings: LlmJudgeSettings,
    *,
    threads: int,
    judge: str,
    perplexity_model: str,
    encoder: tuple[str, str, int | None],
) -> tuple[list[TextMetric], dict[str, CachedJudge | StoredWriter]]:
    """The metrics that make the chosen columns, and the language models that some of them ask."""
    from litee.cli.models import open_judge, retrieval_metrics, single_metrics
    from litee.score.llm_judge import LlmMetric
    from litee.score.texts import plain_metrics

    made: list[TextMetric] = list(plain_metrics(chosen.columns))
    if any(c not in {name for m in made for name in m.columns} for c in chosen.columns):
        _use_threads(threads)
    if chosen.encoder:
        from litee.score.neural import make_model_metrics

        made += make_model_metrics(
            chosen.encoder, encoder[0], bertscore_model=encoder[1], layer=encoder[2]
        )
    made += single_metrics(chosen, settings, judge=judge, perplexity_model=perplexity_model)
    asked: dict[str, CachedJudge | StoredWriter] = {}
    if chosen.retrieval:
        metric, asked["ragas"] = retrieval_metrics(chosen.retrieval, settings, encoder[0])
        made.append(metric)
    if chosen.llm:
        asked["llm"] = judging = open_judge(settings)
        made.append(LlmMetric(chosen.llm, judging))
    return made, asked


def _source(
    answers: Path, names: tuple[str, str, str, str], pairs_format: str | None
) -> tuple[AnswerFile, int]:
    """The answers, and how many there are; of pairs when a layout is given."""
    from litee.collect.rows import open_table
    from litee.score.answers import TextColumns, read_answers, read_pair_answers

    total = sum(1 for _ in open_table(answers).rows)
    if pairs_format is not None:
        return read_pair_answers(answers, pairs_format), 2 * total
    return read_answers(answers, TextColumns(*names)), total


def _score_answers(
    source: AnswerFile,
    total: int,
    made: list[TextMetric],
    chosen: Chosen,
    out: Path,
    *,
    asked: Mapping[str, CachedJudge | StoredWriter],
    settings: LlmJudgeSettings,
) -> None:
    from rich.console import Console

    from litee.progress import progress
    from litee.score.receipts import write_costs
    from litee.score.scoring import BLOCK, score_file

    slow = chosen.llm or chosen.retrieval or "perplexity" in chosen.columns
    with progress("scoring", total, "answers") as advance:
        found = score_file(
            source,
            made,
            chosen.columns,
            out,
            advance,
            block_rows=_SLOW_BLOCK if slow else BLOCK,
        )
    usages = {name: _usage(model, settings) for name, model in asked.items()}
    extra: dict[str, Json] = {"command": _command(), "rows": found.rows, **usages}
    write_costs(_receipt(out), found.costs, extra)
    console = Console()
    console.print(_table(found, chosen.columns))
    console.print(f"{found.rows:,} answers in {out}", highlight=False, soft_wrap=True)
    for usage in usages.values():
        console.print(_said(usage), highlight=False, soft_wrap=True)


def _score_pairs(
    file: Path, format: str, asked: CachedJudge, settings: LlmJudgeSettings, out: Path
) -> None:
    from rich.console import Console

    from litee.collect.votes import load_pairs
    from litee.progress import progress
    from litee.score.llm_judge_pairs import write_pair_verdicts
    from litee.score.receipts import Cost, write_costs

    started = time.monotonic()
    found = load_pairs(file, format=format)
    with progress("judging both orders", len(found), "pairs") as advance:
        counts = write_pair_verdicts(found, asked, out, advance)
    usage = _usage(asked, settings)
    judged = counts.pairs - sum(counts.unscored.values())
    cost = Cost(counts.pairs, judged, time.monotonic() - started)
    extra: dict[str, Json] = {"command": _command(), "verdicts": counts.to_json(), "llm": usage}
    write_costs(_receipt(out), {"verdict": cost}, extra)
    console = Console()
    outcomes = ", ".join(f"{number:,} {name}" for name, number in counts.outcomes.items())
    console.print(f"{counts.pairs:,} pairs in {out}: {outcomes}", highlight=False, soft_wrap=True)
    console.print(
        f"same verdict in both orders: {counts.consistent:,} of {judged:,}; always the first "
        f"answer: {counts.favours_first:,}; always the second: {counts.favours_second:,}",
        highlight=False,
        soft_wrap=True,
    )
    for reason, number in counts.unscored.items():
        console.print(f"unscored {number:,}: {reason}", highlight=False, soft_wrap=True)
    console.print(_said(usage), highlight=False, soft_wrap=True)


def _command() -> str:
    return shlex.join(["litee", *sys.argv[1:]])


def _receipt(out: Path) -> Path:
    return out.with_name(out.name + ".receipt.json")


def _usage(asked: CachedJudge | StoredWriter, settings: LlmJudgeSettings) -> dict[str, Json]:
    """What a language model was asked and what it cost; its store is closed."""
    asked.close()
    return asked.usage.to_json(settings, asked.id, asked.version)


def _said(usage: Mapping[str, Json]) -> str:
    """What the judging model cost, in one line."""
    price = "" if usage["price"] is None else f", price {usage['price']:.4g}"
    return (
        f"{usage['model']}: {usage['asked']:,} questions asked, {usage['stored']:,} found on disk, "
        f"{usage['tokens_in']:,} tokens read, {usage['tokens_out']:,} written, "
        f"{usage['seconds']:,.0f} s{price}"
    )


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
