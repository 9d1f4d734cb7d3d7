"""The travel paper's table of metrics, reproduced, and beside its published judge figures.

    python experiments/agreement/travel.py SCORES.csv [SCORES.csv …] --table systems.csv

SCORES are what `litee score` wrote for `prepare.py travel`. Writes the systems' means with the
published columns (`travel_published.csv`, from arXiv 2408.03562) as a table for `litee agree`, and
`results/travel_metrics.json` with the largest deviation of each reproduced column.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
from collections import defaultdict
from pathlib import Path

from scipy.stats import spearmanr

from litee.rundir import Receipt, cpu_name, peak_rss_mb, sha256_file, versions
from litee.score.results import new_result, write_result

HERE = Path(__file__).parent

#: Name in the results file → (our column, published column).
COLUMNS = {
    "rouge1": ("rouge1", "rouge1_paper"),
    "rougeL": ("rougeL", "rougeL_paper"),
    "bleu": ("bleu_unsmoothed", "bleu_paper"),
    "bertscore_f1": ("bertscore_f1", "bertscore_f1_paper"),
    "dot_golden": ("similarity", "dot_golden_paper"),
    "dot_question": ("similarity_prompt", "dot_question_paper"),
}
NOTES = (
    "ROUGE by rouge-score without stemming. BLEU by sacrebleu sentence by sentence without "
    "smoothing (the usual exponential smoothing gives .002 to .010 more). The dot product with the "
    "golden answer uses all-MiniLM-L6-v2 cut at 256 tokens, as sentence-transformers does; the "
    "paper names two encoders and not which column uses which, and the other one "
    "(multi-qa-MiniLM-L6-cos-v1) cannot be had offline. BERTScore uses all-MiniLM-L6-v2, not the "
    "library's default roberta-large, so its level differs by design; the order of systems is "
    "given as Spearman's rho. 37 questions, the copied golden answer included, as in the paper. "
    "GPT-4 and GPT-4 MQR are not in the published outputs."
)


def means(paths: list[Path]) -> dict[str, dict[str, float]]:
    """System → column → mean over the scored rows."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        with path.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                for column, cell in row.items():
                    if column not in {"prompt_id", "prompt", "system", "unscored"} and cell:
                        values[row["system"]][column].append(float(cell))
    return {s: {c: sum(v) / len(v) for c, v in row.items()} for s, row in values.items()}


def published() -> dict[str, dict[str, float]]:
    """System → column of the paper's tables."""
    with (HERE / "travel_published.csv").open(encoding="utf-8", newline="") as handle:
        return {
            row.pop("system"): {c: float(v) for c, v in row.items()}
            for row in csv.DictReader(handle)
        }


def write_table(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """One row per system."""
    columns = list(next(iter(rows.values())))
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["system", *columns])
        for system, row in rows.items():
            writer.writerow([system, *(round(row[c], 6) for c in columns)])


def main() -> None:
    """Write the table and the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", nargs="+", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    options = parser.parse_args()
    ours, theirs = means(options.scores), published()
    joined = {s: {**ours[s], **theirs[s]} for s in theirs}
    write_table(options.table, joined)
    metrics: dict[str, float] = {"systems": len(joined)}
    for name, (mine, paper) in COLUMNS.items():
        one, two = ([joined[s][c] for s in joined] for c in (mine, paper))
        gaps = [abs(a - b) for a, b in zip(one, two, strict=True)]
        metrics[f"max_abs_error_{name}"] = round(max(gaps), 5)
        metrics[f"mean_abs_error_{name}"] = round(sum(gaps) / len(gaps), 5)
        metrics[f"spearman_{name}"] = round(float(spearmanr(one, two).statistic), 4)
    receipt = Receipt(device=cpu_name(), versions=versions())
    receipt.peak_rss_mb = round(peak_rss_mb(), 1)
    receipt.inputs = {p.name: sha256_file(p) for p in options.scores}
    for path in options.scores:
        cost = json.loads(path.with_name(path.name + ".receipt.json").read_text(encoding="utf-8"))
        receipt.seconds += sum(m["seconds"] for m in cost["metrics"].values())
    receipt.seconds = round(receipt.seconds, 1)
    table = [
        {
            "system": system,
            **{
                key: round(row[column], 4)
                for name, pair in COLUMNS.items()
                for key, column in zip((name, f"{name} (paper)"), pair, strict=True)
            },
        }
        for system, row in joined.items()
    ]
    command = shlex.join(["python", *sys.argv])
    result = new_result(
        "travel_metrics", command, receipt, metrics, tables={"systems": table}, notes=NOTES
    )
    write_result(Path("results"), result)


if __name__ == "__main__":
    main()
