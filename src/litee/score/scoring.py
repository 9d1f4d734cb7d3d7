"""Answers through metrics, block by block, to a file: bounded memory, cost per metric.

Knows nothing of single metrics.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from litee.errors import ConfigError
from litee.records import Score
from litee.rundir import atomic_writer
from litee.score.answers import Answer, AnswerFile, blocks
from litee.score.receipts import Cost
from litee.score.score_table import REASONS
from litee.score.texts import TextMetric

#: Rows in memory at once.
BLOCK = 512


@dataclass(slots=True)
class Scored:
    """What a run of metrics did.

    Attributes:
        rows: answers.
        costs: metric → rows, scored rows and seconds.
        unscored: column → reason → rows.
        sums: column → (sum, number) of the scores.
    """

    rows: int = 0
    costs: dict[str, Cost] = field(default_factory=dict)
    unscored: dict[str, dict[str, int]] = field(default_factory=dict)
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def mean(self, column: str) -> Score:
        """Mean of a column over the scored rows."""
        total, number = self.sums.get(column, (0.0, 0))
        return Score(total / number) if number else Score(None, reason="nothing was scored")


def score_file(
    source: AnswerFile,
    metrics: Sequence[TextMetric],
    columns: Sequence[str],
    out: Path,
    advance: Callable[[int], None],
    *,
    block_rows: int = BLOCK,
) -> Scored:
    """Write every answer's scores, keeping its keys; the file appears only when all is done.

    Args:
        source: the answers.
        metrics: what to compute.
        columns: which of their columns to write.
        out: `.csv` or `.jsonl`.
        advance: called with the number of finished rows.
        block_rows: rows in memory at once; fewer show progress of slow metrics sooner.

    Raises:
        ConfigError: another ending.
    """
    if out.suffix not in {".csv", ".jsonl"}:
        raise ConfigError(
            f"cannot write {out.suffix or 'a file without suffix'}",
            place=str(out),
            fix="name a .csv or .jsonl file",
        )
    found = Scored()
    with atomic_writer(out) as stream:
        header = [*source.keys, *columns, REASONS]
        write = row_writer(stream, header, csv_file=out.suffix == ".csv")
        for block in blocks(source.answers, block_rows):
            for answer, scores in zip(
                block, _score_block(block, metrics, columns, found), strict=True
            ):
                write(_row(answer, scores))
            found.rows += len(block)
            advance(len(block))
    return found


def _score_block(
    block: Sequence[Answer], metrics: Sequence[TextMetric], columns: Sequence[str], found: Scored
) -> Iterator[dict[str, Score]]:
    rows: list[dict[str, Score]] = [{} for _ in block]
    for metric in metrics:
        wanted = [k for k, column in enumerate(metric.columns) if column in columns]
        started = time.perf_counter()
        scores = metric.score(block)
        seconds = (time.perf_counter() - started) / max(len(wanted), 1)
        for k in wanted:
            column = metric.columns[k]
            values = [row[k] for row in scores]
            _account(found, column, values, seconds)
            for row, value in zip(rows, values, strict=True):
                row[column] = value
    yield from rows


def _account(found: Scored, column: str, values: Sequence[Score], seconds: float) -> None:
    """Add a block's scores of one column to the totals; time is shared by a metric's columns."""
    known = [v.value for v in values if v.value is not None]
    old = found.costs.get(column, Cost(0, 0, 0.0))
    found.costs[column] = Cost(
        old.rows + len(values), old.scored + len(known), old.seconds + seconds
    )
    total, number = found.sums.get(column, (0.0, 0))
    found.sums[column] = (total + sum(known), number + len(known))
    for value in values:
        if value.value is None:
            reasons = found.unscored.setdefault(column, {})
            reasons[value.reason] = reasons.get(value.reason, 0) + 1


def _row(answer: Answer, scores: Mapping[str, Score]) -> dict[str, object]:
    reasons = {c: s.reason for c, s in scores.items() if s.value is None}
    values = {c: None if s.value is None else round(s.value, 6) for c, s in scores.items()}
    note = json.dumps(reasons, ensure_ascii=False) if reasons else ""
    return {**answer.keys, **values, REASONS: note}


def row_writer(
    stream: IO[str], header: Sequence[str], *, csv_file: bool
) -> Callable[[Mapping[str, object]], None]:
    """A function that writes one row, as CSV with this header or as JSON lines."""
    if not csv_file:
        return lambda row: _json_line(stream, row)
    table = csv.DictWriter(stream, header, lineterminator="\n")
    table.writeheader()
    return lambda row: _csv_line(table, row)


def _json_line(stream: IO[str], row: Mapping[str, object]) -> None:
    stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _csv_line(table: csv.DictWriter[str], row: Mapping[str, object]) -> None:
    """Lists and objects (ratings by several people) go into one cell as JSON."""
    table.writerow(
        {
            key: json.dumps(value, ensure_ascii=False)
            if isinstance(value, list | tuple | dict)
            else value
            for key, value in row.items()
        }
    )
