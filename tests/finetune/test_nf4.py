"""4-bit frozen weights: what is rounded, what is not, and LoRA over them."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from test_trunk import one_pack, some_forest

from litee.config import FitSettings
from litee.errors import ConfigError, ModelError, ResourceError
from litee.finetune import nf4
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.device import (
    check_trainable,
    choose_device,
    choose_dtype,
    device_name,
    peak_gpu_mb,
)
from litee.finetune.states import PooledStore
from litee.finetune.trunk import lay_out, pooled
from litee.rundir import cpu_name
from tiny_models import LAYERS, save_tiny

#: The 16 values of NF4, QLoRA, appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes"
)


def rounded(weight):
    """Blocks of 64 to their largest value times the nearest of 16; no double quantisation."""
    blocks = weight.float().reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    table = torch.tensor(NF4)
    nearest = (blocks[..., None] / scale[..., None] - table).abs().argmin(-1)
    return (table[nearest] * scale).view_as(weight)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Rows of whole blocks."""
    folder = tmp_path_factory.mktemp("wide")
    return find_backbone(str(save_tiny(folder, "qwen2", hidden_size=64, intermediate_size=128)))


@needs_bitsandbytes
def test_linear_parts_are_rounded_and_nothing_else(wide):
    found = wide
    exact = load_backbone(found, dtype=torch.float32).trunk
    small = load_backbone(found, dtype=torch.float32, nf4=True)
    assert small.nf4 and small.trunk.dtype == torch.float32
    assert torch.equal(small.trunk.decoder.embed_tokens.weight, exact.decoder.embed_tokens.weight)
    one, other = small.trunk.layers[0], exact.layers[0]
    assert torch.equal(one.input_layernorm.weight, other.input_layernorm.weight)
    x = torch.eye(64)
    for part in ("self_attn.q_proj", "mlp.up_proj"):
        weight = other.get_submodule(part).weight
        with torch.inference_mode():
            read = one.get_submodule(part)(x).T
            read -= (
                0 if one.get_submodule(part).bias is None else one.get_submodule(part).bias[:, None]
            )
        assert one.get_submodule(part).weight.dtype == torch.uint8
        assert (read - rounded(weight)).abs().max() < 0.01 * weight.abs().max()
        assert (read - weight).abs().max() > 0.01 * weight.abs().max()


@needs_bitsandbytes
@pytest.mark.parametrize("twice", [False, True])
def test_lora_learns_over_rounded_layers(wide, twice, tmp_path):
    trunk = load_backbone(wide, nf4=True).trunk
    settings = FitSettings(lora_r=2, lora_dropout=0.1, gradient_checkpointing=twice)
    adapters = Adapters(trunk, start=2, settings=settings, backbone="tiny")
    parameters = adapters.add("one", seed=0)
    assert {n.split(".lora_")[0].rsplit(".", 1)[-1] for n in parameters} >= {"q_proj", "down_proj"}
    forest = some_forest(3)
    trees = lay_out(forest, one_pack(forest))
    optimiser = torch.optim.Adam(parameters.values(), lr=0.01)
    losses = []
    for _ in range(6):
        with adapters.together([Segment("one", len(trees.ids), 1)]):
            top = trunk.run(trees, depths=[LAYERS])[LAYERS]
        loss = pooled(top, trees).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    adapters.save("one", tmp_path / "one")
    adapters.load("again", tmp_path / "one")
    assert (tmp_path / "one" / "adapter_model.safetensors").stat().st_size < 100_000


@needs_bitsandbytes
def test_states_of_rounded_layers_are_kept_apart(wide, tmp_path):
    found = wide
    folders = {
        PooledStore(load_backbone(found, nf4=some), [2], folder=tmp_path).folder
        for some in (False, True)
    }
    assert len(folders) == 2


@needs_bitsandbytes
def test_rows_that_are_not_whole_blocks_are_refused(tiny):
    with pytest.raises(ModelError, match="multiple of 64"):
        load_backbone(find_backbone(str(tiny("llama"))), nf4=True)


def test_a_missing_library_is_named(tiny, monkeypatch):
    monkeypatch.setattr(nf4.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="bitsandbytes") as caught:
        nf4.use_nf4(torch.nn.Module())
    assert "lora-litee[cuda]" in caught.value.fix
    assert caught.value.exit_code == 4


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_a_device_that_is_not_there(without_gpu):
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ResourceError, match="cuda") as caught:
        choose_device("cuda")
    assert caught.value.exit_code == 5 and "--device cpu" in caught.value.fix
    with pytest.raises(ConfigError, match="needs a CUDA GPU"):
        check_trainable("nf4", torch.device("cpu"))


def test_a_gpu_is_taken_where_it_can(with_gpu):
    assert choose_device("auto").type == choose_device("cuda", "nf4").type == "cuda"
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto", "int8").type == "cpu"
    with pytest.raises(ConfigError, match="int8"):
        choose_device("cuda", "int8")
    check_trainable("nf4", torch.device("cuda"))


def test_a_gpu_computes_in_bfloat16(monkeypatch):
    monkeypatch.setattr("litee.finetune.device.matmul_rates", lambda: pytest.fail("measured"))
    assert choose_dtype("auto", torch.device("cuda")) == "bfloat16"
    assert choose_dtype("nf4", torch.device("cpu")) == "bfloat16"
    assert choose_dtype("float32", torch.device("cuda")) == "float32"


def test_what_a_cpu_is_called():
    cpu = torch.device("cpu")
    assert device_name(cpu) == cpu_name()
    assert peak_gpu_mb(cpu) is None
