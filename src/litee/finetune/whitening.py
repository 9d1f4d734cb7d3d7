"""Coordinates of linear weights in which a loss is about equally steep in every direction.

L-BFGS needs a few steps there instead of dozens, and ends at the same solution. Knows nothing of
votes: losses are functions of named weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from litee.finetune.heads import PairHead

#: Second derivative of the cross-entropy by a score: p(1 − p) of an outcome with p = 0.28.
CURVATURE = 0.2

#: Share of a matrix's trace that its smallest eigenvalues may be wrong by in float32.
_ROUNDING = 1e-7

#: Rows of a matrix whose products are summed at once, in float32.
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Block:
    """Weights W that multiply the rows x of one matrix, W x + b.

    Attributes:
        weights: their name.
        bias: name of b, None without one.
        size: of a row.
        moment: (size, size) weighted mean of the centred rows' products, times `CURVATURE`; None
            where it costs more than it saves.
        mean: (size,) weighted mean of the rows; zero without a bias.
    """

    weights: str
    bias: str | None
    size: int
    moment: Tensor | None
    mean: Tensor


def blocks_of(
    head: PairHead,
    name: str,
    features: tuple[Tensor, Tensor],
    weights: Tensor,
    *,
    share: float = 1.0,
) -> list[Block]:
    """What a head learns.

    Args:
        head: whose weights.
        name: put before theirs.
        features: of n pairs, as the head makes them.
        weights: (n,) of the pairs.
        share: of the whole loss that these pairs are.

    Returns:
        One block per weight that is learnt, whitened all or none.
    """
    known, designs = dict(head.named_parameters()), head.designs(features)
    worth = worth_whitening(list(designs.values()))
    found = []
    for own, rows in designs.items():
        bias = own.replace("weight", "bias")
        full = f"{name}.{bias}" if bias in known else None
        found.append(block_of(f"{name}.{own}", full, rows, weights, share=share, worth=worth))
    return found


def worth_whitening(designs: Sequence[Tensor]) -> bool:
    """Whether all matrices have rows enough; half whitened is worst.

    With fewer pairs it takes longer than the steps that it saves.
    """
    return all(2 * len(rows) > rows.shape[1] for rows in designs)


def block_of(
    name: str, bias: str | None, rows: Tensor, weights: Tensor, *, share: float, worth: bool
) -> Block:
    """One matrix's weights.

    Args:
        name: of the weights.
        bias: of theirs, None without one.
        rows: (n, size) what they multiply, or several rows per pair.
        weights: (n,) of the pairs.
        share: of the whole loss that these pairs are.
        worth: whether to whiten.
    """
    omega = weights.repeat(len(rows) // len(weights))
    omega = omega / omega.sum()
    size = rows.shape[1]
    mean = omega @ rows if bias else torch.zeros(size, dtype=rows.dtype)
    moment = CURVATURE * share * _moment(rows, omega, mean) if worth else None
    return Block(name, bias, size, moment, mean)


def _moment(rows: Tensor, omega: Tensor, mean: Tensor) -> Tensor:
    """(size, size) Σ ωᵢ (xᵢ − m)(xᵢ − m)ᵀ; rounded to float32 on the way, which is fine here."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for first in range(0, len(rows), _ROWS):
        part = slice(first, first + _ROWS)
        scaled = ((rows[part] - mean) * omega[part, None].sqrt()).float()
        total += (scaled.T @ scaled).double()
    return total


@dataclass(frozen=True, slots=True)
class _Coordinates:
    """A block's coordinates V: W = V R⁻¹ and b = β / √CURVATURE − W m, with R Rᵀ the curvature."""

    block: Block
    root: Tensor | None

    def weights(self, values: Tensor, offset: Tensor | None) -> dict[str, Tensor]:
        flat = values.reshape(-1, self.block.size)
        if self.root is not None:
            flat = torch.linalg.solve_triangular(self.root, flat.T, upper=True).T
        found = {self.block.weights: flat.reshape(values.shape)}
        if self.block.bias is not None and offset is not None:
            found[self.block.bias] = offset / CURVATURE**0.5 - flat @ self.block.mean
        return found

    def values(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The inverse of `weights`."""
        own = weights[self.block.weights]
        flat = own.reshape(-1, self.block.size)
        values = flat if self.root is None else flat @ self.root.T
        offset = None
        if self.block.bias is not None:
            offset = (weights[self.block.bias] + flat @ self.block.mean) * CURVATURE**0.5
        return values.reshape(own.shape).clone(), offset


def minimise(
    loss: Callable[[dict[str, Tensor]], Tensor],
    start: Mapping[str, Tensor],
    blocks: Sequence[Block],
    ridge: float,
    *,
    steps: int,
) -> dict[str, Tensor]:
    """Weights at which the loss is least, by L-BFGS in whitened coordinates (derived here).

    The curvature of a block is taken for R Rᵀ = `CURVATURE` · Cov(x) + ridge · 1, as if all pairs
    were as undecided. How wrong that is costs steps and changes nothing of where they end.

    Args:
        loss: of weights by name, float64.
        start: where to begin.
        blocks: all weights and biases.
        ridge: second derivative of the penalty.
        steps: most iterations.

    >>> block = Block("w", None, 2, torch.tensor([[100.0, 0], [0, 1.0]]).double(), torch.zeros(2))
    >>> steep = torch.tensor([100.0, 1.0]).double()
    >>> away = lambda weights: (steep * (weights["w"] - 3).square()).sum() / 2
    >>> found = minimise(away, {"w": torch.zeros(2).double()}, [block], 0.0, steps=5)["w"]
    >>> [round(x, 9) for x in found.tolist()]
    [3.0, 3.0]
    """
    places = [_Coordinates(block, _root(block, ridge)) for block in blocks]
    values = [place.values(start) for place in places]
    learnt = [x.requires_grad_() for pair in values for x in pair if x is not None]
    optimiser = torch.optim.LBFGS(
        learnt,
        max_iter=steps,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def weights() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for place, (own, offset) in zip(places, values, strict=True):
            found |= place.weights(own, offset)
        return found

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(weights())
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return {name: x.detach() for name, x in weights().items()}


def _root(block: Block, ridge: float) -> Tensor | None:
    """(size, size) upper triangular Rᵀ; None where the coordinates are the weights themselves."""
    if block.moment is None:
        return None
    curvature = block.moment.clone()
    curvature.diagonal().add_(ridge + _ROUNDING * float(curvature.diagonal().sum()) + 1e-12)
    root, failed = torch.linalg.cholesky_ex(curvature)
    return None if failed else root.T.contiguous()
