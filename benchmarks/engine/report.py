"""Joins the measured parts into results/engine_cpu.json, a page and a plot.

Reads runs/engine/<part>.json and the runs of the peers under runs/peers/<name>-<seed>. Knows
nothing of how a part was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from benchmarks.engine.page import page
from benchmarks.engine.texts import REPOSITORY

from litee.rundir import Json, Receipt, atomic_path, cpu_name, versions, write_text
from litee.score.results import Result, new_result, write_result

COMMAND = "python -m benchmarks.engine report"
PEERS = ("pairjudge", "trainer", "trl", "rewarduq")
NOTES = (
    "The machine ran other jobs most of the time. Speed-ups over pairjudge are, for each seed, the "
    "smaller of the ratio of wall seconds and the ratio of processor seconds, and then the median "
    "over seeds; both ratios are among the metrics. Of three seeds of pairjudge the last had the "
    "machine to itself. litee's members are statistics and the probe (members: [statistics, "
    "probe]), its cache was empty; seconds are of the whole command. With five LoRA branches a fit "
    "takes 3.7 GB instead. The log loss that had to be reached is that of pairjudge's last epoch, "
    "or of its swap-averaged prediction when that is lower. Memory of peers other than pairjudge "
    "is that of short runs of the same batches. The roofline's fraction is the fastest of seven "
    "rounds over the fastest of seventy matrix products, in turns; the median is among the "
    "metrics."
)


@dataclass(frozen=True, slots=True)
class Ran:
    """One peer's run, as `benchmarks.peers.run` wrote it."""

    peer: str
    seed: int
    train_pairs: int
    wall: float
    cpu: float
    log_loss: float | None
    best_log_loss: float | None
    pairs_per_second: float
    predict_cpu: float
    train_mb: float
    predict_mb: float

    @property
    def peak_mb(self) -> float:
        """The larger of training and prediction."""
        return max(self.train_mb, self.predict_mb)


def read_run(file: Path) -> Ran:
    """A run.json."""
    run = json.loads(file.read_text(encoding="utf-8"))
    losses = [epoch["quality"]["log_loss"] for epoch in run["epochs"]]
    symmetric = run["predicted"]["log_loss"]
    return Ran(
        peer=run["peer"],
        seed=int(run["settings"]["seed"]),
        train_pairs=int(run["train_pairs"]),
        wall=run["training"]["wall_seconds"],
        cpu=run["training"]["cpu_seconds"],
        log_loss=symmetric,
        best_log_loss=min((v for v in (losses[-1], symmetric) if v is not None), default=None),
        pairs_per_second=run["pairs_per_second"],
        predict_cpu=run["prediction"]["cpu_seconds"],
        train_mb=run["training"]["peak_rss_mb"],
        predict_mb=run["prediction"]["peak_rss_mb"],
    )


def write(folder: Path) -> None:
    """Write the results file, the page and the plot."""
    parts = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*.json")}
    runs = [read_run(f) for f in sorted((folder.parent / "peers").glob("*-[0-9]*/run.json"))]
    found = {name: part["found"] for name, part in parts.items()}
    metrics = {
        **_versus(runs),
        **_ensemble(found["ensemble"]),
        **_roofline(found["roofline"]),
        **_plans(found["plans"]),
        **_scale(found["scale"]["fits"], found["streaming"]["predictions"]),
    }
    tables = {
        "peers": _peer_rows(runs),
        "ensemble": _ensemble_rows(found["ensemble"]),
        "roofline": _shares(found["roofline"]["profile"]),
        "plans": found["plans"]["runs"],
        "budgets": found["plans"]["budgets"],
        "scale": found["scale"]["fits"],
        "streaming": found["streaming"]["predictions"],
    }
    receipt = Receipt(device=cpu_name(), versions=versions())
    receipt.seconds = round(sum(p["cost"]["seconds"] for p in parts.values()), 1)
    receipt.seconds += round(sum(run.wall for run in runs), 1)
    receipt.peak_rss_mb = max(run.peak_mb for run in runs if run.peer == "litee")
    result = new_result("engine_cpu", COMMAND, receipt, metrics, tables=tables, notes=NOTES)
    write_result(REPOSITORY / "results", result)
    write_text(REPOSITORY / "benchmarks" / "README.md", page(result))
    plot(result, REPOSITORY / "docs" / "images" / "engine_scale.png")


def _of(runs: Iterable[Ran], peer: str) -> dict[int, Ran]:
    return {run.seed: run for run in runs if run.peer == peer}


