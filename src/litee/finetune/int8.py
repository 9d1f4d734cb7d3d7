"""Frozen layers with 8-bit products: weights kept in int8 per output, inputs rounded as they come.

Only the products that read a normalised state are taken (query, key, value, gate, up). Those that
read what attention and the gated unit give out (o, down) have a few very large inputs, which a
common scale rounds away: with them a probe on SmolLM2-135M lost 0.02 to 0.04 nats, without them
less than 0.003 (docs/engine.md). Knows nothing of which layers are frozen.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from litee.errors import ModelError

#: Linear parts of a layer whose inputs are normalised states, as decoders name them.
QUANTISED = ("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj")

_ENGINES = ("onednn", "x86", "fbgemm")


class Int8Linear(nn.Module):
    """y = W x with W in int8, one scale per row, and x in int8, one scale per call.

    Args:
        linear: whose weights are rounded: w ≈ s · round(w / s), s = max |w| / 127 of its row.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1) / 127).clamp_min(1e-12).double()
        zero = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch moves quantised tensors to another package
            rounded = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out), in the type of x; no gradients."""
        found: Tensor = torch.ops.quantized.linear_dynamic(x.float(), self._packed, False)
        return found.to(x.dtype)


def use_int8(layers: nn.ModuleList, count: int) -> None:
    """Replace the products of the lowest `count` layers that stand 8 bits.

    Raises:
        ModelError: this processor's torch has no 8-bit products, or the layers have none to take.
    """
    if not count:
        return
    engine = next((e for e in _ENGINES if e in torch.backends.quantized.supported_engines), None)
    if engine is None:
        raise ModelError("torch has no 8-bit products here", fix="use --dtype auto")
    torch.backends.quantized.engine = engine
    for layer in list(layers)[:count]:
        taken = 0
        for path, part in list(layer.named_modules()):
            parent, _, name = path.rpartition(".")
            if isinstance(part, nn.Linear) and name in QUANTISED:
                setattr(layer.get_submodule(parent), name, Int8Linear(part))
                taken += 1
        if not taken:
            raise ModelError(
                f"{type(layer).__name__} has none of {', '.join(QUANTISED)}", fix="use --dtype auto"
            )
