"""Calibration recovers what distorted the probabilities, and treats A and B alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from scipy.optimize import minimize, minimize_scalar

from litee.predict.calibration import (
    Calibration,
    _loss,
    choose_calibration,
    fit_calibration,
    weighted_log_loss,
)

SWAP = [1, 0, 2]


def simplex(rows, seed=0, concentration=1.0):
    return np.random.default_rng(seed).dirichlet([concentration] * 3, size=rows)


def softened(p, temperature):
    powers = p ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_a_known_temperature_is_recovered(temperature):
    """Vote shares equal to the true probabilities make the true temperature the minimum, but for
    a prior that counts as one prompt in 20,000."""
    truth = simplex(20_000)
    distorted = softened(truth, 1 / temperature)
    found = fit_calibration("temperature", distorted, truth, np.ones(20_000))
    assert found.temperature == pytest.approx(temperature, rel=3e-3)
    assert found.scale == found.tie_scale
    assert found.tie_bias == 0
    np.testing.assert_allclose(found.apply(distorted), truth, atol=1e-3)


def test_a_known_vector_scaling_is_recovered():
    truth = simplex(30_000, concentration=2.0)
    known = Calibration(name="vector", scale=0.6, tie_scale=1.4, tie_bias=-0.7)
    # undo `known`: log q = (log p − bias) / scale up to one factor per row, which matters here
    # because the two scales differ; so distort forwards and recover the forward map instead
    found = fit_calibration("vector", truth, known.apply(truth), np.ones(30_000))
    assert found.scale == pytest.approx(0.6, abs=0.02)
    assert found.tie_scale == pytest.approx(1.4, abs=0.02)
    assert found.tie_bias == pytest.approx(-0.7, abs=0.02)


def test_temperature_equals_a_search_by_scipy_with_weights():
    rng = np.random.default_rng(3)
    p = np.repeat(simplex(80, 4), 500, axis=0)  # so many that the prior has no say
    shares, weights = np.eye(3)[rng.integers(0, 3, 40_000)], rng.uniform(0.1, 5, 40_000)
    best = minimize_scalar(
        lambda x: weighted_log_loss(softened(p, np.exp(x)), shares, weights),
        bounds=(-3, 3),
        method="bounded",
        options={"xatol": 1e-8},
    )
    found = fit_calibration("temperature", p, shares, weights)
    assert np.log(found.temperature) == pytest.approx(best.x, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.floats(-3, 3),
    st.floats(0, 0.99),
    st.integers(0, 10**6),
)
def test_applying_is_swap_equivariant_and_keeps_the_simplex(scale, tie_scale, bias, lapse, seed):
    p = simplex(5, seed, 0.3)
    scaling = Calibration(
        name="lapse",
        scale=scale,
        tie_scale=tie_scale,
        tie_bias=bias,
        lapse=lapse,
        lapse_tie=lapse / 2,
    )
    found = scaling.apply(p)
    np.testing.assert_allclose(scaling.apply(p[:, SWAP]), found[:, SWAP], atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert (found >= 0).all()
    np.testing.assert_allclose(np.exp(scaling.log_apply(p)), found, atol=1e-11)


@pytest.mark.parametrize("name", ["temperature", "vector", "lapse"])
def test_fitting_on_exchanged_answers_gives_the_same_scaling(name):
    rng = np.random.default_rng(5)
    p, shares, weights = simplex(60, 1), simplex(60, 2), rng.uniform(1, 2, 60)
    there = fit_calibration(name, p, shares, weights)
    back = fit_calibration(name, p[:, SWAP], shares[:, SWAP], weights)
    for field in ("scale", "tie_scale", "tie_bias", "lapse", "lapse_tie"):
        assert getattr(there, field) == pytest.approx(getattr(back, field), abs=1e-3)


@pytest.mark.parametrize("name", ["none", "temperature", "vector", "lapse"])
def test_fitting_never_makes_the_fitted_loss_worse(name):
    rng = np.random.default_rng(6)
    p, shares, weights = simplex(60, 1, 0.4), simplex(60, 2), rng.uniform(1, 2, 60)
    scaling = fit_calibration(name, p, shares, weights)
    before = weighted_log_loss(p, shares, weights)
    after = weighted_log_loss(scaling.apply(p), shares, weights)
    assert after <= before + 1e-9
    assert (after < before - 1e-3) == (name != "none")


def test_none_changes_nothing():
    p = simplex(5)
    np.testing.assert_allclose(
        fit_calibration("none", p, p[::-1], np.ones(5)).apply(p), p, atol=1e-12
    )


@pytest.mark.parametrize(
    "tiny",
    [1e-9, 0.0],
)
def test_certain_and_wrong_is_softened(tiny):
    p = np.array([[1 - 2 * tiny, tiny, tiny], [tiny, tiny, 1 - 2 * tiny]])
    shares = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    scaling = fit_calibration("temperature", p, shares, np.ones(2))
    assert np.isfinite(np.log(scaling.apply(p))).all()
    assert scaling.temperature > 5
    many = fit_calibration(
        "temperature", *(np.tile(x, (200, 1)) for x in (p, shares)), np.ones(400)
    )
    assert many.temperature > 15


def test_weighted_log_loss_by_hand():
    p = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    shares = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    expected = (3 * -np.log(0.5) + 1 * -(0.5 * np.log(0.2) + 0.5 * np.log(0.6))) / 4
    assert weighted_log_loss(p, shares, np.array([3.0, 1.0])) == pytest.approx(expected)


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": 0.0},
        {"tie_scale": -1.0},
        {"tie_bias": float("nan")},
        {"scale": float("inf")},
        {"lapse": 1.0},
        {"lapse": -0.1},
        {"lapse_tie": 1.1},
        {"name": "x"},
        {"more": 1},
    ],
)
def test_a_damaged_scaling_is_refused(bad):
    with pytest.raises(ValidationError):
        Calibration(**bad)


def test_ten_votes_that_a_member_separates_do_not_make_it_certain():
    """Without a prior the scale runs to its bound, and one wrong vote costs dozens of nats."""
    p = np.tile([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]], (5, 1))
    shares = np.tile([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], (5, 1))
    few = fit_calibration("temperature", p, shares, np.ones(10))
    assert 1.1 < few.scale < 4
    assert few.apply(p).min() > 1e-4
    many = fit_calibration(
        "temperature", np.tile(p, (500, 1)), np.tile(shares, (500, 1)), np.ones(5000)
    )
    assert many.scale > 2 * few.scale


def test_the_posterior_of_a_scale_by_hand():
    """Ten pairs of (0.6, 0.3, 0.1), all A: d/dx of -mean log p + 0.8 x squared is 0."""
    p, shares = np.tile([0.6, 0.3, 0.1], (10, 1)), np.tile([1.0, 0.0, 0.0], (10, 1))
    x = np.log(fit_calibration("temperature", p, shares, np.ones(10)).scale)
    scaled = p[0] ** np.exp(x)
    scaled /= scaled.sum()
    slope = -np.exp(x) * (np.log(0.6) - scaled @ np.log(p[0])) + 1.6 * x
    assert slope == pytest.approx(0, abs=1e-4)


def test_pairs_of_one_prompt_move_a_scale_like_one_pair():
    """Ten pairs of two prompts, whose weights are 3 and 1: n = 16 / 10 prompts."""
    p, shares = np.tile([0.6, 0.3, 0.1], (10, 1)), np.tile([1.0, 0.0, 0.0], (10, 1))
    weights = np.array([0.6] * 5 + [0.2] * 5)
    groups = np.array([0] * 5 + [1] * 5)
    x = np.log(fit_calibration("temperature", p, shares, weights, groups).scale)
    scaled = p[0] ** np.exp(x)
    scaled /= scaled.sum()
    slope = -np.exp(x) * (np.log(0.6) - scaled @ np.log(p[0])) + x / 0.25**2 / 1.6
    assert slope == pytest.approx(0, abs=1e-4)
    alone = fit_calibration("temperature", p, shares, weights, np.arange(10))
    assert alone == fit_calibration("temperature", p, shares, weights)
    assert alone.scale > np.exp(x)


def test_the_prior_holds_softening_too():
    """0.5 for A where 0.4 of the votes are: one prompt softens it less than forty."""
    p, shares = np.tile([0.5, 0.3, 0.2], (40, 1)), np.tile([0.4, 0.3, 0.3], (40, 1))
    few = fit_calibration("temperature", p, shares, np.ones(40), np.zeros(40, dtype=np.int64))
    more = fit_calibration("temperature", p, shares, np.ones(40))
    assert 1 < few.temperature < more.temperature
    x = np.log(more.scale)  # d/dx of the loss and of log(1 + 16 x²) / 40
    scaled = p[0] ** np.exp(x)
    scaled /= scaled.sum()
    slope = -np.exp(x) * ((shares[0] - scaled) @ np.log(p[0])) + 32 * x / (1 + 16 * x * x) / 40
    assert slope == pytest.approx(0, abs=1e-4)


def test_a_known_lapse_rate_is_recovered():
    """A third of ties in all is a third of ties among lapses."""
    truth = simplex(20_000, concentration=0.7)
    known = Calibration(name="lapse", scale=1.5, tie_scale=1.5, lapse=0.3, lapse_tie=1 / 3)
    found = fit_calibration("lapse", truth, known.apply(truth), np.ones(20_000))
    np.testing.assert_allclose(found.apply(truth), known.apply(truth), atol=0.005)
    assert found.lapse == pytest.approx(0.3, abs=0.01)
    assert (found.scale, found.tie_scale) == pytest.approx((1.5, 1.5), abs=0.05)


@pytest.mark.parametrize("name", ["temperature", "vector", "lapse"])
def test_fitting_equals_a_search_without_slopes(name):
    """Nelder and Mead know nothing of the slopes that the fit is given."""
    rng = np.random.default_rng(8)
    p, weights = simplex(60, 1, 0.5), rng.uniform(1, 2, 60)
    vote = np.array([rng.choice(3, p=x) for x in 0.7 * p + 0.1])
    shares, groups = np.eye(3)[vote], np.arange(60) // 3
    prompts = np.bincount(groups, weights).sum() ** 2 / (np.bincount(groups, weights) ** 2).sum()
    tie = np.average(shares[:, 2], weights=weights)

    def posterior(x):
        s, t, b = np.exp(x[0]), np.exp(x[1 if len(x) > 1 else 0]), x[2] if len(x) > 1 else 0.0
        rate = 1 / (1 + np.exp(-x[3])) if len(x) > 3 else 0.0
        one = Calibration(
            name=name, scale=s, tie_scale=t, tie_bias=b, lapse=rate, lapse_tie=tie if rate else 0
        )
        square = (x[:3] / (2 if name == "lapse" else 0.25)) ** 2
        soft = (x[:3] < 0) & (np.arange(len(x[:3])) < 2) & (name != "lapse")
        prior = np.where(soft, np.log(1 + square), square / 2).sum()
        return weighted_log_loss(one.apply(p), shares, weights) + prior / prompts

    start = np.zeros({"temperature": 1, "vector": 3, "lapse": 4}[name])
    start[3:] = -2.0
    best = minimize(
        posterior,
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000},
    )
    found = fit_calibration(name, p, shares, weights, groups)
    x = [*np.log([found.scale, found.tie_scale]), found.tie_bias]
    x += [np.log(found.lapse / (1 - found.lapse))] if name == "lapse" else []
    assert posterior(np.array(x[: len(start)])) == pytest.approx(best.fun, abs=1e-7)


def noisy(rows, seed=0):
    """Probabilities and votes of which half are drawn at random."""
    rng = np.random.default_rng(seed)
    p = simplex(rows, seed, 0.4)
    return p, np.eye(3)[[rng.choice(3, p=x) for x in 0.5 * p + 0.5 / 3]]


def test_lapses_are_taken_where_prompts_show_them():
    p, shares = noisy(1000)
    folds, ones = np.arange(1000) % 5, np.ones(1000)
    assert choose_calibration(p, shares, ones, folds) == "lapse"
    assert choose_calibration(p, shares, ones, folds, folds // 5) == "temperature"  # one prompt
    assert choose_calibration(p, shares, ones, np.zeros(1000)) == "temperature"


def test_ties_that_are_off_are_no_lapses():
    """Vector scaling mends them, so it is not enough to be better than a temperature."""
    rng = np.random.default_rng(2)
    truth = simplex(1500, 2)
    shares = np.eye(3)[[rng.choice(3, p=x) for x in truth]]
    off = truth * [1, 1, 0.2]
    off /= off.sum(1, keepdims=True)
    assert choose_calibration(off, shares, np.ones(1500), np.arange(1500) % 5) == "temperature"


def test_three_prompts_never_show_lapses():
    """Their gains are much alike by chance now and then; Student's t knows."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sure = np.repeat(rng.uniform(0.5, 2, 3), 40)[:, None]
        p = simplex(120, seed, 0.4)
        votes = p**sure / (p**sure).sum(1, keepdims=True)
        shares = np.eye(3)[[rng.choice(3, p=x) for x in votes]]
        prompts = np.arange(120) // 40
        assert choose_calibration(p, shares, np.ones(120), prompts, prompts) == "temperature"


