"""Decoders with random weights and trees of random tokens, for `benchmarks.gpu`.

Speed does not depend on what the weights are. Knows nothing of clocks.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import transformers
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from litee.encode.forest import EncodedPair, Forest, grow

#: name → (config class, settings); the widths and depths of models that people use, with a
#: vocabulary of 32,000, so that the embedding does not take the memory that layers need.
SHAPES: Mapping[str, tuple[str, dict[str, object]]] = {
    "llama-1b": (
        "LlamaConfig",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
    "gemma-2-2b": (
        "Gemma2Config",
        {
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
    ),
    "qwen2-1.5b": (
        "Qwen2Config",
        {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
        },
    ),
}

_TINY: Mapping[str, object] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is run.

    Attributes:
        prompts: distinct prompts.
        prompt: tokens of a prompt.
        answer: most tokens of an answer; the shortest have half of them.
        answers: per prompt; every two of them are a pair.
        pack: tokens per pass of the engine.
        batch: padded tokens per pass of the plain loop.
        repeats: timed rounds.
    """

    prompts: int
    prompt: int
    answer: int
    answers: int
    pack: int
    batch: int
    repeats: int


FULL = Sizes(prompts=64, prompt=200, answer=600, answers=4, pack=16384, batch=16384, repeats=5)
SMALL = Sizes(prompts=3, prompt=6, answer=10, answers=3, pack=64, batch=128, repeats=3)


def config_of(shape: str, *, tiny: bool) -> PreTrainedConfig:
    """The configuration of a shape, or of the same family in tiny."""
    kind, given = SHAPES[shape]
    values = {"vocab_size": 32_000, **given, "pad_token_id": 0}
    if tiny:
        values |= _TINY
        values |= {"head_dim": 16} if "head_dim" in given else {}
    config: PreTrainedConfig = getattr(transformers, kind)(**values)
    return config


def decoder_of(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A frozen decoder with random weights, on the CPU."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder: PreTrainedModel = AutoModel.from_config(config, dtype=dtype).eval()
    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
    return decoder


def layer_weights(decoder: nn.Module) -> int:
    """N: weights of the linear parts of all layers; embeddings do no matrix products."""
    linear = (part for part in decoder.modules() if isinstance(part, nn.Linear))
    return sum(part.in_features * part.out_features for part in linear)


def random_forest(sizes: Sizes, vocabulary: int) -> Forest:
    """Trees of random tokens: every two answers to a prompt are a pair."""
    rng = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocabulary) for _ in range(count))

    pairs = []
    for _ in range(sizes.prompts):
        prompt = ids(sizes.prompt)
        half = sizes.answer // 2
        answers = [ids(half + rng.randrange(half + 1)) for _ in range(sizes.answers)]
        for number, left in enumerate(answers):
            for right in answers[number + 1 :]:
                pairs.append(EncodedPair(prompt, left, right, (0, 0, 0)))
    return grow(pairs)


def sequences(forest: Forest) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What a plain loop runs: prompt and answer, A and B of every pair, one after the other."""
    found = []
    for left, right in zip(forest.left.tolist(), forest.right.tolist(), strict=True):
        pair = []
        for leaf in (left, right):
            prefix, ids = forest.leaves[leaf]
            pair.append(tuple([*forest.prefixes[prefix], *ids]))
        found.append((pair[0], pair[1]))
    return found
