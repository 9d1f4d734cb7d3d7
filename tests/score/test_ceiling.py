from itertools import combinations
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_votes import make_votes

from litee.records import Outcome, Pair, Score, VotedPair
from litee.score.ceiling import (
    agreement,
    agreement_rows,
    bayes_accuracy,
    consistency,
    log_loss_floor,
    max_calibrated_accuracy,
    max_calibrated_log_loss,
    vote_counts,
)
from litee.score.intervals import GroupBootstrap

A, B, TIE, BAD = Outcome


def voted_pair(*winners: Outcome, names: tuple[str, ...] = ()) -> VotedPair:
    n = len(winners)
    shares = tuple(sum(w.class_index == k for w in winners) / n for k in range(3))
    return VotedPair(Pair("1", ("q",), ("x",), ("y",)), shares, n, winners, names)


def test_agreement_by_hand():
    voted = [voted_pair(A, A, B), voted_pair(TIE, BAD), voted_pair(A, TIE), voted_pair(B)]
    found = agreement(voted, GroupBootstrap(range(4), seed=0))
    assert (found.pairs, found.vote_pairs, found.decisive_vote_pairs) == (3, 5, 3)
    assert found.three_way.value == pytest.approx(2 / 5)  # a-a and tie-both_bad
    assert found.decisive.value == pytest.approx(1 / 3)
    # a a b: each a meets {a, b}, half right; b meets {a, a}, wrong; ties agree; a-tie both wrong
    assert found.leave_one_out.value == pytest.approx((0.5 + 0.5 + 0 + 1 + 1 + 0 + 0) / 7)
    assert found.leave_one_out_decisive.value == pytest.approx(1 / 3)


def test_agreement_matches_a_loop_over_vote_pairs():
    voted, _, groups = make_votes(150, 2)
    same = total = 0
    for item in voted:
        for one, two in combinations(item.winners, 2):
            same, total = same + (one.class_index == two.class_index), total + 1
    found = agreement(voted, GroupBootstrap(groups, seed=0))
    assert found.vote_pairs == total and found.three_way.value == pytest.approx(same / total)
    assert found.three_way.low < found.three_way.value < found.three_way.high


def test_what_bounds_a_judge_weighs_pairs_by_votes_as_its_figures_do():
    voted = [voted_pair(A, A, B, B), voted_pair(A, A), voted_pair(B)]
    found = agreement(voted, GroupBootstrap(range(3), seed=0))
    assert found.three_way.value == pytest.approx((2 + 1) / (6 + 1))
    assert found.per_vote.value == pytest.approx((4 * 2 / 6 + 2 * 1) / 6)
    assert found.accuracy_bounds == bayes_accuracy(found.per_vote.value)
    assert found.log_loss_floor == log_loss_floor(found.per_vote.value)


def test_a_judge_that_knows_the_odds_keeps_within_the_bounds():
    """Sure pairs with two votes, coin tosses with twenty: most vote pairs are of the tosses."""
    rng = np.random.default_rng(0)
    sure = [voted_pair(A, A) for _ in range(300)]
    tossed = [voted_pair(*((A, B)[k] for k in rng.integers(0, 2, 20))) for _ in range(30)]
    found = agreement(sure + tossed, GroupBootstrap(range(330), seed=0))
    right, loss = (600 * 1 + 600 * 0.5) / 1200, 600 * np.log(2) / 1200
    low, high = found.accuracy_bounds
    assert low <= right <= high and loss >= found.log_loss_floor
    assert bayes_accuracy(found.three_way.value)[1] < right  # vote pairs weigh other pairs


def test_same_annotator_is_reported():
    voted = [voted_pair(A, A, B, names=("x", "x", "y")), voted_pair(A, B, names=("", ""))]
    assert agreement(voted, GroupBootstrap([0, 1], seed=0)).same_annotator == 1


def test_no_repeats_is_said():
    found = agreement([voted_pair(A), voted_pair(B)], GroupBootstrap([0, 1], seed=0))
    assert found.three_way == Score(None, reason="no pair has two votes")
    assert found.accuracy_bounds is None and found.log_loss_floor is None


