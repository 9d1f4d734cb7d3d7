"""The chosen demonstrations beside as many random ones and as many of the longest.

Knows nothing of how they were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from litee.curate.choosing import nearest
from litee.curate.duplicates import Repeats
from litee.curate.pool import Pool
from litee.curate.vectors import Vectors

#: Random choices that are averaged.
DRAWS = 10


@dataclass(frozen=True, slots=True)
class Profile:
    """What a set of demonstrations looks like.

    Attributes:
        repeats: demonstrations whose prompt or answer repeats another one's of the set.
        leaks: demonstrations that leak an evaluation prompt.
        topics: topic clusters that occur.
        effective_topics: exp of the entropy of the clusters' shares; all even: `topics`.
        quality: mean quality, 0 … 1, of those that have one.
        answer_chars: mean length of the answers.
        distance: mean cosine distance to the nearest other one of the set, 0 … 1 and more.
        coverage: mean cosine of a random demonstration with the nearest of the set.
    """

    repeats: float
    leaks: float
    topics: float
    effective_topics: float
    quality: float
    answer_chars: float
    distance: float
    coverage: float

    def to_json(self) -> dict[str, float]:
        """Rounded to four places."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Measures:
    """What profiles are made of, one entry per demonstration.

    Attributes:
        pool: lengths.
        repeats: groups of repeats.
        leaking: whether it leaks an evaluation prompt.
        quality: 0 … 1 or NaN.
        vectors: unit vectors.
        clusters: topic clusters.
    """

    pool: Pool
    repeats: Repeats
    leaking: NDArray[np.bool_]
    quality: NDArray[np.float64]
    vectors: Vectors
    clusters: NDArray[np.int64]


def profile(measures: Measures, rows: Sequence[int], clients: Vectors) -> Profile:
    """The profile of some demonstrations.

    Args:
        measures: of all demonstrations.
        rows: the set, one or more.
        clients: vectors of the demonstrations that should be covered.
    """
    picked = np.array(rows)
    shares = np.bincount(measures.clusters[picked]) / len(picked)
    shares = shares[shares > 0]
    vectors = measures.vectors[picked]
    apart = 1.0
    if len(picked) > 1:
        apart = float(1 - nearest(vectors, range(len(picked)), apart=True)[1].mean())
    together = np.concatenate([vectors, clients])
    covered = nearest(together, range(len(picked)))[1][len(picked) :]
    quality = measures.quality[picked]
    known = quality[np.isfinite(quality)]
    return Profile(
        repeats=float(_repeats(measures.repeats, picked)),
        leaks=float(measures.leaking[picked].sum()),
        topics=float(len(shares)),
        effective_topics=float(np.exp(-(shares * np.log(shares)).sum())),
        quality=float(known.mean()) if len(known) else 0.0,
        answer_chars=float(np.mean([measures.pool.answer_chars[row] for row in rows])),
        distance=apart,
        coverage=float(covered.mean()),
    )


def _repeats(repeats: Repeats, rows: NDArray[np.int64]) -> int:
    """Members of the set that come after another one of their prompt or answer group."""
    prompts: set[int] = set()
    answers: set[int] = set()
    count = 0
    for prompt, answer in zip(repeats.prompts[rows], repeats.answers[rows], strict=True):
        count += int(prompt) in prompts or int(answer) in answers
        prompts.add(int(prompt))
        answers.add(int(answer))
    return count


def compare(
    measures: Measures, chosen: Sequence[int], *, clients: int, seed: int
) -> dict[str, Profile]:
    """Profiles of the chosen, of random sets of the same size (mean of 10) and of the longest.

    Random and longest ones come from all demonstrations that could be read, as one would take
    them without curating.
    """
    rng = np.random.default_rng(seed)
    size = len(measures.vectors)
    sample = rng.choice(size, size=min(clients, size), replace=False)
    covered = measures.vectors[np.sort(sample)]
    draws = [
        profile(measures, rng.choice(size, size=len(chosen), replace=False).tolist(), covered)
        for _ in range(DRAWS)
    ]
    mean = {name: float(np.mean([getattr(d, name) for d in draws])) for name in asdict(draws[0])}
    longest = np.argsort(-np.array(measures.pool.answer_chars), kind="stable")[: len(chosen)]
    return {
        "chosen": profile(measures, chosen, covered),
        "random": Profile(**mean),
        "longest": profile(measures, longest.tolist(), covered),
    }
