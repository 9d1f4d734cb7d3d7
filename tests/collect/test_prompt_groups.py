"""Prompt groups, near-duplicates, folds and the leak check."""

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from litee.collect import near
from litee.collect.folds import (
    check_folds,
    check_leak,
    group_prompts,
    hold_out,
    make_folds,
    source_folds,
)
from litee.collect.near import Links, jaccard, near_links, normalise
from litee.errors import ConfigError, InputError, LeakError
from litee.records import Folds, Pair, VotedPair

LONG = (
    "Plan a trip of four days to Lisbon for two people who like music, food and walking, "
    "with one day by the sea, and say what it costs."
)


def pair(prompt, a="x", b="y", *, name="", source="", shares=(1.0, 0.0, 0.0)):
    turns = prompt if isinstance(prompt, tuple) else (prompt,)
    fill = ("",) * (len(turns) - 1)
    made = Pair(name or f"{prompt}|{a}|{b}", turns, (a, *fill), (b, *fill), source=source)
    return VotedPair(made, shares, 1)


def words(rng, count):
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return " ".join("".join(rng.choice(letters, 6)) for _ in range(count))


def test_normalised_first_turn_decides():
    pairs = [
        pair("What is  NEW?"),
        pair(("what is new?", "and then?")),
        pair("ｗhat is new?"),
        pair("what is old?"),
    ]
    assert group_prompts(pairs) == (0, 0, 0, 1)


def test_near_duplicates_and_chains_share_a_group():
    near_one = LONG.replace("four", "five")
    near_two = near_one.replace("music", "museum")
    far = words(np.random.default_rng(0), 20)
    assert jaccard(normalise(LONG), normalise(near_one)) > 0.8
    assert jaccard(normalise(LONG), normalise(near_two)) < 0.9
    assert group_prompts([pair(far), pair(LONG), pair(near_one), pair(near_two)]) == (0, 1, 1, 1)


def test_reversed_pairs_share_a_group():
    one = pair(LONG, "x", "y")
    assert group_prompts([one, one.swapped()]) == (0, 0)


def test_threshold_is_a_bound_on_true_similarity():
    texts = [LONG, LONG.replace("four", "five")]
    similarity = jaccard(*map(normalise, texts))
    pairs = [pair(text) for text in texts]
    assert group_prompts(pairs, threshold=similarity) == (0, 0)
    assert group_prompts(pairs, threshold=similarity + 1e-9) == (0, 1)
    with pytest.raises(ConfigError, match="similarity threshold"):
        group_prompts(pairs, threshold=0)


def test_every_near_pair_is_found_among_many():
    """Parity with comparing all pairs by true Jaccard."""
    rng = np.random.default_rng(1)
    texts = []
    for _ in range(150):
        text = words(rng, 15)
        texts.append(text)
        for _ in range(rng.integers(0, 3)):
            cut = rng.integers(1, len(text) - 8)
            texts.append(text[:cut] + words(rng, 1) + text[cut + int(rng.integers(0, 12)) :])
    true = {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(texts[i], texts[j]) >= 0.8
    }
    assert len(true) > 50
    assert components(texts, near_links(texts, threshold=0.8)) == components(texts, true)


def components(texts, pairs):
    links = Links(len(texts))
    for i, j in pairs:
        links.join(i, j)
    return [links.root(k) for k in range(len(texts))]


def test_links_are_a_forest_and_do_not_depend_on_order():
    rng = np.random.default_rng(6)
    head = words(rng, 30)
    texts = [f"{head} {words(rng, int(rng.integers(2, 9)))}" for _ in range(300)]
    found = list(near_links(texts, threshold=0.8))
    assert 20 < len(found) == 300 - len(set(components(texts, found)))
    shuffle = rng.permutation(300)
    again = near_links([texts[k] for k in shuffle], threshold=0.8)
    back = {tuple(sorted((int(shuffle[i]), int(shuffle[j])))) for i, j in again}
    assert back == {tuple(sorted(pair)) for pair in found}


def test_signatures_estimate_jaccard_as_datasketch_does():
    rng = np.random.default_rng(2)
    text = words(rng, 60)
    other = text[:200] + words(rng, 30)
    table = near._signatures([text, other], seed=3)
    ours = float(np.mean(table[0] == table[1]))
    sketches = []
    for one in (text, other):
        sketch = datasketch.MinHash(num_perm=128, seed=3)
        sketch.update_batch([shingle.encode() for shingle in near.shingles(one)])
        sketches.append(sketch)
    truth = jaccard(text, other)
    assert abs(ours - truth) < 0.15
    assert abs(sketches[0].jaccard(sketches[1]) - truth) < 0.15


