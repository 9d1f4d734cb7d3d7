"""Train and predict with one peer in child processes, and measure them.

    python -m benchmarks.peers.run --peer pairjudge --votes VOTES.jsonl.gz [VOTES.jsonl.gz …] \
        --out FOLDER

`run_peer` is what a benchmark calls to interleave peers and litee. Training and prediction are two
fresh processes, so that each has its own memory peak. Knows nothing of how a peer works.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast, get_args

from benchmarks.peers.children import Child, run_child
from benchmarks.peers.environments import RECIPES, REPOSITORY, Peer, environment
from benchmarks.peers.job import Job, read_rows
from benchmarks.peers.litee_side import litee_stages
from benchmarks.peers.records import (
    Epoch,
    PeerRun,
    doubts_of,
    from_json,
    judge,
    to_json,
)
from benchmarks.peers.votes import Split, SplitSettings, make_split

from litee.errors import LiteeError
from litee.records import Triple
from litee.rundir import cpu_name, write_text

Report = dict[str, object]


@dataclass(frozen=True, slots=True)
class Effort:
    """How a peer is run; the same for all but where it says so.

    Attributes:
        epochs: passes over the training votes.
        threads: compute threads.
        seed: of the peer.
        batch: pairs per pass of the model in training.
        accumulate: passes per optimiser step.
        predict_batch: pairs per pass in prediction.
        learning_rate: peak learning rate.
        warmup: steps with rising rate.
        litee_config: YAML of `litee fit`, for litee alone.
    """

    epochs: int = 2
    threads: int = 2
    seed: int = 0
    batch: int = 2
    accumulate: int = 4
    predict_batch: int = 4
    learning_rate: float = 2e-4
    warmup: int = 20
    litee_config: Path | None = None


def run_peer(peer: Peer, split: Split, effort: Effort, out: Path) -> PeerRun:
    """Train and predict once, in a fresh `out`; the record is also in `out/run.json`.

    A folder that already holds a finished run of the same split gives that run back, so a
    benchmark that was stopped goes on where it was.

    Raises:
        ModelError: the peer cannot be installed, or its process failed (its log is named).
    """
    config = effort.litee_config.read_text(encoding="utf-8") if effort.litee_config else ""
    done = out / "run.json"
    if done.exists():
        stored = from_json(done.read_text(encoding="utf-8"))
        if (stored.peer, stored.split_sha256) == (peer, split.sha256) and (
            stored.settings,
            stored.config,
        ) == (_settings(effort), config):
            return stored
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if peer == "litee":
        stages = litee_stages(split, effort.litee_config, effort.threads, effort.seed, out)
    else:
        stages = _stages(peer, split, effort, out)
    run = _record(peer, split, effort, *stages)
    run = replace(run, config=config, started=started, command=shlex.join(["python", *sys.argv]))
    write_text(done, to_json(run))
    return run


def _settings(effort: Effort) -> dict[str, float]:
    return {k: float(v) for k, v in asdict(effort).items() if isinstance(v, int | float)}


def _stages(peer: Peer, split: Split, effort: Effort, out: Path) -> tuple[Child, Child, Path]:
    """Both stages of a peer; the folder with its probabilities."""
    python = environment(peer)
    children = []
    for stage in ("train", "predict"):
        job = Job(
            stage="train" if stage == "train" else "predict",
            train=str(split.train),
            valid=str(split.valid),
            backbone=str(split.backbone),
            folder=str(out),
            started=time.time(),
            max_tokens=split.max_tokens,
            **{k: v for k, v in asdict(effort).items() if k != "litee_config"},
        )
        path = out / f"{stage}-job.json"
        job.write(path)
        command = [str(python), "-m", f"benchmarks.peers.worker_{peer}", str(path)]
        child = run_child(command, out / f"{stage}.log", threads=effort.threads, cwd=REPOSITORY)
        report = _report(out / f"{stage}.json")
        phases = {k: v for k, v in cast(dict[str, float], report["phases"]).items() if k != "end"}
        children.append(Child(replace(child.cost, phases=phases), report))
    return children[0], children[1], out


def _report(path: Path) -> Report:
    found: Report = json.loads(path.read_text(encoding="utf-8"))
    return found


def _shares(path: Path) -> dict[str, Triple]:
    """Vote shares by pair id, in the order of the file."""
    found: dict[str, Triple] = {}
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            cast_votes = [winner for _, winner in row["votes"]]
            a, b, tie = (cast_votes.count(c) / len(cast_votes) for c in ("a", "b", "tie"))
            found[row["pair_id"]] = (a, b, tie)
    return found


def _probabilities(path: Path) -> dict[str, list[float]]:
    with path.open(encoding="utf-8") as stream:
        rows = (json.loads(line) for line in stream)
        return {row["id"]: row["p"] for row in rows}


def _record(
    peer: Peer, split: Split, effort: Effort, trained: Child, predicted: Child, folder: Path
) -> PeerRun:
    shares = _shares(split.valid)
    labels = [row.label for row in read_rows(split.train)]
    a, b, tie = (labels.count(c) / len(labels) for c in ("a", "b", "tie"))
    prior = judge(dict.fromkeys(shares, (a, b, tie)), shares, tie)
    report = trained.report
    losses = tuple(cast(list[float], report.get("losses", ())))
    final = judge(_probabilities(folder / "predicted.jsonl"), shares, tie)
    epochs = _epochs(report, losses, folder, shares, tie)
    if not epochs:
        whole = trained.cost.wall_seconds
        epochs = (Epoch(0, 0, whole, whole, None, final),)
    versions = cast(dict[str, str], report["versions"])
    seconds = predicted.cost.phases.get("predict", predicted.cost.wall_seconds)
    return PeerRun(
        peer=peer,
        version=versions[RECIPES[peer].package if peer in RECIPES else "litee"],
        versions=versions,
        split_sha256=split.sha256,
        train_votes=split.train_votes,
        train_pairs=len(split.train_ids),
        valid_pairs=len(split.valid_ids),
        max_tokens=split.max_tokens,
        settings=_settings(effort),
        training=trained.cost,
        trainable=cast(int, report.get("trainable", 0)),
        tokens=cast(int, report.get("tokens", 0)),
        tokens_padded=cast(int, report.get("padded", 0)),
        epochs=epochs,
        prediction=predicted.cost,
        pairs_per_second=len(shares) / seconds,
        predicted=final,
        prior=prior,
        doubts=doubts_of(losses, epochs, prior),
        device=cpu_name(),
        losses=losses,
    )


def _epochs(
    report: Mapping[str, object],
    losses: Sequence[float],
    folder: Path,
    shares: Mapping[str, Triple],
    tie: float,
) -> tuple[Epoch, ...]:
    """The epochs that a worker reported, with their validation judged."""
    found: list[Epoch] = []
    before = 0
    for number, seen in enumerate(cast(list[dict[str, float]], report.get("epochs", ())), 1):
        steps = int(seen["steps"])
        part = losses[before:steps]
        found.append(
            Epoch(
                epoch=number,
                steps=steps,
                seconds=seen["load"] + seen["train"],
                train_seconds=seen["train"],
                train_loss=sum(part) / len(part) if part else None,
                quality=judge(_probabilities(folder / f"epoch{number}.jsonl"), shares, tie),
            )
        )
        before = steps
    return tuple(found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peer", required=True, choices=get_args(Peer))
    parser.add_argument("--votes", required=True, nargs="+", help="votes files")
    parser.add_argument("--out", required=True, type=Path, help="folder of this run")
    for cls in (SplitSettings, Effort):
        for field in fields(cls):
            if field.default is MISSING:
                continue
            kind = Path if field.default is None else type(field.default)
            name = "--split-seed" if (cls, field.name) == (SplitSettings, "seed") else field.name
            flag = "--" + name.removeprefix("--").replace("_", "-")
            parser.add_argument(flag, type=kind, default=field.default)
    return parser.parse_args()


def main() -> None:
    given = vars(arguments())
    chosen = {f.name: given[f.name] for f in fields(SplitSettings) if f.name in given}
    chosen |= {"files": tuple(given["votes"]), "seed": given["split_seed"]}
    effort = Effort(**{f.name: given[f.name] for f in fields(Effort)})
    try:
        split = make_split(SplitSettings(**chosen))
        run = run_peer(given["peer"], split, effort, given["out"].resolve())
    except LiteeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    print(summary(run))


def summary(run: PeerRun) -> str:
    """A run in a few lines."""
    votes = f"{run.train_votes} votes on {run.train_pairs} pairs, {run.valid_pairs} held out"
    lines = [f"{run.peer} {run.version}: {votes}"]
    for e in run.epochs:
        lines.append(f"  epoch {e.epoch}: {e.seconds:.1f} s, loss {e.train_loss}, {e.quality}")
    lines.append(f"  prior: {run.prior}")
    for name, cost in (("training", run.training), ("prediction", run.prediction)):
        parts = ", ".join(f"{k} {v:.1f}" for k, v in cost.phases.items())
        lines.append(
            f"  {name}: {cost.wall_seconds:.1f} s wall, {cost.cpu_seconds:.1f} s CPU ({parts}), "
            f"peak {cost.peak_rss_mb:.0f} MB, host load {cost.host_load}"
        )
    rate = run.tokens_per_second
    lines.append(f"  {rate and round(rate)} tokens/s, {run.pairs_per_second:.2f} pairs/s predicted")
    lines.append(f"  symmetric: {run.predicted}")
    lines += [f"  doubt: {doubt}" for doubt in run.doubts] or ["  it learned"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
