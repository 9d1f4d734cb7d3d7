"""Draws the next token of every row of a batch, each by its own rule and its own generator.

Rows of one batch may differ in temperature, nucleus, penalty and seed, which is what lets
requests of several people run together. Knows nothing of models, texts and batches' make-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from litee.predict.generation_settings import SamplingSettings

#: Most probable tokens that are looked at, one after the other, before all are sorted.
_WIDTHS = (256, 4096)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is drawn; ranges as in `SamplingSettings`.

    Attributes:
        temperature: divides the logits, 0 takes the most probable token.
        top_p: mass of the nucleus, in (0, 1].
        repetition_penalty: of tokens that occurred in the answer so far, > 0.
        max_new_tokens: tokens after which the answer is cut off, at least 1.
        seed: of the answer's own generator.
        stop: texts that end the answer and are not part of it.
        penalise_prompt: whether the prompt's tokens count as occurred.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.2
    max_new_tokens: int = 512
    seed: int = 0
    stop: tuple[str, ...] = ()
    penalise_prompt: bool = False

    @classmethod
    def of(
        cls, settings: SamplingSettings, *, seed: int | None = None, stop: Sequence[str] = ()
    ) -> Sampling:
        """From settings, with another seed when one is given."""
        return cls(
            settings.temperature,
            settings.top_p,
            settings.repetition_penalty,
            settings.max_new_tokens,
            settings.seed if seed is None else seed,
            tuple(stop),
            settings.penalise_prompt,
        )


def penalise(logits: Tensor, occurred: Tensor, penalties: Tensor) -> Tensor:
    """Repetition penalty of CTRL (Keskar et al. 2019, §4.1), as transformers computes it.

    Args:
        logits: (rows, vocabulary).
        occurred: (rows, vocabulary) whether the token counts as having occurred.
        penalties: (rows,) θ: positive logits are divided by it, negative ones multiplied.

    >>> logits, occurred = torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[True, True, False]])
    >>> penalise(logits, occurred, torch.tensor([2.0])).tolist()
    [[1.0, -4.0, 1.0]]
    """
    theta = penalties[:, None]
    changed = torch.where(logits > 0, logits / theta, logits * theta)
    return torch.where(occurred, changed, logits)


def draw(logits: Tensor, samplings: Sequence[Sampling], uniforms: Tensor) -> Tensor:
    """One token per row from its nucleus (Holtzman et al. 2020, §3.1).

    The nucleus is the shortest list of most probable tokens whose mass reaches top_p; the token
    is drawn from it by inverting the cumulative mass at a uniform number, so that a row uses one
    random number per token whatever the other rows do.

    Args:
        logits: (rows, vocabulary), penalised.
        samplings: per row.
        uniforms: (rows,) numbers in [0, 1).

    Returns:
        (rows,) token ids.

    >>> rule = Sampling(temperature=1.0, top_p=0.7)
    >>> shares = torch.tensor([[0.2, 0.5, 0.3]] * 3).log()
    >>> draw(shares, [rule] * 3, torch.tensor([0.0, 0.62, 0.63])).tolist()
    [1, 1, 2]
    """
    chosen = logits.argmax(-1)
    warm = [k for k, sampling in enumerate(samplings) if sampling.temperature > 0]
    if not warm:
        return chosen
    rows = torch.tensor(warm, device=logits.device)
    device = logits.device
    heat = torch.tensor([samplings[k].temperature for k in warm], device=device)[:, None]
    mass = torch.tensor([samplings[k].top_p for k in warm], device=device, dtype=torch.float64)
    scaled = logits[rows].float()
    scaled = (scaled - scaled.amax(-1, keepdim=True)) / heat
    log_total = scaled.logsumexp(-1, keepdim=True)
    uniforms = uniforms.to(device=device, dtype=torch.float64)[rows]
    vocabulary = logits.shape[1]
    left = torch.arange(len(warm), device=device)
    for width in (*(w for w in _WIDTHS if w < vocabulary), vocabulary):
        part = scaled[left]
        if width < vocabulary:
            top, ids = part.topk(width)
        else:
            top, ids = part.sort(dim=-1, descending=True, stable=True)
        shares = (top - log_total[left]).double().exp()
        tokens = ids.gather(-1, _places(shares, mass[left], uniforms[left])[:, None])[:, 0]
        enough = shares.sum(-1) >= mass[left] if width < vocabulary else left >= 0
        chosen[rows[left[enough]]] = tokens[enough]
        left = left[~enough]
        if not len(left):
            break
    return chosen


def _places(shares: Tensor, mass: Tensor, uniforms: Tensor) -> Tensor:
    """(rows,) places in the descending (rows, width) shares at which the uniforms fall."""
    after = shares.cumsum(-1)
    inside = (after - shares) < mass[:, None]
    target = uniforms * (shares * inside).sum(-1)
    place = (after <= target[:, None]).sum(-1)
    return torch.minimum(place, inside.sum(-1) - 1)
