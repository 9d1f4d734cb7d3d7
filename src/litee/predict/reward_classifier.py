"""Builds a sequence classifier that gives a judge member's rewards, out of decoder and head.

A member reads the raw residual stream x after the exit depth, standardises it and multiplies it
by a vector: v·x + K. A sequence classifier reads the stream after a final RMS norm and has no
bias. The two are made equal (derived here) by coordinates added to the stream, which stay zero
until one more layer without weights puts a constant C into the first of them: the norm then
divides by √((C² + |x|²)/h′), which is C/√h′ up to a factor 1 − |x|²/2C², so that a norm weight of
C/√h′ undoes it, and K/C times the constant is the missing bias. The norms below keep their sums
over the old coordinates by weights and ε that are scaled with the width.
Knows nothing of judges on disk.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from litee.errors import ModelError
from litee.finetune.backbones import quiet
from litee.finetune.heads import RewardHead

#: Coordinates added to the stream: as many as keep its width good for GPUs.
ADDED = 64

#: C over the size of the stream: |x|²/2C² is then 5e-11.
_LARGE = 1e5

_READS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_WRITES = ("o_proj", "down_proj")


def build_classifier(
    decoder: PreTrainedModel, head: RewardHead, *, size: float, pad_token: int, positions: int
) -> PreTrainedModel:
    """A model of one logit: the head's reward of the state after the decoder's last layer.

    Args:
        decoder: the layers up to the exit depth, in float32.
        head: reads the last state.
        size: typical |x| of the states that the head reads.
        pad_token: id of the token that pads; the last other token is read.
        positions: longest sequence.

    Raises:
        ModelError: the architecture has no biases to put the constant in.
    """
    config = _config(decoder, pad_token, positions)
    with torch.random.fork_rng(), quiet():
        model = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32
        )
    shrink = (decoder.config.hidden_size / config.hidden_size) ** 0.5
    from_one = _counts_from_one(cast(nn.Module, decoder.norm))
    state = widened(decoder.state_dict(), ADDED, shrink, from_one=from_one)
    if config.model_type.startswith("gemma"):  # it multiplies embeddings by the root of the width
        state["embed_tokens.weight"] *= shrink
    missing, unknown = model.model.load_state_dict(state, strict=False)
    new = f"layers.{config.num_hidden_layers - 1}."
    if unknown or any(not k.startswith(new) and not k.endswith("bias") for k in missing):
        raise _refuse(config.model_type)
    constant = _LARGE * size
    width, place = config.hidden_size, decoder.config.hidden_size
    weight = head.scale.double() * head.reward_weight.detach().double()
    bias = -float(head.mean.double() @ weight)
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if name in missing:
                parameter.zero_()
        added = torch.zeros(width)
        added[place] = constant
        _set_constant(model.model.layers[-1], added, config.model_type, from_one=from_one)
        _set_norm(model.model.norm, constant / width**0.5, from_one=from_one)
        model.score.weight.zero_()
        model.score.weight[0, :place] = weight.float()
        model.score.weight[0, place] = bias / constant
    return cast(PreTrainedModel, model.eval())


def widened(
    state: Mapping[str, Tensor], added: int, shrink: float, *, from_one: bool
) -> dict[str, Tensor]:
    """Weights of the same decoder over a stream with `added` more coordinates, which stay zero.

    Args:
        state: name → weight.
        added: number of coordinates.
        shrink: what norm weights are multiplied by: the root of old width over new.
        from_one: norms multiply by 1 + weight.
    """
    found = {}
    for name, weight in state.items():
        part = name.rsplit(".", 2)[-2]
        if part == "embed_tokens" or (part in _READS and name.endswith("weight")):
            found[name] = nn.functional.pad(weight, (0, added))
        elif part in _WRITES:
            empty = (0, 0, 0, added) if weight.dim() == 2 else (0, added)
            found[name] = nn.functional.pad(weight, empty)
        elif part.endswith("norm") and part not in ("q_norm", "k_norm"):
            scaled = (weight + 1) * shrink - 1 if from_one else weight * shrink
            found[name] = nn.functional.pad(scaled, (0, added))
        else:
            found[name] = weight.clone()
    return found


def _config(decoder: PreTrainedModel, pad_token: int, positions: int) -> PretrainedConfig:
    config = copy.deepcopy(decoder.config)
    if config.model_type == "mistral" and (config.sliding_window or positions) >= positions:
        config = _as_llama(config)
    heads = config.num_attention_heads
    config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    width = config.hidden_size
    config.hidden_size = width + ADDED
    config.rms_norm_eps = config.rms_norm_eps * width / config.hidden_size
    config.num_hidden_layers += 1
    if getattr(config, "layer_types", None):
        config.layer_types = [*config.layer_types, "full_attention"]
    if config.model_type != "qwen2":
        if not hasattr(config, "attention_bias"):
            raise _refuse(config.model_type)
        config.attention_bias = True
    config.num_labels = 1
    config.pad_token_id = pad_token
    config._name_or_path = ""
    config._attn_implementation = "eager"
    return config


def _as_llama(config: PretrainedConfig) -> LlamaConfig:
    """Mistral without its window is Llama, which can have biases."""
    kept = config.to_dict()
    for name in ("model_type", "sliding_window", "architectures", "layer_types"):
        kept.pop(name, None)
    return LlamaConfig(**kept)


def _refuse(kind: str) -> ModelError:
    return ModelError(
        f"a {kind} backbone has no biases to put the head's constant in",
        fix="export from a judge on a Llama-, Gemma-, Mistral- or Qwen-like backbone",
    )


def _set_constant(last: nn.Module, added: Tensor, kind: str, *, from_one: bool) -> None:
    """Make a layer of zeros add one vector and nothing else."""
    layer: Any = last
    if kind == "qwen2":  # no bias on the output, but values of one everywhere average to one
        layer.self_attn.v_proj.bias.fill_(1.0)
        layer.self_attn.o_proj.weight[:, 0] = added
    else:
        layer.self_attn.o_proj.bias.copy_(added)
    if hasattr(layer, "post_feedforward_layernorm"):  # Gemma norms what attention gives
        size = float(added.double().square().mean().sqrt())
        _set_norm(layer.post_attention_layernorm, size, from_one=from_one)


def _set_norm(norm: nn.Module, scale: float, *, from_one: bool) -> None:
    cast(Tensor, norm.weight).fill_(scale - from_one)


def _counts_from_one(norm: nn.Module) -> bool:
    """Whether a norm multiplies by 1 + weight (Gemma) and not by the weight."""
    probe = copy.deepcopy(norm)
    weight = cast(Tensor, probe.weight)
    with torch.no_grad():
        weight.zero_()
        return bool(probe(torch.ones(1, 1, len(weight))).abs().max() > 0)