def test_work_stays_bounded_in_a_crowd_below_the_threshold(monkeypatch):
    rng = np.random.default_rng(3)
    head = words(rng, 30)
    texts = [f"{head} {words(rng, 7)}" for _ in range(600)]
    assert 0.6 < jaccard(texts[0], texts[1]) < 0.8
    calls = 0
    truth = near.jaccard

    def counting(a, b):
        nonlocal calls
        calls += 1
        return truth(a, b)

    monkeypatch.setattr(near, "jaccard", counting)
    assert list(near_links(texts, threshold=0.8)) == []
    assert 0 < calls < 40 * len(texts)  # all pairs would be 300 per text


def test_a_copy_in_a_crowd_is_still_found():
    rng = np.random.default_rng(4)
    head = words(rng, 30)
    texts = [f"{head} {words(rng, 7)}" for _ in range(600)]
    texts.append(texts[100] + "!")
    assert list(near_links(texts, threshold=0.8)) == [(100, 600)]


def test_folds_of_a_crowd_pass_the_check():
    """Whatever the bounded search misses, grouping and check miss alike."""
    rng = np.random.default_rng(7)
    head = words(rng, 30)
    pairs = [pair(f"{head} {words(rng, 6)}") for _ in range(600)]
    folds = make_folds(pairs, seed=3)
    check_folds(pairs, folds)
    sides = [[p for p, f in zip(pairs, folds.folds, strict=True) if (f == 0) == s] for s in (0, 1)]
    check_leak(*sides)
    check_leak(*reversed(sides))


def test_short_and_odd_prompts():
    prompts = ["", "a", "b", "hi", "日本語で", "日本語で!", "\ud800"]
    groups = group_prompts([pair(p) for p in prompts])
    assert len(set(groups)) == len(prompts)
    assert group_prompts([]) == ()


def test_a_shared_long_answer_joins_prompts_only_on_request():
    same = "This very answer has more than forty characters in it."
    pairs = [pair("one", same), pair("two", "else", same.upper()), pair("three", same[:40])]
    assert group_prompts(pairs) == (0, 1, 2)
    assert group_prompts(pairs, by_answer=True) == (0, 0, 1)


def test_a_canned_answer_joins_nothing():
    same = "I am sorry, but I cannot help you with that request today."
    pairs = [pair(words(np.random.default_rng(k), 4), same) for k in range(6)]
    assert len(set(group_prompts(pairs, by_answer=True))) == 6
    assert len(set(group_prompts(pairs[:5], by_answer=True))) == 1


def many(prompts, each, sources=("s",), seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for prompt in range(prompts):
        text = words(rng, 8)
        for k in range(each):
            shares = [0.0, 0.0, 0.0]
            shares[rng.integers(3)] = 1.0
            source = sources[prompt % len(sources)]
            made.append(
                pair(text, f"x{k}", name=f"{prompt}-{k}", source=source, shares=tuple(shares))
            )
    return made


@pytest.mark.parametrize("count", [2, 3, 5])
def test_folds_keep_groups_whole_and_balance_sizes(count):
    pairs = many(40, 6, sources=("s", "t"))
    folds = make_folds(pairs, count=count)
    sizes = np.bincount(folds.folds, minlength=count)
    assert sizes.max() - sizes.min() <= 12
    for source in ("s", "t"):
        inside = [f for f, p in zip(folds.folds, pairs, strict=True) if p.pair.source == source]
        sizes = np.bincount(inside, minlength=count)
        assert sizes.max() - sizes.min() <= 6
    check_folds(pairs, folds)


def spread(pairs, fold_of):
    """How far folds differ in size, in the size of each source, and in the share of ties."""
    fold_of = np.asarray(fold_of)
    ties = np.array([item.shares[2] for item in pairs])
    sources = np.array([item.pair.source for item in pairs])
    sizes = [np.bincount(fold_of, minlength=5)]
    sizes += [np.bincount(fold_of[sources == name], minlength=5) for name in np.unique(sources)]
    total, *each = [np.ptp(size) / size.mean() for size in sizes]
    return total, max(each), np.ptp([ties[fold_of == fold].mean() for fold in range(5)])


def test_balance_against_sklearn_on_few_large_groups():
    """Sources are balanced better than by sklearn; sizes and ties stay close to even."""
    ours, theirs = [], []
    for seed in range(5):
        pairs = many(80, 12, seed=seed) + many(13, 60, sources=("t",), seed=seed + 50)
        folds = make_folds(pairs, seed=seed)
        ours.append(spread(pairs, folds.folds))
        labels = [int(np.argmax(item.shares)) for item in pairs]
        reference = np.zeros(len(pairs), dtype=int)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, test) in enumerate(splitter.split(labels, labels, folds.groups)):
            reference[test] = fold
        theirs.append(spread(pairs, reference))
    sizes, sources, ties = np.mean(ours, axis=0)
    assert sources <= np.mean(theirs, axis=0)[1]
    assert sizes < 0.15
    assert ties < 0.1


