"""Throughput of every text metric, and memory while many answers stream through.

    python benchmarks/text_metrics.py --rows 100000 --out results/text_metrics.json

The answers are random English-like words, 60 per answer and 40 per reference. Memory is measured
twice, at a tenth of the rows and at all of them: the growth between both is what the number of rows
costs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from litee.progress import progress
from litee.rundir import Receipt, cpu_name, peak_rss_mb, versions
from litee.score.answers import Answer, AnswerFile
from litee.score.results import new_result, write_result
from litee.score.scoring import Scored, score_file
from litee.score.texts import GROUPS, plain_metrics

WORDS = (  # noqa: SIM905
    "the a hotel train lake old city museum ticket night walk serves near breakfast open until "
    "ten is are was you can find book room price cheap quiet station bus river view of and in to "
    "with for from one two three guests table garden parking pool staff friendly clean small"
).split()


def answers(rows: int) -> Iterator[Answer]:
    rng = np.random.default_rng(0)
    words = np.array(WORDS, dtype=object)
    for k in range(rows):
        text, reference = words[rng.integers(0, len(words), 120)].reshape(2, -1)
        yield Answer({"row": k}, "", " ".join(text) + ".", " ".join(reference[:40]) + ".")


def run(rows: int, folder: Path) -> Scored:
    columns = GROUPS["text"]
    source = AnswerFile(("row",), answers(rows))
    with progress("scoring", rows, "answers") as advance:
        return score_file(source, plain_metrics(columns), columns, folder / f"{rows}.csv", advance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("results/text_metrics.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(max(options.rows // 10, 1), Path(name))
        before = peak_rss_mb()
        found = run(options.rows, Path(name))
    metrics: dict[str, float] = {
        "rows": found.rows,
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "peak_rss_growth_mb": round(peak_rss_mb() - before, 1),
    }
    for plain in plain_metrics(GROUPS["text"]):
        seconds = sum(found.costs[c].seconds for c in plain.columns)
        metrics[f"{plain.columns[0]}.answers_per_second"] = round(found.rows / seconds, 1)
    receipt = Receipt(device=cpu_name(), versions=versions())
    receipt.seconds = round(sum(cost.seconds for cost in found.costs.values()), 1)
    receipt.peak_rss_mb = round(peak_rss_mb(), 1)
    command = shlex.join(["python", *sys.argv])
    notes = "One process. A metric with several columns is named by its first one."
    result = new_result(options.out.stem, command, receipt, metrics, notes=notes)
    write_result(options.out.parent, result)
    for key, value in metrics.items():
        print(f"{key}: {value:,}")


if __name__ == "__main__":
    main()
