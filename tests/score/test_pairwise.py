import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from krippendorff import alpha as library_alpha
from sklearn.metrics import cohen_kappa_score

from litee.score.intervals import GroupBootstrap
from litee.score.pairwise import (
    PairTruth,
    Verdicts,
    human_sums,
    measures,
    pair_sums,
    resample_pairs,
    threshold_for_ties,
)

CODES = np.array([1.0, -1.0, 0.0])  # a, b, tie


def truth_of(outcomes, *, longer=None, mirrored=False, groups=None):
    n = len(outcomes)
    groups = np.arange(n) if groups is None else groups
    longer = np.zeros(n) if longer is None else longer
    return PairTruth(np.eye(3)[outcomes], groups, longer, mirrored)


def verdicts_of(outcomes):
    return Verdicts.from_probabilities(np.eye(3)[outcomes])


def figures(truth, verdicts):
    found = measures(pair_sums(truth, verdicts).sum(axis=0, keepdims=True))
    return {key: float(value[0]) for key, value in found.items()}


def test_figures_of_five_pairs_by_hand():
    # people: a a b tie b; metric: a b b a tie
    found = figures(truth_of([0, 0, 1, 2, 1]), verdicts_of([0, 1, 1, 0, 2]))
    assert found["pairwise_accuracy"] == pytest.approx(2 / 5)
    assert found["decisive_accuracy"] == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert found["both_decisive_accuracy"] == pytest.approx(2 / 3)
    assert found["tie_discounted"] == pytest.approx((2 + 0.5 + 0.5) / 5)
    assert found["tie_rate"] == pytest.approx(1 / 5)


def test_kappa_and_alpha_equal_the_libraries():
    rng = np.random.default_rng(0)
    people = rng.integers(0, 3, 400)
    metric = np.where(rng.random(400) < 0.5, people, rng.integers(0, 3, 400))
    found = figures(truth_of(people), verdicts_of(metric))
    assert found["kappa"] == pytest.approx(cohen_kappa_score(people, metric))
    weighted = cohen_kappa_score(CODES[people], CODES[metric], labels=[-1, 0, 1], weights="linear")
    assert found["kappa_weighted"] == pytest.approx(weighted)
    data = np.vstack([CODES[people], CODES[metric]])
    for name, level in (("alpha", "nominal"), ("alpha_interval", "interval")):
        library = library_alpha(reliability_data=data, level_of_measurement=level)
        assert found[name] == pytest.approx(library), name


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_derived_pairs_do_not_depend_on_which_answer_is_a(rows):
    people, metric = np.array(rows).T
    swap = np.array([1, 0, 2])
    one = figures(truth_of(people, mirrored=True), verdicts_of(metric))
    two = figures(truth_of(swap[people], mirrored=True), verdicts_of(swap[metric]))
    for key in one:
        assert one[key] == pytest.approx(two[key], nan_ok=True), key


def test_a_metric_that_follows_length_gets_half_when_length_is_balanced_out():
    rng = np.random.default_rng(1)
    longer = rng.choice([1.0, -1.0], 200)
    people = np.where(rng.random(200) < 0.8, longer < 0, longer > 0).astype(int)
    verdicts = Verdicts.from_scores(longer, np.zeros(200))
    found = figures(truth_of(people, longer=longer), verdicts)
    assert found["decisive_accuracy"] > 0.7
    assert found["length_balanced"] == pytest.approx(0.5)


def test_unscored_pairs_count_for_nothing():
    p = np.eye(3)[[0, 1]]
    p[1] = np.nan
    found = figures(truth_of([0, 0]), Verdicts.from_probabilities(p))
    assert found["pairwise_accuracy"] == 1.0
    scores = Verdicts.from_scores(np.array([1.0, np.nan]), np.array([0.0, 0.0]))
    assert scores.scored.tolist() == [True, False]
    nothing = figures(truth_of([0]), Verdicts.from_probabilities(np.full((1, 3), np.nan)))
    assert np.isnan(nothing["pairwise_accuracy"])


def test_a_figure_without_value_says_why():
    truth = truth_of([2, 2, 2])
    sums = {"m": pair_sums(truth, verdicts_of([2, 2, 2]))}
    resampled = resample_pairs(sums, GroupBootstrap(truth.groups, seed=0, resamples=20))
    assert resampled.score(("m", "pairwise_accuracy")).value == 1.0
    assert "decisive" in resampled.score(("m", "decisive_accuracy")).reason
    assert "same" in resampled.score(("m", "kappa")).reason


def test_the_tie_threshold_is_learnt_on_other_prompts():
    rng = np.random.default_rng(2)
    lean = rng.normal(size=3000)
    people = np.where(np.abs(lean) < 0.5, 2, np.where(lean > 0, 0, 1))
    truth = truth_of(people, groups=np.arange(3000) // 10)
    thresholds = threshold_for_ties(lean, np.zeros(3000), truth)
    assert thresholds == pytest.approx(np.full(3000, 0.5), abs=0.02)
    assert len(np.unique(thresholds)) > 1  # one per fold
    few = truth_of(people[:3], groups=np.zeros(3, dtype=int))
    assert threshold_for_ties(lean[:3], np.zeros(3), few).tolist() == [0, 0, 0]


def test_people_against_each_other_by_hand():
    # three votes a a b: of 3 vote pairs one agrees
    sums = human_sums(np.array([[2.0, 1.0, 0.0]])).sum(axis=0, keepdims=True)
    assert measures(sums)["pairwise_accuracy"][0] == pytest.approx(1 / 3)
    assert measures(sums)["decisive_accuracy"][0] == pytest.approx(1 / 3)


def test_the_bootstrap_is_that_of_the_resampled_rows():
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 12, 60)
    people, metric = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    truth = truth_of(people, groups=groups)
    sums = pair_sums(truth, verdicts_of(metric))
    bootstrap = GroupBootstrap(groups, seed=5, resamples=4)
    drawn = resample_pairs({"m": sums}, bootstrap).draws["m", "kappa"]
    counts = next(iter(bootstrap.counts()))
    for k in range(4):
        rows = np.repeat(np.arange(60), counts[k][bootstrap.index].astype(int))
        assert drawn[k] == pytest.approx(cohen_kappa_score(people[rows], metric[rows]))
