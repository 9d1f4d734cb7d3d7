"""1,000 bootstrap resamples of a leaderboard: one batch against a plain loop over a library.

    python benchmarks/ranking.py VOTES.jsonl.gz [VOTES.jsonl.gz …] --out results/ranking.json

Every resample draws votes with replacement. The loops call evalica and, when it is installed,
arena-rank (its own bootstrap step; JAX compiles its optimiser anew in every fit, which counts) once
per resample. A loop that takes longer than a minute is stopped and its time scaled up, which the
result says.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import evalica
import numpy as np

from litee.collect.folds import group_prompts
from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.rundir import Receipt, cpu_name, peak_rss_mb, sha256_file, versions
from litee.score.ranking import bouts_of
from litee.score.results import new_result, write_result
from litee.score.strengths import fit_strengths

if TYPE_CHECKING:
    from arena_rank.utils.data_utils import PairDataset

RESAMPLES, LIMIT = 1000, 60.0

#: Names, (v, 2) systems and (v,) outcomes of single votes.
Flat: TypeAlias = tuple[list[str], np.ndarray, np.ndarray]


def flat_votes(path: str) -> Flat:
    """Names, (v, 2) systems and (v,) outcomes of single votes."""
    voted = gather(load_votes([path]).votes)
    bouts = bouts_of(voted, group_prompts([v.pair for v in voted]))
    counts = bouts.counts.astype(int)
    row, outcome = np.nonzero(counts)
    times = counts[row, outcome]
    return (
        list(bouts.names),
        np.repeat(bouts.systems[row], times, axis=0),
        np.repeat(outcome, times),
    )


def batch(names: list[str], systems: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """(RESAMPLES, s) log strengths."""
    s = len(names)
    first, second = systems.min(axis=1), systems.max(axis=1)
    turned = (systems[:, 0] > systems[:, 1]) & (outcome < 2)
    outcome = np.where(turned, 1 - outcome, outcome)
    codes, pair = np.unique(first * s + second, return_inverse=True)
    cells = np.bincount(pair * 3 + outcome, minlength=3 * len(codes))
    rng = np.random.default_rng(0)
    seen = np.flatnonzero(cells)
    drawn = np.zeros((RESAMPLES, len(cells)))
    drawn[:, seen] = rng.multinomial(len(outcome), cells[seen] / cells.sum(), size=RESAMPLES)
    pairs = np.column_stack(np.divmod(codes, s))
    full = fit_strengths(cells.reshape(1, -1, 3).astype(float), pairs, s)
    return fit_strengths(drawn.reshape(RESAMPLES, -1, 3), pairs, s, start=full).theta


def loop(one: Callable[[np.ndarray], object], n: int) -> tuple[float, int]:
    """Seconds of `RESAMPLES` calls with resampled row numbers, and how many were really made."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    done = 0
    while done < RESAMPLES:
        one(rng.integers(0, n, n))
        done += 1
        if time.perf_counter() - started > LIMIT:
            break
    return (time.perf_counter() - started) * RESAMPLES / done, done


def with_evalica(votes: Flat) -> Callable[[np.ndarray], object]:
    names, systems, outcome = votes
    kinds = np.array([evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw], dtype=object)
    a, b = (np.array(names, dtype=object)[systems[:, k]] for k in (0, 1))
    winners = kinds[outcome]

    def one(rows: np.ndarray) -> object:
        return evalica.bradley_terry(a[rows].tolist(), b[rows].tolist(), winners[rows].tolist())

    return one


def arena_data(votes: Flat) -> PairDataset:
    import pandas as pd
    from arena_rank.utils.data_utils import PairDataset

    names, systems, outcome = votes
    a, b = (np.array(names)[systems[:, k]] for k in (0, 1))
    labels = np.array(["model_a", "model_b", "tie"])[outcome]
    return PairDataset.from_pandas(pd.DataFrame({"model_a": a, "model_b": b, "winner": labels}))


