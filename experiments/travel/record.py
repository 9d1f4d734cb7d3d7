"""The travel comparison as results/travel.json and docs/images/travel.png.

    python experiments/travel/record.py RUNS

Called by record.sh when all answers are scored. Whatever base models and methods are there is
recorded; what is missing is named in the notes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cells import CLOSED, CURVE, METHODS, RETRIEVED, SHOWN, Bootstrap, Cell, read_cells
from plot import draw
from scipy.stats import spearmanr

from litee.encode.raft_audit import audit_rows, read_audit_rows
from litee.rundir import Json, Receipt, sha256_file, write_text
from litee.score.results import new_result, write_result

ROOT = Path(__file__).resolve().parents[2]
BASES = {"smollm2-135m-instruct": "smollm2", "gemma-3-270m": "gemma"}
PAIRS = (("raft", "base"), ("raft", "plain"), ("raft", "first"), ("plain", "base"), ("dpo", "raft"))
NOTES = (
    "QLoRA needs CUDA; plain LoRA over bfloat16 weights stands in for it. Intervals resample test "
    "turns, paired between methods; an answer without a word counts 0. Seconds are wall time per "
    "answer in batches, beside other jobs. The preference step ranks the RAFT model's own samples "
    "by token F1 with people's answers to further training turns, for DSTC11 has no comments to "
    "take an order from."
)

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
#: Files of the rows that the travel paper's authors published (soniawmeyer/WanderChat).
PUBLISHED = ("reddit_raft_openai.jsonl.gz", "reddit_falcon_raft.jsonl.gz")

Cells = dict[tuple[str, str], Cell]
Metrics = dict[str, float]
Intervals = dict[str, tuple[float, float]]


def main(arguments: list[str]) -> int:
    """Write results/travel.json; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python experiments/travel/record.py RUNS\n")
        return 2
    runs = Path(arguments[0])
    metrics: Metrics = {}
    intervals: Intervals = {}
    tables: dict[str, Json] = {}
    curves: dict[str, Cells] = {}
    missing: list[str] = []
    receipt = Receipt()
    for name, short in BASES.items():
        folder = runs / name
        if not (folder / "scores.csv").is_file():
            missing.append(short)
            continue
        cells = read_cells(folder)
        curves[short] = cells
        measure(short, cells, metrics, intervals)
        tables[f"{short}.cells"] = {".".join(key): table(cell) for key, cell in cells.items()}
        tables[f"{short}.metrics_in_step"] = in_step(cells)
        missing += [f"{short}.{m}" for m in METHODS if (m, RETRIEVED) not in cells]
        missing += [f"{short}.curve" for _ in (0,) if ("raft", "k8") not in cells]
        add_up(receipt, folder)
    metrics |= recall(runs / "subset/test.main.jsonl")
    tables["published_rows"] = published()
    tables["rows"] = json.loads((runs / "rows/report.json").read_text(encoding="utf-8"))
    receipt.inputs = {
        f"subset/{file.name}": sha256_file(file) for file in sorted((runs / "subset").glob("*"))
    }
    notes = NOTES + (f" Not run: {', '.join(missing)}." if missing else "")
    command = "bash experiments/travel/run.sh BASE; bash experiments/travel/record.sh"
    result = new_result(
        "travel", command, receipt, metrics, intervals=intervals, tables=tables, notes=notes
    )
    sys.stdout.write(f"{write_result(ROOT / 'results', result)}\n")
    if curves:
        draw(curves, ROOT / "docs/images/travel.png")
        page = ROOT / "docs/travel.md"
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        shown = f"{before}{BEGIN}\n{page_table(metrics, intervals, curves)}\n{END}"
        write_text(page, shown + rest.split(END)[1])
    return 0


def measure(base: str, cells: Cells, metrics: Metrics, intervals: Intervals) -> None:
    """Means, paired differences, and what eight distractors cost."""
    resample = Bootstrap.of(len(next(iter(cells.values())).scores["token_f1"]))
    for (method, condition), cell in cells.items():
        for metric in SHOWN:
            name = f"{base}.{METHODS[method]}.{condition}.{metric}"
            metrics[name] = round(cell.value(metric), 4)
            intervals[name] = resample.ends((1, cell.scores[metric]))
    for one, two in PAIRS:
        for condition in (RETRIEVED, CLOSED, *CURVE):
            if (one, condition) in cells and (two, condition) in cells:
                for metric in SHOWN:
                    name = f"{base}.{METHODS[one]}_less_{METHODS[two]}.{condition}.{metric}"
                    pair = cells[one, condition], cells[two, condition]
                    metrics[name] = round(pair[0].value(metric) - pair[1].value(metric), 4)
                    intervals[name] = resample.ends(
                        (1, pair[0].scores[metric]), (-1, pair[1].scores[metric])
                    )
    for method in METHODS:
        if (method, "k8") in cells:
            for metric in SHOWN:
                name = f"{base}.{METHODS[method]}.k8_less_k0.{metric}"
                far, near = cells[method, "k8"], cells[method, "k0"]
                metrics[name] = round(far.value(metric) - near.value(metric), 4)
                intervals[name] = resample.ends((1, far.scores[metric]), (-1, near.scores[metric]))


