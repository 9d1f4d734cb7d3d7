import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_votes import make_votes

from litee.records import Pair, VotedPair
from litee.score.floors import (
    FLOOR_NAMES,
    LengthFloor,
    answer_lengths,
    floor_systems,
    longer_answer,
    prior,
    system_names,
)
from litee.score.outcomes import Truth, metric_rows, unswap


def pair(a: int, b: int) -> Pair:
    return Pair(f"{a}-{b}", ("q",), ("x" * a,), ("y" * b,))


def test_prior_by_hand():
    voted = [VotedPair(pair(1, 1), (0.5, 0.0, 0.5), 4), VotedPair(pair(1, 1), (0.0, 1.0, 0.0), 1)]
    assert prior(voted, symmetric=False) == pytest.approx((3 / 8, 2 / 8, 3 / 8))
    assert prior(voted) == pytest.approx((2.5 / 8, 2.5 / 8, 3 / 8))
    assert prior([]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_lengths_add_up_turns():
    two_turns = Pair("1", ("q", "r"), ("xx", "xxx"), ("", "y"))
    assert answer_lengths([two_turns]).tolist() == [[5, 1]]


def test_longer_answer():
    found = longer_answer([pair(5, 2), pair(2, 5), pair(3, 3)])
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]


def test_length_bins_by_hand():
    # differences 1 and -1 fall into the lower bin, 9 and -9 into the upper one
    voted = [
        VotedPair(pair(2, 1), (0.0, 0.0, 1.0), 2),
        VotedPair(pair(1, 2), (0.0, 0.0, 1.0), 2),
        VotedPair(pair(10, 1), (1.0, 0.0, 0.0), 3),
        VotedPair(pair(1, 10), (0.0, 1.0, 0.0), 3),
    ]
    floor = LengthFloor.fit(voted, bins=2)
    assert floor.table.tolist() == [[1 / 7, 1 / 7, 5 / 7], [7 / 9, 1 / 9, 1 / 9]]
    found = floor.predict([pair(20, 1), pair(1, 20), pair(3, 3)])
    assert found.tolist() == [[7 / 9, 1 / 9, 1 / 9], [1 / 9, 7 / 9, 1 / 9], [1 / 7, 1 / 7, 5 / 7]]


def test_equal_lengths_share_a_and_b():
    voted = [VotedPair(pair(2, 1), (1.0, 0.0, 0.0), 7)]
    assert LengthFloor.fit(voted, bins=1).predict([pair(4, 4)])[0, :2].tolist() == [0.45, 0.45]


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=30))
def test_floors_are_symmetric_distributions(lengths):
    training, _, _ = make_votes(40, 1)
    pairs = [pair(a, b) for a, b in lengths]
    straight = floor_systems(training, pairs)
    swapped = floor_systems([v.swapped() for v in training], [p.swapped() for p in pairs])
    assert tuple(straight) == FLOOR_NAMES
    for name, p in straight.items():
        assert p.sum(axis=1) == pytest.approx(np.ones(len(pairs)))
        assert unswap(swapped[name]) == pytest.approx(p), name


def test_ladder_of_floors_on_votes_that_like_length():
    training, _, _ = make_votes(800, 1)
    voted, _, _ = make_votes(800, 2)
    truth = Truth.of(voted)
    loss = {
        name: metric_rows(p, truth)["log_loss"].value()
        for name, p in floor_systems(training, [v.pair for v in voted]).items()
    }
    assert loss["uniform"] == pytest.approx(np.log(3))
    assert loss["length bins"] < loss["prior"] < loss["uniform"]
    assert loss["longer answer"] is None


def test_nothing_to_learn_from():
    found = floor_systems([], [pair(3, 1)])
    assert found["length bins"].tolist() == [pytest.approx([1 / 3] * 3)]


def met(first: str, second: str, shares=(1.0, 0.0, 0.0), votes=1) -> VotedPair:
    named = Pair(f"{first}-{second}", ("q",), ("x",), ("y",), model_a=first, model_b=second)
    return VotedPair(named, shares, votes)


def test_names_alone_rank_systems_that_never_met():
    votes = [met("ant", "bee", votes=9), met("cat", "bee", (0.0, 1.0, 0.0), 9)]
    (p,) = system_names(votes, [met("ant", "cat").pair])
    (back,) = system_names(votes, [met("cat", "ant").pair])
    assert p[0] > 0.95 > 0.02 > p[1]
    assert back.tolist() == pytest.approx(p[[1, 0, 2]].tolist())
    assert p.sum() == pytest.approx(1)


def test_the_order_of_a_pair_of_names_does_not_matter():
    one = system_names([met("ant", "bee", (0.5, 0.3, 0.2), 10)], [met("ant", "bee").pair])
    two = system_names([met("bee", "ant", (0.3, 0.5, 0.2), 10)], [met("ant", "bee").pair])
    np.testing.assert_allclose(one, two, atol=1e-9)
    np.testing.assert_allclose(one[0], (np.array([5, 3, 2]) + 1 / 3) / 11, atol=1e-6)


def test_a_new_name_is_average_and_a_missing_one_has_no_prediction():
    votes = [met("ant", "bee", votes=9)]
    (p,) = system_names(votes, [met("cow", "dog").pair])
    assert p[0] == pytest.approx(p[1])
    assert system_names(votes, [pair(1, 2)]) is None
    assert system_names([met("ant", "ant")], [met("ant", "ant").pair]) is None
