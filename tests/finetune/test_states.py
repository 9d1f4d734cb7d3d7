"""Stores of states: computed once, the same when kept and when run again, whole after a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from litee.encode.forest import EncodedPair, Pack, grow, pack_leaves
from litee.finetune import states
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.states import PooledStore, TokenStore, leaf_keys
from litee.finetune.trunk import Trunk, lay_out, pooled
from tiny_models import LAYERS, WIDTH

DEPTHS = (1, 3)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Packs of about one tree and shards of two packs, so that ten trees make five shards."""
    monkeypatch.setattr(states, "PACK_TOKENS", 20)
    monkeypatch.setattr(states, "_SHARD_PACKS", 2)


@pytest.fixture
def backbone(tiny):
    return load_backbone(find_backbone(str(tiny("llama"))))


def forest_of(numbers):
    """One tree of 16 tokens per number: prefix 6, branches 4 and 6."""
    pairs = []
    for number in numbers:
        rng = np.random.default_rng(number)
        prefix, left, right = (tuple(rng.integers(4, 260, n).tolist()) for n in (6, 4, 6))
        pairs.append(EncodedPair(prefix, left, right, (0, 0, 0)))
    return grow(pairs)


class Killed(BaseException):
    """As hard as a kill for code that catches exceptions."""


def kill_after(monkeypatch, passes):
    """The trunk dies at its pass number `passes` (from 0). Returns the passes done."""
    done = []
    run = Trunk.run

    def dying(self, trees, **given):
        if len(done) == passes:
            raise Killed
        done.append(len(trees.ids))
        return run(self, trees, **given)

    monkeypatch.setattr(Trunk, "run", dying)
    return done


# pooled states


def test_pooled_states_are_those_of_the_trunk(backbone, tmp_path):
    forest = forest_of(range(3))
    found = PooledStore(backbone, DEPTHS, folder=tmp_path).compute(forest, title="test")
    assert found.shape == (6, 2, 2, WIDTH)
    assert found.dtype == np.float32
    for leaf in range(6):
        trees = lay_out(forest, Pack(((forest.leaves[leaf][0], (leaf,)),), 0))
        with torch.inference_mode():
            run = backbone.trunk.run(trees, depths=DEPTHS)
            for column, depth in enumerate(DEPTHS):
                np.testing.assert_allclose(
                    found[leaf, column], pooled(run[depth], trees)[0].numpy(), atol=1e-4
                )


def test_a_second_call_computes_nothing(backbone, tmp_path, monkeypatch):
    forest = forest_of(range(4))
    first = PooledStore(backbone, DEPTHS, folder=tmp_path)
    expected = first.compute(forest, title="test")
    assert first.tokens_run == 4 * 16
    kill_after(monkeypatch, 0)
    second = PooledStore(backbone, DEPTHS, folder=tmp_path)
    np.testing.assert_array_equal(second.compute(forest, title="test"), expected)
    assert second.tokens_run == 0


def test_only_new_texts_are_run(backbone, tmp_path):
    PooledStore(backbone, DEPTHS, folder=tmp_path).compute(forest_of(range(4)), title="test")
    more = forest_of([3, 7, 2, 8])
    store = PooledStore(backbone, DEPTHS, folder=tmp_path)
    found = store.compute(more, title="test")
    assert store.tokens_run == 2 * 16
    fresh = PooledStore(backbone, DEPTHS, folder=tmp_path / "other").compute(more, title="test")
    np.testing.assert_allclose(found, fresh, atol=1e-4)