def test_folds_depend_on_the_seed_only():
    pairs = many(30, 2)
    assert make_folds(pairs, seed=1) == make_folds(pairs, seed=1)
    assert make_folds(pairs, seed=1).folds != make_folds(pairs, seed=2).folds


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=40), st.integers(2, 4))
def test_folds_always_partition_by_prompt(which, count):
    rng = np.random.default_rng(5)
    texts = [words(rng, 6) for _ in range(10)]
    pairs = [pair(texts[k], f"a{n}", name=str(n)) for n, k in enumerate(which)]
    if len(set(which)) < count:
        with pytest.raises(InputError, match="cannot fill"):
            make_folds(pairs, count=count)
        return
    folds = make_folds(pairs, count=count)
    assert set(folds.folds) == set(range(count))
    assert len(set(folds.groups)) == len(set(which))
    check_folds(pairs, folds)


def test_too_few_groups_or_folds():
    with pytest.raises(InputError, match="3 prompt groups cannot fill 5 folds") as caught:
        make_folds(many(3, 4))
    assert "at most 3 folds" in caught.value.fix
    with pytest.raises(InputError, match="1 prompt group "):
        make_folds(many(1, 4))
    with pytest.raises(ConfigError, match="at least 2"):
        make_folds(many(3, 4), count=1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
def test_hold_out_share(share):
    pairs = many(100, 3)
    split = hold_out(pairs, share=share)
    assert sum(split.folds) / len(pairs) == pytest.approx(share, abs=0.02)
    check_folds(pairs, split)


def test_hold_out_of_two_groups_has_both_sides():
    assert sorted(set(hold_out(many(2, 3), share=0.01).folds)) == [0, 1]
    with pytest.raises(InputError, match="one prompt"):
        hold_out(many(1, 3))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        hold_out(many(2, 3), share=1.0)


def test_check_leak_names_equal_prompts_near_prompts_and_answers():
    answer = "An answer that is clearly longer than forty characters."
    near_one = LONG.replace("four", "five")
    with pytest.raises(LeakError, match="share 1 text: the prompt 'hello there'"):
        check_leak([pair("Hello  there")], [pair("hello there", "z")])
    with pytest.raises(LeakError, match="the near prompts"):
        check_leak([pair(LONG)], [pair(near_one)])
    with pytest.raises(LeakError, match="the answer 'an answer that"):
        check_leak([pair("one", answer)], [pair("two", "y", answer.upper())])
    check_leak([pair("one", answer[:40])], [pair("two", answer[:40])])
    check_leak([pair(LONG)], [pair(near_one)], threshold=0.99)
    check_leak([pair("one", answer), pair("one", "z", answer)], [pair("two")])


def test_check_leak_ignores_canned_answers():
    same = "I am sorry, but I cannot help you with that request today."
    train = [pair(f"train {k}", same) for k in range(5)]
    check_leak(train, [pair("test", same)])
    with pytest.raises(LeakError):
        check_leak(train[:4], [pair("test", same)])


def test_check_leak_counts_what_it_does_not_name():
    train = [pair(f"prompt {k} {words(np.random.default_rng(k), 5)}") for k in range(7)]
    with pytest.raises(LeakError, match=r"share 7 texts: .*; and 4 more"):
        check_leak(train, train)


def test_check_folds_finds_a_group_torn_apart():
    pairs = many(4, 2)
    torn = Folds(tuple(range(8)), (0, 1) * 4, 2)
    with pytest.raises(LeakError, match="two folds share 4 texts"):
        check_folds(pairs, torn)


def test_a_fold_per_source_keeps_shared_prompts_with_the_first():
    texts = [words(np.random.default_rng(k), 12) for k in range(4)]
    pairs = [pair(texts[k], source="one") for k in (0, 1)]
    pairs += [pair(texts[k], name=f"two-{k}", source="two") for k in (1, 2, 3)]
    folds = source_folds(pairs)
    assert (folds.folds, folds.count) == ((0, 0, 0, 1, 1), 2)
    check_folds(pairs, folds)


def test_a_source_without_a_prompt_of_its_own_has_no_fold():
    texts = [words(np.random.default_rng(k), 12) for k in range(3)]
    pairs = [pair(text, source="one") for text in texts]
    pairs += [pair(texts[1], name="again", source="two")]
    with pytest.raises(InputError, match="every prompt of source 'two'") as error:
        source_folds(pairs)
    assert "--fold-by prompt" in error.value.fix
    with pytest.raises(InputError, match="come from one source"):
        source_folds(pairs[:3])
