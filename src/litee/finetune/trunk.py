"""Runs packs of pair trees through some layers of a frozen decoder.

One pass gives the states after any set of layers; a pass can start from the states before any
layer, which is what makes caching possible. Layers above the last one asked for are never run.
Knows nothing of votes, heads and files.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from litee.encode.forest import Forest, Pack
from litee.finetune.attention import TREE_ATTENTION, TreeLayout
from litee.finetune.attention_pooling import attended_means


@dataclass(frozen=True, slots=True)
class PackedTrees:
    """A pack as tensors.

    Attributes:
        ids: (tokens,) token ids.
        positions: (tokens,) position of each token in its own (prefix, branch) sequence.
        layout: where the trees lie.
        leaves: leaf numbers in packed order.
        spans: (leaves, 2) start and end (exclusive) of each leaf's branch.
    """

    ids: Tensor
    positions: Tensor
    layout: TreeLayout
    leaves: tuple[int, ...]
    spans: Tensor


def lay_out(
    forest: Forest, pack: Pack, device: torch.device | str = "cpu", *, flex: bool | None = None
) -> PackedTrees:
    """Put a pack's prefixes and branches in a row.

    Args:
        forest: the texts.
        pack: which of them.
        device: of the tensors.
        flex: attention by one kernel for all; None: on a GPU.
    """
    ids: list[int] = []
    positions: list[int] = []
    groups = []
    leaves: list[int] = []
    spans: list[tuple[int, int]] = []
    for prefix, members in pack.groups:
        root = forest.prefixes[prefix]
        start = (len(ids), len(root))
        ids += root
        positions += range(len(root))
        branches = []
        for leaf in members:
            branch = forest.leaves[leaf][1]
            branches.append((len(ids), len(branch)))
            spans.append((len(ids), len(ids) + len(branch)))
            ids += branch
            positions += range(len(root), len(root) + len(branch))
            leaves.append(leaf)
        groups.append((start, tuple(branches)))
    return PackedTrees(
        torch.tensor(ids, device=device),
        torch.tensor(positions, device=device),
        TreeLayout(tuple(groups), torch.device(device).type == "cuda" if flex is None else flex),
        tuple(leaves),
        torch.tensor(spans, device=device),
    )


class Trunk:
    """The decoder stack of a causal language model, cut at will.

    Args:
        decoder: the stack (`model.model` of a transformers causal LM), already without the
            layers that are not needed.

    The final norm is not applied: depth k is the residual stream after the k-th layer.
    """

    def __init__(self, decoder: PreTrainedModel) -> None:
        self.decoder = decoder
        decoder.config._attn_implementation = TREE_ATTENTION
        self.layers = cast(nn.ModuleList, decoder.layers)
        self.depth = len(self.layers)
        self.hidden_size: int = decoder.config.hidden_size
        self._slices: dict[tuple[int, int], PreTrainedModel] = {}

    def cut(self, depth: int) -> None:
        """Forget the layers above `depth`."""
        self.layers = self.layers[:depth]
        self.decoder.layers = self.layers
        self.decoder.config.num_hidden_layers = depth
        self.depth = depth
        self._slices.clear()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights and states."""
        return self.decoder.dtype

    def embed(self, ids: Tensor) -> Tensor:
        """(tokens,) ids → (tokens, hidden) states before the first layer."""
        states: Tensor = self.decoder.get_input_embeddings()(ids)
        return states

    def run(
        self,
        trees: PackedTrees,
        *,
        start: int = 0,
        states: Tensor | None = None,
        depths: Sequence[int],
    ) -> dict[int, Tensor]:
        """States after each of `depths` layers.

        Args:
            trees: the pack.
            start: number of layers already applied to `states`.
            states: (tokens, hidden) states before layer `start`; embeddings when None.
            depths: each in start + 1 … depth (start itself gives `states` back).

        Returns:
            depth → (tokens, hidden).
        """
        if states is None:
            if start:
                raise ValueError("states are needed to start above the embeddings")
            states = self.embed(trees.ids)
        found = {d: states for d in depths if d == start}
        tokens = len(states)
        filling = 0 if trees.layout.flex else filled_up(tokens) - tokens
        states = functional.pad(states, (0, 0, 0, filling))
        positions = functional.pad(trees.positions, (0, filling))
        for first, last in _runs(start, depths):
            states = self._slice(first, last)(
                inputs_embeds=states[None],
                position_ids=positions[None],
                use_cache=False,
                tree=trees.layout,
            ).last_hidden_state[0]
            found[last] = states[:tokens]
        return found

    def _slice(self, first: int, last: int) -> PreTrainedModel:
        """Layers first … last - 1 as a model of the same class that shares the weights."""
        found = self._slices.get((first, last))
        if found is not None:
            return found
        part = copy.copy(self.decoder)
        part._modules = dict(self.decoder._modules)
        part.config = copy.deepcopy(self.decoder.config)
        part.config.num_hidden_layers = last - first
        types = getattr(part.config, "layer_types", None)
        if types:
            part.config.layer_types = types[first:last]
        part.layers = self.layers[first:last]
        for norm in ("norm", "final_layernorm"):
            if norm in part._modules:
                setattr(part, norm, nn.Identity())
        return self._slices.setdefault((first, last), part)  # passes may run side by side


def filled_up(tokens: int) -> int:
    """Rows of a pass on a CPU: the next of a few sizes, at most 16 of them up to each doubling.

    Each size of a matrix product leaves compiled kernels in memory, which would grow with the
    number of packs otherwise.

    >>> filled_up(7), filled_up(500), filled_up(2000)
    (16, 512, 2048)
    """
    step = max(16, 1 << max(0, tokens.bit_length() - 5))
    return -(-tokens // step) * step


def _runs(start: int, depths: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive (first, last) layer ranges that stop at each depth.

    >>> _runs(0, [4, 2])
    [(0, 2), (2, 4)]
    """
    stops = sorted({d for d in depths if d > start})
    return list(zip([start, *stops], stops, strict=False))


def _averages(trees: PackedTrees, device: torch.device) -> Tensor:
    """(leaves, tokens) shares of each token in each branch's mean: one product for all leaves."""
    token = torch.arange(len(trees.ids), device=device)
    starts, ends = trees.spans[:, :1], trees.spans[:, 1:]
    return ((token >= starts) & (token < ends)).float() / (ends - starts)


def pooled(states: Tensor, trees: PackedTrees, queries: Tensor | None = None) -> Tensor:
    """Last and mean state of every branch; gradients flow through both.

    Args:
        states: (tokens, hidden).
        trees: the pack.
        queries: (leaves, hidden) for means weighted by attention; plain means when None.

    Returns:
        (leaves, 2, hidden) in float32: the state of the last token, the mean over the branch.
    """
    last = states[trees.spans[:, 1] - 1].float()
    if queries is not None:
        return torch.stack([last, attended_means(states, trees.spans, queries)], dim=1)
    if trees.layout.flex:
        return torch.stack([last, _averages(trees, states.device) @ states.float()], dim=1)
    mean = torch.stack([states[first:end].float().mean(0) for first, end in trees.spans.tolist()])
    return torch.stack([last, mean], dim=1)
