import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from litee.score.correlations import (
    Sample,
    item_correlations,
    partial_correlation,
    prompt_correlations,
    small_correlations,
    system_correlations,
    weighted_pearson,
    weighted_ranks,
)
from litee.score.intervals import GroupBootstrap


def made_up(n=120, groups=30, seed=0, resamples=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).round(1)
    y = (x + rng.normal(size=n)).round()
    z = rng.integers(10, 60, n).astype(float)
    index = rng.integers(0, groups, n)
    bootstrap = GroupBootstrap(index, seed=1, resamples=resamples)
    return Sample(x, y, z, rng.integers(0, 4, n), bootstrap)


def rows_of_draws(sample):
    """For each resample, the row numbers with repetition."""
    for counts in sample.bootstrap.counts():
        for row in counts:
            yield np.repeat(np.arange(len(sample.x)), row[sample.bootstrap.index].astype(int))


@pytest.mark.parametrize(
    ("figure", "library"),
    [
        ("pearson_item", scipy.stats.pearsonr),
        ("spearman_item", scipy.stats.spearmanr),
        ("kendall_item", scipy.stats.kendalltau),
    ],
)
def test_value_and_every_draw_equal_scipy(figure, library):
    sample = made_up()
    found = item_correlations(sample)[figure]
    assert found.value == pytest.approx(library(sample.x, sample.y).statistic)
    naive = [library(sample.x[r], sample.y[r]).statistic for r in rows_of_draws(sample)]
    assert found.draws == pytest.approx(naive)


def test_partial_correlation_is_that_of_residuals():
    sample = made_up()
    found = item_correlations(sample)["pearson_item_length"]
    design = np.column_stack([np.ones_like(sample.z), sample.z])
    left, right = (
        v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (sample.x, sample.y)
    )
    assert found.value == pytest.approx(np.corrcoef(left, right)[0, 1])
    assert np.isnan(partial_correlation(np.ones(1), np.ones(1), np.ones(1)))


def test_prompt_level_is_the_mean_of_the_defined_prompts():
    index = np.repeat([0, 1, 2], 4)
    x = np.array([1.0, 2, 3, 4] * 3)
    y = np.array([1.0, 2, 3, 4, 4, 3, 2, 1, 5, 5, 5, 5])
    sample = Sample(x, y, None, np.tile(range(4), 3), GroupBootstrap(index, seed=0, resamples=50))
    found = prompt_correlations(sample)["spearman_prompt"]
    assert found.value == pytest.approx(0.0)  # +1 and −1; the third prompt is constant
    assert np.nanmax(found.draws) == pytest.approx(1.0)


def test_system_level_equals_scipy_on_the_means():
    sample = made_up(n=400)
    means = [[v[sample.systems == s].mean() for s in range(4)] for v in (sample.x, sample.y)]
    found = system_correlations(sample)
    assert found["pearson_system"].value == pytest.approx(scipy.stats.pearsonr(*means).statistic)
    assert found["spearman_system"].value == pytest.approx(scipy.stats.spearmanr(*means).statistic)
    assert found["kendall_system"].value == pytest.approx(scipy.stats.kendalltau(*means).statistic)


def test_values_near_the_smallest_number_do_no_harm():
    x = np.array([1e-320, 0.0, 3e-310])
    spearman, tau, _ = small_correlations(x, np.array([2.0, 1.0, 3.0]))
    assert np.isfinite([spearman, tau]).sum() in (0, 2)
    sample = made_up()
    tiny = Sample(sample.x * 1e-312, sample.y, None, sample.systems, sample.bootstrap)
    found = item_correlations(tiny)["kendall_item"].value
    assert found == pytest.approx(item_correlations(sample)["kendall_item"].value, abs=0.05)


def test_two_systems_have_no_correlation():
    sample = made_up()
    two = Sample(sample.x, sample.y, None, sample.systems % 2, sample.bootstrap)
    assert system_correlations(two)["spearman_system"].value is None


def test_a_constant_metric_has_none_either():
    sample = made_up()
    flat = Sample(np.full_like(sample.x, 0.1), sample.y, sample.z, sample.systems, sample.bootstrap)
    found = item_correlations(flat) | prompt_correlations(flat) | system_correlations(flat)
    assert {key: d.value for key, d in found.items()} == dict.fromkeys(found)


@given(
    st.lists(st.integers(0, 5), min_size=3, max_size=12),
    st.lists(st.integers(0, 5), min_size=12, max_size=12),
)
def test_small_correlations_equal_scipy(x, y):
    x, y = np.array(x, dtype=float), np.array(y[: len(x)], dtype=float)
    if x.std() == 0 or y.std() == 0:
        assert np.isnan(small_correlations(x, y)).all()
        return
    expected = (
        scipy.stats.spearmanr(x, y).statistic,
        scipy.stats.kendalltau(x, y).statistic,
        scipy.stats.pearsonr(x, y).statistic,
    )
    assert small_correlations(x, y) == pytest.approx(expected, abs=1e-9)


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=10),
    st.lists(st.integers(0, 3), min_size=10, max_size=10),
)
def test_weighted_ranks_are_ranks_of_the_repeated_values(values, weights):
    x, w = np.array(values, dtype=float), np.array(weights[: len(values)])
    if not w.any():
        return
    ranks = scipy.stats.rankdata(np.repeat(x, w))
    found = weighted_ranks(x, w[None].astype(float))[0]
    assert np.repeat(found, w) == pytest.approx(ranks)


def test_weights_repeat_rows():
    x, y = np.array([1.0, 2, 5, 3]), np.array([2.0, 1, 4, 4])
    w = np.array([1, 3, 0, 2])
    expected = np.corrcoef(np.repeat(x, w), np.repeat(y, w))[0, 1]
    assert weighted_pearson(x, y, w[None].astype(float))[0] == pytest.approx(expected)
