"""The training loop on functions small enough to follow: rates, stop, resume to the same bytes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open

from litee.errors import ModelError
from litee.finetune.loop import Loop, LoopSettings, rate_at

DATA = torch.arange(24, dtype=torch.float32).reshape(12, 2) / 10


class Killed(BaseException):
    """As hard as a kill for code that catches exceptions."""


def linear_loop(
    folder, *, size=2, settings, dropout=0.0, kill_at=None, validate=None, batches=None
):
    """Least squares of two weights on 12 rows, batches of `size` rows in an order of the epoch."""
    weights = {"w": torch.tensor([1.0, -1.0], requires_grad=True)}
    seen: list[list[int]] = []

    def plan(epoch):
        order = np.random.default_rng(epoch).permutation(12)
        return [order[k : k + size].tolist() for k in range(0, 12, size)]

    def loss(rows):
        if kill_at is not None and len(seen) == kill_at:
            raise Killed
        seen.append(rows)
        inputs = torch.nn.functional.dropout(DATA[rows], dropout)
        errors = (inputs @ weights["w"] - 1).square()
        return errors.sum(), float(len(rows))

    def held_out():
        with torch.no_grad():
            return float((DATA @ weights["w"] - 1).square().mean())

    loop = Loop(
        weights,
        batches=batches or plan,
        loss=loss,
        validate=validate or held_out,
        settings=settings,
        checkpoint=folder / "checkpoint.safetensors",
    )
    return loop, weights, seen


def scripted(*values):
    """A validation that gives these losses one after the other."""
    rest = iter(values)
    return lambda: next(rest)


# rates


def test_rates_by_hand():
    settings = LoopSettings(2.0, warmup_ratio=0.2)
    rates = [rate_at(step, 10, settings) for step in range(10)]
    cosine = [2 * 0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates == pytest.approx([1.0, 2.0, *cosine])


def test_without_warmup_the_first_rate_is_the_peak():
    settings = LoopSettings(0.3, warmup_ratio=0.0)
    assert rate_at(0, 4, settings) == 0.3
    assert rate_at(2, 4, settings) == pytest.approx(0.15)
    assert rate_at(0, 1, settings) == 0.3


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_every_rate_is_positive_and_at_most_the_peak(ratio, total):
    settings = LoopSettings(1.0, warmup_ratio=ratio)
    rates = [rate_at(step, total, settings) for step in range(total)]
    assert min(rates) > 0 and max(rates) <= 1
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


# steps


def test_the_first_step_by_hand(tmp_path):
    """AdamW's first step moves every weight by the rate against its sign, after the decay."""
    settings = LoopSettings(0.1, weight_decay=0.5, warmup_ratio=0.0, max_grad_norm=1e9)
    loop, weights, _ = linear_loop(
        tmp_path, size=12, settings=settings, validate=scripted(9.0, 1.0)
    )
    residual = DATA @ torch.tensor([1.0, -1.0]) - 1
    sign = (DATA.T @ residual).sign()
    loop.run(title="test")
    expected = torch.tensor([1.0, -1.0]) * (1 - 0.1 * 0.5) - 0.1 * sign
    torch.testing.assert_close(weights["w"].detach(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("most", [0.25, 1e9])
@pytest.mark.parametrize(("size", "steps"), [(12, 1), (3, 4)])
def test_gradients_are_means_over_all_weights_and_clipped(tmp_path, most, size, steps):
    settings = LoopSettings(
        1e-3, max_grad_norm=most, warmup_ratio=0.0, gradient_accumulation_steps=steps
    )
    loop, weights, _ = linear_loop(tmp_path, size=size, settings=settings)
    grads = []
    step = loop.optimiser.step
    loop.optimiser.step = lambda: (grads.append(weights["w"].grad.clone()), step())
    loop.run(title="test")
    residual = DATA @ torch.tensor([1.0, -1.0]) - 1
    plain = 2 * DATA.T @ residual / 12
    assert plain.norm() > 0.25
    expected = plain * min(1.0, most / plain.norm().item())
    torch.testing.assert_close(grads[0], expected, atol=1e-5, rtol=1e-4)


def test_every_batch_of_every_step_draws_its_own_dropout(tmp_path):
    weights = {"w": torch.tensor([1.0], requires_grad=True)}
    drawn = []

    def loss(_):
        drawn.append(torch.rand(()).item())
        return weights["w"].sum(), 1.0

    Loop(
        weights,
        batches=lambda _: range(6),
        loss=loss,
        validate=lambda: 1.0,
        settings=LoopSettings(
            1e-3, num_train_epochs=2, gradient_accumulation_steps=2, patience=9, seed=1
        ),
        checkpoint=tmp_path / "c",
    ).run(title="test")
    assert len(set(drawn)) == len(drawn) == 12


def test_accumulated_batches_are_one_larger_batch(tmp_path):
    """Also with a shorter last batch, as losses and weights are summed before dividing."""
    order = list(range(12))

    def large(_):
        return [order[:7], order[7:]]

    def small(_):
        return [order[:3], order[3:7], order[7:9], order[9:]]

    results = []
    for name, batches, size in (("large", large, 1), ("small", small, 2)):
        settings = LoopSettings(0.05, num_train_epochs=3, gradient_accumulation_steps=size)
        loop, weights, _ = linear_loop(tmp_path / name, settings=settings, batches=batches)
        results.append((loop.run(title="test"), weights["w"].detach()))
    assert results[0][0].step == results[1][0].step == 6
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=1e-5)
    assert results[0][0].training == pytest.approx(results[1][0].training, rel=1e-5)


def test_training_reaches_a_lower_loss(tmp_path):
    settings = LoopSettings(0.1, num_train_epochs=20, patience=100, weight_decay=0.0)
    loop, _, seen = linear_loop(tmp_path, settings=settings)
    history = loop.run(title="test")
    assert history.stopped == "all epochs done"
    assert history.step == 120 == len(seen)
    assert history.best_loss < history.validation[0][1] / 3
    assert history.best_loss == min(loss for _, loss in history.validation)


def test_every_epoch_sees_every_batch_once_in_its_own_order(tmp_path):
    settings = LoopSettings(1e-3, num_train_epochs=3, patience=100, gradient_accumulation_steps=4)
    loop, _, seen = linear_loop(tmp_path, settings=settings)
    assert loop.run(title="test").step == 6  # six batches make two steps: four and two
    epochs = [seen[k : k + 6] for k in range(0, 18, 6)]
    for rows in epochs:
        assert sorted(row for batch in rows for row in batch) == list(range(12))
    assert epochs[0] != epochs[1] != epochs[2]


# early stop


@pytest.mark.parametrize("sizes", [(2, 4, 3), (4, 2, 6), (12, 12, 1)])
def test_epochs_may_differ_in_their_number_of_batches(tmp_path, sizes):
    def batches(epoch):
        size = sizes[epoch]
        return [list(range(k, k + size)) for k in range(0, 12, size)]

    settings = LoopSettings(1e-3, num_train_epochs=3, gradient_accumulation_steps=2, patience=99)
    loop, _, seen = linear_loop(tmp_path, settings=settings, batches=batches)
    steps = [math.ceil(12 / size / 2) for size in sizes]
    assert loop.total == sum(steps)
    history = loop.run(title="")
    assert seen == [batch for epoch in range(3) for batch in batches(epoch)]
    assert history.step == sum(steps) and history.stopped == "all epochs done"
    assert history.validation[-1][0] == sum(steps)


def test_early_stop_keeps_the_best_weights(tmp_path):
    settings = LoopSettings(0.1, num_train_epochs=9, patience=2, evaluations_per_epoch=3)
    loop, weights, _ = linear_loop(
        tmp_path, settings=settings, validate=scripted(5.0, 4.0, 3.0, 3.5, 3.2)
    )
    kept = {}
    evaluate = loop._evaluate

    def watch():
        evaluate()
        kept[loop.history.step] = weights["w"].detach().clone()

    loop._evaluate = watch
    history = loop.run(title="test")
    assert history.stopped == "no gain on validation prompts"
    assert (history.best_step, history.best_loss, history.step) == (4, 3.0, 8)
    assert history.validation == [(0, 5.0), (2, 4.0), (4, 3.0), (6, 3.5), (8, 3.2)]
    assert torch.equal(weights["w"].detach(), kept[4])
    assert not torch.equal(kept[4], kept[8])


def test_without_any_gain_the_start_is_kept(tmp_path):
    settings = LoopSettings(0.1, num_train_epochs=9, patience=1)
    loop, weights, _ = linear_loop(tmp_path, settings=settings, validate=scripted(1.0, 1.0))
    history = loop.run(title="test")
    assert history.best_step == 0
    assert weights["w"].tolist() == [1.0, -1.0]


def test_patience_counts_from_the_last_gain(tmp_path):
    settings = LoopSettings(0.1, num_train_epochs=6, patience=2)
    losses = scripted(5.0, 6.0, 4.0, 6.0, 3.0, 6.0, 6.0)
    loop, _, _ = linear_loop(tmp_path, settings=settings, validate=losses)
    assert loop.run(title="test").step == 36


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_a_fix(tmp_path, bad):
    weights = {"w": torch.tensor([1.0], requires_grad=True)}
    loop = Loop(
        weights,
        batches=lambda _: [0, 1, 2, 3],
        loss=lambda batch: (weights["w"].sum() * (bad if batch == 2 else 1.0), 1.0),
        validate=lambda: 1.0,
        settings=LoopSettings(0.1, evaluations_per_epoch=4, patience=9, warmup_ratio=0.0),
        checkpoint=tmp_path / "run" / "checkpoint.safetensors",
    )
    with pytest.raises(ModelError, match="at step 2") as caught:
        loop.run(title="test")
    assert "--learning-rate" in caught.value.fix
    assert torch.isfinite(weights["w"]).all()
    with safe_open(tmp_path / "run" / "checkpoint.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["loops"])[0]["history"]["step"] == 2
        assert torch.isfinite(file.get_tensor("0.now.w")).all()


# resume


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kill_at", [0, 1, 5, 6, 13, 17])
def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(tmp_path, kill_at, dropout):
    settings = LoopSettings(0.05, num_train_epochs=3, patience=100, evaluations_per_epoch=2, seed=5)
    whole, plain, _ = linear_loop(tmp_path / "whole", settings=settings, dropout=dropout)
    expected = whole.run(title="test")
    first, _, _ = linear_loop(tmp_path / "cut", settings=settings, dropout=dropout, kill_at=kill_at)
    with pytest.raises(Killed):
        first.run(title="test")
    torch.manual_seed(999)  # a new process has another global state
    second, resumed, seen = linear_loop(tmp_path / "cut", settings=settings, dropout=dropout)
    found = second.run(title="test")
    assert found == expected
    assert 0 < len(seen) < 18 or kill_at < 3
    assert torch.equal(resumed["w"], plain["w"])
    files = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_run_is_not_run_again(tmp_path):
    settings = LoopSettings(0.05, num_train_epochs=2, patience=100)
    loop, weights, _ = linear_loop(tmp_path, settings=settings)
    expected = loop.run(title="test")
    again, resumed, seen = linear_loop(tmp_path, settings=settings, validate=scripted())
    assert again.run(title="test") == expected
    assert seen == []
    assert torch.equal(weights["w"], resumed["w"])


def test_the_run_depends_on_the_seed_alone(tmp_path):
    ends = []
    for number, (seed, global_seed) in enumerate([(1, 3), (1, 4), (2, 3)]):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        settings = LoopSettings(0.05, num_train_epochs=1, patience=9, seed=seed)
        loop, _, _ = linear_loop(tmp_path / str(number), settings=settings, dropout=0.5)
        loop.run(title="test")
        assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
        ends.append(loop.history.training)
    assert ends[0] == ends[1] != ends[2]
