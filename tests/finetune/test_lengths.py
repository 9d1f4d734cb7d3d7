"""Lengths beside states: a prior of their own, and tastes that differ by source."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from litee.encode.forest import EncodedPair, grow
from litee.finetune.lengths import length_terms, pair_states
from litee.finetune.probe import BIAS_RIDGE, LENGTH_RIDGE, PairStates, fit_probe, predict_head

WIDTH, LENGTHS = 5, (3, 4)


def made_up(pairs=200, seed=0, *, ties=True):
    """Three states and two lengths; source 1 likes what source 0 dislikes, and ties more."""
    rng = np.random.default_rng(seed)
    states = (rng.normal(size=(120, WIDTH)) * rng.uniform(0.5, 4, WIDTH) + 1).astype(np.float32)
    left, right = rng.integers(0, 120, (2, pairs))
    sources = rng.integers(0, 2, pairs)
    difference = states[left] - states[right]
    taste = np.where(sources == 0, 1.0, -0.5)
    delta = difference[:, :3] @ [0.3, -0.2, 0.1] + taste * (difference[:, 3] * 0.4)
    tie = np.where(sources == 0, -1.0, 0.5) if ties else np.full(pairs, -30.0)
    logits = np.stack([delta, -delta, tie], 1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    winners = [rng.choice(3, p=row) for row in p]
    data = PairStates(states, left, right, LENGTHS)
    return data, np.eye(3)[winners], rng.uniform(1, 3, pairs), sources


def differences(data, model):
    return (data.states[data.left] - data.states[data.right]) * model.scale.numpy()


def logistic(features, shares, weights, precisions):
    """Plain logistic regression under one prior precision per column, in pairs."""
    roots = np.sqrt(precisions)
    found = LogisticRegression(
        C=len(shares) / weights.sum(), fit_intercept=False, tol=1e-10, max_iter=9000
    ).fit(features / roots, shares[:, 0], sample_weight=weights)
    return found.coef_[0] / roots


@pytest.mark.parametrize("ridge", [20.0, 3000.0])
def test_lengths_keep_their_own_prior_under_any_ridge(ridge):
    data, shares, weights, _ = made_up(ties=False)
    model = fit_probe(data, shares, weights, ridge=ridge)
    precisions = np.where(np.isin(np.arange(WIDTH), LENGTHS), LENGTH_RIDGE, ridge)
    other = logistic(differences(data, model), shares, weights, precisions)
    np.testing.assert_allclose(model.reward_weight.detach().numpy(), other, atol=3e-4, rtol=3e-3)


def test_without_lengths_nothing_changes():
    data, shares, weights, _ = made_up()
    plain = PairStates(data.states, data.left, data.right)
    models = [fit_probe(d, shares, weights, ridge=50.0) for d in (plain, data)]
    assert abs(models[0].reward_weight[3]) < abs(models[1].reward_weight[3])


def test_tastes_for_length_are_logistic_regression_on_copied_lengths():
    data, shares, weights, sources = made_up(ties=False)
    ridge = 40.0
    model = fit_probe(data, shares, weights, ridge=ridge, sources=sources, own="lengths")
    difference = differences(data, model)
    copies = [difference[:, LENGTHS] * (sources == k)[:, None] for k in range(2)]
    precisions = np.array([ridge] * 3 + [LENGTH_RIDGE] * 6)
    other = logistic(np.hstack([difference, *copies]), shares, weights, precisions)
    np.testing.assert_allclose(
        model.reward_weight.detach().numpy(), other[:WIDTH], atol=3e-4, rtol=3e-3
    )


def test_tastes_for_ties_equal_a_solution_by_scipy():
    data, shares, weights, sources = made_up(pairs=80)
    ridge = 10.0
    model = fit_probe(data, shares, weights, ridge=ridge, sources=sources, own="lengths")
    both = np.concatenate([data.states[data.left], data.states[data.right]]).astype(float)
    a, b = ((data.states[s] - both.mean(0)) / both.std(0) for s in (data.left, data.right))
    columns = np.concatenate([abs(a - b), (a + b) / np.sqrt(2)], 1)
    precision = np.full(WIDTH, ridge)
    precision[list(LENGTHS)] = LENGTH_RIDGE

    def objective(x):
        reward, tie, bias = x[:5], x[5:15], x[15]
        own_length, own_bias = x[16:20].reshape(2, 2), x[20:22]
        delta = (a - b) @ reward + ((a - b)[:, LENGTHS] * own_length[sources]).sum(1)
        score = columns @ tie + bias + own_bias[sources]
        logits = np.stack([delta / 2, -delta / 2, score], 1)
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        loss = -(weights * (shares * log_p).sum(1)).sum() / weights.sum()
        penalty = (precision * reward**2).sum() + ridge * (tie**2).sum()
        penalty += LENGTH_RIDGE * (own_length**2).sum() + BIAS_RIDGE * (own_bias**2).sum()
        return loss + penalty / 2 / len(shares)

    best = minimize(objective, np.zeros(22), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(model.reward_weight.detach().numpy(), best[:5], atol=2e-4)
    np.testing.assert_allclose(model.tie.weight.detach().numpy()[0], best[5:15], atol=2e-4)
    np.testing.assert_allclose(model.tie.bias.detach().numpy()[0], best[15], atol=2e-4)


def test_exchanging_answers_exchanges_what_tastes_were_learnt():
    data, shares, weights, sources = made_up()
    swapped = PairStates(data.states, data.right, data.left, data.lengths)
    there, back = (
        fit_probe(d, s, weights, ridge=30.0, sources=sources, own="lengths")
        for d, s in ((data, shares), (swapped, shares[:, [1, 0, 2]]))
    )
    np.testing.assert_allclose(
        predict_head(there, data), predict_head(back, swapped)[:, [1, 0, 2]], atol=1e-5
    )


def test_rao_and_kuppers_head_has_tastes_too():
    """The two sources like the first length and dislike it: what they share is in between."""
    data, shares, weights, sources = made_up(pairs=600)
    one = sources == 0
    alone = fit_probe(
        data.of(np.flatnonzero(one)), shares[one], weights[one], ridge=30.0, head="rao-kupper"
    )
    both = fit_probe(
        data, shares, weights, ridge=30.0, head="rao-kupper", sources=sources, own="lengths"
    )
    assert alone.reward_weight[3] > 0.5
    assert abs(both.reward_weight[3]) < 0.7 * alone.reward_weight[3]


def test_a_head_without_rewards_has_no_tastes():
    data, shares, weights, sources = made_up()
    with pytest.raises(ValueError, match="joint head has no rewards"):
        fit_probe(data, shares, weights, ridge=30.0, head="joint", sources=sources, own="lengths")


def test_a_forest_with_and_without_lengths():
    pairs = [
        EncodedPair((1,), (2,), (3,), (0, 0, 0), (99, 0)),
        EncodedPair((1,), (3,), (4,), (0, 0, 0), (0, 2500)),
    ]
    forest = grow(pairs)
    states = np.arange(6, dtype=np.float32).reshape(3, 2)
    plain = pair_states(states, forest, lengths=False)
    assert plain.states is states
    assert plain.lengths == ()
    data = pair_states(states, forest, lengths=True)
    assert data.lengths == (2, 3, 4)
    np.testing.assert_array_equal(data.states[:, :2], states)
    np.testing.assert_allclose(data.states[:, 2:], length_terms(np.array([99, 0, 2500])))
    np.testing.assert_allclose(data.states[2, 3:], [50, 2.5])
    assert data.of(np.array([1])).lengths == data.lengths
    bounded = pair_states(states, forest, lengths=True, longest=99)
    np.testing.assert_allclose(bounded.states[:, 2:], length_terms(np.array([99, 0, 99])))
