"""Attention over a pack of pair trees: each branch sees its prefix and itself, nothing else.

Registered with transformers as one more attention implementation, so every decoder that uses
its attention interface (Llama, Gemma, Qwen, Mistral, Phi, …) runs packed trees unchanged and
without a dense mask. Knows nothing of votes and heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from litee.finetune.flex import Groups, flex_tree_attention

#: Name of the implementation in `config._attn_implementation`.
TREE_ATTENTION = "litee_tree"

#: (start, length) of runs of tokens that attend as one sequence.
Rows = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """Where prefixes and branches lie in a packed sequence.

    Attributes:
        groups: per tree, (start, length) of the prefix and of each branch.
        flex: whether attention takes one kernel for all trees, as is right on a GPU, or one per
            sequence, as is right on a CPU.
    """

    groups: Groups
    flex: bool = False


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: TreeLayout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Exact causal attention in every (prefix, branch) sequence of a pack.

    For a branch the prefix's queries are run again beside its own, because the fused causal
    kernel wants as many queries as keys; that costs less than any mask does.

    Args:
        module: the attention layer; its `num_key_value_groups` tells how keys are shared.
        query: (1, heads, tokens, size).
        key: (1, key heads, tokens, size).
        value: (1, key heads, tokens, size).
        attention_mask: must be None: the layout says it all.
        tree: the layout; tokens beyond it, which fill a pass up, attend to nothing and give 0.
        scaling: factor on the scores; 1/√size when None.
        dropout: attention dropout probability.
        sliding_window: a token sees this many tokens, itself included; None sees all.
        softcap: Gemma-2's cap c on scores s: c · tanh(s / c).

    Returns:
        (1, tokens, heads, size) and None.
    """
    if attention_mask is not None:
        raise ValueError("tree attention takes no mask")
    if tree.flex:
        if dropout:
            raise ValueError("tree attention on a GPU has no dropout")
        found = flex_tree_attention(
            query,
            key,
            value,
            tree.groups,
            scaling=scaling,
            sliding_window=sliding_window,
            softcap=softcap,
        )
        return found, None
    key, value = (_for_heads(x, query.shape[1]) for x in (key, value))

    def attend(rows: Rows) -> Tensor:
        q, k, v = (_rows(x, rows) for x in (query, key, value))
        if softcap is not None:
            return _capped(q, k, v, scaling, softcap, sliding_window)
        return _causal(q, k, v, scaling, dropout, sliding_window)

    found = _of_groups(attend, tree, query.shape[2])
    return found.transpose(1, 2).contiguous(), None


def _for_heads(x: Tensor, heads: int) -> Tensor:
    """(1, key heads, tokens, size) → (1, heads, tokens, size), each key head repeated."""
    repeat = heads // x.shape[1]
    return x if repeat == 1 else x.repeat_interleave(repeat, dim=1)


def _of_groups(attend: Callable[[Rows], Tensor], tree: TreeLayout, tokens: int) -> Tensor:
    """(1, heads, tokens, size): prefix and branches of every tree; 0 for tokens beyond them."""
    parts: list[Tensor] = []
    for prefix, branches in tree.groups:
        parts.append(attend([prefix]))
        parts += [attend([prefix, branch])[:, :, prefix[1] :] for branch in branches]
    beyond = tokens - sum(part.shape[2] for part in parts)
    if beyond:
        _, heads, _, size = parts[0].shape
        parts.append(parts[0].new_zeros(1, heads, beyond, size))
    return torch.cat(parts, dim=2)


def _causal(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, dropout: float, window: int | None
) -> Tensor:
    """Attention within one sequence by the fused kernel, with a mask only where it needs one."""
    length = q.shape[2]
    if window is not None and length > window:
        mask = _window(length, window, q.device)
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    return functional.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout, is_causal=True, scale=scaling
    )


def _rows(states: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    parts = [states[:, :, start : start + length] for start, length in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _window(length: int, window: int, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


def _capped(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, softcap: float, window: int | None
) -> Tensor:
    """Attention with capped scores (Gemma 2, arXiv 2408.00118, section 2); no fused kernel."""
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    scores = softcap * torch.tanh(q @ k.transpose(-1, -2) * (scale / softcap))
    length = q.shape[2]
    allowed = _window(length, length if window is None else window, q.device)
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1, dtype=torch.float32)
    return weights.to(v.dtype) @ v


AttentionInterface.register(TREE_ATTENTION, tree_attention)
