"""Attention pooling against a loop over answers in double precision, and its files."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from litee.encode.forest import EncodedPair, grow, pack_leaves
from litee.errors import ModelError
from litee.finetune.attention_pooling import (
    QUERY_FILE,
    attended_means,
    load_query,
    repeated,
    save_query,
    start_query,
)
from litee.finetune.trunk import lay_out, pooled


def by_hand(states, spans, queries):
    """One answer after the other, in double precision."""
    found = []
    for (first, end), query in zip(spans.tolist(), queries.double(), strict=True):
        own = states[first:end].double()
        weights = torch.exp(own @ query / math.sqrt(states.shape[1]))
        found.append((weights[:, None] * own).sum(0) / weights.sum())
    return torch.stack(found)


def drawn(lengths, gaps, width, seed, size=1.0):
    """States of spans with other tokens in front of them, and a query for each span."""
    rng = torch.Generator().manual_seed(seed)
    spans, at = [], 0
    for length, gap in zip(lengths, gaps, strict=True):
        spans.append((at + gap, at + gap + length))
        at += gap + length
    states = torch.randn(at, width, generator=rng) * size
    return states, torch.tensor(spans), torch.randn(len(spans), width, generator=rng) * size


lengths_and_gaps = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4)), min_size=1)


@settings(max_examples=60, deadline=None)
@given(lengths_and_gaps, st.integers(1, 9), st.integers(0, 1000))
def test_means_and_gradients_are_those_of_a_loop_over_answers(sizes, width, seed):
    states, spans, queries = drawn(*zip(*sizes, strict=True), width, seed)
    ours = [states.requires_grad_(), queries.requires_grad_()]
    other = [t.detach().double().requires_grad_() for t in ours]
    found = attended_means(ours[0], spans, ours[1])
    expected = by_hand(other[0], spans, other[1])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    weight = torch.linspace(-1, 1, found.numel()).view_as(found)
    (found * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    for mine, theirs in zip(ours, other, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, atol=1e-5, rtol=1e-4)


def test_a_zero_query_gives_the_plain_mean_and_has_a_gradient():
    pair = EncodedPair((5, 6), (7, 8, 9), (10,), (0, 0, 0))
    forest = grow([pair, EncodedPair((4,), (3, 2), (2, 3), (0, 0, 0))])
    (pack,) = pack_leaves(forest, range(len(forest.leaves)), 100)
    trees = lay_out(forest, pack)
    states = torch.randn(pack.tokens, 6, generator=torch.Generator().manual_seed(0))
    query = start_query(6)
    found = pooled(states, trees, repeated([query], [len(trees.leaves)]))
    torch.testing.assert_close(found, pooled(states, trees), atol=1e-6, rtol=1e-6)
    found[:, 1].square().sum().backward()
    assert query.grad.abs().max() > 1e-3


def test_other_tokens_neither_count_nor_learn():
    states, spans, queries = drawn([3, 2], [2, 4], 5, 0)
    expected = attended_means(states, spans, queries)
    outside = torch.ones(len(states), dtype=torch.bool)
    for first, end in spans.tolist():
        outside[first:end] = False
    changed = states.clone()
    changed[outside] = 1e4
    changed.requires_grad_()
    found = attended_means(changed, spans, queries)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert (changed.grad[outside] == 0).all()
    assert changed.grad[~outside].abs().min() > 0


def test_large_scores_stay_finite():
    states, spans, queries = drawn([4, 3], [0, 1], 8, 3, size=300.0)
    found = attended_means(states, spans, queries)
    torch.testing.assert_close(
        found[0], states[(states[:4] @ queries[0]).argmax()], rtol=1e-4, atol=1e-2
    )
    assert attended_means(states.bfloat16(), spans, queries).dtype == torch.float32


def test_branches_without_a_query_keep_the_plain_mean():
    states, spans, queries = drawn([4, 3, 2], [0, 1, 1], 8, 3)
    assert repeated([None, None], [2, 1]) is None
    found = attended_means(states, spans, repeated([queries[0], None], [1, 2]))
    expected = by_hand(states, spans, torch.stack([queries[0], queries[0] * 0, queries[0] * 0]))
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)


# files


def test_a_query_comes_back_from_its_file(tmp_path):
    query = torch.nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(0)))
    save_query(query, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == [QUERY_FILE]
    found = load_query(tmp_path)
    assert torch.equal(found, query) and not found.requires_grad


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "matrix"])
def test_a_damaged_query_is_a_model_error(tmp_path, damage):
    file = tmp_path / QUERY_FILE
    if damage == "cut":
        save_query(torch.zeros(5), tmp_path)
        file.write_bytes(file.read_bytes()[:-4])
    elif damage != "missing":
        name = "query" if damage == "matrix" else "key"
        save_file({name: torch.zeros(2, 3)}, file)
    with pytest.raises(ModelError, match="attention pooling") as caught:
        load_query(tmp_path)
    assert caught.value.place == str(file) and caught.value.fix
