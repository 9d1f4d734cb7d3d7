"""Linear probes on frozen states: the cheapest member, and where every LoRA branch starts.

Knows nothing of backbones: states come in as arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call

from litee.finetune.heads import HeadName, PairHead, make_head, vote_loss
from litee.finetune.per_source import Own, PerSource
from litee.finetune.whitening import minimise

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

#: Prior precision of a source's own biases, in pairs. The shared ones are free.
BIAS_RIDGE = 5.0

#: Prior precision of a reward's weights of lengths, in pairs: three weights are known long before
#: a thousand are, and what length explains is left to them.
LENGTH_RIDGE = 5.0


@dataclass(frozen=True, slots=True)
class PairStates:
    """Pooled states of answers and which two belong to each pair.

    Attributes:
        states: (leaves, width) float.
        left: (pairs,) leaf of each pair's first branch.
        right: (pairs,) leaf of its second branch.
        lengths: columns of the states that hold lengths.
    """

    states: Floats
    left: Ints
    right: Ints
    lengths: tuple[int, ...] = ()

    def of(self, pairs: Ints) -> PairStates:
        """The states of some pairs only; leaves are kept as they are."""
        return PairStates(self.states, self.left[pairs], self.right[pairs], self.lengths)


def _penalty(weights: dict[str, Tensor], ridge: float, lengths: Sequence[int]) -> Tensor:
    """Half the squared weights, shared and own, times their precision; shared biases are free."""
    total = torch.zeros((), dtype=torch.float64)
    for name, x in weights.items():
        precision = torch.full_like(x, ridge)
        if name.endswith("bias"):
            precision.fill_(0.0 if name.startswith("head.") else BIAS_RIDGE)
        elif name.endswith("reward_weight"):
            precision[list(lengths)] = LENGTH_RIDGE
        elif name.endswith("length_weight"):
            precision.fill_(LENGTH_RIDGE)
        total = total + (precision * x.square()).sum() / 2
    return total


def fit_probe(
    data: PairStates,
    shares: Floats,
    weights: Floats,
    *,
    ridge: float,
    head: HeadName = "davidson",
    steps: int = 200,
    sources: Ints | None = None,
    own: Own = "weights",
) -> PairHead:
    """A float32 head fitted under one ridge; the other arguments are those of `fit_probes`."""
    (found,) = fit_probes(
        data, shares, weights, ridges=(ridge,), head=head, steps=steps, sources=sources, own=own
    )
    return found


def fit_probes(
    data: PairStates,
    shares: Floats,
    weights: Floats,
    *,
    ridges: Sequence[float],
    head: HeadName = "davidson",
    steps: int = 200,
    sources: Ints | None = None,
    own: Own = "weights",
) -> list[PairHead]:
    """Fit a head by L-BFGS on Σ wᵢ·CEᵢ / Σ wᵢ + ridge / n · (half the squared weights).

    n is the number of pairs, so `ridge` is a prior precision per coefficient in units of pairs;
    that of a reward's weights of lengths is `LENGTH_RIDGE`. Training is deterministic and, for the
    Davidson and joint heads, convex. Ridges are fitted from the strongest to the weakest, each
    starting where the last one ended.

    With `sources`, a pair of source k is judged by weights w + uₖ, both under the same prior, and
    the head that comes back is w alone: what the sources share, for votes of another one. It is
    Daumé III (2007), "Frustratingly easy domain adaptation", section 3, and a linear
    mixed-effects model with as much variance between sources as of what they share. With
    own = "lengths" only the rewards' weights of lengths and the ties' bias deviate: a random
    slope and a random intercept, as that literature calls them.

    Args:
        data: states of n pairs.
        shares: (n, 3) vote shares.
        weights: (n,) weights.
        ridges: not negative; 150 is a good start for standardised states.
        head: which head.
        steps: most iterations per ridge.
        sources: (n,) number of each pair's source; None, or one source for all: one set of weights.
        own: what of the weights deviates by source.

    Returns:
        One head per ridge, float32, standardised on the training states.

    Raises:
        ValueError: own = "lengths" for a head without rewards.
    """
    known = np.zeros(len(shares), dtype=np.int64) if sources is None else sources
    order = np.argsort(known, kind="stable")
    data, known = data.of(order), known[order]
    target, weight = (torch.from_numpy(x[order].astype(np.float64)) for x in (shares, weights))
    model, features = _standardised(data, head)
    fitted = PerSource(model, known, own=own, lengths=data.lengths)
    blocks = fitted.blocks(features, weight)
    now = {name: x.detach() for name, x in fitted.named_parameters()}

    def loss(ridge: float, weights: dict[str, Tensor]) -> Tensor:
        log_p = torch.log_softmax(functional_call(fitted, weights, (features,)), dim=-1)
        penalty = _penalty(weights, ridge, data.lengths)
        return vote_loss(log_p, target, weight) + penalty / len(target)

    found: dict[float, PairHead] = {}
    for ridge in sorted(set(ridges), reverse=True):
        now = minimise(partial(loss, ridge), now, blocks, ridge / len(target), steps=steps)
        found[ridge] = _with_weights(model, now)
    return [found[ridge] for ridge in ridges]


def _standardised(data: PairStates, head: HeadName) -> tuple[PairHead, tuple[Tensor, Tensor]]:
    """A float64 head that knows the states' means and scales, and its features of every pair."""
    left, right = (torch.from_numpy(data.states[side]).double() for side in (data.left, data.right))
    model = make_head(head, left.shape[1]).double()
    model.standardise(torch.cat([left, right]))
    return model, model.features(model.normal(left), model.normal(right))


def _with_weights(model: PairHead, weights: dict[str, Tensor]) -> PairHead:
    """A float32 head with the standardisation of this one and the shared ones of these weights."""
    found = make_head(model.name, model.width)
    own = {n.removeprefix("head."): x for n, x in weights.items() if n.startswith("head.")}
    found.load_state_dict({**model.state_dict(), **own})
    return found


def predict_head(model: PairHead, data: PairStates) -> npt.NDArray[np.float64]:
    """(pairs, 3) probabilities of A, B and tie."""
    with torch.inference_mode():
        left, right = (
            torch.from_numpy(np.asarray(data.states[side], dtype=np.float32))
            for side in (data.left, data.right)
        )
        probabilities = model(left, right).double().softmax(-1)
    result: npt.NDArray[np.float64] = probabilities.numpy()
    return result
