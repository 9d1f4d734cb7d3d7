"""Heads that turn the states of two answers into logits for A, B and tie.

All are swap-equivariant by construction: exchanging the answers exchanges P(A) and P(B) and
leaves P(tie) alone, in one pass. Knows nothing of where the states come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

HeadName = Literal["davidson", "rao-kupper", "joint", "verdict"]

#: Most tokens that one verdict may start with.
VERDICT_FORMS = 6


class PairHead(nn.Module, ABC):
    """Common part: standardisation of states.

    Args:
        width: size of a state vector.

    Buffers:
        mean, scale: (width,) subtracted from and multiplied with every state; 0 and 1 until
            `standardise` sets them from training states.
    """

    name: HeadName

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def standardise(self, states: Tensor) -> None:
        """Set mean and scale from (n, width) training states; constant columns keep scale 1."""
        self.mean.copy_(states.mean(0))
        deviation = states.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-8, 1 / deviation.clamp_min(1e-8), 1.0))

    def normal(self, states: Tensor) -> Tensor:
        """(…, width) raw states → standardised states."""
        return (states - self.mean) * self.scale

    @abstractmethod
    def features(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised states (n, width) of both branches → what the weights multiply.

        They do not depend on the weights, so a probe computes them once.
        """

    @abstractmethod
    def logits_of(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """Features → (n, 3) logits of A, B, tie."""

    @abstractmethod
    def designs(self, features: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Name of learnt weights → the matrix whose rows they multiply; n rows, or n per branch.

        What a fit needs to know of the loss's shape; a bias has its weights' name and no matrix.
        """

    def logits(self, left: Tensor, right: Tensor) -> Tensor:
        """Standardised states (n, width) of both branches → (n, 3) logits of A, B, tie."""
        return self.logits_of(self.features(left, right))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Raw states (n, width) of both branches → (n, 3) log probabilities of A, B, tie."""
        return functional.log_softmax(self.logits(self.normal(left), self.normal(right)), dim=-1)

    def penalty(self) -> Tensor:
        """Half the sum of squared weights; biases are free."""
        total = torch.zeros((), dtype=self.mean.dtype)
        for name, parameter in self.named_parameters():
            if not name.endswith("bias"):
                total = total + parameter.square().sum() / 2
        return total


class RewardHead(PairHead):
    """A scalar reward per answer and a symmetric tie score per pair (the tree encoder's heads)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.reward_weight = nn.Parameter(torch.zeros(width))
        self.tie = nn.Linear(2 * width, 1)
        nn.init.zeros_(self.tie.weight)
        nn.init.zeros_(self.tie.bias)

    def reward(self, states: Tensor) -> Tensor:
        """(n, width) raw states → (n,) rewards, in nats of log odds; only differences count."""
        return self.normal(states) @ self.reward_weight

    def features(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The difference, (n, width), and the symmetric (|a − b|, (a + b)/√2), (n, 2 width)."""
        both = torch.cat([(left - right).abs(), (left + right) / 2**0.5], dim=-1)
        return left - right, both

    def designs(self, features: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Rewards read the difference, ties the symmetric part."""
        return {"reward_weight": features[0], "tie.weight": features[1]}

    def scores(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Features → (n,) reward differences δ and (n,) tie scores t."""
        difference, both = features
        return difference @ self.reward_weight, self.tie(both).squeeze(-1)


class DavidsonHead(RewardHead):
    """Davidson (1970), eq. 2.3, with ν = exp(t) and worth exp(r): logits (δ/2, −δ/2, t).

    >>> head = DavidsonHead(1)
    >>> _ = head.reward_weight.data.fill_(2.0)
    >>> head.logits(torch.ones(1, 1), torch.zeros(1, 1)).tolist()
    [[1.0, -1.0, 0.0]]
    """

    name = "davidson"

    def logits_of(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """See the class."""
        delta, tie = self.scores(features)
        return torch.stack([delta / 2, -delta / 2, tie], dim=-1)


class RaoKupperHead(RewardHead):
    """Rao & Kupper (1967), eq. 2.1: P(A) = π_A / (π_A + θ π_B), with θ = 1 + exp(t) > 1.

    The probabilities come as logarithms, which are logits that need no normalising.

    >>> head = RaoKupperHead(1)
    >>> [round(p, 3) for p in head(torch.ones(1, 1), torch.zeros(1, 1)).exp()[0].tolist()]
    [0.333, 0.333, 0.333]
    """

    name = "rao-kupper"

    def logits_of(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """See the class."""
        delta, score = self.scores(features)
        threshold = functional.softplus(score)  # log θ = log(1 + exp t) > 0
        a = functional.logsigmoid(delta - threshold)
        b = functional.logsigmoid(-delta - threshold)
        # P(tie) = 1 − P(A) − P(B) = (θ² − 1) P(A) P(B)
        # log(θ² − 1) = 2 log θ + log(1 − θ⁻²), which stays finite for large θ
        tie = 2 * threshold + torch.log(-torch.expm1(-2 * threshold).clamp_max(-1e-30)) + a + b
        return torch.stack([a, b, tie], dim=-1)


class JointHead(PairHead):
    """The paper's head: three labels from the last state of one sequence (LoRA-LiteE).

    `left` holds the states of the order A, B and `right` those of B, A; the logits of both orders
    are averaged after exchanging A and B in the second.
    """

    name = "joint"

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.label = nn.Linear(width, 3)
        nn.init.zeros_(self.label.weight)
        nn.init.zeros_(self.label.bias)

    def features(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The states as they are."""
        return left, right

    def logits_of(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """See the class."""
        left, right = features
        both: Tensor = (self.label(left) + self.label(right)[:, [1, 0, 2]]) / 2
        return both

    def designs(self, features: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Each label reads both orders."""
        return {"label.weight": torch.cat(features)}


class VerdictHead(PairHead):
    """The language model's own output layer, cut down to the replies A, B and tie.

    Logits are those of the tokens that each reply may start with, summed as probabilities: what
    decoding under a grammar of the three replies would give. Nothing is learnt. Both orders are
    averaged as in `JointHead`.

    Buffers:
        norm: (width,) weight of the final RMSNorm.
        epsilon: () of that norm.
        rows: (3, VERDICT_FORMS, width) output weights, scalings included; unused ones are zero.
        bias: (3, VERDICT_FORMS) output biases; −1e9 where a row is unused.
        cap: () soft cap c of the logits, c·tanh(z / c); 0 for none.

    >>> head = VerdictHead(2)
    >>> head.rows[0, 0] = torch.tensor([1.0, 0.0])
    >>> head.bias[:, 0] = 0.0
    >>> state = torch.tensor([[3.0, 4.0]])  # of mean square 12.5; its first number becomes 0.849
    >>> [round(x, 3) for x in head.replies(state)[0].tolist()]
    [0.849, 0.0, 0.0]
    """

    name = "verdict"

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm: Tensor
        self.epsilon: Tensor
        self.rows: Tensor
        self.bias: Tensor
        self.cap: Tensor
        self.register_buffer("norm", torch.ones(width))
        self.register_buffer("epsilon", torch.tensor(0.0))
        self.register_buffer("rows", torch.zeros(3, VERDICT_FORMS, width))
        self.register_buffer("bias", torch.full((3, VERDICT_FORMS), -1e9))
        self.register_buffer("cap", torch.tensor(0.0))

    def replies(self, states: Tensor) -> Tensor:
        """(n, width) raw states of sequences → (n, 3) logits of the replies A, B, tie."""
        size = (states.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        logits = torch.einsum("nw,kfw->nkf", states * size * self.norm, self.rows) + self.bias
        if self.cap > 0:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits.masked_fill(self.bias < -1e8, -torch.inf).logsumexp(-1)

    def features(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The states as they are."""
        return left, right

    def logits_of(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """See the class."""
        one, two = (self.replies(states).log_softmax(-1) for states in features)
        both: Tensor = (one + two[:, [1, 0, 2]]) / 2
        return both

    def designs(self, features: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Nothing is learnt."""
        return {}


def make_head(name: HeadName, width: int) -> PairHead:
    """A fresh head; all weights are zero, so its first prediction is uniform (Davidson, joint)."""
    kinds: dict[HeadName, type[PairHead]] = {
        "davidson": DavidsonHead,
        "rao-kupper": RaoKupperHead,
        "joint": JointHead,
        "verdict": VerdictHead,
    }
    return kinds[name](width)


def vote_loss(log_probabilities: Tensor, shares: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy to vote shares, in nats.

    Args:
        log_probabilities: (n, 3).
        shares: (n, 3), rows sum to 1.
        weights: (n,), not negative, not all zero.

    >>> vote_loss(torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.eye(3)[:1], torch.ones(1)).item()
    0.6931471824645996
    """
    losses = -(shares * log_probabilities).sum(-1)
    return (losses * weights).sum() / weights.sum()


def average_heads(heads: Sequence[PairHead]) -> PairHead:
    """A head whose numbers, standardisation included, are the means of these heads' numbers.

    Args:
        heads: at least one, of one kind and width.

    >>> one, two = DavidsonHead(1), DavidsonHead(1)
    >>> _ = two.reward_weight.data.fill_(2.0)
    >>> average_heads([one, two]).reward_weight.tolist()
    [1.0]
    """
    found = make_head(heads[0].name, heads[0].width)
    states = [head.state_dict() for head in heads]
    found.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0)
            if first.is_floating_point()
            else first
            for name, first in states[0].items()
        }
    )
    return found.eval()