def with_arena_rank(votes: Flat) -> Callable[[np.ndarray], object]:
    """Its own bootstrap step: counts are redrawn, shapes stay, so it is compiled only once."""
    import jax.numpy as jnp
    from arena_rank.models.bradley_terry import BradleyTerry, fit_single_bootstrap_sample

    data = arena_data(votes)
    model = BradleyTerry(len(data.competitors))
    share = np.asarray(data.counts) / float(np.asarray(data.counts).sum())
    rng = np.random.default_rng(0)

    def one(rows: np.ndarray) -> object:
        drawn = rng.multinomial(len(rows), share / share.sum())
        return fit_single_bootstrap_sample(jnp.array(drawn, dtype=float), model, data)

    one(np.arange(len(votes[2])))
    return one


def parity(votes: Flat) -> dict[str, float]:
    """Largest difference of the log strengths on all votes, after centring."""
    names, systems, outcome = votes
    s = len(names)
    cells = np.zeros((s, s, 3))
    for (i, j), k in zip(systems, outcome, strict=True):
        first, second, kind = (i, j, k) if i < j else (j, i, 1 - k if k < 2 else k)
        cells[first, second, kind] += 1
    pairs = np.argwhere(cells.sum(axis=2) > 0)
    mine = fit_strengths(cells[pairs[:, 0], pairs[:, 1]][None], pairs, s).theta[0]
    kinds = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw]
    a, b = ([names[k] for k in systems[:, side]] for side in (0, 1))
    exact = evalica.bradley_terry(a, b, [kinds[k] for k in outcome], tolerance=1e-12, limit=100_000)
    theirs = np.log([exact.scores[name] for name in names])
    found = {"evalica": float(np.abs(mine - (theirs - theirs.mean())).max())}
    if importlib.util.find_spec("arena_rank"):
        from arena_rank.models.bradley_terry import BradleyTerry

        data = arena_data(votes)
        model = BradleyTerry(s)
        model.fit(data)
        rating = dict(zip(data.competitors, np.asarray(model.params["ratings"]), strict=True))
        other = np.array([rating[name] for name in names])
        found["arena_rank"] = float(np.abs(mine - (other - other.mean())).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("votes", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("results/ranking.json"))
    options = parser.parse_args()
    started, metrics, notes = time.perf_counter(), {}, []
    for path in options.votes:
        source = Path(path).name.split(".")[0]
        votes = flat_votes(path)
        begin = time.perf_counter()
        batch(*votes)
        mine = time.perf_counter() - begin
        metrics[f"{source}.systems"] = len(votes[0])
        metrics[f"{source}.seconds_batch"] = round(mine, 4)
        for name, difference in parity(votes).items():
            metrics[f"{source}.max_abs_difference_{name}"] = difference
        makers = {"evalica": with_evalica}
        if importlib.util.find_spec("arena_rank"):
            makers["arena_rank"] = with_arena_rank
        for name, maker in makers.items():
            seconds, done = loop(maker(votes), len(votes[2]))
            metrics[f"{source}.seconds_loop_{name}"] = round(seconds, 3)
            metrics[f"{source}.speedup_{name}"] = round(seconds / mine, 1)
            if done < RESAMPLES:
                notes.append(f"{source}, {name}: {done} of 1,000 resamples made, time scaled up.")
            print(f"{source}: {name} {seconds:.1f} s, batch {mine:.3f} s, {seconds / mine:.0f}x")
    receipt = Receipt(seconds=round(time.perf_counter() - started, 1), device=cpu_name())
    receipt.peak_rss_mb, receipt.versions = round(peak_rss_mb(), 1), versions()
    receipt.inputs = {Path(p).name: sha256_file(Path(p)) for p in options.votes}
    command = shlex.join(["python", "benchmarks/ranking.py", *map(_short, sys.argv[1:])])
    result = new_result(options.out.stem, command, receipt, metrics, notes=" ".join(notes))
    write_result(options.out.parent, result)


def _short(argument: str) -> str:
    return Path(argument).name if argument.startswith("/") else argument


if __name__ == "__main__":
    main()
