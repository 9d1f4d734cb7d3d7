"""Pairs unlike the votes a judge has learnt from are counted and named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litee.predict.familiar import FEW_PAIRS, Familiar, figures
from litee.records import Pair


def pair(number=0, *, prompt="Why is it so?", a="x" * 50, b="y" * 40) -> Pair:
    return Pair(str(number), (prompt,), (a,), (b,))


LEARNT = [pair(k, a="x" * (50 + k), b="y" * (30 + k)) for k in range(100)]


def test_the_training_pairs_themselves_are_familiar():
    familiar = Familiar.of(LEARNT)
    assert familiar.ranges["longer_answer"] == pytest.approx((50.99, 148.01))
    assert familiar.ranges["turns"] == (1.0, 1.0)
    assert familiar.outside == pytest.approx(0.02)  # the shortest and the longest
    assert familiar.cautions(familiar.count(LEARNT, {}), len(LEARNT)) == ()


def test_ways_are_named_most_frequent_first():
    familiar = Familiar.of(LEARNT)
    long = pair(1, a="x" * 500, b="y" * 400)
    foreign = Pair("2", ("Why?", "And?"), ("ä" * 60, ""), ("y" * 40, ""))
    assert familiar.unlike(long) == ("longer answers",)
    assert set(familiar.unlike(foreign)) == {
        "shorter prompts",
        "more turns",
        "more letters beyond ASCII",
    }
    counts = familiar.count([long] * 30 + [foreign] * 10 + LEARNT[5:65], {})
    assert counts["any"] == 40 and counts["longer answers"] == 30
    (said,) = familiar.cautions(counts, 100)
    assert said.startswith("40% of the pairs") and "of which 2% are so" in said
    assert said.index("longer answers 30%") < said.index("10%")


def test_few_pairs_and_few_strange_ones_are_no_reason():
    familiar = Familiar.of(LEARNT)
    strange = pair(a="x" * 5000)
    assert familiar.cautions({"any": FEW_PAIRS - 1}, FEW_PAIRS - 1) == ()
    counts = familiar.count([strange] * 14 + LEARNT[10:96], {})
    assert familiar.cautions(counts, 100) == ()  # 2 × 2 % + 10 % are allowed
    assert familiar.cautions(familiar.count([strange], counts), 101) != ()


def test_counts_go_on_and_a_judge_of_before_says_nothing():
    familiar = Familiar.of(LEARNT)
    some = [pair(a="x" * 900), *LEARNT[3:9]]
    assert familiar.count(some[1:], familiar.count(some[:1], {})) == familiar.count(some, {})
    assert Familiar().unlike(some[0]) == ()


@given(st.text(), st.text(), st.text())
def test_figures_do_not_depend_on_the_order(prompt, a, b):
    one = Pair("1", (prompt,), (a,), (b,))
    assert figures(one) == pytest.approx(figures(one.swapped()))
