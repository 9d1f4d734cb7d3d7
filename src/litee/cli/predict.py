"""`litee predict`: probabilities for pairs, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError

if TYPE_CHECKING:
    from litee.records import Prediction


def predict(
    judge: Annotated[str, typer.Argument(help="Folder of a judge, or owner/name on the hub.")],
    pairs: Annotated[Path, typer.Argument(help="File of pairs, with or without votes.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output: .jsonl or .csv.")],
    format: Annotated[str, typer.Option(help="Layout of the file; see docs/data.md.")] = "auto",
    threads: Annotated[int, typer.Option(help="Compute threads; 0 takes all cores.")] = 0,
) -> None:
    """Predict P(A better), P(B better), P(tie) and rewards for every pair of a file."""
    if out.suffix not in {".jsonl", ".csv"}:
        raise ConfigError(
            f"cannot write {out.suffix or 'a file without suffix'}",
            place=str(out),
            fix="name a .jsonl or .csv file",
        )
    from litee.collect.votes import stream_pairs
    from litee.finetune.device import use_threads
    from litee.predict.judge import Judge
    from litee.progress import console, progress
    from litee.rundir import atomic_writer

    # read twice: a row that cannot be used is found before hours of work, and nothing is kept
    count = sum(1 for _ in stream_pairs(pairs, format=format))
    use_threads(threads)
    loaded = Judge.from_pretrained(judge)
    cut = 0
    with atomic_writer(out) as stream, progress("predicting", count, "pairs") as advance:
        if out.suffix == ".csv":
            stream.write("id,winner,p_a,p_b,p_tie,reward_a,reward_b,tokens_cut\n")
        predictions = loaded.stream(stream_pairs(pairs, format=format))
        for line, was_cut in _lines(predictions, csv=out.suffix == ".csv"):
            stream.write(line + "\n")
            cut += was_cut
            advance(1)
    said = f"{count:,} predictions in {out}; {cut:,} pairs were cut to the budget"
    console.print(said, soft_wrap=True)


def _lines(predictions: Iterable[Prediction], *, csv: bool) -> Iterator[tuple[str, bool]]:
    for p in predictions:
        row: dict[str, object] = {
            "id": p.pair_id,
            "winner": p.winner.value,
            "p_a": round(p.probabilities[0], 6),
            "p_b": round(p.probabilities[1], 6),
            "p_tie": round(p.probabilities[2], 6),
            "reward_a": None if p.reward_a is None else round(p.reward_a, 6),
            "reward_b": None if p.reward_b is None else round(p.reward_b, 6),
            "tokens_cut": sum(p.tokens_cut) if csv else list(p.tokens_cut),
        }
        yield (_csv(row) if csv else json.dumps(row, ensure_ascii=False)), sum(p.tokens_cut) > 0


def _csv(row: dict[str, object]) -> str:
    cells = ["" if value is None else str(value) for value in row.values()]
    quoted = [
        '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n\r') else cell for cell in cells
    ]
    return ",".join(quoted)
