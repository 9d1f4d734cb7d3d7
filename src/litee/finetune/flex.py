"""Tree attention in one kernel per layer, for GPUs: FlexAttention over a block mask.

Launching a kernel per sequence, which is right on a CPU, leaves a GPU idle. Here all sequences of
a pack go through one kernel that skips the blocks of 128 x 128 scores in which nobody sees
anybody. Knows nothing of models, votes and heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

#: Groups of (prefix, branches), each as (start, length); see `attention.TreeLayout`.
Groups = tuple[tuple[tuple[int, int], tuple[tuple[int, int], ...]], ...]

#: Queries and keys per block: what FlexAttention's kernels are made for.
BLOCK = 128

#: Layouts whose masks are kept: those of the packs that are running, and of the last ones.
_KEPT = 16

#: One compiled kernel per width, sharing of keys, cap and need of gradients, for all backbones of
#: an ensemble; beyond torch's own limit of 8 it would fall back to dense scores without a word.
_KERNELS = 128


@dataclass(frozen=True, slots=True)
class Seen:
    """Which keys each token sees: a stretch of its prefix and one of its own branch.

    Attributes:
        first: (tokens,) first key in the prefix.
        past: (tokens,) one past the last key in the prefix; `first` for tokens of a prefix.
        own: (tokens,) first key in the token's own branch or prefix, which it sees up to itself.
    """

    first: Tensor
    past: Tensor
    own: Tensor


def seen(groups: Groups, window: int | None, device: torch.device | str = "cpu") -> Seen:
    """The keys of every token of a pack, in packed order.

    Args:
        groups: where the trees lie.
        window: a token sees this many tokens of its sequence, itself included; None sees all.
        device: of the tensors.

    >>> two = seen((((0, 2), ((2, 2), (4, 1))),), None)  # a prefix of 2, branches of 2 and 1
    >>> two.first.tolist(), two.past.tolist(), two.own.tolist()
    ([0, 0, 0, 0, 0], [0, 0, 2, 2, 2], [0, 0, 2, 2, 4])
    >>> seen((((0, 2), ((2, 2), (4, 1))),), 2).first.tolist()  # token 2 still sees token 1
    [0, 0, 1, 2, 1]
    """
    parts: list[tuple[npt.NDArray[np.int64], ...]] = []
    for (start, length), branches in groups:
        rows = np.arange(length)
        lowest = np.zeros_like(rows) if window is None else np.maximum(0, rows - window + 1)
        nothing = np.full(length, start)
        parts.append((nothing, nothing, start + lowest))
        for begin, count in branches:
            rows = length + np.arange(count)  # positions restart after the prefix
            lowest = np.zeros_like(rows) if window is None else np.maximum(0, rows - window + 1)
            above = begin + np.maximum(0, lowest - length)
            parts.append(
                (start + np.minimum(lowest, length), np.full(count, start + length), above)
            )
    joined = (np.concatenate(column).astype(np.int32) for column in zip(*parts, strict=True))
    return Seen(*(torch.from_numpy(column).to(device) for column in joined))


def block_counts(keys: Seen, size: int = BLOCK) -> Tensor:
    """(query blocks, key blocks) numbers of (query, key) pairs that see each other.

    >>> block_counts(seen((((0, 3), ()),), None), 2).tolist()
    [[3, 0], [2, 1]]
    """
    tokens = len(keys.own)
    blocks = -(-tokens // size)
    low = torch.arange(blocks, device=keys.own.device)[None, :] * size
    query = torch.arange(tokens, device=keys.own.device)

    def overlap(start: Tensor, end: Tensor) -> Tensor:
        inside = torch.minimum(end[:, None], low + size) - torch.maximum(start[:, None], low)
        return inside.clamp_min(0)

    pairs = overlap(keys.first, keys.past) + overlap(keys.own, query + 1)
    missing = torch.nn.functional.pad(pairs, (0, 0, 0, blocks * size - tokens))
    return missing.view(blocks, size, blocks).sum(1)


@lru_cache(maxsize=_KEPT)
def block_mask(groups: Groups, window: int | None, device: torch.device) -> BlockMask:
    """The mask of a pack, made once and used by all layers with this window.

    Args:
        groups: where the trees lie.
        window: of the layers that use it.
        device: where they are.
    """
    keys = seen(groups, window, device)
    first, past, own = keys.first, keys.past, keys.own
    tokens = len(own)

    def sees(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        in_prefix = (key >= first[query]) & (key < past[query])
        return in_prefix | ((key >= own[query]) & (key <= query))

    counts = block_counts(keys)
    full = counts == BLOCK * BLOCK
    some = _indices((counts > 0) & ~full)
    whole = _indices(full)
    return BlockMask.from_kv_blocks(
        *some,
        *whole,
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(tokens, tokens),
    )


def _indices(wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of wanted key blocks per query block, and which they are, wanted ones first."""
    order = (~wanted).to(torch.int32).argsort(dim=1, stable=True).to(torch.int32)
    return wanted.sum(1, dtype=torch.int32)[None, None], order[None, None]


def flex_tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    groups: Groups,
    *,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Exact causal attention in every (prefix, branch) sequence of a pack.

    Args:
        query: (1, heads, tokens, size).
        key: (1, key heads, tokens, size).
        value: (1, key heads, tokens, size).
        groups: where the trees lie.
        scaling: factor on the scores; 1/√size when None.
        sliding_window: a token sees this many tokens, itself included; None sees all.
        softcap: Gemma-2's cap c on scores s: c · tanh(s / c).

    Returns:
        (1, tokens, heads, size).
    """
    mask = block_mask(groups, sliding_window, query.device)
    attend = _kernel(query.device.type)
    found: Tensor = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else _cap(softcap),
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2).contiguous()


@lru_cache(maxsize=8)
def _cap(softcap: float) -> Callable[..., Tensor]:
    """Capped scores (Gemma 2, arXiv 2408.00118, section 2); one function per cap, compiled once."""

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped


@lru_cache(maxsize=2)
def _kernel(device: str) -> Callable[..., Tensor]:
    """FlexAttention, compiled where it is meant to be fast; as it is on a CPU, for tests."""
    if device != "cuda":
        return cast(Callable[..., Tensor], flex_attention)
    compiled = torch.compile(flex_attention)

    def attend(*args: Any, **given: Any) -> Tensor:  # noqa: ANN401
        with torch._dynamo.config.patch(recompile_limit=_KERNELS):
            found: Tensor = compiled(*args, **given)
            return found

    return attend
