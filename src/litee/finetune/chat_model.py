"""Loads a causal language model for tuning: data type, quantisation, LoRA, end-of-turn token.

Knows nothing of demonstrations, votes and trainers.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from litee.errors import ConfigError, ModelError
from litee.finetune.backbones import BackboneFolder, find_backbone, quiet
from litee.finetune.chat_data import LIMA_TEMPLATE
from litee.finetune.chat_settings import ChatSettings

#: Tokens that vocabularies hold for ends of turns, or in reserve, although a base model has never
#: seen them: taking one needs no larger embedding, so the adapter fits the model as it is.
_IN_RESERVE = (
    "<end_of_turn>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<unused0>",
    "<|reserved_special_token_0|>",
)
ADDED_EOT = "<|eot|>"


@dataclass(frozen=True, slots=True)
class EndOfTurn:
    """The token that ends an utterance.

    Attributes:
        token: its text.
        id: its number.
        origin: from the chat template, in reserve in the vocabulary, or added to it.
    """

    token: str
    id: int
    origin: Literal["template", "reserve", "added"]


@dataclass(frozen=True, slots=True)
class ChatModel:
    """A model that is ready to be tuned.

    Attributes:
        model: the causal language model; a PeftModel unless all weights are trained.
        tokenizer: with a chat template and the end-of-turn token as its eos token.
        folder: where the weights came from.
        eot: the end-of-turn token.
        device: `cpu` or `cuda`.
        dtype: of the weights.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    folder: BackboneFolder
    eot: EndOfTurn
    device: str
    dtype: torch.dtype

    @property
    def plain(self) -> PreTrainedModel:
        """The transformers model, adapters inside when there are any."""
        if isinstance(self.model, PeftModel):
            return cast(PreTrainedModel, self.model.get_base_model())
        return self.model


def load_chat_model(
    settings: ChatSettings, *, eot: str | None = None, adapt: bool = True
) -> ChatModel:
    """Load the backbone and make it trainable the way `settings.method` says.

    Args:
        settings: backbone, method, rank, data type, seed.
        eot: `auto` or a token to end turns with; None leaves a chat model as it is and refuses
            a model without a chat template.
        adapt: put LoRA on; False leaves that to a trainer, which is given `lora_config`.

    Raises:
        ConfigError: qlora without CUDA or bitsandbytes.
        ModelError: the backbone cannot be loaded, or has no chat template and `eot` is None.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quantisation = _quantisation(settings, device)
    dtype = _dtype(settings, device)
    folder = find_backbone(settings.backbone)
    model, tokenizer = load_causal(folder, dtype=dtype, quantisation=quantisation)
    if quantisation is None:
        model = model.to(device)  # type: ignore[arg-type]
    end = _end_of_turn(model, tokenizer, eot, settings.backbone)
    _say_where_turns_end(model, tokenizer, end)
    if settings.method == "full" or not adapt:
        return ChatModel(model, tokenizer, folder, end, device, dtype)
    adapted = add_lora(model, settings, rows=[] if end.origin == "template" else [end.id])
    return ChatModel(adapted, tokenizer, folder, end, device, dtype)


def load_causal(
    folder: BackboneFolder,
    *,
    dtype: torch.dtype = torch.float32,
    quantisation: BitsAndBytesConfig | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The whole model with its language-model head, and its tokenizer.

    Raises:
        ModelError: the folder cannot be read.
    """
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                folder.path,
                dtype=dtype,
                quantization_config=quantisation,
                use_safetensors=True,
                local_files_only=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        fix = "check the folder with `litee doctor`"
        raise ModelError(f"cannot load: {error}", place=folder.name, fix=fix) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def lora_config(settings: ChatSettings) -> LoraConfig | None:
    """LoRA on all linear layers but the head; None when all weights are trained."""
    if settings.method == "full":
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
    )


def add_lora(
    model: PreTrainedModel, settings: ChatSettings, *, rows: list[int] | None = None
) -> PeftModel:
    """LoRA on all linear layers but the head, and single rows of the embeddings made trainable.

    A row is trained in the input and, where they are apart, in the output embedding.
    """
    indices: dict[str, list[int]] | None = None
    if rows:
        names = [_name_of(model, model.get_input_embeddings())]
        if not model.config.get_text_config().tie_word_embeddings:
            names.append(_name_of(model, _head(model)))
        indices = {name: list(rows) for name in names}
    config = lora_config(settings)
    assert config is not None
    config.trainable_token_indices = indices
    with torch.random.fork_rng(), known_warnings():
        torch.manual_seed(settings.seed)
        adapted = get_peft_model(model, config)
    head = _head(model)
    if rows and not hasattr(head, "bias"):  # TRL asks the wrapped head for its bias
        head.register_parameter("bias", None)
    return cast(PeftModel, adapted)


