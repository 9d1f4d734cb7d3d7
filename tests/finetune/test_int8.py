"""8-bit products: close to the exact ones, only where they were asked for, and never mixed up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from litee.encode.forest import EncodedPair, grow
from litee.errors import ModelError
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.int8 import Int8Linear, use_int8
from litee.finetune.states import PooledStore
from tiny_models import FAMILIES


def test_rounding_by_hand():
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[127.0, 1.0], [0.5, -0.25]])
    small = Int8Linear(linear)
    # rows are 1 · (127, 1) and 0.5/127 · (127, −64): the second weight becomes −0.25197
    found = small(torch.tensor([[0.0, 127.0]]))
    assert found[0].tolist() == pytest.approx([127.0, -0.25197 * 127], abs=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_close_and_keep_their_type(dtype):
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    x = torch.randn(5, 64)
    small = Int8Linear(linear)(x.to(dtype))
    assert small.dtype == dtype
    error = (small.float() - linear(x)).norm() / linear(x).norm()
    assert error < 0.02


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_the_lowest_layers_and_only_products_of_normalised_states(tiny, family):
    backbone = load_backbone(find_backbone(str(tiny(family))), depth=3, int8_layers=2)
    kinds = [
        {name.rpartition(".")[2]: type(part) for name, part in layer.named_modules()}
        for layer in backbone.trunk.layers
    ]
    for layer in kinds[:2]:
        assert Int8Linear in layer.values()
        assert layer.get("o_proj", nn.Linear) is layer.get("down_proj", nn.Linear) is nn.Linear
    assert Int8Linear not in kinds[2].values()


def test_states_are_close_and_kept_apart(tiny, tmp_path):
    folder = find_backbone(str(tiny("llama")))
    forest = grow([EncodedPair((5, 6), (7, 8, 9), (10, 11), (0, 0, 0))])
    found, folders = [], set()
    for count in (0, 1, 3):
        backbone = load_backbone(folder, depth=3, int8_layers=count)
        store = PooledStore(backbone, [3], folder=tmp_path)
        found.append(store.compute(forest, title="t"))
        folders.add(store.folder.name)
        assert store.tokens_run == 7
    assert len(folders) == 3
    for states in found[1:]:
        error = abs(states - found[0]).max() / abs(found[0]).max()
        assert 1e-6 < error < 0.05


def test_layers_without_such_products_are_refused():
    with pytest.raises(ModelError, match="none of q_proj"):
        use_int8(nn.ModuleList([nn.Linear(2, 2)]), 1)


def test_processors_without_8_bit_products(monkeypatch):
    monkeypatch.setattr("litee.finetune.int8._ENGINES", ("of another processor",))
    use_int8(nn.ModuleList(), 0)
    with pytest.raises(ModelError, match="no 8-bit products"):
        use_int8(nn.ModuleList(), 1)
