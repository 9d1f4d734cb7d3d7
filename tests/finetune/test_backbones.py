"""What may be loaded as a backbone, what is refused, and what its hash is over."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from litee.errors import ModelError
from litee.finetune import backbones
from litee.finetune.backbones import cache_folder, find_backbone, load_backbone
from litee.finetune.packaged import PACKAGED
from tiny_models import LAYERS, save_tiny


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny Llama that may be damaged."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


def refused(name, words=None):
    """The ModelError that finding or loading raises; it has a place or names the fix."""
    with pytest.raises(ModelError, match=words) as caught:
        load_backbone(find_backbone(str(name)))
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "weights.pkl", "x.ckpt"])
def test_pickled_weights_are_refused(copy, file):
    (copy / "model.safetensors").rename(copy / file)
    error = refused(copy, "pickled weights")
    assert file in error.problem
    assert error.place == str(copy)
    assert "safetensors" in error.fix


class Bomb:
    """Unpickling this creates a file: nothing must ever unpickle it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_pickles_beside_safetensors_are_never_opened(copy, tmp_path):
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        torch.save(Bomb(str(tmp_path / "boom")), copy / name)
    load_backbone(find_backbone(str(copy)))
    assert not (tmp_path / "boom").exists()


def test_folders_that_are_no_models(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no config.json")
    (copy / "model.safetensors").unlink()
    refused(copy, "no \\*.safetensors")


@pytest.mark.parametrize("name", ["no-such-backbone", "a/b/c", "/no/such/folder"])
def test_unknown_names(name):
    error = refused(name, "no backbone named")
    for known in PACKAGED:
        assert known in error.fix


def test_a_hub_name_without_a_network():
    error = refused("someone/some-model-that-is-not-here", "from the hub")
    assert "someone/some-model-that-is-not-here" in error.problem


def test_a_gguf_file_that_is_not_there(tmp_path):
    refused(tmp_path / "x.gguf", "no such GGUF")


@pytest.mark.parametrize(
    "damage",
    [
        "config is not JSON",
        "unknown architecture",
        "weights are cut",
        "weights are empty",
        "weights are of another model",
        "no tokenizer",
    ],
)
def test_damaged_folders_are_model_errors(copy, damage):
    config, weights = copy / "config.json", copy / "model.safetensors"
    if damage == "config is not JSON":
        config.write_text("{")
    elif damage == "unknown architecture":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "nonsense"}))
    elif damage == "weights are cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "weights are empty":
        weights.write_bytes(b"")
    elif damage == "weights are of another model":
        changed = json.loads(config.read_text()) | {"hidden_size": 64, "head_dim": 16}
        config.write_text(json.dumps(changed))
    else:
        for file in copy.glob("tokenizer*"):
            file.unlink()
    refused(copy)


def test_missing_tensors_are_refused(copy):
    """Random numbers in place of a layer's weights would be a judge of noise."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if "layers.1.mlp" not in k}
    assert len(kept) < len(tensors)
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy)


def test_an_architecture_that_cannot_be_cut_is_refused(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    from tiny_models import byte_tokenizer

    config = GPT2Config(vocab_size=260, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    byte_tokenizer(chat=False).save_pretrained(tmp_path / "gpt2")
    refused(tmp_path / "gpt2")


@pytest.mark.parametrize("depth", [0, -1, LAYERS + 1])
def test_a_depth_out_of_range(tiny, depth):
    with pytest.raises(ModelError, match=f"exit depth {depth} is not in 1 … {LAYERS}"):
        load_backbone(find_backbone(str(tiny("llama"))), depth=depth)


# hash


def test_the_hash_follows_the_content_not_the_place(copy, tiny):
    assert find_backbone(str(copy)).sha256 == find_backbone(str(tiny("llama"))).sha256
    assert len(find_backbone(str(copy)).sha256) == 64


def test_the_hash_changes_with_weights_and_config(copy, tmp_path):
    hashes = {find_backbone(str(copy)).sha256}
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    hashes.add(find_backbone(str(copy)).sha256)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    hashes.add(find_backbone(str(copy)).sha256)
    hashes.add(find_backbone(str(save_tiny(tmp_path / "other", "llama", seed=9))).sha256)
    assert len(hashes) == 4


def test_an_unchanged_folder_is_not_read_again(copy, monkeypatch):
    first = find_backbone(str(copy)).sha256

    def never(_):
        raise AssertionError("read again")

    monkeypatch.setattr(backbones, "sha256_file", never)
    assert find_backbone(str(copy)).sha256 == first
    stat = (copy / "config.json").stat()
    os.utime(copy / "config.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    with pytest.raises(AssertionError, match="read again"):
        find_backbone(str(copy))


def test_the_cache_folder_is_the_one_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("LITEE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "litee"


def test_what_a_loaded_backbone_says(tiny):
    found = load_backbone(find_backbone(str(tiny("gemma3"))), depth=2, dtype=torch.bfloat16)
    assert (found.layers, found.max_positions, found.trunk.depth) == (LAYERS, 512, 2)
    assert found.trunk.dtype == torch.bfloat16
    assert found.tokenizer.chat_template
