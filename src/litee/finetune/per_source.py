"""A head whose weights differ by source of votes while it is fitted.

What deviates: all weights, or only the tastes that differ most between groups of voters, how long
an answer should be and how often two are called equal. Knows nothing of losses and of how weights
are found.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from litee.finetune.heads import PairHead, RewardHead, make_head
from litee.finetune.whitening import Block, block_of, blocks_of, worth_whitening

Features = tuple[Tensor, Tensor]

#: What of a head a source has of its own.
Own = Literal["weights", "lengths"]


class _Weights(nn.Module):
    """Deviations from all of a head's weights."""

    def __init__(self, head: PairHead) -> None:
        super().__init__()
        self.head = make_head(head.name, head.width).double()

    def added_to(self, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The head's weights with the deviations."""
        return {name: shared[name] + x for name, x in self.head.named_parameters()}

    def blocks(self, name: str, features: Features, weights: Tensor, share: float) -> list[Block]:
        """What is learnt."""
        return blocks_of(self.head, f"{name}.head", features, weights, share=share)


class _Tastes(nn.Module):
    """Deviations from the rewards' weights of lengths, and from the ties' bias.

    Args:
        lengths: columns that hold lengths.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths = list(lengths)
        self.length_weight = nn.Parameter(torch.zeros(len(self.lengths), dtype=torch.float64))
        self.tie_bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def added_to(self, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The head's weights with the deviations."""
        columns = torch.tensor(self.lengths, dtype=torch.long)
        return {
            **shared,
            "reward_weight": shared["reward_weight"].index_add(0, columns, self.length_weight),
            "tie.bias": shared["tie.bias"] + self.tie_bias,
        }

    def blocks(self, name: str, features: Features, weights: Tensor, share: float) -> list[Block]:
        """What is learnt; the bias is a weight of a column of ones."""
        ones = torch.ones(len(weights), 1, dtype=torch.float64)
        worth = worth_whitening([features[1]])
        found = [block_of(f"{name}.tie_bias", None, ones, weights, share=share, worth=worth)]
        if self.lengths:
            rows = features[0][:, self.lengths]
            found.append(
                block_of(f"{name}.length_weight", None, rows, weights, share=share, worth=worth)
            )
        return found


class PerSource(nn.Module):
    """A head and each source's deviations from it.

    Args:
        head: the shared weights.
        sources: (n,) source of each row, sorted, 0 … K − 1; one source for all has no deviations.
        own: what deviates.
        lengths: columns that hold lengths.

    Raises:
        ValueError: own = "lengths" for a head without rewards.
    """

    def __init__(
        self,
        head: PairHead,
        sources: npt.NDArray[np.int64],
        *,
        own: Own = "weights",
        lengths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.head = head
        ends = np.flatnonzero(np.diff(sources)) + 1
        bounds = [0, *ends.tolist(), len(sources)]
        self.rows = [slice(a, b) for a, b in itertools.pairwise(bounds)] if len(ends) else []
        if own == "lengths" and not isinstance(head, RewardHead):
            raise ValueError(f"a {head.name} head has no rewards that lengths could sway")
        self.own = nn.ModuleList(
            _Tastes(lengths) if own == "lengths" else _Weights(head) for _ in self.rows
        )

    def forward(self, features: Features) -> Tensor:
        """Features of all rows → (n, 3) logits, each row's by its source's weights."""
        if not self.rows:
            return self.head.logits_of(features)
        shared = dict(self.head.named_parameters())
        parts = []
        for rows, own in zip(self.rows, self.own, strict=True):
            assert isinstance(own, _Weights | _Tastes)
            weights = {f"head.{name}": x for name, x in own.added_to(shared).items()}
            few = (features[0][rows], features[1][rows])
            parts.append(functional_call(_Logits(self.head), weights, (few,)))
        return torch.cat(parts)

    def blocks(self, features: Features, weights: Tensor) -> list[Block]:
        """What is learnt, shared and own, with the rows that it reads."""
        found = blocks_of(self.head, "head", features, weights)
        for k, (rows, own) in enumerate(zip(self.rows, self.own, strict=True)):
            assert isinstance(own, _Weights | _Tastes)
            few = (features[0][rows], features[1][rows])
            share = weights[rows].sum() / weights.sum()  # of the loss that these rows are
            found += own.blocks(f"own.{k}", few, weights[rows], float(share))
        return found


class _Logits(nn.Module):
    """A head called by its features."""

    def __init__(self, head: PairHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Features) -> Tensor:
        return self.head.logits_of(features)
