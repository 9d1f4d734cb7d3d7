"""Keys and values of several answers in writing: rows come and go while the others go on.

Rows are aligned at their last token; what lies before a row's first token is masked. Memory grows
in steps, so that a new token is written in place instead of copying all earlier ones. Knows
nothing of texts and sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

#: Tokens by which the memory of a layer grows.
GROWTH = 128


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, (rows, heads, tokens, width) each, with room at the end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens; returns those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        new = old + key_states.shape[2]
        if self._buffers is None or self._buffers[0].shape[2] < new:
            self._buffers = (
                _with_room(self.keys if old else None, key_states, old, new),
                _with_room(self.values if old else None, value_states, old, new),
            )
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, old:new] = states
        keys, values = (buffer[:, :, :new] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        """Keys and values, (rows, heads, tokens, width) each."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Replace all rows."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._buffers = None
        self.keys, self.values = keys, values


def _with_room(kept: Tensor | None, like: Tensor, old: int, new: int) -> Tensor:
    rows, heads, _, width = like.shape
    buffer = like.new_empty((rows, heads, new + GROWTH, width))
    if kept is not None:
        buffer[:, :, :old] = kept
    return buffer


class RowCache:
    """The cache and the mask of a batch of rows.

    Args:
        layers: number of decoder layers.

    Attributes:
        states: what the model is given as `past_key_values`.
        mask: (rows, tokens) 1 where a row has a token, 0 before its first one.
    """

    def __init__(self, layers: int) -> None:
        self._layers = [GrowingLayer() for _ in range(layers)]
        self.states = Cache(layers=list(self._layers))
        self.mask = torch.zeros((0, 0), dtype=torch.long)

    @property
    def lengths(self) -> Tensor:
        """(rows,) tokens of each row."""
        return self.mask.sum(1)

    def extend(self, mask: Tensor) -> Tensor:
        """Announce new tokens that the next pass will write.

        Args:
            mask: (rows, new tokens); for the first pass it may have zeros at the left.

        Returns:
            (rows, new tokens) positions of the new tokens.
        """
        before = self.lengths if len(self.mask) else torch.zeros(len(mask), dtype=torch.long)
        positions = before.to(mask.device)[:, None] + mask.cumsum(1) - 1
        self.mask = torch.cat([self.mask, mask], dim=1) if len(self.mask) else mask
        return positions.clamp(min=0)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order (a row may be named several times), and trim the left."""
        index = torch.tensor(rows, dtype=torch.long, device=self.mask.device)
        mask = self.mask[index]
        width = int(mask.sum(1).max()) if len(rows) else 0
        self.mask = mask[:, mask.shape[1] - width :]
        for layer in self._layers:
            keys, values = layer.both
            cut = keys.shape[2] - width
            layer.put(keys[index, :, cut:], values[index, :, cut:])

    def append(self, other: RowCache) -> None:
        """Add the rows of another cache below these."""
        if not len(self.mask):
            self._layers, self.states, self.mask = other._layers, other.states, other.mask
            return
        width = max(self.mask.shape[1], other.mask.shape[1])
        self.mask = torch.cat([_widen(self.mask, width), _widen(other.mask, width)])
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            pairs = zip(mine.both, theirs.both, strict=True)
            keys, values = (torch.cat([_deepen(a, width), _deepen(b, width)]) for a, b in pairs)
            mine.put(keys, values)


def _widen(mask: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))


def _deepen(states: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))
