"""Real but tiny decoders and tokenizers, built in code: one per architecture, seconds to run.

Weights are random and larger than usual, norms and biases are random too, so that a wrong
position, mask, scale or layer shows in the states.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
WINDOW = 8
LAYERS = 4
WIDTH = 32

#: name → (config class, settings beside the common ones)
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("LlamaConfig", {}),
    "gemma2": (
        "Gemma2Config",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 2.0,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 16,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention", "sliding_attention"],
        },
    ),
    "qwen2": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW}),
    "phi3": ("Phi3Config", {"pad_token_id": 1}),
    "phi": ("PhiConfig", {"partial_rotary_factor": 0.5}),
}


def byte_tokenizer(*, chat: bool):
    """One token per UTF-8 byte, four special tokens; ChatML or no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: k for k, letter in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>",
        eos_token="<|im_end|>" if chat else "<|eos|>",
        pad_token="<|eos|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHATML if chat else None,
    )


def word_tokenizer(words: str, *, chat_template: str | None = CHATML):
    """One token per word or line break of `words`; others are unknown."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = dict.fromkeys([*SPECIAL, "<unk>", "\n", *words.split()])
    backend = Tokenizer(models.WordLevel({w: k for k, w in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split(Regex("\n"), "isolated"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=chat_template,
    )


def sentencepiece_tokenizer(words: str, *, chat_template: str | None = CHATML):
    """Like Llama 2's: a `▁` for every space and one before the text, special tokens apart."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [f"{mark}{word}" for word in words.split() for mark in ("", "▁")]
    names = dict.fromkeys([*SPECIAL, "<unk>", "\n", "▁", *pieces])
    backend = Tokenizer(models.WordLevel({w: k for k, w in enumerate(names)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Split(Regex("\n"), "isolated"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=chat_template,
    )


def tiny_config(family: str, **changes: object):
    """A config of four layers of width 32."""
    import transformers

    kind, own = FAMILIES[family]
    common: dict[str, object] = {
        "vocab_size": 260,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": family.startswith("gemma"),
    }
    return getattr(transformers, kind)(**(common | own | changes))


def save_tiny(folder: Path, family: str, *, seed: int = 0, chat: bool = True, **changes: object):
    """Write a tiny model and its tokenizer as safetensors; returns the folder."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, **changes))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name or name.endswith("bias"):
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    byte_tokenizer(chat=chat).save_pretrained(folder)
    return folder


@cache
def plain_model(folder: Path, *, attention: str = "eager"):
    """The same folder through plain transformers, as the reference."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32
    )
    return model.eval()


def plain_states(model, ids: list[int]):
    """(layers + 1, tokens, hidden): raw states before the first and after every layer."""
    import torch

    decoder = model.get_decoder()
    found = []
    hooks = [decoder.layers[0].register_forward_pre_hook(_before(found), with_kwargs=True)]
    hooks += [layer.register_forward_hook(_after(found)) for layer in decoder.layers]
    try:
        decoder(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)


def _before(found: list):
    def hook(_, args, kwargs):
        found.append((args[0] if args else kwargs["hidden_states"])[0])

    return hook


def _after(found: list):
    def hook(_, __, output):
        found.append((output if not isinstance(output, tuple) else output[0])[0])

    return hook
