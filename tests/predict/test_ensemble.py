"""Pools by hand, weights that earn their place, and cross-fitting that looks at no own fold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from litee.predict.calibration import Calibration, fit_calibration, weighted_log_loss
from litee.predict.ensemble import Ensemble, cross_fit, fit_ensemble, fit_weights, pool

SWAP = [1, 0, 2]
POOLS = ["linear", "log", "power"]


def made_up(members=3, rows=120, seed=0):
    """Members that see the same truth through noise of different size; votes drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 3)) * 1.2
    noisy = [logits + rng.normal(size=(rows, 3)) * (0.4 + k) for k in range(members)]
    p = np.exp([logits, *noisy])
    p /= p.sum(-1, keepdims=True)
    shares = np.eye(3)[[rng.choice(3, p=row) for row in p[0]]]
    return p[1:], shares, rng.uniform(0.5, 2, rows)


def losses(probabilities, shares, weights):
    return [weighted_log_loss(p, shares, weights) for p in probabilities]


# pools


P = np.array([[[0.8, 0.1, 0.1]], [[0.2, 0.6, 0.2]]])
W = np.array([0.25, 0.75])


def test_linear_pool_by_hand():
    np.testing.assert_allclose(pool(P, W, "linear"), [[0.35, 0.475, 0.175]], atol=1e-12)


def test_log_pool_by_hand():
    raw = np.array([0.8**0.25 * 0.2**0.75, 0.1**0.25 * 0.6**0.75, 0.1**0.25 * 0.2**0.75])
    np.testing.assert_allclose(pool(P, W, "log"), [raw / raw.sum()], atol=1e-12)


def test_power_pool_by_hand():
    # (¼ √.8 + ¾ √.2)² and so on
    raw = (0.25 * np.sqrt(P[0, 0]) + 0.75 * np.sqrt(P[1, 0])) ** 2
    np.testing.assert_allclose(pool(P, W, "power", 0.5), [raw / raw.sum()], atol=1e-12)


def test_power_lies_between_log_and_linear():
    np.testing.assert_allclose(pool(P, W, "power", 1.0), pool(P, W, "linear"), atol=1e-12)
    np.testing.assert_allclose(pool(P, W, "power", 1e-6), pool(P, W, "log"), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(POOLS), st.integers(1, 4), st.integers(0, 10**6))
def test_pools_keep_the_simplex_and_the_swap(name, members, seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.5] * 3, size=(members, 4))
    w = rng.dirichlet([1] * members)
    found = pool(p, w, name)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
    assert (found >= 0).all()
    np.testing.assert_allclose(pool(p[..., SWAP], w, name), found[:, SWAP], atol=1e-12)
    order = rng.permutation(members)
    np.testing.assert_allclose(pool(p[order], w[order], name), found, atol=1e-12)


@pytest.mark.parametrize("name", POOLS)
def test_equal_members_are_their_own_pool(name):
    p = np.tile(P[:1], (3, 1, 1))
    np.testing.assert_allclose(pool(p, np.array([0.2, 0.3, 0.5]), name), P[0], atol=1e-9)


def test_a_certain_member_does_not_break_the_log_pool():
    p = np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    np.testing.assert_allclose(pool(p, np.array([0.5, 0.5]), "log")[0, :2], 0.5, atol=1e-5)


# weights


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("seed", range(4))
def test_weights_lie_on_the_simplex_and_beat_every_member(name, seed):
    p, shares, weights = made_up(seed=seed)
    w = fit_weights(p, shares, weights, name=name)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1)
    best = min(losses(p, shares, weights))
    assert weighted_log_loss(pool(p, w, name), shares, weights) <= best + 1e-6


@pytest.mark.parametrize("name", ["linear", "log"])
@pytest.mark.parametrize("prompts", [3, 60])
def test_no_other_weights_are_better(name, prompts):
    """Both problems are convex, so a fine grid over two members finds the same minimum."""
    p, shares, weights = made_up(members=2, seed=9)
    groups = np.arange(len(weights)) % prompts
    w = fit_weights(p, shares, weights, name=name, groups=groups)
    heavy = np.bincount(groups, weights)
    strength = 0.1 * 2 * (heavy**2).sum() / heavy.sum() ** 2

    def objective(x):
        loss = weighted_log_loss(pool(p, np.array([x, 1 - x]), name), shares, weights)
        return loss + strength * 2 * (x - 0.5) ** 2

    grid = [objective(x) for x in np.linspace(0, 1, 401)]
    assert objective(w[0]) <= min(grid) + 1e-6
    assert w[0] == pytest.approx(np.linspace(0, 1, 401)[int(np.argmin(grid))], abs=0.01)


