"""Results files: one JSON per finished study, and the Markdown page generated from them.

Every figure the project claims lies in `results/<name>.json`, written by the command it names.
Knows nothing of how a study runs or what its metrics mean.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import cast

from litee.errors import InputError
from litee.rundir import Json, Receipt, write_json, write_text
from litee.score.headlines import headlines

INDEX = "README.md"

#: Metrics that a results file of this name has to carry.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "demo": ("seconds", "log_loss", "accuracy", "floor_log_loss"),
    "mt_bench_transfer": (
        "log_loss",
        "accuracy",
        "accuracy_decisive",
        "ece",
        "prior_log_loss",
        "longest_accuracy",
        "statistics_log_loss",
        "best_member_log_loss",
        "gpt4_accuracy",
    ),
    "engine_cpu": (
        "train_speedup_pairjudge",
        "predict_speedup_pairjudge",
        "ensemble5_train_ratio",
        "ensemble5_predict_ratio",
        "peak_rss_ratio_leanest",
        "roofline_fraction",
        "plan_time_error",
        "plan_memory_error",
        "budget_overrun",
    ),
    "engine_gpu": ("lora_useful_flops_fraction", "tokens_per_second", "peak_gpu_mb"),
    "travel_metrics": (
        "max_abs_error_rouge1",
        "max_abs_error_rougeL",
        "max_abs_error_bleu",
        "max_abs_error_bertscore_f1",
        "max_abs_error_dot_golden",
    ),
    **dict.fromkeys(
        ("lima_quality", "lima_diversity", "lima_quantity", "lima_multiturn", "lima_sft"),
        ("win_rate", "win_rate_low", "win_rate_high", "stop_rate"),
    ),
    "lora_litee": ("log_loss", "accuracy", "ece", "pairjudge_log_loss", "pairjudge_time_ratio"),
    "hardening": ("faults", "corrupted_loaded", "fuzz_inputs", "crashes"),
}

#: Rows of figures and of a table at most; the others stay in the JSON.
_ROWS, _TABLE_ROWS = 15, 20

#: Columns of a grid at most, the figures that come first, and the rows that are always in it.
_COLUMNS = 5
_FIRST = (
    "decisive_accuracy",
    "pairwise_accuracy",
    "spearman_item",
    "pearson_item",
    "spearman_system",
)
_ALWAYS = ("length", "people", "chance")
#: The arm of a study that changes nothing, and that others are compared with.
BASE = "base"

_KEYS = ("name", "command", "date", "receipt", "metrics", "intervals", "tables", "notes")
_HEAD = """# Results

Generated from the JSON files in this folder; do not edit. Each file has the command that wrote it,
all figures, their intervals (95 %) and tables; here are the first ones.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One study's outcome.

    Attributes:
        name: file name without `.json`: small letters, digits, `_` and `-`.
        command: the command that wrote it.
        date: ISO date, e.g. 2026-11-21.
        receipt: what the run cost (`litee.rundir.Receipt.to_json`).
        metrics: flat, name → finite number.
        intervals: metric → (low, high); only for names in `metrics`.
        tables: anything larger, as plain JSON.
        notes: what falls short and why.

    Raises:
        ValueError: a field breaks these rules.
    """

    name: str
    command: str
    date: str
    receipt: Mapping[str, Json]
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tables: Mapping[str, Json] = field(default_factory=dict)
    notes: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ValueError(f"name {self.name!r}: use small letters, digits, _ and -")
        if not self.command.strip():
            raise ValueError("command is empty")
        date.fromisoformat(self.date)
        missing = {"seconds", "tokens", "peak_rss_mb", "versions", "seed"} - set(self.receipt)
        if missing:
            raise ValueError(f"receipt lacks {', '.join(sorted(missing))}")
        for key, value in self.metrics.items():
            if not _is_number(value):
                raise ValueError(f"metric {key!r} is not a finite number: {value!r}")
        for key, ends in self.intervals.items():
            _check_interval(key, ends, self.metrics)

    @property
    def missing_metrics(self) -> tuple[str, ...]:
        """Metrics that a file of this name has to carry and does not."""
        return tuple(m for m in REQUIRED.get(self.name, ()) if m not in self.metrics)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_interval(key: str, ends: Sequence[float], metrics: Mapping[str, float]) -> None:
    if key not in metrics:
        raise ValueError(f"interval {key!r} has no metric of that name")
    if len(ends) != 2 or not all(_is_number(end) for end in ends) or ends[0] > ends[1]:
        raise ValueError(f"interval {key!r} must be two numbers low <= high, got {ends!r}")


def write_result(folder: Path, result: Result) -> Path:
    """Write `<folder>/<name>.json` and regenerate the page beside it; returns the JSON's path."""
    path = folder / f"{result.name}.json"
    record: dict[str, Json] = {
        "name": result.name,
        "command": result.command,
        "date": result.date,
        "receipt": result.receipt,
        "metrics": result.metrics,
        "intervals": {key: list(ends) for key, ends in result.intervals.items()},
        "tables": result.tables,
        "notes": result.notes,
    }
    write_json(path, record)
    write_text(folder / INDEX, render_results(folder))
    return path


