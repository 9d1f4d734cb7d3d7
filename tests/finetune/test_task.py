"""What members learn from: plain shares, weighted votes, majorities of them, and a teacher."""

from __future__ import annotations

import numpy as np
import pytest

from litee.collect.pairs import gather
from litee.config import FitSettings
from litee.finetune.task import Task, make_task
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


def test_equal_votes_are_the_shares_themselves():
    plain = task()
    assert plain.taught is None and plain.annotators is None
    assert plain.targets is plain.shares


def test_weighted_votes_are_learnt_from_and_shares_are_judged_by():
    found = task(annotators="agreement")
    np.testing.assert_array_equal(found.shares, task().shares)
    np.testing.assert_array_equal(found.weights, task().weights)
    assert found.annotators is not None and found.annotators.weights["s", "eve"] == 0
    assert found.targets[0].tolist() == [0, 1, 0] and found.targets[19].tolist() == [1, 0, 0]
    assert found.shares[0] == pytest.approx([1 / 4, 3 / 4, 0])


def test_a_majority_is_that_of_the_weighted_votes():
    assert task(soft_labels=False).targets[19].tolist() == [0, 1, 0]  # eve's two votes
    found = task(soft_labels=False, annotators="agreement")
    assert found.targets[19].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(found.shares, task().shares)


def test_a_teacher_is_mixed_with_the_weighted_votes():
    told = np.tile([0.0, 0.0, 1.0], (20, 1))
    told[0] = np.nan
    found = task(told, annotators="agreement", teacher_weight=0.25).targets
    assert found[0].tolist() == [0, 1, 0] and found[19].tolist() == [0.75, 0, 0.25]


def test_a_pair_weighs_its_number_of_votes_either_way():
    found = [task(annotators=how, pair_weight="votes").weights for how in ("equal", "agreement")]
    np.testing.assert_array_equal(*found)
