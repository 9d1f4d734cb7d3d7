"""How many votes the informative choice of pairs saves, by replay of real votes.

    python benchmarks/active_choice.py ../shared/data/votes/llmfao.jsonl.gz \
        ../shared/data/votes/guanaco_vicuna80.jsonl.gz --plot docs/images/active_choice.png

The votes of every pair are dealt into two halves by chance. One half is the pool: a pair is chosen
as the voting page chooses it (`litee.serve.choosing`), and one of its votes is turned over. The
other half gives the ranking that is to be found, so that no vote is compared with itself. After
every few votes the systems are ranked (Bradley-Terry with a prior, the same for every way of
choosing) and compared by Spearman's rank correlation. The curve is the mean over many deals. Writes
into results/serve.json: the votes that each way needs for the correlation that the random one has
after a quarter and a half of the pool, and their ratio, with an interval over deals.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from litee.collect.votes import load_votes
from litee.records import Outcome
from litee.serve import choosing
from litee.serve.desk import REFIT
from serve_results import merge

WAYS = ("random", "balanced", "informative")
COLOURS = {"random": "#5a626c", "balanced": "#92500b", "informative": "#2458b8"}
POINTS = 40
RESAMPLES = 2000

Floats = NDArray[np.float64]
Ints = NDArray[np.int_]


@dataclass(frozen=True)
class Pool:
    """Votes to replay.

    Attributes:
        systems: (m, 2) numbers of the systems of each pair.
        votes: per pair, the share of a in each of its votes: 1, 0 or ½.
        count: of systems.
    """

    systems: Ints
    votes: list[Floats]
    count: int


def read_pool(path: Path) -> Pool:
    """All votes on pairs of two named systems."""
    names: dict[str, int] = {}
    rows: dict[str, tuple[int, int]] = {}
    votes: dict[str, list[float]] = {}
    for vote in load_votes([path]).votes:
        pair = vote.pair
        if not pair.model_a or not pair.model_b or pair.model_a == pair.model_b:
            continue
        a, b = (names.setdefault(name, len(names)) for name in (pair.model_a, pair.model_b))
        rows[pair.id] = (a, b)
        share = {Outcome.A: 1.0, Outcome.B: 0.0}.get(vote.winner, 0.5)
        votes.setdefault(pair.id, []).append(share)
    found = [np.array(votes[name]) for name in rows]
    return Pool(np.array(list(rows.values())), found, len(names))


def deal(pool: Pool, rng: np.random.Generator) -> tuple[list[list[float]], Floats]:
    """Two halves of every pair's votes: the pool's, and the wins of the other half."""
    mine: list[list[float]] = []
    wins = np.zeros((pool.count, pool.count))
    for (a, b), votes in zip(pool.systems, pool.votes, strict=True):
        order = rng.permutation(len(votes))
        # of an odd number the one in the middle goes to either side
        half = (len(votes) + int(rng.random() < 0.5)) // 2
        mine.append([float(votes[k]) for k in order[:half]])
        share = float(votes[order[half:]].sum())
        wins[a, b] += share
        wins[b, a] += len(votes) - half - share
    return mine, wins


def correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def replay(
    pool: Pool, way: str, left: list[list[float]], reference: Floats, at: Ints, seed: int
) -> Floats:
    """(len(at),) correlation with the reference after so many votes."""
    rng = np.random.default_rng(seed)
    votes = [list(row) for row in left]
    open_pairs = np.array([bool(row) for row in votes])
    taken = np.zeros(len(votes), dtype=int)
    exposure = np.zeros(pool.count + 1)
    wins = np.zeros((pool.count, pool.count))
    strengths = choosing.map_strengths(wins)
    found, wanted = np.zeros(len(at)), dict(zip(at.tolist(), range(len(at)), strict=True))
    for done in range(1, int(at[-1]) + 1):
        choices = np.flatnonzero(open_pairs)
        systems = pool.systems[choices]
        if way == "random":
            chosen = int(rng.integers(len(choices)))
        elif way == "balanced":
            chosen = choosing.pick(choosing.fewest(taken[choices], systems, exposure), rng)
        else:
            if (done - 1) % REFIT == 0:
                strengths = choosing.map_strengths(wins)
            gain = choosing.ranking_gain(strengths, systems) / (1 + taken[choices])
            chosen = choosing.pick(gain, rng)
        pair = choices[chosen]
        share = votes[pair].pop()
        open_pairs[pair] = bool(votes[pair])
        taken[pair] += 1
        a, b = pool.systems[pair]
        exposure[[a, b]] += 1
        wins[a, b] += share
        wins[b, a] += 1 - share
        if done in wanted:
            found[wanted[done]] = correlation(choosing.map_strengths(wins).mean, reference)
    return found


def needed(curve: Floats, at: Ints, level: float) -> float:
    """Votes after which a curve stays at or above a level; the pool's size if it never does."""
    above = curve >= level
    if not above.any():
        return float(at[-1])
    k = int(np.argmax(above))
    if k == 0:
        return float(at[0])
    step = (level - curve[k - 1]) / (curve[k] - curve[k - 1])
    return float(at[k - 1] + step * (at[k] - at[k - 1]))