def table(cell: Cell) -> dict[str, Json]:
    """Every figure of a cell."""
    return {
        **{n: round(cell.value(n), 4) if cell.scored(n) else None for n in cell.scores},
        "empty_share": round(cell.empty, 4),
        "answer_mark_share": round(cell.marked, 4),
        "quotes": cell.quotes,
        "quotes_verbatim": cell.verbatim,
        "answer_share": round(cell.answer_share, 4),
        "ended_share": round(cell.finished, 4),
        "tokens_written": round(cell.tokens, 1),
        "tokens_read": round(cell.prompt_tokens, 1),
        "seconds_per_answer": round(cell.seconds, 3),
    }


def in_step(cells: Cells) -> dict[str, Json]:
    """Spearman of each metric with token F1 over cells (systems) and over all single answers."""
    own = {key: cell for key, cell in cells.items() if key[0] != "first"}
    found: dict[str, Json] = {}
    names = [n for n in next(iter(own.values())).scores if n not in {"exact", "token_f1"}]
    names = [n for n in names if all(cell.scored(n) for cell in own.values())]
    with np.errstate(invalid="ignore"):
        for name in names:
            systems = [(c.value("token_f1"), c.value(name)) for c in own.values()]
            pairs = [np.stack([c.scores["token_f1"], c.scores[name]]) for c in own.values()]
            items = np.concatenate(pairs, axis=1)
            items = items[:, np.isfinite(items).all(axis=0)]
            over = (np.array(systems).T, items)
            if all(np.ptp(x) > 0 for both in over for x in both):
                found[name] = [round(float(spearmanr(*both).statistic), 3) for both in over]
    return found


def page_table(metrics: Metrics, intervals: Intervals, found: Mapping[str, Cells]) -> str:
    """The page's table: a row per base model, method and condition."""
    lines = [
        "| base | method | shown | token F1 | ROUGE-L | similarity | tokens written | s / answer |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for base, cells in found.items():
        for (method, condition), cell in cells.items():
            names = [f"{base}.{METHODS[method]}.{condition}.{metric}" for metric in SHOWN]
            figures = [
                f"{metrics[n]:.3f} [{intervals[n][0]:.3f}, {intervals[n][1]:.3f}]" for n in names
            ]
            cost = f"{cell.tokens:.0f} | {cell.seconds:.2f}" if cell.tokens else "| "
            shown = " | ".join(figures)
            lines.append(f"| {base} | {METHODS[method]} | {condition} | {shown} | {cost} |")
    return "\n".join(lines)


def published() -> Json:
    """The audit of the rows that the paper's authors published, where they are at hand."""
    folder = Path(os.environ.get("DATA", "../shared/data/travel")) / "wanderchat"
    files = [folder / name for name in PUBLISHED if (folder / name).is_file()]
    return {file.name: audit_rows(*read_audit_rows(file)).to_json() for file in files}


def recall(file: Path) -> Metrics:
    """Share of oracles, and of turns with at least one, among the five retrieved documents."""
    shares = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row: Mapping[str, Json] = json.loads(line)
        if row["id"].startswith(RETRIEVED):
            shares.append(len({*row["oracles"]} & {*row["documents"]}) / len(row["oracles"]))
    return {
        "recall_at_5": round(float(np.mean(shares)), 4),
        "hit_at_5": round(float(np.mean([share > 0 for share in shares])), 4),
        "test_turns": len(shares),
    }


def add_up(receipt: Receipt, folder: Path) -> None:
    """Costs of all steps of a base model."""
    for file in sorted(folder.rglob("*receipt.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        cost = record.get("receipt", record)
        if "tokens" not in cost:  # of scoring: the answers themselves are what costs
            continue
        step = file.parent.name if file.name == "receipt.json" else file.name.partition(".re")[0]
        receipt.stages[f"{BASES[folder.name]}.{step}"] = cost["seconds"]
        receipt.seconds = round(receipt.seconds + cost["seconds"], 1)
        receipt.tokens += cost["tokens"]
        receipt.peak_rss_mb = max(receipt.peak_rss_mb, cost["peak_rss_mb"])
        receipt.device = cost["device"] or receipt.device
        receipt.threads = 1
        receipt.versions = cost["versions"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