def test_counts_without_single_votes():
    pair = Pair("1", ("q",), ("x",), ("y",))
    whole, weighted = VotedPair(pair, (0.75, 0.0, 0.25), 4), VotedPair(pair, (0.7, 0.0, 0.3), 2)
    assert vote_counts([whole, weighted]).tolist() == [[3, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("loss", "accuracy"),
    [
        (0.635, 0.802),
        (0.70, 0.769),
        (0.862, 0.671),
        (0.876, 0.661),
        (0.92, 0.626),
        (0.94, 0.609),
        (0.969, 0.582),
        (0.99, 0.561),
        (1.02, 0.526),
        (1.038, 0.503),
        (1.0588, 0.470),
    ],
)
def test_consistency_bound_table(loss, accuracy):
    assert max_calibrated_accuracy(loss) == pytest.approx(accuracy, abs=0.0006)


@pytest.mark.parametrize(
    ("agreed", "low", "high", "floor"),
    [
        (0.67, 0.67, 0.81, 0.400),
        (0.63, 0.63, 0.78, 0.462),
        (0.55, 0.55, 0.71, 0.598),
        (0.50, 0.50, 0.67, 0.693),
        (0.45, 0.45, 0.61, 0.799),
    ],
)
def test_bayes_bounds_table(agreed, low, high, floor):
    assert bayes_accuracy(agreed) == pytest.approx((low, high), abs=0.006)
    assert log_loss_floor(agreed) == pytest.approx(floor, abs=0.0006)


distributions = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(
    lambda x: np.array(x) / sum(x)
)


@given(st.lists(distributions, min_size=1, max_size=6))
def test_bounds_hold_for_any_truth(truths):
    p = np.array(truths)
    agreed = (p**2).sum(axis=1).mean()
    best = p.max(axis=1).mean()
    loss = -(p * np.log(p)).sum(axis=1).mean()
    low, high = bayes_accuracy(agreed)
    assert low - 1e-9 <= best <= high + 1e-9
    assert loss >= log_loss_floor(min(agreed, 1.0)) - 1e-9
    assert best <= max_calibrated_accuracy(loss) + 1e-9
    assert loss <= max_calibrated_log_loss(best) + 1e-9
    assert consistency(Score(loss), Score(best)) == "ok"


@given(st.floats(1 / 3, 1))
def test_bound_and_inverse(accuracy):
    loss = max_calibrated_log_loss(accuracy)
    assert 0 <= loss <= log(3) + 1e-12
    assert max_calibrated_accuracy(max(loss, 0)) == pytest.approx(accuracy, abs=1e-5)


def test_ends_of_the_bound():
    assert max_calibrated_log_loss(0.1) == pytest.approx(log(3))
    assert max_calibrated_accuracy(5.0) == pytest.approx(1 / 3)
    assert max_calibrated_accuracy(0.0) == 1


def test_published_pair_that_cannot_be():
    flagged = consistency(Score(0.99), Score(0.802))
    assert flagged.startswith("miscalibrated or impossible") and "0.635" in flagged
    assert consistency(Score(1.0218), Score(0.483)) == "ok"
    assert consistency(Score(None, reason="hard verdicts"), Score(0.5)) == (
        "not checked: hard verdicts"
    )


@pytest.mark.parametrize("call", [bayes_accuracy, log_loss_floor, max_calibrated_log_loss])
def test_shares_outside_range_are_refused(call):
    with pytest.raises(ValueError, match="share"):
        call(1.2)


def test_bad_losses_are_refused():
    for loss in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="log loss"):
            max_calibrated_accuracy(loss)
    with pytest.raises(ValueError, match="no bound"):
        log_loss_floor(0.0)


def test_rows_of_a_single_vote_count_nothing():
    rows = agreement_rows(np.array([[1.0, 0, 0]]))
    assert all(r.value() is None for r in rows.values())
