"""Batches of pairs for the branches: whole prompts together, so that answers are shared.

Knows nothing of models and votes' outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from litee.encode.forest import Forest, Pack
from litee.finetune.probe import Ints


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs whose trees go through the LoRA layers together.

    Attributes:
        pack: their trees.
        rows: which of the pairs given to `make_batches`.
    """

    pack: Pack
    rows: Ints


def make_batches(
    forest: Forest, pairs: Ints, max_tokens: int, rng: np.random.Generator
) -> list[Batch]:
    """Batches of pairs, prompt by prompt in random order, so that answers are shared.

    Args:
        forest: the texts.
        pairs: numbers of the pairs to use; a batch's rows index this array.
        max_tokens: branch and prefix tokens per batch, exceeded only by a single pair.
        rng: order of prompts and of pairs within a prompt.
    """
    of_prefix: dict[int, list[int]] = {}
    for row, pair in enumerate(pairs):
        of_prefix.setdefault(forest.leaves[int(forest.left[pair])][0], []).append(row)
    prefixes = list(of_prefix)
    rng.shuffle(prefixes)
    batches: list[Batch] = []
    groups: dict[int, dict[int, None]] = {}
    rows: list[int] = []
    size = 0
    for prefix in prefixes:
        own = of_prefix[prefix]
        rng.shuffle(own)
        for row in own:
            pair = pairs[row]
            both = [int(forest.left[pair]), int(forest.right[pair])]
            held = groups.get(prefix)
            fresh = {leaf for leaf in both if held is None or leaf not in held}
            needed = sum(len(forest.leaves[leaf][1]) for leaf in fresh)
            needed += 0 if held is not None else len(forest.prefixes[prefix])
            if rows and size + needed > max_tokens:
                batches.append(_close(forest, groups, rows))
                groups, rows, size = {}, [], 0
                needed = sum(len(forest.leaves[leaf][1]) for leaf in set(both))
                needed += len(forest.prefixes[prefix])
            groups.setdefault(prefix, {}).update(dict.fromkeys(both))
            rows.append(row)
            size += needed
    if rows:
        batches.append(_close(forest, groups, rows))
    order = rng.permutation(len(batches))
    return [batches[k] for k in order]


def _close(forest: Forest, groups: dict[int, dict[int, None]], rows: list[int]) -> Batch:
    packed = tuple((prefix, tuple(leaves)) for prefix, leaves in groups.items())
    tokens = sum(
        len(forest.prefixes[prefix]) + sum(len(forest.leaves[leaf][1]) for leaf in leaves)
        for prefix, leaves in packed
    )
    return Batch(Pack(packed, tokens), np.array(rows, dtype=np.int64))
