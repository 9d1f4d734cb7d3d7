"""Best-of-n's estimator against all subsets, and rewards through the pairs that hold them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.errors import ModelError
from litee.predict.best_of import (
    Candidates,
    best_index,
    best_of_curve,
    candidate_rewards,
    kl_bound,
    order_weights,
)
from litee.records import Prediction


def over_all_subsets(rewards, values, n):
    """Mean value of the best answer over every set of n of the samples; ties share equally."""
    found = []
    for chosen in itertools.combinations(range(len(rewards)), n):
        top = max(rewards[k] for k in chosen)
        found.append(np.mean([values[k] for k in chosen if rewards[k] == top]))
    return np.mean(found)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.floats(-5, 5)), min_size=1, max_size=7),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_the_curve_is_the_mean_over_all_subsets(samples, data):
    rewards, values = zip(*samples, strict=True)
    n = data.draw(st.integers(1, len(samples)))
    own = best_of_curve([rewards], [rewards], [n])[0, 0]
    assert own == pytest.approx(over_all_subsets(rewards, rewards, n), abs=1e-9)
    if len(set(rewards)) == len(rewards):
        other = best_of_curve([rewards], [values], [n])[0, 0]
        assert other == pytest.approx(over_all_subsets(rewards, values, n), abs=1e-9)


def test_tied_samples_share_their_value():
    """Two of three samples tie at the top: whichever is picked, the expectation is their mean."""
    curve = best_of_curve([[5.0, 5.0, 0.0]], [[10.0, 20.0, 0.0]], [1, 3])
    assert curve.tolist() == [[10.0, 15.0]]


def test_bounds_and_weights():
    assert [kl_bound(n) for n in (1, 2, 8)] == pytest.approx(
        [0, math.log(2) - 0.5, math.log(8) - 0.875]
    )
    assert order_weights(32, 1) == pytest.approx(np.full(32, 1 / 32))
    assert order_weights(32, 32)[-1] == 1
    for n in (1, 3, 32):
        assert order_weights(32, n).sum() == pytest.approx(1)
    for bad in (0, 33):
        with pytest.raises(ValueError, match=r"1 … 32"):
            order_weights(32, bad)
    with pytest.raises(ValueError, match="1 or more"):
        kl_bound(0)
    with pytest.raises(ValueError, match="must be"):
        best_of_curve([[1.0]], [[1.0, 2.0]], [1])
    assert best_index([2.0, 1.0]) == 0


class ByLength:
    """Rewards an answer's letters; counts its calls."""

    def __init__(self, none=False, nan=False):
        self.calls, self.pairs, self.none, self.nan = 0, [], none, nan

    def predict(self, pairs):
        self.calls += 1
        self.pairs += pairs

        def reward(turns):
            return None if self.none else math.nan if self.nan else float(sum(map(len, turns)))

        third = (1 / 3,) * 3
        return [Prediction(p.id, third, reward(p.response_a), reward(p.response_b)) for p in pairs]


@given(st.lists(st.lists(st.text("ab", max_size=4), min_size=1, max_size=6), max_size=4))
def test_every_answer_gets_its_own_reward_in_one_call(texts):
    judge = ByLength()
    sets = [Candidates(("q",), tuple((t,) for t in several)) for several in texts]
    found = candidate_rewards(judge, sets)
    assert [list(row) for row in found] == [[float(len(t)) for t in s] for s in texts]
    assert judge.calls == 1
    assert len(judge.pairs) == sum(map(len, texts))
    assert all(p.response_a == p.response_b for p in judge.pairs)  # nothing shares its budget


@pytest.mark.parametrize(("judge", "said"), [({"none": True}, "no reward"), ({"nan": True}, "not")])
def test_judges_without_a_usable_reward_are_refused(judge, said):
    with pytest.raises(ModelError, match=said):
        candidate_rewards(ByLength(**judge), [Candidates(("q",), (("x",),))])
