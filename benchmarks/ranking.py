"""1,000 bootstrap resamples of a leaderboard: one batch against a plain loop over a library.

    python benchmarks/ranking.py VOTES.jsonl.gz [VOTES.jsonl.gz …] --out results/ranking.json

Every resample draws votes with replacement. The loops call evalica and, when it is installed,
arena-rank (its own bootstrap step) once per resample. Times are processor seconds, which other jobs
on the machine hardly disturb: 1,000 times the median of a call, and for the batch the median of
several runs. A loop is stopped after half a minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Iterator
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

RESAMPLES, LIMIT, RUNS = 1000, 30.0, 7

#: Resamples whose strengths are compared with evalica's.
CHECKED = 20

NOTES = (
    "Log strengths after centring; differences are largest over systems. Processor seconds are for "
    "1,000 resamples: the median of seven runs of the batch, drawing included, and 1,000 times the "
    "median call of a loop. JAX compiles its optimiser anew in every fit of arena-rank, and that "
    "counts."
)

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
    cell = pair * 3 + outcome
    cells = np.bincount(cell, minlength=3 * len(codes))
    drawn = np.empty((RESAMPLES, len(cells)))
    for row, rows in zip(drawn, resamples(len(cell)), strict=True):
        row[:] = np.bincount(cell[rows], minlength=len(cells))
    pairs = np.column_stack(np.divmod(codes, s))
    full = fit_strengths(cells.reshape(1, -1, 3).astype(float), pairs, s)
    return fit_strengths(drawn.reshape(RESAMPLES, -1, 3), pairs, s, start=full).theta


def resamples(n: int, count: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Row numbers of every resample; the batch and the loops get the same ones."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(0, n, n, dtype=np.uint32)


def loop(one: Callable[[np.ndarray], object], n: int) -> tuple[float, int]:
    """Processor seconds for `RESAMPLES` calls, and how many were really made."""
    seconds: list[float] = []
    end = time.perf_counter() + LIMIT
    for rows in resamples(n):
        started = time.process_time()
        one(rows)
        seconds.append(time.process_time() - started)
        if time.perf_counter() > end:
            break
    return RESAMPLES * float(np.median(seconds)), len(seconds)


def timed_batch(votes: Flat) -> tuple[float, np.ndarray]:
    """Median processor seconds of the batch, and its strengths."""
    seconds = []
    for _ in range(RUNS):
        started = time.process_time()
        theta = batch(*votes)
        seconds.append(time.process_time() - started)
    return float(np.median(seconds)), theta


def with_evalica(votes: Flat) -> Callable[[np.ndarray], object]:
    names, systems, outcome = votes
    kinds = np.array([evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw], dtype=object)
    a, b = (np.array(names, dtype=object)[systems[:, k]] for k in (0, 1))
    winners = kinds[outcome]

    def one(rows: np.ndarray) -> object:
        return evalica.bradley_terry(a[rows].tolist(), b[rows].tolist(), winners[rows].tolist())

    return one


def resample_parity(votes: Flat, theta: np.ndarray) -> float:
    """Largest difference of the log strengths on the first resamples, after centring."""
    names, systems, outcome = votes
    kinds = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw]
    largest = 0.0
    for mine, rows in zip(theta, resamples(len(outcome), CHECKED), strict=False):
        a, b = ([names[k] for k in systems[rows, side]] for side in (0, 1))
        winners = [kinds[k] for k in outcome[rows]]
        scores = evalica.bradley_terry(a, b, winners, tolerance=1e-12, limit=100_000).scores
        theirs = np.log([scores[name] for name in names])
        largest = max(largest, float(np.abs(mine - (theirs - theirs.mean())).max()))
    return largest


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
    started, metrics, notes = time.perf_counter(), {}, [NOTES]
    for path in options.votes:
        source = Path(path).name.split(".")[0]
        votes = flat_votes(path)
        mine, theta = timed_batch(votes)
        metrics[f"{source}.systems"] = len(votes[0])
        metrics[f"{source}.votes"] = len(votes[2])
        metrics[f"{source}.seconds_batch"] = round(mine, 4)
        for name, difference in parity(votes).items():
            metrics[f"{source}.max_abs_difference_{name}"] = difference
        metrics[f"{source}.max_abs_difference_evalica_resamples"] = resample_parity(votes, theta)
        makers = {"evalica": with_evalica}
        if importlib.util.find_spec("arena_rank"):
            makers["arena_rank"] = with_arena_rank
        for name, maker in makers.items():
            seconds, done = loop(maker(votes), len(votes[2]))
            metrics[f"{source}.seconds_loop_{name}"] = round(seconds, 3)
            metrics[f"{source}.speedup_{name}"] = round(seconds / mine, 1)
            if done < RESAMPLES:
                notes.append(f"{source}, {name}: {done} of 1,000 calls made.")
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
