"""Time per vote as votes grow, and memory of predictions as pairs grow."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.engine.texts import made_up_votes
from benchmarks.peers.children import run_child

from litee.rundir import Json

COUNTS = (500, 1000, 2000, 4000, 8000, 16000)
DEPTH, WORDS = 2, 24
FEW, MANY, SOME = 1_000, 1_000_000, 16_000
LITEE = (sys.executable, "-c", "from litee.cli import main; main()")


def measure(folder: Path) -> Json:
    """Fits of 500 to 16,000 votes on distinct texts."""
    return {"depth": DEPTH, "fits": [_fit(folder, count) for count in COUNTS]}


def stream(folder: Path) -> Json:
    """Predictions of 1,000 to 1,000,000 pairs of distinct texts."""
    found = [_predict(folder, "with a backbone", count, "probe") for count in (FEW, SOME)]
    found += [_predict(folder, "text statistics", count, "statistics") for count in (FEW, MANY)]
    return {"depth": DEPTH, "predictions": found}


def _fit(folder: Path, count: int) -> Json:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        votes = made_up_votes(own / "votes.jsonl", count, words=WORDS)
        started = time.perf_counter()
        _litee(own, "fit", votes, *_settings("probe"), "--out", own / "judge")
        seconds = time.perf_counter() - started
        receipt = json.loads((own / "judge" / "receipt.json").read_text(encoding="utf-8"))
        cache = sum(f.stat().st_size for f in (own / "cache" / "states").rglob("*") if f.is_file())
        tokens = receipt["tokens"]
    stages = receipt["stages"]
    return {
        "votes": count,
        "seconds": seconds,
        "engine_seconds": sum(v for k, v in stages.items() if k.startswith(("states", "member"))),
        "tokens": tokens,
        "peak_rss_mb": receipt["peak_rss_mb"],
        "cache_bytes_per_answer": cache / (2 * count),
        "cache_bytes_per_token": cache / tokens,
    }


def _settings(member: str) -> tuple[str, ...]:
    folds = ("--folds", "2")
    return ("--members", member, "--depth", str(DEPTH), *folds, "--config", str(_config()))


def _config() -> Path:
    file = Path(tempfile.gettempdir()) / "litee-benchmark-scale.yaml"
    file.write_text("ridge: [2000.0]\n", encoding="utf-8")
    return file


def _predict(folder: Path, what: str, count: int, member: str) -> Json:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        votes = made_up_votes(own / "votes.jsonl", 200, words=WORDS)
        _litee(own, "fit", votes, *_settings(member), "--out", own / "judge")
        pairs = made_up_votes(own / "pairs.jsonl", count, words=WORDS, votes=False)
        command = [*LITEE, "predict", str(own / "judge"), str(pairs), "--out", str(own / "p.jsonl")]
        found = run_child(command, own / "log", threads=2, cwd=own, environment={})
        lines = sum(1 for _ in (own / "p.jsonl").open(encoding="utf-8"))
    return {
        "what": what,
        "pairs": lines,
        "seconds": found.cost.wall_seconds,
        "peak_rss_mb": found.cost.peak_rss_mb,
    }


def _litee(own: Path, *command: object) -> None:
    environment = {"LITEE_CACHE": str(own / "cache")}
    from os import environ

    backbones = Path(environ.get("LITEE_CACHE", Path.home() / ".cache" / "litee")) / "backbones"
    (own / "cache").mkdir(exist_ok=True)
    if not (own / "cache" / "backbones").exists():
        (own / "cache" / "backbones").symlink_to(backbones)
    subprocess.run(
        [*LITEE, *map(str, command)],
        check=True,
        env={**environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