def test_three_standard_errors_over_prompts_are_asked_for():
    """Every pair four times under its prompt: the errors are those of the prompts."""
    chosen = []
    for prompts in (100, 200, 400, 800):
        p, shares = (np.repeat(x, 4, axis=0) for x in noisy(prompts, 1))
        groups = np.arange(4 * prompts) // 4
        folds, weights = groups % 3, 1 + groups / prompts
        logs = {name: np.zeros(4 * prompts) for name in ("lapse", "temperature", "vector")}
        for k in range(3):
            a, b = folds != k, folds == k
            for name, row in logs.items():
                fitted = fit_calibration(name, p[a], shares[a], weights[a], groups[a])
                row[b] = (shares[b] * np.log(fitted.apply(p[b]))).sum(1)
        errors = []
        for name in ("temperature", "vector"):
            gains = logs["lapse"] - logs[name]
            mean = (weights * gains).sum() / weights.sum()
            totals = (weights * (gains - mean)).reshape(prompts, 4).sum(1) / weights.sum()
            errors.append(mean / np.sqrt((totals**2).sum() * prompts / (prompts - 1)))
        whole = weights.reshape(prompts, 4).sum(1)
        asked = stats.t.isf(stats.norm.sf(3), whole.sum() ** 2 / (whole**2).sum() - 1)
        found = choose_calibration(p, shares, weights, folds, groups)
        assert found == ("lapse" if min(errors) > asked else "temperature")
        chosen.append(float(min(errors)))
    assert any(1.5 < x < 3 for x in chosen), chosen  # where errors over pairs would say lapse
    assert max(chosen) > 3.1


@pytest.mark.parametrize("name", ["temperature", "vector", "lapse"])
def test_slopes_equal_finite_differences(name):
    """Also where a vote fell on what was next to impossible."""
    p = np.array([[0.7, 0.2, 0.1], [1 - 2e-8, 1e-8, 1e-8], [0.1, 0.3, 0.6]])
    shares = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]])
    weights = np.array([1.0, 2.0, 0.5])

    def loss(x):
        rate = 1 / (1 + np.exp(-x[3])) if name == "lapse" else 0.0
        given = {"scale": np.exp(x[0]), "tie_scale": np.exp(x[1]), "tie_bias": x[2]}
        return _loss(Calibration(name=name, lapse=rate, lapse_tie=0.2, **given), p, shares, weights)

    x, step = np.array([0.5, 0.4, -0.3, -5.0]), 1e-5
    for k in range(4 if name == "lapse" else 3):
        move = step * np.eye(4)[k]
        slope = (loss(x + move)[0] - loss(x - move)[0]) / (2 * step)
        assert loss(x)[1][k] == pytest.approx(slope, rel=1e-6, abs=1e-9)
