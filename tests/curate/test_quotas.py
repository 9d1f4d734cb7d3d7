"""Quotas: what they say, what they allow, and that the gate never ends in a dead end."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.curate.quotas import Gate, Quota, make_quotas, parse_quota
from litee.errors import ConfigError

CELLS = [("a", "x")] * 3 + [("a", "y")] * 3 + [("b", "x")] * 3 + [("b", "y")] * 3


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("source:wikihow=200", Quota("source", "wikihow", 200, 200)),
        ("topic:cook*=5-9", Quota("topic", "cook*", 5, 9)),
        ("source:a=b=3-", Quota("source", "a=b", 3, None)),
        ("source:x=-7", Quota("source", "x", 0, 7)),
    ],
)
def test_quotas_are_read(text, quota):
    assert parse_quota(text) == quota
    if quota.low != quota.high:
        assert parse_quota(str(quota)) == quota


@pytest.mark.parametrize(
    "text", ["wikihow=2", "source:a", "source:a=", "source:a=-", "topic:a=9-2"]
)
def test_wrong_quotas_are_refused(text):
    with pytest.raises(ConfigError, match="quota"):
        parse_quota(text)


@pytest.mark.parametrize(
    ("texts", "n", "message"),
    [
        (["source:c=1"], 2, "nothing fits 'c'"),
        (["source:a=7"], 9, "asks for 7, 6 are usable"),
        (["source:a=4"], 3, "but n = 3"),
        (["source:a=4-", "source:b=4-"], 7, "at least 8 demonstrations, but n = 7"),
        (["source:a=-2", "source:b=-3"], 6, "by source leave room for 5"),
        (["source:a=-2", "topic:x=6-", "topic:y=-1"], 6, "no choice of 6"),
    ],
)
def test_impossible_quotas_say_why(texts, n, message):
    with pytest.raises(ConfigError, match=message):
        Gate([parse_quota(t) for t in texts], CELLS, n)


def test_room_is_kept_for_what_is_still_wanted():
    """Of 4 picks 2 must be of b, so the third a is refused."""
    gate = Gate([parse_quota("source:b=2-")], CELLS, 4)
    assert [gate.take(("a", "x")) for _ in range(3)] == [True, True, False]
    assert gate.is_closed(("a", "x"))
    assert gate.take(("b", "y"))


def test_limits_for_all_sources_and_topics():
    names = ["q*", "r"]
    cells = [(name, "t") for name in names for _ in range(3)]
    quotas = make_quotas([], cells, max_per_source=2, max_per_topic=0)
    assert [q.high for q in quotas] == [2, 2]
    gate = Gate(quotas, cells, 4)
    assert [gate.take(("q*", "t")) for _ in range(3)] == [True, True, False]
    assert [gate.take(("r", "t")) for _ in range(2)] == [True, True]


QUOTAS = st.builds(
    lambda axis, name, low, more: Quota(axis, name, low, None if more is None else low + more),
    st.sampled_from(["source", "topic"]),
    st.sampled_from(["a", "b", "x", "y", "*"]),
    st.integers(0, 4),
    st.none() | st.integers(0, 4),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(QUOTAS, max_size=4), st.integers(1, 12), st.randoms(use_true_random=False))
def test_whatever_the_order_all_quotas_are_met_in_the_end(quotas, n, random):
    try:
        gate = Gate(quotas, CELLS, n)
    except ConfigError:
        return
    order = list(CELLS)
    random.shuffle(order)
    taken = Counter()
    for cell in order:
        if taken.total() < n and gate.take(cell):
            taken[cell] += 1
    assert taken.total() == n
    for quota in quotas:
        count = sum(number for cell, number in taken.items() if quota.covers(cell))
        assert quota.low <= count
        assert quota.high is None or count <= quota.high
