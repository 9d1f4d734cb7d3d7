"""`litee predict`: probabilities for pairs, streamed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.amounts import bytes_of, seconds_of
from litee.config import Device
from litee.errors import ConfigError

if TYPE_CHECKING:
    from litee.records import Prediction


def predict(
    judge: Annotated[str, typer.Argument(help="Folder of a judge, or owner/name on the hub.")],
    pairs: Annotated[Path, typer.Argument(help="File of pairs, with or without votes.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output: .jsonl or .csv.")],
    format: Annotated[str, typer.Option(help="Layout of the file; see docs/data.md.")] = "auto",
    device: Annotated[Device, typer.Option(help="Where to run: auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Compute threads; 0 takes all cores.")] = 0,
    budget: Annotated[
        str | None, typer.Option(help="Wall time, such as 90s, 20m or 2h; then stop, to go on.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Resident memory, such as 8GB, to stay within.")
    ] = None,
) -> None:
    """Predict P(A better), P(B better), P(tie) and rewards for every pair of a file.

    A run that was stopped goes on from OUT.part when the command is given again.
    """
    if out.suffix not in {".jsonl", ".csv"}:
        raise ConfigError(
            f"cannot write {out.suffix or 'a file without suffix'}",
            place=str(out),
            fix="name a .jsonl or .csv file",
        )
    from litee.collect.votes import stream_pairs
    from litee.finetune.device import use_threads
    from litee.predict.judge import Judge
    from litee.predict.predicting import Layout, Limits, predict_file
    from litee.progress import console

    limits = Limits(
        None if budget is None else seconds_of(budget),
        None if max_memory is None else bytes_of(max_memory),
    )
    # read twice: a row that cannot be used is found before hours of work, and nothing is kept
    count = sum(1 for _ in stream_pairs(pairs, format=format))
    use_threads(threads)
    csv = out.suffix == ".csv"
    header = "id,winner,p_a,p_b,p_tie,reward_a,reward_b,tokens_cut" if csv else ""
    loaded = Judge.from_pretrained(judge, device=device)
    found = predict_file(
        loaded,
        lambda: stream_pairs(pairs, format=format),
        out,
        source=pairs,
        count=count,
        layout=Layout(partial(_line, csv=csv), header),
        limits=limits,
    )
    said = f"{found.done:,} predictions in {out}; {found.cut:,} pairs were cut to the budget"
    console.print(said, soft_wrap=True)
    for caution in loaded.file.familiar.cautions(found.unlike, found.done):
        console.print(f"caution: {caution}", soft_wrap=True, style="yellow")


def _line(p: Prediction, *, csv: bool) -> str:
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
    return _csv(row) if csv else json.dumps(row, ensure_ascii=False)


def _csv(row: dict[str, object]) -> str:
    cells = ["" if value is None else str(value) for value in row.values()]
    quoted = [
        '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n\r') else cell for cell in cells
    ]
    return ",".join(quoted)
