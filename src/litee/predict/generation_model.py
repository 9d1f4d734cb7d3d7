"""A chat model with any number of PEFT adapters, one of which is switched on per batch.

Every adapter speaks with its own tokenizer, template and end-of-turn token where its folder
brings them. Knows nothing of sampling and batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTuner
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from litee.encode.dialogues import DialogueEncoder
from litee.encode.templates import Template
from litee.errors import InputError, ModelError
from litee.finetune.backbones import BackboneFolder, find_backbone, quiet
from litee.finetune.chat_model import known_warnings, load_causal
from litee.finetune.device import use_threads
from litee.predict.generation_cache import RowCache
from litee.predict.generation_settings import ModelSettings
from litee.records import Message
from litee.rundir import sha256_file

#: The name of the model without an adapter.
BASE = ""


@dataclass(frozen=True, slots=True)
class Voice:
    """How the model speaks with one adapter, or without.

    Attributes:
        name: of the adapter, `BASE` without.
        tokenizer: decodes its tokens.
        dialogues: encodes its dialogues.
        ends: ids of tokens that end a turn.
        vocabulary: number of token ids that it may write.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    dialogues: DialogueEncoder
    ends: frozenset[int]
    vocabulary: int

    def decode(self, ids: list[int]) -> str:
        """Text of tokens, special ones left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


class GenerationModel:
    """A loaded model.

    Args:
        settings: which model, where and in which data type.
        adapters: name → folder of a PEFT adapter.

    Attributes:
        folder: where the weights came from.
        layers: number of decoder layers.
        max_positions: longest sequence.

    Raises:
        ModelError: the model or an adapter is missing, unsafe, damaged or does not fit.
    """

    def __init__(self, settings: ModelSettings, adapters: Mapping[str, Path] | None = None) -> None:
        use_threads(settings.threads)
        self.folder: BackboneFolder = find_backbone(settings.backbone)
        self.device = _device(settings.device)
        model, tokenizer = load_causal(self.folder, dtype=_dtype(settings.dtype, self.device))
        text = model.config.get_text_config(decoder=True)
        self.layers: int = text.num_hidden_layers
        self.max_positions: int = getattr(text, "max_position_embeddings", None) or 1 << 20
        rows = _rows(model)
        self.voices = {BASE: _voice(BASE, tokenizer, settings, _ends(model, tokenizer), rows)}
        self._template = settings
        self._model: PreTrainedModel | PeftModel = model.to(self.device).eval()  # type: ignore[arg-type]
        self._peft: PeftModel | None = None
        _read_whole_rows(model)
        self._own_rows = rows
        self._speaker = BASE
        for name, path in (adapters or {}).items():
            self.add_adapter(name, path)

    def add_adapter(self, name: str, path: Path) -> None:
        """Load an adapter beside the others.

        Raises:
            ModelError: no adapter in the folder, not safetensors, or made for another model.
        """
        _check_adapter(path)
        tokenizer = self.voices[BASE].tokenizer
        if (path / "tokenizer_config.json").exists():
            tokenizer = _load_tokenizer(path)
        plain = self._plain
        if len(tokenizer) > _rows(plain):
            if self._peft is not None:
                raise ModelError(
                    "adds tokens to the vocabulary, and other adapters are loaded already",
                    place=str(path),
                    fix="name this adapter first",
                )
            with torch.random.fork_rng(), quiet():
                plain.resize_token_embeddings(len(tokenizer))
        try:
            with quiet(), known_warnings():
                if self._peft is None:
                    self._peft = PeftModel.from_pretrained(plain, str(path), adapter_name=name)
                else:
                    self._peft.load_adapter(str(path), adapter_name=name)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            fix = f"use an adapter that was trained on {self.folder.name}"
            reason = str(error).splitlines()[0]
            raise ModelError(f"cannot load: {reason}", place=str(path), fix=fix) from error
        self._model = self._peft.eval()
        _read_whole_rows(plain)  # the adapter may have put its own module before the output layer
        cast(BaseTuner, self._peft.base_model).disable_adapter_layers()
        self._speaker = BASE
        ends = self.voices[BASE].ends | _ends(plain, tokenizer)
        vocabulary = max(len(tokenizer), self._own_rows)
        self.voices[name] = _voice(name, tokenizer, self._template, ends, vocabulary)

    def settle(self, name: str) -> None:
        """Add an adapter's weights to the model's own and forget all other voices.

        Answers come faster then: a trained token's row costs a copy of the whole embedding in
        every pass otherwise. In half precision only such rows are put in their place, since adding
        the other weights would round the adapter. The answers stay the same.
        """
        if self._peft is None:
            return
        self.voices = {name: self.voices[name]}
        if self._model.dtype != torch.float32:
            for module in self._peft.modules():
                if isinstance(module, TrainableTokensLayer):
                    module.merge(adapter_names=[name])
            return
        with known_warnings():
            merged = cast(nn.Module, self._peft.merge_and_unload(adapter_names=[name]))
        self._model = cast(PreTrainedModel, merged.eval())
        self._peft = None
        self._speaker = name

    @property
    def _plain(self) -> PreTrainedModel:
        if self._peft is not None:
            return cast(PreTrainedModel, self._peft.get_base_model())
        return cast(PreTrainedModel, self._model)

    def voice(self, name: str) -> Voice:
        """The adapter of that name.

        Raises:
            InputError: there is none.
        """
        if name not in self.voices:
            known = ", ".join(sorted(n for n in self.voices if n)) or "none"
            raise InputError(f"no adapter named {name!r}", fix=f"adapters: {known}")
        return self.voices[name]

    def encode(self, messages: Sequence[Message], adapter: str = BASE) -> list[int]:
        """Ids of a dialogue up to the next answer.

        Raises:
            InputError: the dialogue asks nothing, or leaves no room for an answer.
        """
        ids = self.voice(adapter).dialogues.encode(messages)
        if len(ids) >= self.max_positions:
            raise InputError(
                f"the prompt has {len(ids):,} tokens, the model takes {self.max_positions:,} with "
                "the answer",
                fix="shorten the prompt or leave out earlier turns",
            )
        return ids

    @contextmanager
    def speaking(self, adapter: str) -> Iterator[None]:
        """Switch an adapter on (or all off) for the block; no gradients."""
        if self._peft is not None and adapter != self._speaker:
            layers = cast(BaseTuner, self._peft.base_model)
            if adapter == BASE:
                layers.disable_adapter_layers()
            else:
                layers.enable_adapter_layers()
                self._peft.set_adapter(adapter)
            self._speaker = adapter
        with torch.inference_mode():
            yield

    def logits(self, ids: Tensor, mask: Tensor, cache: RowCache) -> Tensor:
        """Logits after the last token of every row; the tokens' states go into the cache.

        Args:
            ids: (rows, new tokens).
            mask: (rows, new tokens) 0 for filling at the left.
            cache: of the earlier tokens.

        Returns:
            (rows, vocabulary) float32.
        """
        positions = cache.extend(mask.to(self.device))
        output = self._model(
            input_ids=ids.to(self.device),
            attention_mask=cache.mask,
            position_ids=positions,
            past_key_values=cache.states,
            use_cache=True,
            logits_to_keep=1,
        )
        return cast(Tensor, output.logits[:, -1].float())


def _read_whole_rows(model: PreTrainedModel) -> None:
    """Let the output layer read the last states as a tensor of their own, not as a view.

    Given a view of several rows and weights that are not trained, which is what an adapter leaves,
    torch copies the weights once per row: 0.3 GB each for a vocabulary of 262,144.
    """
    head = cast(nn.Module | None, model.get_output_embeddings())  # type: ignore[no-untyped-call]
    if head is not None and _contiguous not in head._forward_pre_hooks.values():
        head.register_forward_pre_hook(_contiguous)


def _contiguous(_: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return states[0].contiguous(), *states[1:]


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("device = 'cuda', and torch finds none", fix="use --device cpu or auto")
    return name


def _dtype(name: str, device: str) -> torch.dtype:
    wide = name == "float32" or (name == "auto" and device == "cpu")
    return torch.float32 if wide else torch.bfloat16


def _rows(model: PreTrainedModel) -> int:
    return int(cast(torch.nn.Embedding, model.get_input_embeddings()).num_embeddings)


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The end-of-turn tokens that tokenizer, configuration and generation settings name."""
    found: set[int] = set()
    named = [
        tokenizer.eos_token_id,
        model.config.get_text_config(decoder=True).eos_token_id,
        None if model.generation_config is None else model.generation_config.eos_token_id,
    ]
    for value in named:
        found |= set(value) if isinstance(value, list) else set() if value is None else {value}
    return frozenset(found)


