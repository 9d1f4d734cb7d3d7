"""Frozen weights in 4 bits (NF4, QLoRA, arXiv 2305.14314, section 3) through bitsandbytes.

The linear parts of all layers are kept in 4 bits and multiplied in the states' data type; norms
and embeddings stay as they are. LoRA layers put their adapters over such parts, as PEFT does for
QLoRA. Knows nothing of adapters and votes.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

from torch import nn

from litee.errors import ModelError

#: Weights with a common scale. bitsandbytes reads them wrongly on a CPU when a row is not made of
#: whole blocks (0.50.2), so such parts are left as they are, on every device.
BLOCK = 64


def use_nf4(decoder: nn.Module) -> None:
    """Keep the linear parts of a decoder's layers in 4 bits, quantised when they reach a device.

    Args:
        decoder: with its list of `layers`, on the CPU; `to` quantises, on a CPU or a GPU.

    Raises:
        ModelError: bitsandbytes is missing, or the layers have no part to take.
    """
    library: Any = _bitsandbytes()
    taken = 0
    for path, part in list(decoder.get_submodule("layers").named_modules()):
        if isinstance(part, nn.Linear) and part.in_features % BLOCK == 0:
            taken += 1
            parent, _, name = path.rpartition(".")
            small = library.nn.Linear4bit(
                part.in_features,
                part.out_features,
                bias=part.bias is not None,
                compute_dtype=part.weight.dtype,
                compress_statistics=True,  # double quantisation, section 3 of the paper
                quant_type="nf4",
                device="meta",
            )
            small.weight = library.nn.Params4bit(
                part.weight.detach(),
                requires_grad=False,
                compress_statistics=True,
                quant_type="nf4",
                blocksize=BLOCK,
                module=small,
            )
            small.bias = part.bias
            setattr(decoder.get_submodule("layers").get_submodule(parent), name, small)
    if not taken:
        raise ModelError(
            f"no layer reads a multiple of {BLOCK} numbers, as 4-bit weights (nf4) have to",
            fix="use another --dtype",
        )
    decoder.is_loaded_in_4bit = True  # type: ignore[assignment]  # what PEFT looks at


def _bitsandbytes() -> ModuleType:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "4-bit weights (nf4) need bitsandbytes, which is missing",
            fix='pip install "lora-litee[cuda]", or use another --dtype',
        )
    return importlib.import_module("bitsandbytes")
