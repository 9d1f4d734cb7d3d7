"""Heads: published tie models by hand, and the symmetry that holds for all states."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.errors import ModelError
from litee.finetune.branch import load_head, save_head
from litee.finetune.heads import (
    DavidsonHead,
    JointHead,
    RaoKupperHead,
    RewardHead,
    make_head,
    vote_loss,
)

HEADS = ["davidson", "rao-kupper", "joint"]
WIDTH = 5


def random_head(name, seed, spread=1.0):
    head = make_head(name, WIDTH)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * spread)
        head.standardise(torch.randn(30, WIDTH, generator=rng) * 3 + 1)
    return head


def states(seed, count=4, spread=1.0):
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn(count, WIDTH, generator=rng) * spread for _ in range(2))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(HEADS), st.integers(0, 10**6), st.floats(0.1, 5))
def test_exchanging_the_branches_exchanges_a_and_b(name, seed, spread):
    head = random_head(name, seed)
    left, right = states(seed + 1, spread=spread)
    there, back = head(left, right), head(right, left)
    torch.testing.assert_close(there, back[:, [1, 0, 2]], atol=2e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(HEADS), st.integers(0, 10**6), st.floats(0.1, 8))
def test_probabilities_sum_to_one(name, seed, spread):
    left, right = states(seed + 1, spread=spread)
    sums = random_head(name, seed)(left, right).double().exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_a_fresh_head_is_uniform(name):
    left, right = states(0)
    expected = torch.full((4, 3), math.log(1 / 3))
    torch.testing.assert_close(make_head(name, WIDTH)(left, right), expected)


def reward_head(kind, *, weight, tie_weight, tie_bias):
    head = kind(1)
    with torch.no_grad():
        head.reward_weight.fill_(weight)
        head.tie.weight.copy_(torch.tensor([tie_weight]))
        head.tie.bias.fill_(tie_bias)
    return head


@pytest.mark.parametrize(
    ("a", "b", "nu"), [(0.0, 0.0, 1.0), (2.0, 0.5, 0.3), (-1.0, 1.0, 4.0), (0.3, 0.2, 0.01)]
)
def test_davidson_by_its_formula(a, b, nu):
    """P(A) = π_A / (π_A + π_B + ν √(π_A π_B)) with π = exp(r) (Davidson 1970, eq. 2.3)."""
    head = reward_head(DavidsonHead, weight=1.0, tie_weight=[0.0, 0.0], tie_bias=math.log(nu))
    pi_a, pi_b = math.exp(a), math.exp(b)
    total = pi_a + pi_b + nu * math.sqrt(pi_a * pi_b)
    expected = [pi_a / total, pi_b / total, nu * math.sqrt(pi_a * pi_b) / total]
    found = head(torch.tensor([[a]]), torch.tensor([[b]])).exp()[0].tolist()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "t"), [(0.0, 0.0, 0.0), (2.0, 0.5, -1.0), (-1.0, 1.0, 1.5), (0.3, 0.2, -6.0)]
)
def test_rao_kupper_by_its_formula(a, b, t):
    """P(A) = π_A / (π_A + θ π_B), θ = 1 + exp(t) (Rao & Kupper 1967, eq. 2.1)."""
    head = reward_head(RaoKupperHead, weight=1.0, tie_weight=[0.0, 0.0], tie_bias=t)
    pi_a, pi_b, theta = math.exp(a), math.exp(b), 1 + math.exp(t)
    first, second = pi_a / (pi_a + theta * pi_b), pi_b / (pi_b + theta * pi_a)
    found = head(torch.tensor([[a]]), torch.tensor([[b]])).exp()[0].tolist()
    assert found == pytest.approx([first, second, 1 - first - second], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("t", [-80.0, -20.0, 20.0, 40.0, 60.0, 200.0])
@pytest.mark.parametrize("name", ["davidson", "rao-kupper"])
def test_extreme_tie_scores_stay_finite(name, t):
    kind = {"davidson": DavidsonHead, "rao-kupper": RaoKupperHead}[name]
    head = reward_head(kind, weight=1.0, tie_weight=[0.0, 0.0], tie_bias=t)
    left = torch.tensor([[0.5]], requires_grad=True)
    found = head(left, torch.tensor([[0.0]]))
    found.clamp_min(-100).sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(left.grad).all()
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert (found[0, 2] > found[0, 0]).item() == (t > 0)


def test_the_tie_score_reads_distance_and_sum():
    head = reward_head(DavidsonHead, weight=0.0, tie_weight=[2.0, 3.0], tie_bias=0.5)
    score = head.scores(head.features(torch.tensor([[1.0]]), torch.tensor([[4.0]])))[1]
    assert score.item() == pytest.approx(2 * 3 + 3 * 5 / math.sqrt(2) + 0.5, rel=1e-6)


def test_reward_differences_are_log_odds_for_davidson():
    head = random_head("davidson", 3)
    left, right = states(4)
    log_p = head(left, right)
    torch.testing.assert_close(
        head.reward(left) - head.reward(right), log_p[:, 0] - log_p[:, 1], atol=1e-4, rtol=1e-4
    )


def test_joint_averages_both_orders_by_hand():
    head = JointHead(2)
    with torch.no_grad():
        head.label.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        head.label.bias.copy_(torch.tensor([0.0, 0.5, 1.0]))
    # order A, B: (1, 2.5, 4); order B, A: (3, −0.5, 3), that is (−0.5, 3, 3) for (A, B, tie)
    logits = head.logits(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]]))
    assert logits.tolist() == [[0.25, 2.75, 3.5]]


def test_standardise_by_hand_and_constant_columns():
    head = make_head("davidson", 2)
    head.standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert head.mean.tolist() == [2.0, 5.0]
    assert head.scale.tolist() == [1.0, 1.0]
    head.standardise(torch.tensor([[0.0, 5.0], [4.0, 5.0]]))
    assert head.normal(torch.tensor([[4.0, 6.0]])).tolist() == [[1.0, 1.0]]


def test_penalty_leaves_biases_free():
    head = reward_head(DavidsonHead, weight=2.0, tie_weight=[1.0, 3.0], tie_bias=100.0)
    assert head.penalty().item() == pytest.approx((4 + 1 + 9) / 2)
    joint = JointHead(1)
    with torch.no_grad():
        joint.label.weight.fill_(2.0)
        joint.label.bias.fill_(50.0)
    assert joint.penalty().item() == pytest.approx(3 * 4 / 2)


def test_vote_loss_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], dtype=torch.float64)
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    weights = torch.tensor([3.0, 1.0], dtype=torch.float64)
    first = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25))
    expected = (3 * first - math.log(0.1)) / 4
    assert vote_loss(p.log(), shares, weights).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_head_predicts_the_same(name, tmp_path):
    head = random_head(name, 7)
    save_head(head, tmp_path / "head.safetensors")
    again = load_head(name, tmp_path / "head.safetensors")
    left, right = states(8)
    assert torch.equal(head(left, right), again(left, right))
    assert not again.training


def test_saving_a_head_twice_gives_the_same_bytes(tmp_path):
    head = random_head("davidson", 7)
    for name in ("one", "two"):
        save_head(head, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("saved", "asked"),
    [
        ("davidson", "joint"),
        ("joint", "davidson"),
        ("davidson", "rao-kupper"),
    ],
)
def test_a_head_of_another_kind_is_refused(saved, asked, tmp_path):
    save_head(random_head(saved, 1), tmp_path / "head.safetensors")
    with pytest.raises(ModelError):
        load_head(asked, tmp_path / "head.safetensors")


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_damaged_head_file_is_a_model_error(damage, tmp_path):
    file = tmp_path / "head.safetensors"
    save_head(random_head("davidson", 1), file)
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": data[:-20], "text": b"not a model " * 9}[damage])
    with pytest.raises(ModelError, match="cannot read the head") as caught:
        load_head("davidson", file)
    assert "head.safetensors" in caught.value.place


def test_only_reward_heads_have_rewards():
    kinds = {name: isinstance(make_head(name, 2), RewardHead) for name in HEADS}
    assert kinds == {"davidson": True, "rao-kupper": True, "joint": False}
    assert np.isfinite(make_head("davidson", 2).reward(torch.ones(1, 2)).item())