def _voice(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: ModelSettings,
    ends: frozenset[int],
    vocabulary: int,
) -> Voice:
    dialogues = DialogueEncoder(Template(tokenizer, settings.template))
    return Voice(name, tokenizer, dialogues, ends, vocabulary)


def _check_adapter(path: Path) -> None:
    config = path / "adapter_config.json"
    fix = "name a folder with adapter_config.json and adapter_model.safetensors"
    if not config.is_file():
        raise ModelError("no adapter_config.json in the folder", place=str(path), fix=fix)
    if not (path / "adapter_model.safetensors").is_file():
        pickled = (path / "adapter_model.bin").exists()
        problem = "only pickled weights: loading them can run any code" if pickled else "no weights"
        raise ModelError(problem, place=str(path), fix=fix)
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"damaged: {error}", place=str(config), fix=fix) from error


def adapter_sha256(path: Path) -> str:
    """Hex SHA-256 of an adapter's weights."""
    _check_adapter(path)
    return sha256_file(path / "adapter_model.safetensors")


def _load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    try:
        with quiet():
            return cast(
                PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(path, local_files_only=True)
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        fix = "save the tokenizer anew, or remove its files from the folder"
        raise ModelError(f"cannot load the tokenizer: {error}", place=str(path), fix=fix) from error
