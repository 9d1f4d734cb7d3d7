"""Votes to files: canonical (JSONL, CSV, TSV, parquet), TRL, Arena and evalica.

Canonical files keep everything a `Vote` holds: reading them back gives the same votes. Knows
nothing of folds and models.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from litee.collect.rows import file_kind
from litee.errors import ConfigError, InputError
from litee.records import Outcome, Vote
from litee.rundir import Json, atomic_path

#: What `--to` may be.
TARGETS: tuple[str, ...] = ("canonical", "trl", "arena", "evalica")
#: What may become of ties in a format without ties.
TIES: tuple[str, ...] = ("drop", "both")

_COLUMNS = (
    "id",
    "pair_id",
    "prompt",
    "response_a",
    "response_b",
    "winner",
    "model_a",
    "model_b",
    "annotator",
    "source",
    "weight",
    "reason",
)
_EVALICA = {Outcome.A: "left", Outcome.B: "right", Outcome.TIE: "tie", Outcome.BOTH_BAD: "tie"}
_BATCH = 1000

Record = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what the target could not hold.

    Attributes:
        rows: rows written.
        ties: votes that were ties.
        ties_written: rows written for ties (two each with `both`).
        unnamed: votes left out because the target needs the models' names.
        merged: `both_bad` votes written as ties.
    """

    rows: int
    ties: int = 0
    ties_written: int = 0
    unnamed: int = 0
    merged: int = 0


def write_votes(
    votes: Sequence[Vote], path: Path, *, to: str = "canonical", ties: str = "drop"
) -> Exported:
    """Write votes to a file whose ending says of which kind it is.

    Args:
        votes: what to write.
        path: `.jsonl`, `.json`, `.csv`, `.tsv` (each also `.gz`) or `.parquet`.
        to: one of `TARGETS`.
        ties: TRL has no ties: `drop` them, or write `both` directions.

    Raises:
        ConfigError: unknown target or treatment of ties, or TRL conversations in a CSV file.
        InputError: nothing is left to write.
        ResourceError: the file cannot be written.
    """
    if to not in TARGETS:
        raise ConfigError(f"unknown target {to!r}", fix=f"use one of: {', '.join(TARGETS)}")
    if ties not in TIES:
        raise ConfigError(f"unknown treatment of ties {ties!r}", fix=f"use: {', '.join(TIES)}")
    kind = file_kind(path)
    if kind == "database":
        fix = "name a .jsonl, .csv or .parquet file"
        raise ConfigError("votes are not written to a database", place=str(path), fix=fix)
    if not votes:
        raise InputError("there are no votes to write", place=str(path), fix="collect some first")
    tied = sum(vote.winner.class_index == 2 for vote in votes)
    if to == "trl":
        rows = _write(path, kind, _trl_records(votes, kind, path, both=ties == "both"))
        written = 2 * tied if ties == "both" else 0
        return Exported(rows, tied, written)
    if to == "evalica":
        named = [vote for vote in votes if vote.pair.model_a and vote.pair.model_b]
        rows = _write(path, kind, map(_evalica_record, named))
        merged = sum(vote.winner is Outcome.BOTH_BAD for vote in named)
        ties_written = sum(vote.winner.class_index == 2 for vote in named)
        return Exported(rows, tied, ties_written, len(votes) - len(named), merged)
    if to == "arena":
        merged = sum(vote.winner is Outcome.BOTH_BAD for vote in votes)
        return Exported(_write(path, kind, map(_arena_record, votes)), tied, tied, 0, merged)
    return Exported(_write(path, kind, map(_canonical_record, votes)), tied, tied)


