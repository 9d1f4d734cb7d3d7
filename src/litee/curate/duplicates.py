"""Repeated prompts and answers, and prompts like those of an evaluation.

Texts are compared by their first 1,000 characters. Knows nothing of which of two repeats is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litee.collect.near import Links, near_links, normalise
from litee.curate.pool import Pool

#: Shorter answers are alike by chance: `Yes.` answers many a prompt.
SHORTEST_ANSWER = 100


@dataclass(frozen=True, slots=True)
class Repeats:
    """Which demonstrations repeat each other.

    Attributes:
        prompts: per demonstration the number of its group of near-duplicate prompts.
        answers: likewise for answers.
        evaluated: per demonstration the number of an evaluation prompt that its prompt repeats,
            −1 for none.
    """

    prompts: NDArray[np.int64]
    answers: NDArray[np.int64]
    evaluated: NDArray[np.int64]


def near_groups(texts: Sequence[str], *, near: float, seed: int, shortest: int = 0) -> list[int]:
    """Per text the place of the first text of its group.

    Groups are connected: two texts of one group may be linked by others between them. Texts
    under `shortest` characters stay alone.

    >>> near_groups(["What is up?", "what  is UP?", "Why?"], near=0.8, seed=0)
    [0, 0, 2]
    """
    links = Links(len(texts))
    first: dict[str, int] = {}
    for k, text in enumerate(texts):
        if len(text) < shortest:
            continue
        same = first.setdefault(normalise(text), k)
        if same != k:
            links.join(same, k)
    distinct = list(first)
    places = list(first.values())
    for i, j in near_links(distinct, threshold=near, seed=seed):
        links.join(places[i], places[j])
    return [links.root(k) for k in range(len(texts))]


def find_repeats(pool: Pool, evaluated: Sequence[str], *, near: float, seed: int) -> Repeats:
    """Groups of near-duplicate prompts and answers.

    Args:
        pool: the demonstrations.
        evaluated: evaluation prompts; their groups are marked.
        near: Jaccard similarity of character 5-grams from which texts repeat each other.
        seed: of the hash functions.
    """
    heads = [prompt[:1000] for prompt in evaluated]
    # evaluation prompts come first, so that a group with one is named after it
    grouped = near_groups([*heads, *pool.prompts], near=near, seed=seed)
    prompts = np.array(grouped[len(heads) :], dtype=np.int64)
    answers = near_groups(pool.answers, near=near, seed=seed, shortest=SHORTEST_ANSWER)
    evaluation = np.where(prompts < len(heads), prompts, -1)
    return Repeats(prompts, np.array(answers, dtype=np.int64), evaluation)
