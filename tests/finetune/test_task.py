"""What members learn from: plain shares, weighted votes, majorities of them, and a teacher."""

from __future__ import annotations

import numpy as np
import pytest

from litee.collect.pairs import gather
from litee.config import FitSettings
from litee.finetune.probe import fit_probe, predict_head
from litee.finetune.statistics import statistics_states
from litee.finetune.task import Task, make_task, stop_split, with_prior
from litee.records import Folds, Outcome, Pair, Vote


def task(teacher: np.ndarray | None = None, **settings: object) -> Task:
    """Of 20 pairs. Three agree, eve never does; on the last she votes twice against one."""
    votes = []
    for k in range(20):
        pair = Pair(str(k), (f"q{k}",), ("x",), ("y",), source="s")
        good, bad = (Outcome.A, Outcome.B) if k % 2 else (Outcome.B, Outcome.A)
        cast = {"ann": good, "eve": bad}
        cast |= {"bob": good, "cid": good} if k < 19 else {}
        votes += [Vote(f"{k}{name}", pair, winner, name) for name, winner in cast.items()]
    votes.append(Vote("last", votes[-1].pair, Outcome.B, "eve"))
    voted = gather(votes)
    folds = Folds(tuple(range(20)), tuple(k % 2 for k in range(20)), 2)
    return make_task(voted, folds, FitSettings(**settings), teacher)


def learnt(made: Task) -> np.ndarray:
    """The labels without the twentieth and first pair's worth of prior votes."""
    return ((21 * made.targets - 1 / 3) / 20).round(12)


def test_equal_votes_are_the_shares_and_a_further_pair():
    plain = task()
    assert plain.annotators is None
    np.testing.assert_allclose(plain.targets, (20 * plain.shares + 1 / 3) / 21)
    np.testing.assert_allclose(plain.targets.sum(axis=1), 1)


def test_an_outcome_that_nobody_named_is_rare_and_not_impossible():
    rng = np.random.default_rng(0)
    shares = np.eye(3)[rng.integers(0, 2, 200)]  # never a tie
    pairs = [
        Pair(str(k), ("q",), ("x" * int(n),), ("y",))
        for k, n in enumerate(rng.integers(1, 99, 200))
    ]
    data = statistics_states(pairs)
    head = fit_probe(data, with_prior(shares), np.ones(200), ridge=150)
    ties = predict_head(head, data)[:, 2]
    assert ties.mean() == pytest.approx(1 / 3 / 201, rel=0.01)  # a free bias meets the mean label
    assert ties.min() > 1 / 3 / 201 / 3


def test_weighted_votes_are_learnt_from_and_shares_are_judged_by():
    found = task(annotators="agreement")
    np.testing.assert_array_equal(found.shares, task().shares)
    np.testing.assert_array_equal(found.weights, task().weights)
    assert found.annotators is not None and found.annotators.weights["s", "eve"] == 0
    assert learnt(found)[0].tolist() == [0, 1, 0] and learnt(found)[19].tolist() == [1, 0, 0]
    assert found.shares[0] == pytest.approx([1 / 4, 3 / 4, 0])


def test_a_majority_is_that_of_the_weighted_votes():
    assert learnt(task(soft_labels=False))[19].tolist() == [0, 1, 0]  # eve's two votes
    found = task(soft_labels=False, annotators="agreement")
    assert learnt(found)[19].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(found.shares, task().shares)


def test_a_teacher_is_mixed_with_the_weighted_votes():
    told = np.tile([0.0, 0.0, 1.0], (20, 1))
    told[0] = np.nan
    found = learnt(task(told, annotators="agreement", teacher_weight=0.25))
    assert found[0].tolist() == [0, 1, 0] and found[19].tolist() == [0.75, 0, 0.25]


def test_a_pair_weighs_its_number_of_votes_either_way():
    found = [task(annotators=how, pair_weight="votes").weights for how in ("equal", "agreement")]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("share", [0.12, 0.5])
def test_what_stops_a_fit_is_small_though_one_prompt_has_most_pairs(share):
    groups = [0] * 500 + [1 + k // 5 for k in range(100)]  # one of 500 pairs, twenty of five
    folds = Folds(tuple(groups), tuple(int(g == 1) for g in groups), 2)
    for seed in range(40):
        train, stop = stop_split(folds, np.arange(600), seed, share=share)
        assert sorted([*train, *stop]) == list(range(600))
        inside = {groups[k] for k in stop}
        assert not inside & {groups[k] for k in train}
        assert 0 < len(stop) <= 2 * share * 600
        assert share > 0.4 or 0 not in inside


def test_where_all_prompts_are_large_the_smallest_one_stops():
    groups = [0] * 50 + [1] * 30 + [2] * 40
    folds = Folds(tuple(groups), tuple(int(g == 1) for g in groups), 2)
    for seed in range(5):
        _, stop = stop_split(folds, np.arange(120), seed, share=0.05)
        assert stop.tolist() == list(range(50, 80))
