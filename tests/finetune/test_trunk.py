"""The packed trunk against separate plain sequences through plain transformers, eager attention."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.encode.forest import EncodedPair, grow, pack_leaves
from litee.finetune import trunk as trunk_module
from litee.finetune.attention import TreeLayout, tree_attention
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.trunk import Trunk, filled_up, lay_out, pooled
from tiny_models import FAMILIES, LAYERS, WIDTH, WINDOW, plain_model, plain_states

ALL = sorted(FAMILIES)


def some_forest(seed=0):
    """Three trees; sequences longer and shorter than the window, a shared and a one-token leaf."""
    rng = np.random.default_rng(seed)

    def ids(count):
        return tuple(rng.integers(4, 260, count).tolist())

    shared, first, second = ids(2 * WINDOW), ids(WINDOW + 3), ids(1)
    pairs = [
        EncodedPair(first, shared, ids(3), (0, 0, 0)),
        EncodedPair(first, shared, ids(1), (0, 0, 0)),
        EncodedPair(second, shared, ids(WINDOW), (0, 0, 0)),
        EncodedPair(ids(3), ids(2), ids(2), (0, 0, 0)),
    ]
    return grow(pairs)


def one_pack(forest):
    (pack,) = pack_leaves(forest, range(len(forest.leaves)), 10**6)
    return pack


@cache
def loaded(folder, depth=None):
    return load_backbone(find_backbone(str(folder)), depth=depth)


def close(found, expected, tolerance=1e-5):
    """Equal up to rounding, relative to the largest state."""
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= tolerance * scale


def compare(forest, trees, found, reference, depth):
    """Every prefix and every branch has the states of its own plain sequence."""
    for leaf, (start, end) in zip(trees.leaves, trees.spans.tolist(), strict=True):
        prefix, ids = forest.leaves[leaf]
        plain = plain_states(reference, [*forest.prefixes[prefix], *ids])[depth]
        close(found[start:end], plain[-len(ids) :])
    for (number, _), ((start, length), _) in zip(
        one_pack(forest).groups, trees.layout.groups, strict=True
    ):
        plain = plain_states(reference, list(forest.prefixes[number]))[depth]
        close(found[start : start + length], plain)


@pytest.mark.parametrize("family", ALL)
def test_states_equal_those_of_plain_sequences(tiny, family):
    folder = tiny(family)
    forest = some_forest()
    trees = lay_out(forest, one_pack(forest))
    depths = [0, 1, 3, LAYERS]
    with torch.inference_mode():
        found = loaded(folder).trunk.run(trees, depths=depths)
        assert sorted(found) == depths
        for depth in depths:
            compare(forest, trees, found[depth], plain_model(folder), depth)


@pytest.mark.parametrize("family", ALL)
def test_starting_from_the_middle_changes_nothing(tiny, family):
    trunk = loaded(tiny(family)).trunk
    forest = some_forest(1)
    trees = lay_out(forest, one_pack(forest))
    with torch.inference_mode():
        whole = trunk.run(trees, depths=[1, 2, LAYERS])
        for start in (1, 2):
            rest = trunk.run(trees, start=start, states=whole[start], depths=[start, LAYERS])
            assert torch.equal(rest[start], whole[start])
            close(rest[LAYERS], whole[LAYERS], 1e-6)


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_states_do_not_depend_on_the_packing(tiny, family):
    trunk = loaded(tiny(family)).trunk
    forest = some_forest(2)
    with torch.inference_mode():
        together = lay_out(forest, one_pack(forest))
        whole = pooled(trunk.run(together, depths=[LAYERS])[LAYERS], together)
        seen = 0
        for pack in pack_leaves(forest, range(len(forest.leaves))[::-1], 1):
            trees = lay_out(forest, pack)
            alone = pooled(trunk.run(trees, depths=[LAYERS])[LAYERS], trees)
            close(alone[0], whole[together.leaves.index(trees.leaves[0])])
            seen += 1
    assert seen == len(forest.leaves)


@given(st.integers(1, 100_000))
def test_passes_have_few_sizes_and_are_filled_up_by_little(tokens):
    rows = filled_up(tokens)
    assert tokens <= rows
    assert rows - tokens < max(16, tokens / 8)
    assert filled_up(rows) == rows
    assert len({filled_up(t) for t in range(1025, 2049)}) == 16


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_filling_a_pass_up_changes_no_state(tiny, family, monkeypatch):
    trunk = loaded(tiny(family)).trunk
    forest = some_forest(3)
    trees = lay_out(forest, one_pack(forest))
    seen = []
    for rows in (lambda t: t, lambda t: t + 1, lambda t: t + 40):
        monkeypatch.setattr(trunk_module, "filled_up", rows)
        with torch.inference_mode():
            seen.append(trunk.run(trees, depths=[1, LAYERS]))
    for found in seen[1:]:
        for depth, states in found.items():
            assert len(states) == len(trees.ids)
            close(states, seen[0][depth], 1e-6)


def test_positions_restart_after_the_prefix():
    pairs = [EncodedPair((5, 6, 7), (8, 9), (10,), (0, 0, 0))]
    pairs += [EncodedPair((11,), (12, 13), (12, 13), (0, 0, 0))]
    forest = grow(pairs)
    trees = lay_out(forest, one_pack(forest))
    assert trees.ids.tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert trees.positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2]
    assert trees.layout.groups == (((0, 3), ((3, 2), (5, 1))), ((6, 1), ((7, 2),)))
    assert trees.spans.tolist() == [[3, 5], [5, 6], [7, 9]]
    assert trees.leaves == (0, 1, 2)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("family", ["gemma2", "gemma3", "llama", "qwen2"])
def test_early_exit_loads_only_the_layers_it_needs(tiny, family, depth):
    folder = tiny(family)
    whole, short = loaded(folder), loaded(folder, depth)
    assert short.layers == LAYERS
    assert short.trunk.depth == len(short.trunk.layers) == depth
    numbers = {
        int(name.split("layers.")[1].split(".")[0])
        for name, _ in short.trunk.decoder.named_parameters()
        if "layers." in name
    }
    assert numbers == set(range(depth))
    assert not any("lm_head" in name for name, _ in short.trunk.decoder.named_parameters())
    forest = some_forest()
    trees = lay_out(forest, one_pack(forest))
    with torch.inference_mode():
        assert torch.equal(
            short.trunk.run(trees, depths=[depth])[depth],
            whole.trunk.run(trees, depths=[depth])[depth],
        )


def test_layers_above_the_depth_asked_for_are_not_run(tiny):
    trunk = load_backbone(find_backbone(str(tiny("llama")))).trunk
    ran: list[int] = []
    for number, layer in enumerate(trunk.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    forest = some_forest()
    trees = lay_out(forest, one_pack(forest))
    with torch.inference_mode():
        states = trunk.run(trees, depths=[2])[2]
        assert ran == [0, 1]
        ran.clear()
        trunk.run(trees, start=2, states=states, depths=[3])
        assert ran == [2]


def test_a_backbone_is_frozen(tiny):
    trunk = loaded(tiny("llama")).trunk
    assert not any(p.requires_grad for p in trunk.decoder.parameters())
    assert not trunk.decoder.training


def test_starting_above_the_embeddings_needs_states(tiny):
    forest = some_forest()
    with pytest.raises(ValueError, match="states are needed"):
        loaded(tiny("llama")).trunk.run(lay_out(forest, one_pack(forest)), start=1, depths=[2])


# pooling


def test_pooled_by_hand():
    forest = grow([EncodedPair((5,), (6, 7), (8,), (0, 0, 0))])
    trees = lay_out(forest, one_pack(forest))
    states = torch.tensor([[9.0, 9.0], [1.0, 4.0], [3.0, 8.0], [5.0, 7.0]])
    assert pooled(states, trees).tolist() == [[[3.0, 8.0], [2.0, 6.0]], [[5.0, 7.0], [5.0, 7.0]]]


def test_gradients_flow_through_both_poolings():
    forest = grow([EncodedPair((5,), (6, 7), (8,), (0, 0, 0))])
    trees = lay_out(forest, one_pack(forest))
    states = torch.zeros(4, 1, requires_grad=True)
    pooled(states, trees)[0].sum().backward()
    assert states.grad.flatten().tolist() == [0.0, 0.5, 1.5, 0.0]


def test_pooled_states_are_float32_whatever_the_trunk():
    forest = grow([EncodedPair((5,), (6, 7), (8,), (0, 0, 0))])
    trees = lay_out(forest, one_pack(forest))
    assert pooled(torch.ones(4, 2, dtype=torch.bfloat16), trees).dtype == torch.float32


# attention by itself, against a dense mask


def dense(query, key, value, layout, *, scaling, window, softcap):
    """The same attention in one matrix with a mask of what each token may see."""
    repeat = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeat, dim=1) for x in (key, value))
    tokens = query.shape[2]
    allowed = torch.zeros(tokens, tokens, dtype=torch.bool)
    for prefix, branches in layout.groups:
        for branch in (None, *branches):
            rows = [*range(prefix[0], sum(prefix))]
            rows += [] if branch is None else [*range(branch[0], sum(branch))]
            for place, row in enumerate(rows):
                for seen, column in enumerate(rows[: place + 1]):
                    allowed[row, column] |= window is None or place - seen < window
    scores = query @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (weights @ value).transpose(1, 2)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=3)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([None, 1, 3, 100]),
    st.sampled_from([None, 1.5]),
    st.sampled_from([1, 2]),
    st.integers(0, 100),
)
def test_tree_attention_equals_a_dense_mask(trees, window, softcap, repeat, seed):
    groups, at = [], 0
    for root, branches in trees:
        prefix, at = (at, root), at + root
        spans = []
        for length in branches:
            spans.append((at, length))
            at += length
        groups.append((prefix, tuple(spans)))
    layout = TreeLayout(tuple(groups))
    torch_rng = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 2 * repeat, at, 4, generator=torch_rng, dtype=torch.float64)
    key, value = (
        torch.randn(1, 2, at, 4, generator=torch_rng, dtype=torch.float64) for _ in range(2)
    )
    found, _ = tree_attention(
        torch.nn.Module(),
        query,
        key,
        value,
        None,
        tree=layout,
        scaling=0.7,
        sliding_window=window,
        softcap=softcap,
    )
    expected = dense(query, key, value, layout, scaling=0.7, window=window, softcap=softcap)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_the_scale_is_one_over_the_root_of_the_size_unless_told():
    layout = TreeLayout((((0, 3), ((3, 2),)),))
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 5, 4, generator=rng) for _ in range(3))
    for softcap in (None, 2.0):
        given_scale = tree_attention(
            torch.nn.Module(), q, k, v, None, tree=layout, scaling=0.5, softcap=softcap
        )[0]
        default = tree_attention(torch.nn.Module(), q, k, v, None, tree=layout, softcap=softcap)[0]
        torch.testing.assert_close(default, given_scale)


def test_tree_attention_refuses_a_mask():
    with pytest.raises(ValueError, match="no mask"):
        tree_attention(
            torch.nn.Module(), *[torch.ones(1, 1, 1, 1)] * 4, tree=TreeLayout((((0, 1), ()),))
        )


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "mistral", "qwen2"])
def test_the_reference_sees_the_window(tiny, family):
    """Were the windows of the tiny models without effect, the parity above would prove little."""
    reference = plain_model(tiny(family))
    ids = [10 + k for k in range(3 * WINDOW)]
    other = [200, *ids[1:]]
    layer = {"qwen2": 2}.get(family, 0)
    with torch.inference_mode():
        states = [plain_states(reference, x)[layer + 1] for x in (ids, other)]
    changed = (states[0] - states[1]).abs().amax(-1) > 1e-6
    assert changed[:WINDOW].any()
    if family != "qwen2":  # its first two layers see everything
        assert not changed[WINDOW:].any()


def test_trunk_says_what_it_is(tiny):
    trunk = loaded(tiny("llama")).trunk
    assert isinstance(trunk, Trunk)
    assert (trunk.depth, trunk.hidden_size, trunk.dtype) == (LAYERS, WIDTH, torch.float32)
    assert trunk.device.type == "cpu"
