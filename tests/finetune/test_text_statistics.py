"""Text statistics by hand, column by column, and their symmetry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.finetune.probe import fit_probe, predict_head
from litee.finetune.statistics import (
    ANSWER_STATISTICS,
    GROUPS,
    PAIR_STATISTICS,
    answer_statistics,
    pair_statistics,
    statistics_states,
)
from litee.records import Pair


def of(answer, prompt="?"):
    values = answer_statistics([prompt], [answer])
    return dict(zip(ANSWER_STATISTICS, values.tolist(), strict=True))


def test_an_answer_by_hand():
    text = "# Title\n- One item, 42!\n- Two **bold** items.\nIs it so?"
    found = of(text, prompt="List two items please")
    words = ["title", "one", "item", "42", "two", "bold", "items", "is", "it", "so"]
    assert len(text) == 55
    expected = {
        "log_characters": math.log(1 + len(text)),
        "root_characters": math.sqrt(55),
        "thousand_characters": 0.055,
        "log_words": math.log(11),
        "log_sentences": math.log(4),  # after 42!, items., so?
        "mean_word_length": sum(map(len, words)) / 10,
        "log_list_items": math.log(3),
        "log_headers": math.log(2),
        "log_bold": math.log(2),
        "has_code": 0.0,
        "digit_share": 2 / len(text),
        "capital_share": 4 / len(text),
        "non_ascii_share": 0.0,
        "log_lines": math.log(4),
        "log_questions": math.log(2),
        "log_exclamations": math.log(2),
        "distinct_words": 1.0,
        "repeated_trigrams": 0.0,
        "prompt_words_used": 1 / 3,  # of list, items, please: items
        "answer_words_new": 9 / 10,
        "refusal": 0.0,
        "ends_cleanly": 1.0,
        "empty": 0.0,
    }
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but no.", 1.0),
        ("As an AI language model, I cannot", 1.0),
        ("I can't do that", 1.0),
        ("I’m sorry, but I can’t.", 1.0),
        ("i apologize", 1.0),
        ("I do not know.", 1.0),
        ("She was sorry", 0.0),
        ("I can do that", 0.0),
    ],
)
def test_refusals(text, refused):
    assert of(text)["refusal"] == refused


@pytest.mark.parametrize(
    ("text", "clean"), [("Done.", 1), ("Done. \n", 1), ("| a |", 1), ("not yet", 0), ("", 0)]
)
def test_ends_cleanly(text, clean):
    assert of(text)["ends_cleanly"] == clean


def test_code_letters_and_repetition():
    assert of("```py\n1\n```")["has_code"] == 1
    assert of("ééa")["non_ascii_share"] == pytest.approx(2 / 3)
    found = of("a b c a b c a b c")  # trigrams abc bca cab abc bca cab abc: 3 of 7 distinct
    assert found["repeated_trigrams"] == pytest.approx(4 / 7)
    assert found["distinct_words"] == pytest.approx(3 / 9)


@pytest.mark.parametrize("text", ["", " \n ", "\ud800", "\x00", "😀" * 500, "a" * 200_000])
def test_odd_answers_have_finite_statistics(text):
    found = of(text)
    assert np.isfinite(list(found.values())).all()
    assert found["empty"] == float(not text.strip())


def test_turns_are_joined():
    joined = answer_statistics(["one", "two"], ["Yes.", "No."])
    assert joined.tolist() == answer_statistics(["one\ntwo"], ["Yes.\nNo."]).tolist()


def test_a_pair_by_hand():
    pair = Pair("1", ("Why `so`?", "```x```"), ("a b", "c"), ("b c", "d e"))
    found = dict(zip(PAIR_STATISTICS, pair_statistics(pair).tolist(), strict=True))
    assert found == pytest.approx(
        {
            "word_overlap": 2 / 5,
            "identical": 0.0,
            "length_gap": math.log(8) - math.log(6),  # "b c\nd e" has 7, "a b\nc" has 5
            "log_prompt_characters": math.log(1 + 9 + 1 + 7),
            "prompt_question": 1.0,
            "prompt_code": 1.0,
            "later_turns": 1.0,
        }
    )
    same = Pair("2", ("Why",), ("x ",), (" x",))
    assert pair_statistics(same)[PAIR_STATISTICS.index("identical")] == 1.0


TEXT = st.text(alphabet="ab .?*\n#1é", max_size=30)


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT, TEXT)
def test_pair_statistics_do_not_depend_on_the_order(prompt, a, b):
    pair = Pair("1", (prompt,), (a,), (b,))
    np.testing.assert_array_equal(pair_statistics(pair), pair_statistics(pair.swapped()))


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT)
def test_shares_are_shares(prompt, answer):
    found = of(answer, prompt)
    for name in ANSWER_STATISTICS:
        assert found[name] >= 0
        if "share" in name or name in ("distinct_words", "prompt_words_used", "answer_words_new"):
            assert found[name] <= 1


def test_states_of_pairs_and_their_swap():
    pairs = [Pair("1", ("q",), ("Yes.",), ("No!",)), Pair("2", ("q?",), ("x",), ("x y",))]
    there, back = statistics_states(pairs), statistics_states([p.swapped() for p in pairs])
    assert there.states.shape == (4, len(ANSWER_STATISTICS) + len(PAIR_STATISTICS))
    assert there.states.dtype == np.float32
    np.testing.assert_array_equal(there.states[there.left], back.states[back.right])
    np.testing.assert_array_equal(there.states[there.right], back.states[back.left])
    own = slice(len(ANSWER_STATISTICS), None)
    np.testing.assert_array_equal(
        there.states[there.left][:, own], there.states[there.right][:, own]
    )


def test_every_statistic_is_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(ANSWER_STATISTICS + PAIR_STATISTICS)


def test_a_group_alone_tells_nothing_of_the_others():
    long, short = "Yes. " * 40, "No."
    pair = Pair("1", ("q",), (long.strip(),), (short,))
    ends = statistics_states([pair], ["ending"])
    assert ends.states.tolist() == [[0.0, 1.0, 0.0]] * 2  # refusal, ends cleanly, empty
    whole, some = statistics_states([pair]), statistics_states([pair], ["length", "ending"])
    names = ANSWER_STATISTICS + PAIR_STATISTICS
    wanted = [k for k, name in enumerate(names) if name in GROUPS["length"] + GROUPS["ending"]]
    np.testing.assert_array_equal(some.states, whole.states[:, wanted])


def test_a_head_on_statistics_learns_that_longer_wins():
    rng = np.random.default_rng(0)
    pairs, shares = [], []
    for k in range(60):
        sizes = rng.integers(1, 60, 2)
        pairs.append(Pair(str(k), ("q",), ("word " * sizes[0],), ("word " * sizes[1],)))
        shares.append([1.0, 0, 0] if sizes[0] > sizes[1] else [0, 1.0, 0])
    data = statistics_states(pairs)
    head = fit_probe(data, np.array(shares), np.ones(60), ridge=1.0)
    fresh = [Pair("x", ("q",), ("word " * 50,), ("word " * 5,))]
    p = predict_head(head, statistics_states(fresh))[0]
    assert p[0] > 0.9
