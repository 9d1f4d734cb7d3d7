"""Public files into the tidy tables that `litee agree` and `litee score` read.

    python experiments/agreement/prepare.py hanna    hanna_metric_scores_llm.csv.gz  hanna.csv
    python experiments/agreement/prepare.py mt-bench mt_bench_gpt4_pair.jsonl.gz VOTES  gpt4.csv
    python experiments/agreement/prepare.py travel   golden_answers_final.xlsx       answers.jsonl
    python experiments/agreement/prepare.py sample   rated_responses.jsonl.gz        sample.jsonl

Changes only the layout. Knows nothing of metrics.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path

CRITERIA = ("Relevance", "Coherence", "Empathy", "Surprise", "Engagement", "Complexity")
SHORT = ("RE", "CH", "EM", "SU", "EG", "CX")

#: Turns in a sample.
SAMPLED = 500

#: Column of the sheet → name of the system in the travel paper's table.
TRAVEL_SYSTEMS = {
    "MPC": "MPC",
    "pretrained Llama Output": "LLaMA pretrained",
    "pretrained Mistral Output": "Mistral pretrained",
    "Llama QLORA Output": "LLaMA QLoRA",
    "Mistral QLORA Output": "Mistral QLoRA",
    "Llama RAFT Output": "LLaMA RAFT",
    "Mistral RAFT Output": "Mistral RAFT",
    "Mistral_RLHF": "Mistral RAFT+DPO",
    "Llama_RAG_CRC": "LLaMA RAG CRC",
    "mistral_RAG_CRC": "Mistral RAG CRC",
    "llama_RAG_RR": "LLaMA RAG RR",
    "mistral_RAG_RR": "Mistral RAG RR",
    "Llama QLORA RAG CRC GPT prompt summary Output": "LLaMA QLoRA+RAG",
    "Mistral QLORA RAG CRC GPT prompt summary Output": "Mistral QLoRA+RAG",
    "Llama RAFT RAG CRC Output": "LLaMA RAFT+RAG",
    "Mistral RAFT RAG CRC GPT prompt summary Output": "Mistral RAFT+RAG",
}


def hanna(source: Path, out: Path) -> None:
    """One row per story, without the rows of people: single ratings and every metric."""
    csv.field_size_limit(1 << 30)
    with gzip.open(source, "rt", encoding="utf-8", newline="") as handle:
        table = list(csv.DictReader(handle))
    header = list(table[0])
    first, last = header.index("BLEU Ξ§"), header.index("Human 1 RE")
    metrics = header[first:last]
    ratings = [f"Human {k} {s}" for s in SHORT for k in (1, 2, 3)]
    names = [f"{s.lower()}_{k}" for s in SHORT for k in (1, 2, 3)]
    clean = [re.sub(r"\s*[Ξ¤][§εΔ]$", "", m) for m in metrics]
    rows = []
    for record in table:
        if record["Model"] == "Human":
            continue
        cells = {c: ast.literal_eval(record[c]) for c in [*ratings, *metrics]}
        for k in range(len(cells[metrics[0]])):
            rows.append([k, record["Model"], *(cells[c][k] for c in [*ratings, *metrics])])
    _write(out, ["prompt", "system", *names, *clean], rows)


def mt_bench(source: Path, votes: Path, out: Path) -> None:
    """GPT-4's verdict for every voted pair, turned round where the votes have the other order."""
    verdicts: dict[tuple[str, str, frozenset[str]], tuple[str, str]] = {}
    with gzip.open(source, "rt", encoding="utf-8") as handle:
        for line in handle:
            v = json.loads(line)
            pair = frozenset((v["model_a"], v["model_b"]))
            verdicts[str(v["question_id"]), str(v["turn"]), pair] = (v["model_a"], v["winner"])
    rows = []
    with gzip.open(votes, "rt", encoding="utf-8") as handle:
        for line in handle:
            item = json.loads(line)
            question, turn = item["pair_id"].split(":mtb-")[1].split("-")[:2]
            key = (question, turn, frozenset((item["model_a"], item["model_b"])))
            first, winner = verdicts[key]
            label = "tie"
            if winner in {"model_a", "model_b"}:
                label = "a" if (winner == "model_a") == (first == item["model_a"]) else "b"
            rows.append([item["pair_id"], label])
    _write(out, ["pair_id", "gpt4"], rows)


def travel(source: Path, out: Path) -> None:
    """One row per question and system from the first sheet; needs `pip install openpyxl`."""
    import openpyxl  # noqa: PLC0415  the other tables need no spreadsheet

    sheet = openpyxl.load_workbook(source, read_only=True).worksheets[0]
    lines = sheet.iter_rows(values_only=True)
    header = list(next(lines))
    with out.open("w", encoding="utf-8") as handle:
        for line in lines:
            row = dict(zip(header, line, strict=True))
            if not row["Golden Question"]:
                continue
            for column, system in TRAVEL_SYSTEMS.items():
                record = {
                    "prompt_id": row["Index"],
                    "prompt": row["Golden Question"],
                    "system": system,
                    "answer": row[column] or "",
                    "reference": row["Golden Answer"],
                }
                handle.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")


def sample(source: Path, out: Path) -> None:
    """All answers to `SAMPLED` turns drawn at random, for metrics that take long."""
    with gzip.open(source, "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    turns = sorted({row["turn"] for row in rows})
    random.Random(0).shuffle(turns)
    kept = set(turns[:SAMPLED])
    with out.open("w", encoding="utf-8") as handle:
        for row in sorted((r for r in rows if r["turn"] in kept), key=lambda r: r["turn"]):
            handle.write(json.dumps(row) + "\n")


def _write(path: Path, header: list[str], rows: Iterable[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> None:
    """Run the named preparation on the given paths."""
    done = {"hanna": hanna, "mt-bench": mt_bench, "travel": travel, "sample": sample}
    if len(sys.argv) < 2 or sys.argv[1] not in done:
        sys.exit(__doc__)
    done[sys.argv[1]](*map(Path, sys.argv[2:]))


if __name__ == "__main__":
    main()
