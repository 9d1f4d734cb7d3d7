"""What plans promise against what fits take, and whether budgets are kept."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from os import environ
from pathlib import Path

from benchmarks.engine.texts import EXAMPLES

from litee.rundir import Json

LITEE = (sys.executable, "-c", "from litee.cli import main; main()")

#: Ten different fits: votes, settings.
RUNS: tuple[tuple[int, str], ...] = (
    (60, "--members statistics,probe --depth 6 --folds 3"),
    (150, "--members statistics,probe --depth 12 --folds 5"),
    (300, "--members probe --depth 8 --folds 3"),
    (150, "--members statistics,probe --depth auto --folds 3"),
    (90, "--members statistics,probe,joint --depth 6 --folds 2"),
    (
        60,
        "--members statistics,probe,lora --depth 8 --lora-layers 1 --folds 2 --num-train-epochs 1",
    ),
    (120, "--members probe,lora --depth 6 --lora-layers 2 --folds 3 --num-train-epochs 1"),
    (200, "--members statistics,probe --depth 10 --folds 4 --max-tokens 256"),
    (100, "--members statistics,probe --depth 8 --folds 3 --dtype float32"),
    (100, "--members statistics,probe --depth 4 --folds 3 --backbone gemma-3-270m"),
)

#: Fits that a budget cuts: votes, budget in seconds, settings.
BUDGETS: tuple[tuple[int, int, str], ...] = (
    (150, 60, "--depth 12 --folds 3"),
    (300, 90, "--folds 3"),
    (390, 120, "--folds 5"),
)


def measure(folder: Path) -> Json:
    """Every run in a cache of its own; seconds are those of the whole command."""
    runs = [_run(folder, count, "3h", options) for count, options in RUNS]
    print(json.dumps(runs), flush=True)
    budgets = []
    for count, seconds, options in BUDGETS:
        found = _run(folder, count, f"{seconds}s", options)
        over = found["seconds"] - seconds
        budgets.append(found | {"budget": seconds, "over": over})
    return {"runs": runs, "budgets": budgets}


def _run(folder: Path, count: int, budget: str, options: str) -> dict[str, Json]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        votes = own / "votes.jsonl"
        rows = EXAMPLES.read_text(encoding="utf-8").splitlines()[:count]
        votes.write_text("\n".join(rows) + "\n", encoding="utf-8")
        (own / "cache").mkdir()
        kept = Path(environ.get("LITEE_CACHE", Path.home() / ".cache" / "litee"))
        for part in ("backbones", "hashes", "downloads"):
            (own / "cache" / part).symlink_to(kept / part)
        command = [*LITEE, "fit", str(votes), "--out", str(own / "judge"), "--budget", budget]
        started = time.perf_counter()
        subprocess.run(
            [*command, *options.split()],
            check=True,
            env={**environ, "LITEE_CACHE": str(own / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - started
        plan = json.loads((own / "judge" / "plan.json").read_text(encoding="utf-8"))
        receipt = json.loads((own / "judge" / "receipt.json").read_text(encoding="utf-8"))
    return {
        "votes": count,
        "options": options,
        "planned_seconds": plan["seconds"],
        "seconds": seconds,
        "time_error": seconds / plan["seconds"] - 1,
        "planned_mb": plan["peak_rss_mb"],
        "mb": receipt["peak_rss_mb"],
        "memory_error": receipt["peak_rss_mb"] / plan["peak_rss_mb"] - 1,
        "changes": plan["changes"],
    }