@contextmanager
def known_warnings() -> Iterator[None]:
    """Hide what PEFT and TRL say of each other and transformers; users cannot mend it."""
    with warnings.catch_warnings():
        for renamed in ("is_gradient_checkpointing", "gradient_checkpointing"):
            warnings.filterwarnings("ignore", f".*`{renamed}` is deprecated", FutureWarning)
        # checkpoints of a model with an added token hold its whole embedding, exports do not
        warnings.filterwarnings("ignore", "Setting `save_embedding_layers` to `True`", UserWarning)
        yield


def _quantisation(settings: ChatSettings, device: str) -> BitsAndBytesConfig | None:
    """NF4 with double quantisation, as QLoRA has it (arXiv 2305.14314, sections 3 and 4)."""
    if settings.method != "qlora":
        return None
    if device != "cuda":
        raise ConfigError(
            "method = 'qlora' needs a CUDA GPU, and torch finds none",
            fix="use --method lora; on a CPU 4-bit weights save memory but no time",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "method = 'qlora' needs bitsandbytes, which is missing", fix="pip install bitsandbytes"
        )
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _dtype(settings: ChatSettings, device: str) -> torch.dtype:
    if settings.dtype == "auto":
        # steps of full tuning are smaller than bfloat16 can tell; autocast gives its speed
        small = device == "cuda" and settings.method != "full"
        return torch.bfloat16 if small else torch.float32
    return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32


def _end_of_turn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    wanted: str | None,
    place: str,
) -> EndOfTurn:
    if tokenizer.chat_template and wanted in (None, "auto"):
        token = _template_end(tokenizer, place)
        return EndOfTurn(token, cast(int, tokenizer.convert_tokens_to_ids(token)), "template")
    if wanted is None:
        raise ModelError(
            "the model has no chat template",
            place=place,
            fix="tune it with `litee tune sft` and merge it with `litee tune merge` first",
        )
    vocabulary = tokenizer.get_vocab()
    names = _IN_RESERVE if wanted == "auto" else (wanted,)
    known = [name for name in names if name in vocabulary and name != tokenizer.eos_token]
    token = known[0] if known else ADDED_EOT if wanted == "auto" else wanted
    if not known:
        _add_token(model, tokenizer, token)
    if not known or wanted == "auto":  # a token that was asked for by name keeps what it means
        _start_row(model, tokenizer, token)
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    bos = tokenizer.bos_token or ""
    template = LIMA_TEMPLATE.replace("{BOS}", bos).replace("{EOT}", token)
    tokenizer.chat_template = template
    number = cast(int, tokenizer.convert_tokens_to_ids(token))
    return EndOfTurn(token, number, "reserve" if known else "added")


def _template_end(tokenizer: PreTrainedTokenizerBase, place: str) -> str:
    """The first special token that the chat template writes after an answer."""
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\ue000"}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    rest = text.rpartition("\ue000")[2]
    names = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    names |= set(tokenizer.all_special_tokens)
    found = sorted((rest.find(name), str(name)) for name in names if name and name in rest)
    if not found:
        raise ModelError(
            "the chat template puts no special token after an answer",
            place=place,
            fix="name one with --eot",
        )
    return str(found[0][1])


def _add_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Give the token a row of its own."""
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if len(tokenizer) > rows:
        with torch.random.fork_rng(), quiet():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def _start_row(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Let the token start as the mean of what ends a text and what ends a line.

    A row that the model has never used costs far more than all other tokens at first
    (Gemma-3-270M: 38 nats instead of 4), and a short tuning never makes up for it.
    """
    line = tokenizer("\n", add_special_tokens=False).input_ids[-1:]
    known = [row for row in (tokenizer.eos_token_id, *line) if row is not None]
    if not known:
        return
    own = cast(int, tokenizer.convert_tokens_to_ids(token))
    tables = {id(t.weight): t.weight for t in (model.get_input_embeddings(), _head(model))}
    with torch.no_grad():
        for weight in cast(list[Tensor], list(tables.values())):
            weight[own] = weight[known].float().mean(0).to(weight.dtype)


def _say_where_turns_end(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end: EndOfTurn
) -> None:
    """Make the end of turn the token at which generation stops."""
    tokenizer.eos_token = end.token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = end.token
    model.config.get_text_config().eos_token_id = end.id
    generation = model.generation_config
    if generation is not None:
        old = generation.eos_token_id
        others = [] if old is None else old if isinstance(old, list) else [old]
        generation.eos_token_id = [end.id, *(k for k in others if k != end.id)]


def _head(model: PreTrainedModel) -> nn.Module:
    return cast(nn.Module, model.get_output_embeddings())  # type: ignore[no-untyped-call]


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    names = (name for name, part in model.named_modules() if part is wanted)
    return str(next(names)).rsplit(".", 1)[-1]


def base_name(folder: BackboneFolder) -> str:
    """What an adapter's config names as its base: the hub name, or the folder."""
    on_hub = folder.name.count("/") == 1 and not Path(folder.name).exists()
    return folder.name if on_hub else str(folder.path.resolve())
