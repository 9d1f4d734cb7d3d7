"""Throughput of every text metric, and memory while many answers stream through.

    python benchmarks/text_metrics.py --rows 100000 --out results/text_metrics.json

The answers are random English words, 60 per answer and 40 per reference, written to a file and read
back as `litee score` does it. Memory is the peak of a process of its own for 1,000 rows and for all
rows: their difference is what the number of rows costs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from litee.progress import progress
from litee.rundir import Receipt, cpu_name, peak_rss_mb, versions
from litee.score.answers import TextColumns, read_answers
from litee.score.receipts import Cost
from litee.score.results import new_result, write_result
from litee.score.scoring import score_file
from litee.score.texts import GROUPS, plain_metrics

FEW = 1000
WORDS = (  # noqa: SIM905
    "the a hotel train lake old city museum ticket night walk serves near breakfast open until "
    "ten is are was you can find book room price cheap quiet station bus river view of and in to "
    "with for from one two three guests table garden parking pool staff friendly clean small"
).split()


def answers(rows: int) -> Iterator[dict[str, object]]:
    """Rows of an answers file; every twentieth word of an answer is a number of its own."""
    rng = np.random.default_rng(0)
    words = np.array(WORDS, dtype=object)
    for k in range(rows):
        text, reference = words[rng.integers(0, len(words), 120)].reshape(2, -1)
        text[::20] = f"{k}"
        yield {"id": k, "answer": " ".join(text) + ".", "reference": " ".join(reference[:40]) + "."}


def measure(rows: int) -> None:
    """Score in this process; print rows, costs and peak memory as JSON."""
    columns = GROUPS["text"]
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "answers.jsonl"
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in answers(rows))
        source = read_answers(file, TextColumns())
        with progress("scoring", rows, "answers") as advance:
            found = score_file(
                source, plain_metrics(columns), columns, Path(name) / "scores.csv", advance
            )
    costs = {column: asdict(cost) for column, cost in found.costs.items()}
    print(json.dumps({"rows": found.rows, "peak_rss_mb": peak_rss_mb(), "costs": costs}))


def in_own_process(rows: int) -> tuple[float, dict[str, Cost]]:
    """Peak memory in MB and the cost per column."""
    command = [sys.executable, __file__, "--rows", str(rows), "--measure"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    record = json.loads(done.stdout)
    assert record["rows"] == rows
    return record["peak_rss_mb"], {c: Cost(**cost) for c, cost in record["costs"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("results/text_metrics.json"))
    parser.add_argument("--measure", action="store_true", help="Only measure, in this process.")
    options = parser.parse_args()
    if options.measure:
        measure(options.rows)
        return
    few, _ = in_own_process(FEW)
    many, costs = in_own_process(options.rows)
    metrics: dict[str, float] = {
        "rows": options.rows,
        f"peak_rss_mb_{FEW}_rows": round(few, 1),
        "peak_rss_mb": round(many, 1),
        "peak_rss_growth_mb": round(many - few, 1),
    }
    for plain in plain_metrics(GROUPS["text"]):
        seconds = sum(costs[c].seconds for c in plain.columns)
        metrics[f"{plain.columns[0]}.answers_per_second"] = round(options.rows / seconds, 1)
    seconds = sum(cost.seconds for cost in costs.values())
    metrics["answers_per_second"] = round(options.rows / seconds, 1)
    receipt = Receipt(device=cpu_name(), versions=versions(), seconds=round(seconds, 1))
    receipt.peak_rss_mb = round(many, 1)
    command = shlex.join(["python", "benchmarks/text_metrics.py", *sys.argv[1:]])
    notes = (
        "One process, one thread, beside other jobs on the same two cores, so the rates are lower "
        "bounds. A metric with several columns is named by its first one. All answers go through "
        "all metrics. METEOR's memory includes WordNet, which is read once."
    )
    result = new_result(options.out.stem, command, receipt, metrics, notes=notes)
    write_result(options.out.parent, result)
    for key, value in metrics.items():
        print(f"{key}: {value:,}")


if __name__ == "__main__":
    main()
