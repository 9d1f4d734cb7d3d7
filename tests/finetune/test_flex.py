"""One kernel for a pack, as a GPU runs it: against a kernel per sequence, and by hand.

FlexAttention has no gradients on a CPU unless its check of the device is taken away; what then
runs is the same function without a compiled kernel.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trunk import ALL, close, compare, loaded, one_pack, some_forest
from torch.nn.attention import flex_attention as torch_flex

from litee.config import FitSettings
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.attention import TreeLayout, tree_attention
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.flex import BLOCK, block_counts, block_mask, seen
from litee.finetune.trunk import lay_out, pooled
from tiny_models import LAYERS, WIDTH, plain_model

SETTINGS = FitSettings(lora_r=2, lora_alpha=4, lora_dropout=0.1)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """FlexAttention step by step, with gradients, on a CPU."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    block_mask.cache_clear()


layouts = st.lists(
    st.tuples(st.integers(1, 150), st.lists(st.integers(1, 140), max_size=3)),
    min_size=1,
    max_size=3,
)


def packed(shape):
    groups, at = [], 0
    for length, branches in shape:
        start, at = at, at + length
        spans = []
        for count in branches:
            spans.append((at, count))
            at += count
        groups.append(((start, length), tuple(spans)))
    return tuple(groups), at


def by_definition(groups, tokens, window):
    """(tokens, tokens): k is in q's own sequence, not after it, and in its window."""
    allowed = torch.zeros(tokens, tokens, dtype=torch.bool)
    for (start, length), branches in groups:
        prefix = list(range(start, start + length))
        for own in [[], *(list(range(s, s + n)) for s, n in branches)]:
            rows = torch.tensor(prefix + own)
            place = torch.arange(len(rows))
            back = place[:, None] - place[None, :]
            sees = (back >= 0) & (back < (window or tokens))
            allowed[rows[:, None], rows[None, :]] |= sees
    return allowed


@settings(max_examples=12, deadline=None)
@given(layouts, st.sampled_from([None, 1, 7, 64]))
def test_the_mask_is_what_trees_mean(shape, window):
    groups, tokens = packed(shape)
    allowed = by_definition(groups, tokens, window)
    mask = block_mask(groups, window, torch.device("cpu"))
    row, column = torch.arange(tokens)[:, None], torch.arange(tokens)[None, :]
    assert torch.equal(mask.mask_mod(None, None, row, column), allowed)
    blocks = -(-tokens // BLOCK)
    padded = torch.zeros(blocks * BLOCK, blocks * BLOCK)
    padded[:tokens, :tokens] = allowed.float()
    counts = padded.view(blocks, BLOCK, blocks, BLOCK).sum((1, 3))
    assert torch.equal(block_counts(seen(groups, window)).float(), counts)
    assert torch.equal(mask.to_dense()[0, 0].bool(), counts > 0)
    assert int(mask.full_kv_num_blocks.sum()) == int((counts == BLOCK**2).sum())
    assert mask.shape == (1, 1, tokens, tokens)


def test_a_mask_is_made_once_per_pack_and_window():
    groups, _ = packed([(5, [3])])
    first = block_mask(groups, None, torch.device("cpu"))
    assert block_mask(packed([(5, [3])])[0], None, torch.device("cpu")) is first
    assert block_mask(groups, 2, torch.device("cpu")) is not first


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("heads", [(4, 4), (4, 1)])
def test_values_and_gradients_equal_those_of_one_kernel_per_sequence(softcap, window, heads):
    groups, tokens = packed([(150, [120, 3]), (1, [1]), (40, [])])
    rng = torch.Generator().manual_seed(0)
    shapes = [(1, h, tokens, 16) for h in (heads[0], heads[1], heads[1])]
    inputs = [torch.randn(s, generator=rng, requires_grad=True) for s in shapes]
    weight = torch.randn(1, tokens, heads[0], 16, generator=rng)
    found = []
    for flex in (False, True):
        out, _ = tree_attention(
            torch.nn.Identity(), *inputs, None, tree=TreeLayout(groups, flex), scaling=0.3,
            sliding_window=window, softcap=softcap,
        )  # fmt: skip
        found.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
    for own, other in zip(*found, strict=True):
        close(other, own)


def test_dropout_of_scores_is_refused():
    x = torch.zeros(1, 1, 2, 4)
    layout = TreeLayout(packed([(2, [])])[0], flex=True)
    with pytest.raises(ValueError, match="no dropout"):
        tree_attention(torch.nn.Identity(), x, x, x, None, tree=layout, dropout=0.1)


@pytest.mark.parametrize("family", ALL)
def test_states_equal_those_of_plain_sequences(tiny, family):
    folder, forest = tiny(family), some_forest()
    trees = lay_out(forest, one_pack(forest), flex=True)
    trunk = loaded(folder).trunk
    with torch.inference_mode():
        found = trunk.run(trees, depths=[1, LAYERS])
        for depth in (1, LAYERS):
            compare(forest, trees, found[depth], plain_model(folder), depth)
        each = lay_out(forest, one_pack(forest))
        close(pooled(found[LAYERS], trees), pooled(trunk.run(each, depths=[LAYERS])[LAYERS], each))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "qwen2", "mistral"])
def test_lora_gradients_equal_those_of_one_kernel_per_sequence(tiny, family):
    trunk = load_backbone(find_backbone(str(tiny(family)))).trunk
    forest, weight = some_forest(3), torch.randn(2 * WIDTH, generator=torch.manual_seed(1))
    adapters = Adapters(trunk, start=1, settings=SETTINGS, backbone="tiny")
    parameters = adapters.add("one", seed=0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05)
    found = []
    for flex in (False, True):
        trees = lay_out(forest, one_pack(forest), flex=flex)
        states = trunk.run(trees, depths=[1])[1].detach()
        with adapters.together([Segment("one", len(trees.ids), seed=5)]):
            top = trunk.run(trees, start=1, states=states, depths=[LAYERS])[LAYERS]
        loss = (pooled(top, trees).flatten(1) @ weight).square().mean()
        found.append(torch.autograd.grad(loss, list(parameters.values())))
    for own, other in zip(*found, strict=True):
        close(other, own, 3e-5)