def saving(curves: dict[str, Floats], at: Ints, share: float, way: str) -> float:
    """Votes that a way needs over those of the random one, by mean curves (deals × points)."""
    budget = share * at[-1]
    random = curves["random"].mean(axis=0)
    level = float(np.interp(budget, at, random))
    return needed(curves[way].mean(axis=0), at, level) / needed(random, at, level)


def measure(path: Path, deals: int) -> tuple[Ints, dict[str, Floats]]:
    """Curves of all ways: (deals, points)."""
    pool = read_pool(path)
    size = sum(len(votes) // 2 for votes in pool.votes)
    at = np.unique(np.round(np.geomspace(pool.count, size, POINTS)).astype(int))
    curves: dict[str, list[Floats]] = {way: [] for way in WAYS}
    for number in range(deals):
        left, wins = deal(pool, np.random.default_rng([1, number]))
        reference = choosing.map_strengths(wins).mean
        here = at[at <= sum(map(len, left))]
        for way in WAYS:
            curve = replay(pool, way, left, reference, here, number)
            curves[way].append(np.pad(curve, (0, len(at) - len(here)), mode="edge"))
        print(f"{path.name}: deal {number + 1} of {deals}", flush=True)
    return at, {way: np.array(found) for way, found in curves.items()}


def plot(found: dict[str, tuple[Ints, dict[str, Floats]]], out: Path) -> None:
    """One panel per source."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(9, 3.6), layout="constrained")
    for panel, (name, (at, curves)) in zip(np.atleast_1d(panels), found.items(), strict=True):
        for way in WAYS:
            middle = curves[way].mean(axis=0)
            low, high = np.percentile(curves[way], [10, 90], axis=0)
            panel.plot(at, middle, color=COLOURS[way], label=way)
            panel.fill_between(at, low, high, color=COLOURS[way], alpha=0.12, linewidth=0)
        panel.set(xscale="log", xlabel="votes", title=name)
        panel.grid(alpha=0.25)
    np.atleast_1d(panels)[0].set_ylabel("rank correlation with other votes")
    np.atleast_1d(panels)[-1].legend(frameon=False, loc="lower right")
    figure.savefig(out, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("votes", nargs="+", type=Path)
    parser.add_argument("--deals", type=int, default=20)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/serve.json"))
    options = parser.parse_args()
    begun = time.perf_counter()
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    tables: dict[str, list[dict[str, float | str]]] = {}
    all_curves = {}
    for path in options.votes:
        name = path.name.split(".")[0]
        at, curves = all_curves[name] = measure(path, options.deals)
        rng = np.random.default_rng(0)
        for share in (0.25, 0.5):
            for way in WAYS[1:]:
                key = f"active.{name}.{way}_votes_ratio_at_{round(100 * share)}"
                metrics[key] = round(saving(curves, at, share, way), 3)
                drawn = []
                for _ in range(RESAMPLES):
                    rows = rng.integers(options.deals, size=options.deals)
                    drawn.append(saving({w: c[rows] for w, c in curves.items()}, at, share, way))
                low, high = np.percentile(drawn, [2.5, 97.5])
                intervals[key] = (
                    round(min(low, metrics[key]), 3),
                    round(max(high, metrics[key]), 3),
                )
                print(f"{key}: {metrics[key]} ({low:.3f} to {high:.3f})")
        metrics[f"active.{name}.final_correlation"] = round(
            float(curves["random"][:, -1].mean()), 4
        )
        tables[f"active_{name}"] = [
            {"votes": int(n), **{way: round(float(curves[way][:, k].mean()), 4) for way in WAYS}}
            for k, n in enumerate(at)
        ]
    if options.plot:
        plot(all_curves, options.plot)
    inputs = {path.name: path for path in options.votes}
    seconds = time.perf_counter() - begun
    merge(options.out, seconds, metrics, intervals=intervals, tables=tables, inputs=inputs)


if __name__ == "__main__":
    main()
