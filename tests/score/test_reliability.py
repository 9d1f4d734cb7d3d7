from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_votes import make_votes, noisy

from litee.score.outcomes import Truth, metric_rows
from litee.score.reliability import (
    calibration,
    coverage_curve,
    ece_by_chance,
    ece_rows,
    equal_mass_bins,
)


def naive_ece(p, truth, bins):
    """Bins as in `equal_mass_bins`, everything else as loops over single votes."""
    confidence, chosen = p.max(axis=1), p.argmax(axis=1)
    number = equal_mass_bins(confidence, truth.votes, bins)
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(len(p)) if number[i] == b]
        votes = sum(truth.votes[i] for i in inside)
        if votes:
            mean = sum(truth.votes[i] * confidence[i] for i in inside) / votes
            right = sum(truth.votes[i] * truth.shares[i, chosen[i]] for i in inside) / votes
            total += votes / truth.votes.sum() * abs(mean - right)
    return total


def test_ece_matches_a_loop():
    voted, true, _ = make_votes(300, 1)
    p, truth = noisy(true, 1.0, 2), Truth.of(voted)
    assert ece_rows(p, truth).value() == pytest.approx(naive_ece(p, truth, 10))


def test_ece_is_small_for_the_truth_and_large_for_the_sure():
    voted, true, _ = make_votes(4000, 1)
    truth = Truth.of(voted)
    sure = np.eye(3)[true.argmax(axis=1)]
    assert ece_rows(true, truth).value() < 0.03
    accuracy = metric_rows(sure, truth)["accuracy"].value()
    assert ece_rows(sure, truth).value() == pytest.approx(1 - accuracy)


def test_chance_explains_the_ece_of_the_truth_and_not_that_of_the_sure():
    voted, true, _ = make_votes(1000, 3)
    truth, groups = Truth.of(voted), np.arange(len(voted)) // 2
    by_chance = ece_by_chance(true, truth, groups, seed=0)
    assert by_chance.low < ece_rows(true, truth).value() < by_chance.high
    sharp = true**3 / (true**3).sum(axis=1, keepdims=True)
    by_chance = ece_by_chance(sharp, truth, groups, seed=0)
    assert ece_rows(sharp, truth).value() > 2 * by_chance.high
    assert by_chance == ece_by_chance(sharp, truth, groups, seed=0)


def test_chance_gives_what_calibrated_votes_have_on_average():
    rng = np.random.default_rng(0)
    p = rng.dirichlet((3.0, 3.0, 1.0), size=300)
    found, chance = [], []
    for seed in range(40):
        shares = np.eye(3)[[rng.choice(3, p=row) for row in p]]
        truth = Truth(shares, np.ones(len(p)))
        found.append(ece_rows(p, truth).value())
        chance.append(ece_by_chance(p, truth, np.arange(300), seed=seed, resamples=200).value)
    assert np.mean(chance) == pytest.approx(np.mean(found), rel=0.1)


@pytest.mark.parametrize("prompts", [10, 30])
def test_few_prompts_explain_a_large_ece_too(prompts):
    """Of a calibrated judge, one ECE in forty lies above the range that chance gives."""
    rng = np.random.default_rng(1)
    above = 0
    for seed in range(100):
        p = rng.dirichlet((3.0, 3.0, 1.0), size=prompts).repeat(8, axis=0)
        shares = np.eye(3)[[rng.choice(3, p=row) for row in p[::8]]].repeat(8, axis=0)
        truth = Truth(shares, np.ones(len(p)))  # all votes on a prompt are alike
        chance = ece_by_chance(p, truth, np.arange(len(p)) // 8, seed=seed, resamples=200)
        above += ece_rows(p, truth).value() > chance.high
    assert above <= 12


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]) | st.floats(0, 1), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_bins_are_ordered_and_ties_stay_together(values, bins):
    array = np.array(values)
    number = equal_mass_bins(array, np.ones(len(array)), bins)
    assert number.min() >= 0 and number.max() < bins
    order = np.argsort(array, kind="stable")
    assert (np.diff(number[order]) >= 0).all()
    for value in set(values):
        assert len(set(number[array == value])) == 1


def test_distinct_values_fill_bins_evenly():
    number = equal_mass_bins(np.random.default_rng(0).random(100), np.ones(100), 10)
    assert np.bincount(number).tolist() == [10] * 10


def test_a_value_goes_where_the_middle_of_its_mass_lies():
    number = equal_mass_bins(np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 1.0]), 2)
    assert number.tolist() == [0, 1, 1]


def test_diagram_covers_all_votes():
    voted, true, _ = make_votes(200, 3)
    truth = Truth.of(voted)
    diagram = calibration(true, truth)
    for bins in (diagram.top, *diagram.classes.values()):
        assert len(bins) == 10
        assert sum(b.votes for b in bins) == pytest.approx(truth.votes.sum())
    assert sum(diagram.histogram) == pytest.approx(truth.votes.sum())
    observed = sum(b.votes * b.observed for b in diagram.classes["tie"])
    assert observed == pytest.approx((truth.votes * truth.shares[:, 2]).sum())


def test_coverage_ends_at_plain_accuracy():
    voted, true, _ = make_votes(200, 3)
    p, truth = noisy(true, 0.3, 1), Truth.of(voted)
    curve = coverage_curve(p, truth)
    assert curve[-1].coverage == 1
    assert curve[-1].accuracy == pytest.approx(metric_rows(p, truth)["accuracy"].value())
    assert curve[0].accuracy > curve[-1].accuracy
    assert all(a.coverage < b.coverage for a, b in pairwise(curve))
    kept = p.max(axis=1) >= curve[4].threshold
    again = metric_rows(p[kept], truth.where(kept))
    assert curve[4].accuracy == pytest.approx(again["accuracy"].value())
    assert curve[4].accuracy_decisive == pytest.approx(again["accuracy_decisive"].value())


def test_constant_predictor_has_one_point():
    voted, _, _ = make_votes(50, 3)
    assert len(coverage_curve(np.tile([0.5, 0.3, 0.2], (50, 1)), Truth.of(voted))) == 1