def test_votes_on_few_prompts_leave_weights_nearer_to_equal():
    p, shares, weights = made_up(members=2, seed=9)
    away = [
        abs(fit_weights(p, shares, weights, name="linear", groups=groups)[0] - 0.5)
        for groups in (np.arange(len(weights)) % 3, None)
    ]
    assert 0 < away[0] < away[1] - 0.01


@pytest.mark.parametrize("name", POOLS)
def test_the_truth_gets_all_the_weight(name):
    """Shares equal to a member's probabilities: no pool with another member is better."""
    rng = np.random.default_rng(4)
    truth, noise = rng.dirichlet([1] * 3, size=(2, 200))
    w = fit_weights(np.stack([noise, truth]), truth, np.ones(200), name=name)
    np.testing.assert_allclose(w, [0, 1], atol=1e-6)


def test_one_member_has_all_the_weight():
    p, shares, weights = made_up(members=1)
    assert fit_weights(p, shares, weights, name="log").tolist() == [1.0]


def test_weights_do_not_depend_on_the_order_of_the_members():
    p, shares, weights = made_up()
    for name in POOLS:
        w = fit_weights(p, shares, weights, name=name)
        back = fit_weights(p[::-1], shares, weights, name=name)
        np.testing.assert_allclose(w, back[::-1], atol=5e-3)


# ensembles


@pytest.mark.parametrize("name", POOLS)
def test_a_fitted_ensemble_beats_every_member_on_the_fitting_data(name):
    p, shares, weights = made_up(seed=2)
    ensemble = fit_ensemble("abc", p, shares, weights, FOLDS, pool_name=name)
    assert ensemble.members == ("a", "b", "c")
    found = weighted_log_loss(ensemble.apply(p), shares, weights)
    assert found <= min(losses(p, shares, weights)) + 1e-6


def test_apply_is_pool_then_calibration():
    scaling = Calibration(name="temperature", scale=2.0, tie_scale=2.0)
    ensemble = Ensemble(members=("x", "y"), weights=(0.25, 0.75), pool="log", calibration=scaling)
    raw = np.array([0.8**0.25 * 0.2**0.75, 0.1**0.25 * 0.6**0.75, 0.1**0.25 * 0.2**0.75]) ** 2
    np.testing.assert_allclose(ensemble.apply(P), [raw / raw.sum()], atol=1e-12)


def test_the_power_pools_exponent_is_kept():
    p, shares, weights = made_up()
    ensemble = fit_ensemble(
        "abc", p, shares, weights, FOLDS, pool_name="power", exponent=0.3, calibration="none"
    )
    assert ensemble.exponent == 0.3
    np.testing.assert_allclose(
        ensemble.apply(p), pool(p, np.array(ensemble.weights), "power", 0.3), atol=1e-9
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"members": (), "weights": ()},
        {"members": ("a",), "weights": (0.5, 0.5)},
        {"members": ("a", "b"), "weights": (0.5, 0.6)},
        {"members": ("a", "b"), "weights": (-0.5, 1.5)},
        {"members": ("a", "b"), "weights": (float("nan"), 1.0)},
        {"members": ("a",), "weights": (1.0,), "pool": "median"},
        {"members": ("a",), "weights": (1.0,), "exponent": 0.0},
        {"members": ("a",), "weights": (1.0,), "extra": 1},
    ],
)
def test_a_damaged_ensemble_is_refused(bad):
    with pytest.raises(ValidationError):
        Ensemble(**bad)


# cross-fitting


FOLDS = np.arange(120) % 4


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("calibration", ["none", "temperature", "vector", "lapse", "auto"])
def test_a_folds_own_votes_do_not_touch_its_predictions(name, calibration):
    p, shares, weights = made_up(seed=5)
    plain = cross_fit("abc", p, shares, weights, FOLDS, pool_name=name, calibration=calibration)
    own = FOLDS == 2
    changed, heavier = shares.copy(), weights.copy()
    changed[own] = changed[own][:, [2, 0, 1]]
    heavier[own] *= 5
    other = cross_fit("abc", p, changed, heavier, FOLDS, pool_name=name, calibration=calibration)
    np.testing.assert_array_equal(plain.held_out[own], other.held_out[own])
    np.testing.assert_array_equal(plain.raw[own], other.raw[own])
    # while the other folds learn from them
    assert not np.allclose(plain.held_out[~own], other.held_out[~own])
    assert plain.ensemble != other.ensemble


def test_each_fold_is_predicted_by_an_ensemble_of_the_others():
    p, shares, weights = made_up(seed=6)
    found = cross_fit("abc", p, shares, weights, FOLDS, pool_name="log")
    for k in range(4):
        rest, own = k != FOLDS, k == FOLDS
        part = fit_ensemble(
            "abc", p[:, rest], shares[rest], weights[rest], FOLDS[rest], pool_name="log"
        )
        np.testing.assert_allclose(found.held_out[own], part.apply(p[:, own]), atol=1e-12)
        raw = pool(p[:, own], np.array(part.weights), "log")
        np.testing.assert_allclose(found.raw[own], raw, atol=1e-12)
    assert found.ensemble == fit_ensemble("abc", p, shares, weights, FOLDS, pool_name="log")


