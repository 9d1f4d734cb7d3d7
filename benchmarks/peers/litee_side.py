"""litee's own run on the peers' split: the commands `litee fit` and `litee predict`.

States are computed anew in a cache of this run, so that all one-off costs count; the converted
backbone is what every peer is given, too. Knows nothing of how litee fits.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import yaml
from benchmarks.peers.children import Child, run_child
from benchmarks.peers.environments import REPOSITORY
from benchmarks.peers.job import write_probabilities
from benchmarks.peers.votes import Split

from litee.rundir import versions

_LITEE = (sys.executable, "-c", "from litee.cli import main; main()")


def litee_stages(
    split: Split, config: Path | None, threads: int, seed: int, out: Path
) -> tuple[Child, Child, Path]:
    """Fit and predict; the folder with `predicted.jsonl` in the workers' layout.

    Args:
        split: the votes.
        config: settings of `litee fit`; the defaults when None. Backbone, token budget, threads
            and seed are set here.
        threads: compute threads.
        seed: of the fit.
        out: an empty folder.
    """
    given = yaml.safe_load(config.read_text(encoding="utf-8")) if config else None
    settings = {
        **(given or {}),
        "backbones": [str(split.backbone)],
        "max_tokens": split.max_tokens,
        "threads": threads,
        "seed": seed,
    }
    written = out / "litee.yaml"
    written.write_text(yaml.safe_dump(settings), encoding="utf-8")
    judge, predictions = out / "judge", out / "litee.jsonl"
    cache = {"LITEE_CACHE": str(out / "cache")}
    fit = [*_LITEE, "fit", str(split.train), "--out", str(judge), "--config", str(written)]
    trained = run_child(fit, out / "train.log", threads=threads, cwd=REPOSITORY, environment=cache)
    ask = [*_LITEE, "predict", str(judge), str(split.valid), "--out", str(predictions)]
    predicted = run_child(
        [*ask, "--threads", str(threads)],
        out / "predict.log",
        threads=threads,
        cwd=REPOSITORY,
        environment=cache,
    )
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    found = [[row["p_a"], row["p_b"], row["p_tie"]] for row in rows]
    write_probabilities(out / "predicted.jsonl", [row["id"] for row in rows], found)
    named = {**versions(), "litee": metadata.version("lora-litee")}
    return Child(trained.cost, {"versions": named}), predicted, out