def new_result(
    name: str,
    command: str,
    receipt: Receipt,
    metrics: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    tables: Mapping[str, Json] | None = None,
    notes: str = "",
) -> Result:
    """A `Result` of today's date from a run's receipt; the arguments are those of `Result`."""
    today = date.today().isoformat()
    cost = receipt.to_json()
    return Result(name, command, today, cost, metrics, intervals or {}, tables or {}, notes)


def read_result(path: Path) -> Result:
    """Read and check one results file.

    Raises:
        InputError: the file is not JSON or breaks the schema.
    """
    fix = "run the command that writes this file again"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or set(record) != set(_KEYS):
            raise ValueError(f"a results file has exactly the keys {', '.join(_KEYS)}")
        intervals = {key: (ends[0], ends[1]) for key, ends in record.pop("intervals").items()}
        result = Result(**record, intervals=intervals)
    except (OSError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(str(error), place=str(path), fix=fix) from error
    if result.name != path.stem:
        raise InputError(f"holds the result {result.name!r}", place=str(path), fix=fix)
    return result


def render_results(folder: Path) -> str:
    """The Markdown page for all results files of a folder, by name.

    Raises:
        InputError: a file breaks the schema.
    """
    results = [read_result(path) for path in sorted(folder.glob("*.json"))]
    if not results:
        return _HEAD + "\nNo study has finished yet.\n"
    return "\n".join([_HEAD, *(_section(result) for result in results)])


def is_stale(folder: Path) -> bool:
    """Whether the page differs from what its JSON files would give now."""
    page = folder / INDEX
    return not page.exists() or page.read_text(encoding="utf-8") != render_results(folder)


def _section(result: Result) -> str:
    receipt = result.receipt
    seconds = cast("float", receipt["seconds"])
    lines = [
        f"## {result.name}",
        "",
        f"`{result.command}`",
        "",
        f"{result.date}; {seconds:,.0f} s on {receipt.get('device') or 'an unnamed device'}, "
        f"peak memory {cast('float', receipt['peak_rss_mb']):,.0f} MB, seed {receipt['seed']}.",
        "",
        *_metrics(result),
    ]
    lines += _tables(result)
    if result.missing_metrics:
        lines += ["", f"**Missing:** {', '.join(result.missing_metrics)}."]
    if result.notes:
        lines += ["", result.notes]
    return "\n".join(lines) + "\n"


def _metrics(result: Result) -> list[str]:
    """The first metrics, one a row; those of the form `row.figure` as a grid."""
    grid = _Grid.of(result) if len(result.metrics) > _ROWS else None
    if grid is not None:
        return grid.lines(result)
    first = _first(result)
    lines = ["| metric | value | 95 % interval |", "|---|--:|--:|"]
    for key in first:
        ends = result.intervals.get(key)
        shown = f"{_number(ends[0])} to {_number(ends[1])}" if ends else ""
        lines.append(f"| {_cell(key)} | {_number(result.metrics[key])} | {shown} |")
    return [*lines, *_left(result, len(first))]


def _first(result: Result) -> list[str]:
    """At most `_ROWS` metrics in the file's order: headlines, required ones, then the others."""
    wanted = [*headlines(result.name, result.metrics), *REQUIRED.get(result.name, ())]
    chosen = [*dict.fromkeys(k for k in (*wanted, *result.metrics) if k in result.metrics)][:_ROWS]
    return [key for key in result.metrics if key in chosen]


def _left(result: Result, shown: int) -> list[str]:
    left = len(result.metrics) - shown
    return ["", f"{left:,} more figures are in {_json(result)}."] if left else []


def _json(result: Result) -> str:
    return f"[{result.name}.json]({result.name}.json)"


#: `name.figure`, split at the last dot that is not within a number: a figure may name a backbone.
_SPLIT = re.compile(r"(.*)\.(?:(?<!\d\.)|(?!\d))(.*)")

#: Figures of which less is better, by how their names end.
_LESS = ("loss", "ece", "brier", "seconds", "mb", "loss_difference")


@dataclass(frozen=True, slots=True)
class _Grid:
    """Names and figures of metrics called `name.figure`, each in order of appearance."""

    names: tuple[str, ...]
    figures: tuple[str, ...]

    @classmethod
    def of(cls, result: Result) -> _Grid | None:
        """None unless most metrics are of that form and the grid is wide enough to pay."""
        parts = [found.groups() for key in result.metrics if (found := _SPLIT.fullmatch(key))]
        names = tuple(dict.fromkeys(name for name, _ in parts))
        figures = tuple(dict.fromkeys(figure for _, figure in parts))
        if len(parts) < 0.9 * len(result.metrics) or len(names) < 2 or len(figures) < 2:
            return None
        return cls(names, figures)

    def lines(self, result: Result) -> list[str]:
        """Names as columns when they are few, else as rows, the best first."""
        if len(self.names) <= _COLUMNS:
            shown = map(_SPLIT.fullmatch, headlines(result.name, result.metrics))
            first = {found[2] for found in shown if found}
            rows = tuple(sorted(self.figures, key=lambda figure: figure not in first)[:_ROWS])
            columns = self.names
            keys = [[f"{name}.{figure}" for name in columns] for figure in rows]
        else:
            known = [f for f in _FIRST if f in self.figures]
            columns = tuple(known or self.figures[:_COLUMNS])
            rows = self._best(result, columns[0])
            keys = [[f"{name}.{figure}" for figure in columns] for name in rows]
        lines = ["| | " + " | ".join(map(_cell, columns)) + " |", "|---|" + "--:|" * len(columns)]
        for row, line in zip(rows, keys, strict=True):
            cells = [_with_interval(result, key) for key in line]
            lines.append(f"| {_cell(row)} | " + " | ".join(cells) + " |")
        return [*lines, *_left(result, sum(key in result.metrics for line in keys for key in line))]

    def _best(self, result: Result, figure: str) -> tuple[str, ...]:
        """Rows by figure; people and chance come last, and length and `base` are always there."""
        sign = 1 if figure.endswith(_LESS) else -1
        values = {name: result.metrics.get(f"{name}.{figure}") for name in self.names}
        fixed = [name for name in _ALWAYS if name in self.names]
        others = sorted(
            (name for name in self.names if name not in fixed),
            key=lambda name: float("inf") if (v := values[name]) is None else sign * v,
        )
        room = _ROWS - len(fixed)
        if BASE in others[room:]:
            others[room - 1] = BASE
        return (*others[:room], *fixed)


def _with_interval(result: Result, key: str) -> str:
    if key not in result.metrics:
        return ""
    ends = result.intervals.get(key)
    shown = f" [{_number(ends[0])}, {_number(ends[1])}]" if ends else ""
    return _number(result.metrics[key]) + shown


def _tables(result: Result) -> list[str]:
    """Short tables, each to be unfolded; the names of the others."""
    lines: list[str] = []
    others: list[str] = []
    for title, table in result.tables.items():
        found = _table(title, table)
        lines += found
        if not found and table:
            others.append(title)
    if others:
        lines += ["", f"Tables in {_json(result)}: {', '.join(others)}."]
    return lines


def _table(title: str, table: Json) -> list[str]:
    """A short list of flat records with the same keys as Markdown; nothing for anything else."""
    if isinstance(table, str) or not isinstance(table, Sequence):
        return []
    if not 0 < len(table) <= _TABLE_ROWS or not isinstance(table[0], Mapping):
        return []
    keys = list(table[0])
    rows = [list(row.values()) for row in table if isinstance(row, Mapping) and list(row) == keys]
    flat = all(not isinstance(v, Mapping | list | tuple) for row in rows for v in row)
    if len(rows) != len(table) or not flat:
        return []
    head = ["", "<details>", f"<summary>{html.escape(title)}</summary>", ""]
    lines = ["| " + " | ".join(map(_cell, keys)) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return [*head, *lines, "", "</details>"]


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = _number(cast("float", value)) if _is_number(value) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> str:
    """Whole numbers with separators, others with four significant digits.

    >>> _number(12345), _number(0.91123), _number(1234.5), _number(2e-7)
    ('12,345', '0.9112', '1,234', '2e-07')
    """
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