def _canonical_record(vote: Vote) -> Record:
    pair = vote.pair
    values = (
        vote.id,
        pair.id,
        list(pair.prompt),
        list(pair.response_a),
        list(pair.response_b),
        vote.winner.value,
        pair.model_a,
        pair.model_b,
        vote.annotator,
        pair.source,
        vote.weight,
        vote.reason,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _trl_records(votes: Iterable[Vote], kind: str, path: Path, *, both: bool) -> Iterator[Record]:
    """Standard rows for one turn, conversational rows when any pair has several."""
    votes = list(votes)
    chat = any(len(vote.pair.prompt) > 1 for vote in votes)
    if chat and kind in {"csv", "tsv"}:
        fix = "write to a .jsonl or .parquet file"
        problem = "conversations of several turns do not fit a TRL table of plain text"
        raise ConfigError(problem, place=str(path), fix=fix)
    for vote in votes:
        pair = vote.pair
        if vote.winner is Outcome.A or (both and vote.winner.class_index == 2):
            yield _trl_record(pair.prompt, pair.response_a, pair.response_b, chat=chat)
        if vote.winner is Outcome.B or (both and vote.winner.class_index == 2):
            yield _trl_record(pair.prompt, pair.response_b, pair.response_a, chat=chat)


def _trl_record(
    prompt: Sequence[str], chosen: Sequence[str], rejected: Sequence[str], *, chat: bool
) -> Record:
    if not chat:
        return {"prompt": prompt[0], "chosen": chosen[0], "rejected": rejected[0]}
    if chosen[:-1] != rejected[:-1]:
        return {"chosen": _messages(prompt, chosen), "rejected": _messages(prompt, rejected)}
    whole = _messages(prompt, chosen)
    last: list[Json] = [{"role": "assistant", "content": rejected[-1]}]
    return {"prompt": whole[:-1], "chosen": whole[-1:], "rejected": last}


def _messages(prompt: Sequence[str], answers: Sequence[str]) -> list[Json]:
    return [
        {"role": role, "content": text}
        for turns in zip(prompt, answers, strict=True)
        for role, text in zip(("user", "assistant"), turns, strict=True)
    ]


def _arena_record(vote: Vote) -> Record:
    """A row of `lmsys/lmsys-arena-human-preference-55k`; its cells hold lists of turns as JSON."""
    pair = vote.pair
    turns: Record = {
        name: json.dumps(list(texts), ensure_ascii=False)
        for name, texts in (
            ("prompt", pair.prompt),
            ("response_a", pair.response_a),
            ("response_b", pair.response_b),
        )
    }
    won = {
        f"winner_{name}": int(vote.winner.class_index == k)
        for k, name in enumerate(("model_a", "model_b", "tie"))
    }
    return {"id": vote.id, "model_a": pair.model_a, "model_b": pair.model_b, **turns, **won}


def _evalica_record(vote: Vote) -> Record:
    pair = vote.pair
    return {"left": pair.model_a, "right": pair.model_b, "winner": _EVALICA[vote.winner]}


def _write(path: Path, kind: str, records: Iterable[Record]) -> int:
    """Write records atomically and count them.

    Raises:
        InputError: there are none.
    """
    writers = {
        "jsonl": _write_jsonl,
        "json": _write_json,
        "csv": _write_csv,
        "tsv": _write_tsv,
        "parquet": _write_parquet,
    }
    with atomic_path(path) as temporary:
        rows = writers[kind](temporary, records, packed=path.name.endswith(".gz"))
        if not rows:
            problem = "nothing to write: no vote fits the target"
            fix = "for trl keep ties with --ties both; for evalica give model_a and model_b"
            raise InputError(problem, place=str(path), fix=fix)
    return rows


@contextmanager
def _text(path: Path, *, packed: bool) -> Iterator[IO[str]]:
    """A UTF-8 stream, gzipped without name and time so that equal votes give equal bytes."""
    with path.open("wb") as raw:
        if not packed:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
                yield text
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as unpacked:
            with io.TextIOWrapper(unpacked, encoding="utf-8", newline="") as text:
                yield text


def _dump(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_jsonl(path: Path, records: Iterable[Record], *, packed: bool) -> int:
    rows = 0
    with _text(path, packed=packed) as out:
        for record in records:
            out.write(_dump(record) + "\n")
            rows += 1
    return rows


def _write_json(path: Path, records: Iterable[Record], *, packed: bool) -> int:
    rows = 0
    with _text(path, packed=packed) as out:
        for record in records:
            out.write((",\n" if rows else "[\n") + _dump(record))
            rows += 1
        out.write("\n]\n")
    return rows


def _write_csv(path: Path, records: Iterable[Record], *, packed: bool, delimiter: str = ",") -> int:
    """Lists become JSON lists in their cell."""
    rows = 0
    with _text(path, packed=packed) as out:
        writer = csv.writer(out, delimiter=delimiter)
        for record in records:
            if not rows:
                writer.writerow(record)
            writer.writerow(
                _dump(value) if isinstance(value, list) else value for value in record.values()
            )
            rows += 1
    return rows


def _write_tsv(path: Path, records: Iterable[Record], *, packed: bool) -> int:
    return _write_csv(path, records, packed=packed, delimiter="\t")


def _write_parquet(path: Path, records: Iterable[Record], *, packed: bool) -> int:
    """Parquet is packed as it is; a `.gz` ending is refused.

    Raises:
        ConfigError: the name ends in `.parquet.gz`.
    """
    if packed:
        fix = "name the file .parquet: it is packed by itself"
        raise ConfigError("parquet files are not gzipped", place=path.name, fix=fix)
    rows = 0
    writer: pq.ParquetWriter | None = None
    batch: list[Record] = []
    path.touch()

    def flush() -> None:
        nonlocal writer
        table = pa.Table.from_pylist(batch)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table.cast(writer.schema))
        batch.clear()

    try:
        for record in records:
            batch.append(record)
            rows += 1
            if len(batch) == _BATCH:
                flush()
        if batch:
            flush()
    finally:
        if writer is not None:
            writer.close()
    return rows
