"""Builds the head of verdict members from a language model's output layer.

Knows nothing of votes and of how the states come about.
"""

from __future__ import annotations

import torch

from litee.encode.templates import Template
from litee.encode.verdicts import VERDICTS
from litee.errors import ModelError
from litee.finetune.backbones import Backbone
from litee.finetune.heads import VERDICT_FORMS, VerdictHead
from litee.predict.labels import OutputHead, label_starts

#: Largest difference between the head's logits and the model's own, relative to their size.
TOLERANCE = 0.05


@torch.no_grad()  # not inference mode: LoRA is trained through these tensors
def verdict_head(backbone: Backbone, template: Template) -> VerdictHead:
    """The output layer of a backbone at full depth, for the replies A, B and tie alone.

    Args:
        backbone: with all of its layers.
        template: whose tokenizer spells the replies.

    Raises:
        ModelError: no output weights, replies that cannot be told apart, or a final norm that is
            no RMSNorm.
    """
    output = OutputHead(backbone)
    trunk = backbone.trunk
    head = VerdictHead(trunk.hidden_size)
    ones = torch.ones(1, trunk.hidden_size, device=trunk.device, dtype=trunk.dtype)
    epsilon = float(getattr(output.norm, "variance_epsilon", getattr(output.norm, "eps", 0.0)))
    head.epsilon.fill_(epsilon)
    # of ones the mean square is 1, so that the norm shows its weight
    head.norm.copy_(output.norm(ones)[0].float().cpu() * (1 + epsilon) ** 0.5)
    head.cap.fill_(output.cap or 0.0)
    starts = label_starts(template, VERDICTS)
    for k, tokens in enumerate(starts):
        rows = torch.tensor(tokens[:VERDICT_FORMS], device=trunk.device)
        head.rows[k, : len(rows)] = output.weight[rows].float().cpu() * output.scale
        bias = 0.0 if output.bias is None else output.bias[rows].float().cpu() * output.scale
        head.bias[k, : len(rows)] = bias
    _check(head, output, backbone, starts)
    return head.eval()


def _check(
    head: VerdictHead, output: OutputHead, backbone: Backbone, starts: tuple[tuple[int, ...], ...]
) -> None:
    trunk = backbone.trunk
    drawn = torch.randn(4, trunk.hidden_size, generator=torch.Generator().manual_seed(0)) * 3 + 1
    states = drawn.to(device=trunk.device, dtype=trunk.dtype)
    whole = output.logits(states).cpu()
    own = torch.stack([whole[:, list(ids[:VERDICT_FORMS])].logsumexp(-1) for ids in starts], -1)
    found = head.replies(states.float().cpu())
    if float((found - own).abs().max()) > TOLERANCE * max(1.0, float(own.abs().max())):
        raise ModelError(
            "its final norm is no RMSNorm, which verdict members need",
            place=backbone.folder.name,
            fix="use probe and lora, or joint and joint-lora, as --members",
        )