def _versus(runs: Sequence[Ran]) -> dict[str, float]:
    ours, theirs = _of(runs, "litee"), _of(runs, "pairjudge")
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        raise SystemExit("run pairjudge and litee with the same seed first")
    worse = [s for s in seeds if (ours[s].log_loss or 9) > (theirs[s].best_log_loss or 0)]
    if worse:
        raise SystemExit(f"litee did not reach pairjudge's log loss for seeds {worse}")
    pairs = [(ours[s], theirs[s]) for s in seeds]
    train_wall = [b.wall / a.wall for a, b in pairs]
    train_cpu = [b.cpu / a.cpu for a, b in pairs]
    wall = [a.pairs_per_second / b.pairs_per_second for a, b in pairs]
    cpu = [b.predict_cpu / a.predict_cpu for a, b in pairs]
    leanest = min(run.peak_mb for run in runs if run.peer in PEERS)
    return {
        "train_speedup_pairjudge": float(np.median(np.minimum(train_wall, train_cpu))),
        "train_speedup_pairjudge_wall": float(np.median(train_wall)),
        "train_speedup_pairjudge_cpu": float(np.median(train_cpu)),
        "predict_speedup_pairjudge": float(np.median(np.minimum(wall, cpu))),
        "predict_speedup_pairjudge_wall": float(np.median(wall)),
        "predict_speedup_pairjudge_cpu": float(np.median(cpu)),
        "seeds": float(len(seeds)),
        "log_loss": float(np.median([a.log_loss or np.nan for a, _ in pairs])),
        "log_loss_pairjudge": float(np.median([b.best_log_loss or np.nan for _, b in pairs])),
        "peak_rss_ratio_leanest": float(np.median([a.peak_mb for a, _ in pairs])) / leanest,
    }


def _peer_rows(runs: Sequence[Ran]) -> list[Json]:
    return [
        {
            "system": run.peer,
            "seed": run.seed,
            "train_pairs": run.train_pairs,
            "train_seconds": round(run.wall, 1),
            "train_cpu_seconds": round(run.cpu, 1),
            "log_loss": None if run.best_log_loss is None else round(run.best_log_loss, 4),
            "pairs_per_second": round(run.pairs_per_second, 2),
            "predict_cpu_seconds": round(run.predict_cpu, 1),
            "train_mb": round(run.train_mb),
            "predict_mb": round(run.predict_mb),
        }
        for run in sorted(runs, key=lambda run: (run.peer, run.seed))
    ]


def _ensemble(found: Mapping[str, Any]) -> dict[str, float]:
    return {
        "ensemble5_train_ratio": found["train_ratio"],
        "ensemble5_predict_ratio": found["predict_ratio"],
    }


def _ensemble_rows(found: Mapping[str, Any]) -> list[Json]:
    rows: list[Json] = []
    for what in ("train", "predict"):
        for one, five in zip(*found[f"{what}_seconds"].values(), strict=True):
            row: dict[str, Json] = {"what": what, "one_seconds": round(one, 1)}
            rows.append(row | {"five_seconds": round(five, 1), "ratio": round(five / one, 2)})
    return rows


def _roofline(found: Mapping[str, Any]) -> dict[str, float]:
    per_threads = {int(k.removeprefix("threads_")): v for k, v in found.items() if "threads" in k}
    most = per_threads[max(per_threads)]
    return {
        "roofline_fraction": most["share"],
        "roofline_fraction_median": most["median_share"],
        "roofline_fraction_one_thread": per_threads[1]["share"],
        "trunk_tokens_per_second": most["tokens_per_second"],
        "matmul_gflops": most["peak_gflops"],
    }


def _shares(profile: Mapping[str, float]) -> list[Json]:
    return [{"operations": name, "share": round(share, 3)} for name, share in profile.items()]


def _plans(found: Mapping[str, Any]) -> dict[str, float]:
    runs, budgets = found["runs"], found["budgets"]
    time_errors = np.abs([run["time_error"] for run in runs])
    memory_errors = np.abs([run["memory_error"] for run in runs])
    return {
        "plan_time_error": float(np.median(time_errors)),
        "plan_time_error_worst": float(time_errors.max()),
        "plan_memory_error": float(np.median(memory_errors)),
        "plan_memory_error_worst": float(memory_errors.max()),
        "budget_overrun": float(max(0.0, *(run["over"] for run in budgets))),
    }


def _scale(fits: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    some, more, few, many = predictions
    each = [1000 * fit["engine_seconds"] / fit["votes"] for fit in fits]
    return {
        "ms_per_vote_500": each[0],
        "ms_per_vote_16000": each[-1],
        "ms_per_vote_spread": max(each) / min(each),
        "cache_bytes_per_answer": fits[-1]["cache_bytes_per_answer"],
        "predict_mb_1000_pairs_backbone": some["peak_rss_mb"],
        "predict_mb_16000_pairs_backbone": more["peak_rss_mb"],
        "predict_mb_1000_pairs": few["peak_rss_mb"],
        "predict_mb_1000000_pairs": many["peak_rss_mb"],
    }


def plot(result: Result, file: Path) -> None:
    """Milliseconds per vote and peak memory over the number of votes."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    fits: Any = result.tables["scale"]
    votes = [fit["votes"] for fit in fits]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(votes, [1000 * f["engine_seconds"] / f["votes"] for f in fits], "o-", color="#2a6f97")
    left.set(ylabel="milliseconds per vote", title="states and probe")
    right.plot(votes, [f["peak_rss_mb"] for f in fits], "o-", color="#a4508b")
    right.set(ylabel="peak memory, MB", title="whole command")
    for axes in (left, right):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.set_xscale("log", base=2)
        axes.set_xticks(votes, [f"{v:,}" for v in votes])
        axes.set_xlabel("votes, each on texts of its own")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
