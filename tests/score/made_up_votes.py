"""Made-up votes and systems with known properties; knows nothing of real data."""

from __future__ import annotations

import numpy as np

from litee.records import Outcome, Pair, VotedPair


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def make_votes(
    n: int = 200, seed: int = 0, *, sources: tuple[str, ...] = ("forum", "lab"), prompts: int = 50
) -> tuple[list[VotedPair], np.ndarray, list[int]]:
    """Voted pairs, the true probabilities they were drawn from, and prompt groups."""
    rng = np.random.default_rng(seed)
    gap = rng.normal(0, 1.3, n)
    truth = softmax(np.column_stack([gap, -gap, np.full(n, 0.1)]))
    groups = rng.integers(0, prompts, n)
    voted = []
    for i in range(n):
        votes = int(rng.integers(1, 5))
        drawn = rng.choice(3, votes, p=truth[i])
        long, short = "x" * int(rng.integers(40, 80)), "y" * int(rng.integers(1, 40))
        a, b = (long, short) if rng.random() < truth[i, 0] else (short, long)
        pair = Pair(
            str(i), (f"q{groups[i]}",), (a,), (b,), source=sources[groups[i] % len(sources)]
        )
        shares = tuple(float(np.mean(drawn == k)) for k in range(3))
        winners = tuple((Outcome.A, Outcome.B, Outcome.TIE)[k] for k in drawn)
        names = tuple(f"r{j}" for j in range(votes))
        voted.append(VotedPair(pair, shares, votes, winners, names))
    return voted, truth, groups.tolist()


def noisy(truth: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """The true probabilities with noise on the log scale."""
    rng = np.random.default_rng(seed)
    return softmax(np.log(truth) + rng.normal(0, scale, truth.shape))