@pytest.mark.parametrize("passes", [0, 1, 2, 5])
def test_killed_between_shards_it_goes_on(backbone, tmp_path, monkeypatch, passes):
    forest = forest_of(range(6))
    expected = PooledStore(backbone, DEPTHS, folder=tmp_path / "whole").compute(forest, title="t")
    with monkeypatch.context() as patch:
        kill_after(patch, passes)
        with pytest.raises(Killed):
            PooledStore(backbone, DEPTHS, folder=tmp_path / "cut").compute(forest, title="t")
    store = PooledStore(backbone, DEPTHS, folder=tmp_path / "cut")
    np.testing.assert_array_equal(store.compute(forest, title="t"), expected)
    assert store.tokens_run == (6 - passes // 2 * 2) * 16
    assert not list((tmp_path / "cut").rglob("*.tmp"))


def test_other_weights_depths_and_types_do_not_share_states(backbone, tiny, tmp_path):
    forest = forest_of(range(2))
    PooledStore(backbone, DEPTHS, folder=tmp_path).compute(forest, title="test")
    found = find_backbone(str(tiny("llama")))
    others = [
        PooledStore(backbone, (2,), folder=tmp_path),
        PooledStore(load_backbone(found, dtype=torch.bfloat16), DEPTHS, folder=tmp_path),
        PooledStore(
            replace(backbone, folder=replace(found, sha256="0" * 64)), DEPTHS, folder=tmp_path
        ),
    ]
    for store in others:
        store.compute(forest, title="test")
        assert store.tokens_run == 2 * 16


def test_fewer_depths_of_the_same_weights_are_read_from_disk(backbone, tmp_path):
    forest = forest_of(range(2))
    whole = PooledStore(backbone, (1, 2, 4), folder=tmp_path).compute(forest, title="test")
    store = PooledStore(backbone, (4, 1), folder=tmp_path)
    np.testing.assert_array_equal(store.compute(forest, title="test"), whole[:, [0, 2]])
    assert store.tokens_run == 0


def test_addresses_are_the_token_ids_and_nothing_else():
    one = forest_of([1, 2, 3])
    other = forest_of([3, 1])
    by_text = {}
    for forest in (one, other):
        for key, (prefix, ids) in zip(leaf_keys(forest), forest.leaves, strict=True):
            assert len(key) == 16
            by_text.setdefault((forest.prefixes[prefix], ids), set()).add(key)
    assert all(len(keys) == 1 for keys in by_text.values())
    assert len(set.union(*by_text.values())) == len(by_text) == 6


def test_where_the_prefix_ends_is_part_of_the_address():
    """The mean state is over the branch, so the same sequence cut elsewhere is another answer."""
    pairs = [
        EncodedPair((1, 2), (3, 4), (4,), (0, 0, 0)),
        EncodedPair((1, 2, 3), (4,), (5,), (0, 0, 0)),
        EncodedPair((1,), (2, 3, 4), (5,), (0, 0, 0)),
    ]
    keys = leaf_keys(grow(pairs))
    assert len(set(keys)) == len(keys) == 6


def test_answers_that_were_cut_to_the_same_are_run_once(backbone, tmp_path):
    pairs = [EncodedPair((1, 2), (3, 4), (5,), (0, 0, 0), (size, 1)) for size in (50, 60)]
    forest = grow(pairs)
    assert len(forest.leaves) == 3
    first = PooledStore(backbone, [1], folder=tmp_path)
    states = first.compute(forest, title="test")
    np.testing.assert_array_equal(states[0], states[2])
    again = PooledStore(backbone, [1], folder=tmp_path)
    np.testing.assert_array_equal(again.compute(forest, title="test"), states)
    assert again.tokens_run == 0


# states of all tokens


def token_store(backbone, forest, folder, *, cache_bytes=1 << 30, depth=2):
    return TokenStore(backbone.trunk, forest, depth=depth, folder=folder, cache_bytes=cache_bytes)


def all_packs(forest):
    return pack_leaves(forest, range(len(forest.leaves)), 33)


def test_kept_and_recomputed_states_are_equal(backbone, tmp_path):
    forest = forest_of(range(5))
    kept = token_store(backbone, forest, tmp_path / "kept")
    again = token_store(backbone, forest, tmp_path / "again", cache_bytes=0)
    assert (kept.kept, again.kept) == (True, False)
    assert kept.bytes == forest.tokens * WIDTH * 4
    for store in (kept, again):
        store.fill(title="test")
    assert (kept.tokens_run, again.tokens_run) == (forest.tokens, 0)
    assert not (tmp_path / "again" / "tokens.bin").exists()
    for pack in all_packs(forest):
        one, two = kept.states(pack), again.states(pack)
        assert one.shape == (pack.tokens, WIDTH)
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert kept.tokens_run == forest.tokens
    assert again.tokens_run == sum(p.tokens for p in all_packs(forest))


@pytest.mark.parametrize("order", [1, -1])
def test_states_of_any_part_in_any_order(backbone, tmp_path, order):
    forest = forest_of(range(4))
    store = token_store(backbone, forest, tmp_path)
    store.fill(title="test")
    leaves = [6, 1, 4, 0][::order]
    (pack,) = pack_leaves(forest, leaves, 10**6)
    with torch.inference_mode():
        expected = backbone.trunk.run(lay_out(forest, pack), depths=[2])[2]
    torch.testing.assert_close(store.states(pack), expected, atol=1e-4, rtol=1e-4)


def test_states_are_kept_in_the_trunks_own_type(tiny, tmp_path):
    half = load_backbone(find_backbone(str(tiny("llama"))), dtype=torch.bfloat16)
    forest = forest_of(range(2))
    store = token_store(half, forest, tmp_path)
    store.fill(title="test")
    assert (tmp_path / "tokens.bin").stat().st_size == store.bytes == forest.tokens * WIDTH * 2
    assert store.states(all_packs(forest)[0]).dtype == torch.bfloat16


@pytest.mark.parametrize("passes", [0, 1, 3, 4])
def test_a_killed_fill_goes_on_to_the_same_bytes(backbone, tmp_path, monkeypatch, passes):
    forest = forest_of(range(6))
    token_store(backbone, forest, tmp_path / "whole").fill(title="test")
    with monkeypatch.context() as patch:
        kill_after(patch, passes)
        with pytest.raises(Killed):
            token_store(backbone, forest, tmp_path / "cut").fill(title="test")
    store = token_store(backbone, forest, tmp_path / "cut")
    store.fill(title="test")
    assert store.tokens_run == (6 - passes // 2 * 2) * 16
    files = [(tmp_path / name / "tokens.bin").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    assert any(files[0])
    done = token_store(backbone, forest, tmp_path / "cut")
    done.fill(title="test")
    assert done.tokens_run == 0


def test_a_prefix_split_over_packs_keeps_its_states(backbone, tmp_path):
    pairs = [EncodedPair((9,) * 10, (k,) * 8, (k + 1,) * 8, (0, 0, 0)) for k in range(10, 16, 2)]
    forest = grow(pairs)
    store = token_store(backbone, forest, tmp_path)
    store.fill(title="test")
    assert store.tokens_run > forest.tokens
    (pack,) = pack_leaves(forest, range(6), 10**6)
    with torch.inference_mode():
        expected = backbone.trunk.run(lay_out(forest, pack), depths=[2])[2]
    torch.testing.assert_close(store.states(pack), expected, atol=1e-4, rtol=1e-4)


def test_a_full_disk_means_computing_again(backbone, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(states.shutil, "disk_usage", lambda _: usage)
    store = token_store(backbone, forest_of(range(2)), tmp_path)
    assert not store.kept


def test_kept_states_do_not_change_under_the_user(backbone, tmp_path):
    forest = forest_of(range(2))
    store = token_store(backbone, forest, tmp_path)
    store.fill(title="test")
    pack = all_packs(forest)[0]
    first = store.states(pack)
    expected = first.clone()
    first.zero_()
    assert torch.equal(store.states(pack), expected)


def test_remove_leaves_nothing(backbone, tmp_path):
    store = token_store(backbone, forest_of(range(2)), tmp_path / "store", depth=LAYERS)
    store.fill(title="test")
    store.remove()
    assert not (tmp_path / "store").exists()


def test_passes_side_by_side_give_the_same_bytes(backbone, tmp_path):
    forest = forest_of(range(10))
    alone = PooledStore(backbone, DEPTHS, folder=tmp_path / "alone").compute(forest, title="")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both = PooledStore(backbone, DEPTHS, folder=tmp_path / "both").compute(forest, title="")
        store = token_store(backbone, forest, tmp_path / "tokens")
        store.fill(title="")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert both.tobytes() == alone.tobytes()
    plain = token_store(backbone, forest, tmp_path / "plain")
    plain.fill(title="")
    for pack in all_packs(forest):
        assert torch.equal(store.states(pack), plain.states(pack))


def sizes(folder):
    return {f: f.stat().st_size for f in sorted((folder / "states").glob("*/*.safetensors"))}


def test_the_least_recently_used_states_make_room(backbone, tmp_path):
    first, second, third = forest_of([0, 1]), forest_of([2, 3]), forest_of([4, 5])

    def compute(forest, cache_bytes=None):
        store = PooledStore(backbone, DEPTHS, folder=tmp_path, cache_bytes=cache_bytes)
        store.compute(forest, title="")
        return store.tokens_run

    compute(first)
    one = sum(sizes(tmp_path).values())
    compute(second)
    assert compute(first) == 0  # used again, so the second is the oldest now
    compute(third, cache_bytes=2 * one)
    assert sum(sizes(tmp_path).values()) <= 2 * one
    assert compute(first) == 0
    assert compute(second) > 0


def test_no_bound_keeps_all_and_a_tiny_one_keeps_nothing(backbone, tmp_path):
    forest = forest_of(range(4))
    PooledStore(backbone, DEPTHS, folder=tmp_path).compute(forest, title="")
    assert len(sizes(tmp_path)) == 2  # shards of two packs
    store = PooledStore(backbone, DEPTHS, folder=tmp_path, cache_bytes=1)
    states_found = store.compute(forest, title="")
    assert store.tokens_run == 0
    assert np.isfinite(states_found).all()
    assert sizes(tmp_path) == {}
