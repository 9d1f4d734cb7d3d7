"""The probe reaches the optimum, which scikit-learn and scipy know as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from litee.finetune import probe, whitening
from litee.finetune.heads import vote_loss
from litee.finetune.members import ridge_losses
from litee.finetune.probe import PairStates, fit_probe, fit_probes, predict_head
from litee.finetune.task import Task
from litee.records import Folds

HEADS = ["davidson", "rao-kupper", "joint"]


def made_up(pairs=80, leaves=60, width=6, seed=0, *, decisive=False):
    """States, votes drawn from a linear reward, and weights of 1 to 3."""
    rng = np.random.default_rng(seed)
    states = (rng.normal(size=(leaves, width)) * rng.uniform(0.5, 4, width) + 1).astype(np.float32)
    left, right = rng.integers(0, leaves, (2, pairs))
    delta = (states[left] - states[right]) @ rng.normal(size=width) * 0.2
    logits = np.stack([delta, -delta, np.full(pairs, -30.0 if decisive else 0.0)], 1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    winners = [rng.choice(3, p=row) for row in p]
    return PairStates(states, left, right), np.eye(3)[winners], rng.uniform(1, 3, pairs)


def gradient(model, data, shares, weights, ridge):
    """Of the stated objective, in float64, at the fitted weights."""
    model = model.double()
    left, right = (torch.from_numpy(data.states[s]).double() for s in (data.left, data.right))
    for parameter in model.parameters():
        parameter.grad = None
    loss = vote_loss(model(left, right), torch.from_numpy(shares), torch.from_numpy(weights))
    (loss + ridge / len(shares) * model.penalty()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("ridge", [1.0, 50.0, 1500.0])
def test_the_gradient_vanishes_at_the_solution(name, ridge):
    data, shares, weights = made_up()
    model = fit_probe(data, shares, weights, ridge=ridge, head=name)
    assert gradient(model, data, shares, weights, ridge).abs().max() < 2e-5


def test_decisive_votes_only_are_plain_logistic_regression():
    """Without ties Davidson's model is Bradley–Terry on standardised differences."""
    data, shares, weights = made_up(decisive=True)
    assert shares[:, 2].sum() == 0
    ridge = 20.0
    model = fit_probe(data, shares, weights, ridge=ridge)
    difference = (data.states[data.left] - data.states[data.right]) * model.scale.numpy()
    # Σ wᵢ CEᵢ / Σ wᵢ + ridge / n · ½|β|²  →  sklearn's C Σ wᵢ CEᵢ + ½|β|², C = n / (ridge Σ wᵢ)
    other = LogisticRegression(
        C=len(shares) / (ridge * weights.sum()), fit_intercept=False, tol=1e-10, max_iter=5000
    ).fit(difference, shares[:, 0], sample_weight=weights)
    np.testing.assert_allclose(
        model.reward_weight.detach().numpy(), other.coef_[0], atol=2e-4, rtol=2e-3
    )
    ours = predict_head(model, data)
    assert ours[:, 2].max() < 1e-3
    np.testing.assert_allclose(
        ours[:, 0] / ours[:, :2].sum(1), other.predict_proba(difference)[:, 1], atol=1e-3
    )


def test_sources_of_their_own_are_plain_logistic_regression_on_copied_features():
    """Daumé's features: (x, x · 1{source 0}, x · 1{source 1}, …), all under one ridge."""
    data, shares, weights = made_up(pairs=120, decisive=True)
    sources = np.random.default_rng(1).integers(0, 3, len(shares))
    ridge = 20.0
    model = fit_probe(data, shares, weights, ridge=ridge, sources=sources)
    difference = (data.states[data.left] - data.states[data.right]) * model.scale.numpy()
    copies = [difference * (sources == k)[:, None] for k in range(3)]
    other = LogisticRegression(
        C=len(shares) / (ridge * weights.sum()), fit_intercept=False, tol=1e-10, max_iter=5000
    ).fit(np.hstack([difference, *copies]), shares[:, 0], sample_weight=weights)
    np.testing.assert_allclose(
        model.reward_weight.detach().numpy(), other.coef_[0][:6], atol=2e-4, rtol=2e-3
    )


@pytest.mark.parametrize("name", HEADS)
def test_one_source_is_none(name):
    data, shares, weights = made_up()
    plain = predict_head(fit_probe(data, shares, weights, ridge=30, head=name), data)
    one = np.full(len(shares), 7)
    same = fit_probe(data, shares, weights, ridge=30, head=name, sources=one)
    np.testing.assert_array_equal(predict_head(same, data), plain)


