"""Linear probes on frozen states: the cheapest member, and where every LoRA branch starts.

Knows nothing of backbones: states come in as arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from litee.finetune.heads import HeadName, PairHead, make_head, vote_loss

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairStates:
    """Pooled states of answers and which two belong to each pair.

    Attributes:
        states: (leaves, width) float.
        left: (pairs,) leaf of each pair's first branch.
        right: (pairs,) leaf of its second branch.
    """

    states: Floats
    left: Ints
    right: Ints

    def of(self, pairs: Ints) -> PairStates:
        """The states of some pairs only; leaves are kept as they are."""
        return PairStates(self.states, self.left[pairs], self.right[pairs])


def fit_probe(
    data: PairStates,
    shares: Floats,
    weights: Floats,
    *,
    ridge: float,
    head: HeadName = "davidson",
    steps: int = 200,
) -> PairHead:
    """Fit a head by L-BFGS on Σ wᵢ·CEᵢ / Σ wᵢ + ridge / n · (half the squared weights).

    n is the number of pairs, so `ridge` is a prior precision per coefficient in units of pairs.
    Training is deterministic and, for the Davidson and joint heads, convex.

    Args:
        data: states of n pairs.
        shares: (n, 3) vote shares.
        weights: (n,) weights.
        ridge: not negative; 150 is a good start for standardised states.
        head: which head.
        steps: most iterations.

    Returns:
        The head, float32, standardised on the training states.
    """
    left, right = (torch.from_numpy(data.states[side]).double() for side in (data.left, data.right))
    model = make_head(head, left.shape[1]).double()
    model.standardise(torch.cat([left, right]))
    features = model.features(model.normal(left), model.normal(right))
    target = torch.from_numpy(np.asarray(shares, dtype=np.float64))
    weight = torch.from_numpy(np.asarray(weights, dtype=np.float64))
    optimiser = torch.optim.LBFGS(
        model.parameters(),
        max_iter=steps,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        log_p = torch.log_softmax(model.logits_of(features), dim=-1)
        loss = vote_loss(log_p, target, weight) + ridge / len(target) * model.penalty()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return model.float()


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
