"""Pairs become a forest: nothing lost, nothing twice, every cut counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.encode.budget import TokenBudget
from litee.encode.forest import EncodedPair, PairEncoder, grow, pack_leaves
from litee.encode.templates import Template
from litee.errors import ConfigError
from litee.records import Pair
from tiny_models import byte_tokenizer

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
ENCODED = st.lists(
    st.builds(EncodedPair, IDS, IDS, IDS, st.just((0, 0, 0))), min_size=1, max_size=12
)
PLAIN = Template(byte_tokenizer(chat=False))
CHAT = Template(byte_tokenizer(chat=True))


def encoder(tokens=64, *, template=CHAT, **settings):
    return PairEncoder(template, TokenBudget(tokens), **settings)


def text(template, ids):
    return template._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", ["tree", "joint", "verdict"])
def test_a_hidden_prompt_is_not_encoded_and_not_called_cut(kind):
    budget = TokenBudget(64, (0.0, 0.5, 0.5))
    one, two = (
        PairEncoder(CHAT, budget, encoder=kind).encode(Pair("1", (asked,), ("yes",), ("no",)))
        for asked in ("Is it far?", "What?")
    )
    assert (one.prefix, one.left, one.right) == (two.prefix, two.left, two.right)
    assert (one.cut, two.cut) == ((0, 0, 0), (0, 0, 0))


# grow and pack


@given(ENCODED)
def test_a_forest_gives_every_pair_back(encoded):
    forest = grow(encoded)
    for k, pair in enumerate(encoded):
        for side, ids in ((forest.left, pair.left), (forest.right, pair.right)):
            prefix, found = forest.leaves[side[k]]
            assert (forest.prefixes[prefix], found) == (pair.prefix, ids)


@given(ENCODED)
def test_nothing_in_a_forest_is_there_twice_or_for_nothing(encoded):
    forest = grow(encoded)
    assert len(set(forest.prefixes)) == len(forest.prefixes)
    assert len(set(forest.leaves)) == len(forest.leaves)
    assert {*forest.left, *forest.right} == set(range(len(forest.leaves)))
    assert {p for p, _ in forest.leaves} == set(range(len(forest.prefixes)))


@given(ENCODED, st.integers(1, 40), st.data())
def test_packs_hold_every_leaf_once_and_count_their_tokens(encoded, most, data):
    forest = grow(encoded)
    leaves = data.draw(st.permutations(range(len(forest.leaves))))
    leaves = leaves[: data.draw(st.integers(0, len(leaves)))]
    packs = pack_leaves(forest, leaves, most)
    held = [leaf for pack in packs for _, group in pack.groups for leaf in group]
    assert sorted(held) == sorted(leaves)
    for pack in packs:
        tokens = 0
        for prefix, group in pack.groups:
            assert group
            assert all(forest.leaves[leaf][0] == prefix for leaf in group)
            tokens += len(forest.prefixes[prefix]) + sum(len(forest.leaves[n][1]) for n in group)
        assert pack.tokens == tokens
        single = sum(len(group) for _, group in pack.groups) == 1
        assert tokens <= most or single
        assert len({prefix for prefix, _ in pack.groups}) == len(pack.groups)


def test_a_tree_goes_on_in_the_next_pack_with_its_prefix_again():
    pairs = [
        EncodedPair((1, 1, 1), (2, 2), (3, 3), (0, 0, 0)),
        EncodedPair((1, 1, 1), (2, 2), (4, 4), (0, 0, 0)),
    ]
    forest = grow(pairs)
    packs = pack_leaves(forest, range(3), 7)
    assert [p.groups for p in packs] == [((0, (0, 1)),), ((0, (2,)),)]
    assert [p.tokens for p in packs] == [7, 5]


def test_nine_answers_make_thirty_six_pairs_but_nine_branches():
    encoded = [
        EncodedPair((0,) * 10, (a,) * 5, (b,) * 5, (0, 0, 0)) for a in range(9) for b in range(a)
    ]
    forest = grow(encoded)
    assert len(encoded) == 36
    assert len(forest.leaves) == 9
    assert forest.tokens == 10 + 9 * 5
    assert forest.plain_tokens == 36 * 2 * 15


def test_an_empty_set_of_pairs_is_an_empty_forest():
    forest = grow([])
    assert forest.tokens == forest.plain_tokens == 0
    assert forest.cut.shape == (0, 3)
    assert pack_leaves(forest, [], 10) == []


# encoding


def test_tree_by_hand():
    pair = Pair("1", ("Hi?",), ("Yes",), ("No",))
    found = encoder().encode(pair)
    assert text(CHAT, found.prefix) == ("<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n")
    assert text(CHAT, found.left) == "Yes<|im_end|>"
    assert text(CHAT, found.right) == "No<|im_end|>"
    assert found.cut == (0, 0, 0)


def test_later_turns_lie_in_the_branches():
    pair = Pair("1", ("Hi?", "And?"), ("Yes", "So"), ("No", "Not"))
    found = encoder(template=PLAIN).encode(pair)
    assert text(PLAIN, found.prefix) == "<|bos|>Question: Hi?\n\nAnswer: "
    assert text(PLAIN, found.left) == "Yes\n\nQuestion: And?\n\nAnswer: So<|eos|>"
    assert text(PLAIN, found.right) == "No\n\nQuestion: And?\n\nAnswer: Not<|eos|>"


def test_joint_shows_both_orders():
    pair = Pair("1", ("Hi?", "And?"), ("Yes", "So"), ("No", "Not"))
    found = encoder(encoder="joint").encode(pair)
    assert text(CHAT, found.prefix) == "<|im_start|>user\nHi?\n\nAnd?"
    end = "<|im_end|>\n<|im_start|>assistant\n"
    assert text(CHAT, found.left) == f"\n\nResponse A:\nYes\n\nSo\n\nResponse B:\nNo\n\nNot{end}"
    assert text(CHAT, found.right) == f"\n\nResponse A:\nNo\n\nNot\n\nResponse B:\nYes\n\nSo{end}"


def test_characters_are_those_that_were_written_not_those_that_were_read():
    pair = Pair("1", ("Hi?", "And?"), ("y" * 500, "é"), ("No", ""))
    found = encoder(40).encode(pair)
    assert found.cut[1] > 0
    assert found.characters == (501, 2)
    assert grow([found]).characters.tolist() == [501, 2]
    assert encoder(40, encoder="joint").encode(pair).characters == (0, 0)


def test_answers_that_were_cut_to_the_same_stay_apart():
    longer = [Pair("1", ("Hi?",), ("y" * n,), ("No",)) for n in (500, 600)]
    forest = grow([encoder(30).encode(pair) for pair in longer])
    assert len({ids for _, ids in forest.leaves}) == 2
    assert forest.characters.tolist() == [500, 2, 600]


TEXTS = st.text(alphabet="ab é😀\n", max_size=40)
PAIRS = st.integers(1, 3).flatmap(
    lambda n: st.builds(
        Pair,
        st.just("1"),
        *[st.lists(TEXTS, min_size=n, max_size=n).map(tuple) for _ in range(3)],
    )
)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from(["tree", "joint"]), st.integers(8, 90))
def test_exchanging_the_answers_exchanges_the_branches(pair, kind, tokens):
    coder = encoder(tokens, encoder=kind)
    there, back = coder.encode(pair), coder.encode(pair.swapped())
    assert back == EncodedPair(
        there.prefix,
        there.right,
        there.left,
        (there.cut[0], there.cut[2], there.cut[1]),
        there.characters[::-1],
    )


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(8, 90), st.sampled_from([CHAT, PLAIN]))
def test_cut_is_what_is_missing(pair, tokens, template):
    """Template tokens aside, a branch has the prompt and answer tokens less those reported."""
    found = encoder(tokens, template=template).encode(pair)
    pieces = template.pieces(len(pair.prompt))
    around = sum(map(len, pieces.before_user + pieces.before_answer)) + len(pieces.end)
    prompt, left, right = (
        sum(len(t.encode()) for t in turns)
        for turns in (pair.prompt, pair.response_a, pair.response_b)
    )
    assert len(found.prefix + found.left) == around + prompt + left - found.cut[0] - found.cut[1]
    assert len(found.prefix + found.right) == around + prompt + right - found.cut[0] - found.cut[2]
    kept = prompt + left + right - sum(found.cut)
    assert kept <= tokens
    assert min(found.cut) >= 0
    if prompt + left + right <= tokens:
        assert found.cut == (0, 0, 0)


def test_cut_texts_keep_their_two_ends_and_short_turns_whole():
    # budget 40: prompt 8, answers 16 each. Turns of A: 2 and 100 bytes → 2 whole, 14 of the long
    pair = Pair("1", ("p" * 4, "q" * 4), ("ab", "c" * 50 + "d" * 50), ("x" * 50, "y" * 50))
    found = encoder(40).encode(pair)
    assert found.cut == (0, 86, 84)
    assert text(CHAT, found.left).startswith("ab<|im_end|>")
    assert text(CHAT, found.left).endswith("c" * 7 + "d" * 7 + "<|im_end|>")
    assert text(CHAT, found.right).startswith("x" * 8 + "<|im_end|>")


def test_equal_answers_share_a_branch():
    pairs = [Pair("1", ("q",), ("same",), ("same",)), Pair("2", ("q",), ("same",), ("other",))]
    coder = encoder()
    forest = grow([coder.encode(p) for p in pairs])
    assert len(forest.prefixes) == 1
    assert len(forest.leaves) == 2
    assert forest.left.tolist() == [0, 0]
    assert forest.right.tolist() == [0, 1]


def test_a_million_characters_cost_no_more_than_the_budget_needs(monkeypatch):
    long = "word " * 200_000
    coder = encoder(1024)
    seen: list[int] = []
    plain = Template.encode_text

    def counting(self, part):
        seen.append(len(part))
        return plain(self, part)

    monkeypatch.setattr(Template, "encode_text", counting)
    found = coder.encode(Pair("1", (long,), (long,), ("short",)))
    assert sum(seen) <= 50 * 1024, "texts are to be shortened before they are encoded"
    assert len(found.prefix + found.left + found.right) < 1024 + 100
    assert min(found.cut[:2]) > 195_000, "what was not even read is counted as well"
    assert text(CHAT, found.left).startswith("word word")
    assert text(CHAT, found.left).endswith("word <|im_end|>")
    coder.encode(Pair("2", (long,), (long,), ("short",)))
    assert len(seen) == 2, "equal texts are encoded once: the long one, the short one"


# what cannot fit


@pytest.mark.parametrize("template", [CHAT, PLAIN])
def test_a_budget_beyond_the_positions_is_refused_and_the_fix_works(template):
    with pytest.raises(ConfigError, match="100 positions") as caught:
        encoder(100, template=template, max_positions=100)
    allowed = int(caught.value.fix.split("--max-tokens ")[1].split()[0])
    coder = encoder(allowed, template=template, max_positions=100)
    found = coder.encode(Pair("1", ("q" * 200,), ("a" * 200,), ("",)))
    # three shares are rounded down, so up to two tokens stay unused
    assert 98 <= len(found.prefix + found.left) <= 100
    with pytest.raises(ConfigError):
        encoder(allowed + 1, template=template, max_positions=100)


def test_a_template_longer_than_the_positions_is_refused():
    with pytest.raises(ConfigError, match="positions"):
        encoder(8, max_positions=20)


def test_many_turns_stay_within_the_positions():
    coder = encoder(60, max_positions=130)
    pair = Pair("1", ("q" * 20,) * 4, ("a" * 50,) * 4, ("",) * 4)
    found = coder.encode(pair)
    assert len(found.prefix + found.left) <= 130


def test_joint_sequences_stay_within_the_positions():
    coder = encoder(60, encoder="joint", max_positions=112)
    pair = Pair("1", ("q" * 20,) * 2, ("a" * 50,) * 2, ("b" * 50,) * 2)
    found = coder.encode(pair)
    assert len(found.prefix + found.left) <= 112
