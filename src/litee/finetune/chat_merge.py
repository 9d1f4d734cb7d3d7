"""Puts an adapter's weights into its base model: one folder that any program loads.

Knows nothing of how the adapter was tuned.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from litee.errors import ModelError
from litee.finetune.backbones import find_backbone, quiet
from litee.finetune.chat_model import known_warnings, load_causal
from litee.rundir import write_error

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapter_folder(path: Path) -> Path:
    """The folder that holds the adapter: the path itself, or `adapter/` of a tuning run.

    Raises:
        ModelError: neither has one.
    """
    for folder in (path, path / "adapter"):
        if all((folder / name).is_file() for name in (_CONFIG, _WEIGHTS)):
            return folder
    raise ModelError(
        f"no adapter here ({_CONFIG} and {_WEIGHTS} are missing)",
        place=str(path),
        fix="name a folder made by `litee tune`; an unfinished run goes on with --resume",
    )


def merge(path: Path, out: Path, *, backbone: str | None = None) -> Path:
    """Write the base model with the adapter's weights added, as safetensors, with tokenizer.

    Args:
        path: an adapter's folder or a tuning run.
        out: folder to make; it appears only when it is complete.
        backbone: the base model; None takes the one the adapter names.

    Raises:
        ModelError: no adapter, no base model, they do not fit, or `out` exists.
        ResourceError: the disk is full.
    """
    if out.exists() and any(out.iterdir()):
        raise ModelError("the folder is not empty", place=str(out), fix="choose a new --out folder")
    folder = adapter_folder(path)
    model = load_adapted(folder, backbone=backbone)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with known_warnings():
        whole = cast(PreTrainedModel, model.merge_and_unload())
    stop = tokenizer.eos_token_id
    whole.config.get_text_config().eos_token_id = stop
    if whole.generation_config is not None:
        whole.generation_config.eos_token_id = stop
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with quiet():
            whole.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
    except OSError as error:
        raise write_error(error, out) from error
    if out.exists():
        out.rmdir()
    scratch.replace(out)
    return out


def load_adapted(
    folder: Path, *, backbone: str | None = None, dtype: torch.dtype = torch.float32
) -> PeftModel:
    """The base model with the adapter on, in evaluation mode.

    Raises:
        ModelError: the files are damaged or do not fit the base model.
    """
    try:
        named = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        base, _ = load_causal(
            find_backbone(backbone or str(named["base_model_name_or_path"])), dtype=dtype
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        rows = cast(nn.Embedding, base.get_input_embeddings()).num_embeddings
        with known_warnings(), quiet():
            if len(tokenizer) > rows:  # a token was added beyond the rows of the base
                base.resize_token_embeddings(len(tokenizer))
            return PeftModel.from_pretrained(base, str(folder)).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        problem = f"cannot read the adapter: {str(error).partition(chr(10))[0]}"
        raise ModelError(problem, place=str(folder), fix="check the folder") from error