def test_auto_takes_the_pool_that_fits_best():
    p, shares, weights = made_up(seed=7)
    fitted = {
        name: fit_ensemble("abc", p, shares, weights, FOLDS, pool_name=name) for name in POOLS
    }
    best = min(POOLS, key=lambda n: weighted_log_loss(fitted[n].apply(p), shares, weights))
    assert cross_fit("abc", p, shares, weights, FOLDS).ensemble == fitted[best]


def test_auto_chooses_the_pool_without_the_fold_it_predicts():
    p, shares, weights = made_up(seed=9)
    own = np.asarray(FOLDS) == FOLDS[0]
    turned = shares.copy()
    turned[own] = shares[own][:, [2, 0, 1]]
    before = cross_fit("abc", p, shares, weights, FOLDS).held_out[own]
    after = cross_fit("abc", p, turned, weights, FOLDS).held_out[own]
    np.testing.assert_array_equal(before, after)


def test_folds_may_have_any_numbers_and_sizes():
    p, shares, weights = made_up(rows=30)
    folds = np.array([7] * 3 + [1] * 20 + [-2] * 7)
    found = cross_fit("abc", p, shares, weights, folds, pool_name="linear")
    np.testing.assert_allclose(found.held_out.sum(1), 1, atol=1e-9)


def test_exchanged_answers_exchange_the_held_out_predictions():
    p, shares, weights = made_up(seed=8)
    for name in POOLS:
        there = cross_fit("abc", p, shares, weights, FOLDS, pool_name=name)
        back = cross_fit("abc", p[..., SWAP], shares[:, SWAP], weights, FOLDS, pool_name=name)
        np.testing.assert_allclose(there.held_out, back.held_out[:, SWAP], atol=2e-3)


def test_equal_weights_are_calibrated_and_not_fitted():
    p, shares, weights = made_up(seed=10)
    found = cross_fit("abc", p, shares, weights, FOLDS, pool_name="linear", equal=True)
    assert found.ensemble.weights == pytest.approx([1 / 3] * 3)
    np.testing.assert_allclose(found.raw, p.mean(0), atol=1e-12)
    fitted = cross_fit("abc", p, shares, weights, FOLDS, pool_name="linear")
    assert fitted.ensemble.weights != pytest.approx([1 / 3] * 3, abs=0.02)
    alone = fit_ensemble("abc", p, shares, weights, FOLDS, pool_name="linear", equal=True)
    assert found.ensemble.calibration == alone.calibration
    assert found.ensemble.calibration.scale != 1


def lapsing(rows, rate, seed=0):
    """Probabilities, (1, rows, 3), and votes of which a share does not follow them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.4, 0.4, 0.4], size=rows)
    vote = np.array([rng.choice(3, p=x) for x in (1 - rate) * p + rate / 3])
    return p[None], np.eye(3)[vote], np.ones(rows)


def test_the_ensemble_finds_out_whether_votes_lapse():
    folds = np.arange(2000) % 5
    for rate, name in ((0.5, "lapse"), (0.0, "temperature")):
        p, shares, weights = lapsing(2000, rate)
        found = cross_fit("a", p, shares, weights, folds, pool_name="linear").ensemble
        assert found.calibration.name == name
        assert found.calibration.lapse == pytest.approx(rate, abs=0.08)


def test_each_fold_decides_on_lapses_without_its_own_votes():
    """Votes that lapse in one fold alone: what predicts this fold has not seen any."""
    p, shares, weights = lapsing(1500, 0.0)
    folds = np.arange(1500) % 3
    shares[folds == 0] = lapsing(1500, 1.0)[1][folds == 0]
    found = cross_fit("a", p, shares, weights, folds, pool_name="linear")
    rest = folds != 0
    alone = fit_calibration("temperature", p[0][rest], shares[rest], weights[rest])
    np.testing.assert_allclose(found.held_out[~rest], alone.apply(p[0][~rest]))
    assert found.ensemble.calibration.name == "lapse"


def test_with_two_folds_what_is_reported_is_what_is_saved():
    """A part of one fold has nothing to compare calibrations on."""
    p, shares, weights = lapsing(1500, 0.5)
    for folds, name in ((np.arange(1500) % 2, "temperature"), (np.arange(1500) % 3, "lapse")):
        found = cross_fit("a", p, shares, weights, folds, pool_name="linear")
        assert found.ensemble.calibration.name == name
        own = folds == 0
        part = fit_calibration(name, p[0][~own], shares[~own], weights[~own])
        np.testing.assert_allclose(found.held_out[own], part.apply(p[0][own]))