@pytest.mark.parametrize("name", HEADS)
def test_what_two_sources_disagree_about_is_not_shared(name):
    """Both like the first feature; the second counts for one source and against the other."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(400, 2)).astype(np.float32)
    left, right = rng.integers(0, 400, (2, 600))
    sources = np.arange(600) % 3 // 2  # twice as many pairs of source 0
    taste = np.where(sources == 0, 1.0, -1.0)
    likes = states @ [1.0, 0.0]
    delta = likes[left] - likes[right] + taste * (states[left, 1] - states[right, 1])
    shares = np.eye(3)[np.where(np.abs(delta) < 0.3, 2, np.where(delta > 0, 0, 1))]
    data, weights = PairStates(states, left, right), np.ones(600)
    alone = fit_probe(data, shares, weights, ridge=5.0, head=name)
    shared = fit_probe(data, shares, weights, ridge=5.0, head=name, sources=sources)
    a_better = PairStates(np.array([[0, 1], [0, 0]], np.float32), np.array([0]), np.array([1]))
    leaning = [p[0] - p[1] for p in (predict_head(m, a_better)[0] for m in (alone, shared))]
    assert abs(leaning[1]) < 0.7 * leaning[0], leaning


def test_davidson_with_ties_equals_a_solution_by_scipy():
    data, shares, weights = made_up(pairs=60, width=3)
    ridge = 10.0
    model = fit_probe(data, shares, weights, ridge=ridge)
    both = np.concatenate([data.states[data.left], data.states[data.right]]).astype(float)
    mean, scale = both.mean(0), 1 / both.std(0)
    a, b = ((data.states[s] - mean) * scale for s in (data.left, data.right))
    columns = np.concatenate([abs(a - b), (a + b) / np.sqrt(2)], 1)

    def objective(x):
        delta, tie = (a - b) @ x[:3], columns @ x[3:9] + x[9]
        logits = np.stack([delta / 2, -delta / 2, tie], 1)
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        loss = -(weights * (shares * log_p).sum(1)).sum() / weights.sum()
        return loss + ridge / len(a) * (x[:9] ** 2).sum() / 2

    best = minimize(objective, np.zeros(10), method="BFGS", options={"gtol": 1e-8}).x
    found = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    np.testing.assert_allclose(found, best, atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_a_strong_prior_leaves_only_the_class_shares(name):
    """ridge → ∞: no weights, so every pair gets the same, and A and B the same for rewards."""
    data, shares, weights = made_up()
    p = predict_head(fit_probe(data, shares, weights, ridge=1e6, head=name), data)
    assert np.ptp(p, axis=0).max() < 5e-4
    ties = np.average(shares[:, 2], weights=weights)
    np.testing.assert_allclose(p[0], [(1 - ties) / 2, (1 - ties) / 2, ties], atol=1e-3)


def test_votes_without_a_preference_give_uniform_probabilities():
    data, _, weights = made_up()
    shares = np.full((len(data.left), 3), 1 / 3)
    p = predict_head(fit_probe(data, shares, weights, ridge=1.0), data)
    np.testing.assert_allclose(p, 1 / 3, atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_exchanging_all_answers_exchanges_the_predictions(name):
    data, shares, weights = made_up()
    swapped = PairStates(data.states, data.right, data.left)
    there = predict_head(fit_probe(data, shares, weights, ridge=30, head=name), data)
    back = predict_head(
        fit_probe(swapped, shares[:, [1, 0, 2]], weights, ridge=30, head=name), swapped
    )
    np.testing.assert_allclose(there, back[:, [1, 0, 2]], atol=1e-4)


def test_fitting_is_deterministic_and_leaves_the_data_alone():
    data, shares, weights = made_up()
    before = data.states.copy()
    first, second = (fit_probe(data, shares, weights, ridge=30) for _ in range(2))
    for one, two in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert np.array_equal(data.states, before)


def test_only_relative_weights_count_and_ridge_is_in_pairs():
    data, shares, weights = made_up(pairs=30)
    once = predict_head(fit_probe(data, shares, weights, ridge=20.0), data)
    scaled = predict_head(fit_probe(data, shares, 7 * weights, ridge=20.0), data)
    np.testing.assert_allclose(once, scaled, atol=1e-5)
    twice = PairStates(data.states, np.tile(data.left, 2), np.tile(data.right, 2))
    model = fit_probe(twice, np.tile(shares, (2, 1)), np.tile(weights, 2), ridge=40.0)
    np.testing.assert_allclose(once, predict_head(model, data), atol=1e-4)


def test_a_constant_column_and_few_pairs_do_no_harm():
    data, shares, weights = made_up(pairs=2)
    data.states[:, 0] = 7.0
    model = fit_probe(data, shares, weights, ridge=150.0)
    p = predict_head(model, data)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)


def test_of_takes_some_pairs_and_keeps_the_leaves():
    data, _, _ = made_up()
    some = data.of(np.array([3, 1]))
    assert some.states is data.states
    assert some.left.tolist() == [data.left[3], data.left[1]]
    assert some.right.tolist() == [data.right[3], data.right[1]]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("pairs", [400, 20])  # whitened, and not
def test_a_path_of_ridges_ends_where_each_alone_does(name, pairs):
    data, shares, weights = made_up(pairs=pairs, width=12)
    ridges = (5.0, 500.0, 50.0)
    together = fit_probes(data, shares, weights, ridges=ridges, head=name)
    for ridge, model in zip(ridges, together, strict=True):
        assert gradient(model, data, shares, weights, ridge).abs().max() < 2e-5
        alone = fit_probe(data, shares, weights, ridge=ridge, head=name)
        np.testing.assert_allclose(predict_head(model, data), predict_head(alone, data), atol=2e-4)


def test_whitening_saves_steps_and_keeps_the_solution(monkeypatch):
    """Columns of very different size after a rotation, as states have: few directions are long."""
    rng = np.random.default_rng(3)
    turn, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    states = ((rng.normal(size=(300, 20)) * np.geomspace(30, 0.03, 20)) @ turn).astype(np.float32)
    left, right = rng.integers(0, 300, (2, 600))
    shares = np.eye(3)[rng.integers(0, 3, 600)]
    shares[: len(shares) // 2] = np.eye(3)[(states[left[:300], 0] < states[right[:300], 0]) * 1]
    data, weights = PairStates(states, left, right), np.ones(600)
    looks = []
    loss = probe.vote_loss
    monkeypatch.setattr(probe, "vote_loss", lambda *x: looks.append(1) or loss(*x))
    found = fit_probe(data, shares, weights, ridge=1.0)
    with_it = len(looks)
    monkeypatch.setattr(whitening, "_root", lambda block, ridge: None)  # plain coordinates
    plain = fit_probe(data, shares, weights, ridge=1.0, steps=2000)
    assert 3 * with_it < len(looks) - with_it, (with_it, len(looks) - with_it)
    np.testing.assert_allclose(predict_head(found, data), predict_head(plain, data), atol=3e-3)


@pytest.mark.parametrize("ridge", [0.0, 1e-9])
def test_repeated_columns_of_very_different_size_are_no_error(ridge):
    """Their moment is singular, and rounded to float32 it may even have negative eigenvalues."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(500, 30)).astype(np.float32) @ rng.normal(size=(30, 120))
    states = (states * np.geomspace(1, 1e4, 120)).astype(np.float32)
    left, right = rng.integers(0, 500, (2, 900))
    data = PairStates(np.hstack([states, states]), left, right)
    p = predict_head(fit_probe(data, np.eye(3)[left % 3], np.ones(900), ridge=ridge), data)
    assert np.isfinite(p).all()
    broken = whitening.Block("w", None, 2, torch.diag(torch.tensor([1.0, -1.0])), torch.zeros(2))
    start = {"w": torch.zeros(2).double()}
    found = whitening.minimise(lambda w: (w["w"] - 2).square().sum(), start, [broken], 0.0, steps=9)
    np.testing.assert_allclose(found["w"], [2, 2], atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_a_folds_own_votes_have_no_say_in_its_ridge(count):
    data, shares, weights = made_up(pairs=120, leaves=200, width=8)
    fold = np.arange(120) % count
    folds = Folds(tuple(range(120)), tuple(fold.tolist()), count)
    before = ridge_losses(
        data, Task(shares, weights, folds, 0), ridges=(2.0, 200.0), head="davidson"
    )
    assert before.shape == (count, 2)
    changed = shares.copy()
    changed[fold == 1] = shares[fold == 1][::-1]
    after = ridge_losses(
        data, Task(changed, weights, folds, 0), ridges=(2.0, 200.0), head="davidson"
    )
    np.testing.assert_array_equal(after[1], before[1])
    assert not np.allclose(after[0], before[0])
    if count == 2:
        return
    for j, ridge in enumerate((2.0, 200.0)):  # row 0 by hand: every other fold once
        total = 0.0
        for held in range(1, count):
            train = np.flatnonzero((fold != 0) & (fold != held))
            own = np.flatnonzero(fold == held)
            model = fit_probe(data.of(train), shares[train], weights[train], ridge=ridge)
            p = predict_head(model, data.of(own))
            total += float((weights[own] * -(shares[own] * np.log(p)).sum(1)).sum())
        assert before[0, j] == pytest.approx(total / weights[fold != 0].sum(), abs=1e-3)
