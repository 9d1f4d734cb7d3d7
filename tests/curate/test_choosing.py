"""Strategies against hand-made layouts and against brute force."""

from itertools import combinations

import numpy as np
import pytest

from litee.curate.choosing import Candidates, Task, choose, nearest
from litee.curate.quotas import Gate, parse_quota
from litee.curate.vectors import unit


def candidates(vectors, quality=None, clusters=None, cells=None):
    found = unit(np.array(vectors, dtype=float))
    size = len(found)
    return Candidates(
        found,
        np.array(quality if quality is not None else np.ones(size), dtype=float),
        cells or [("s", "t")] * size,
        np.array(clusters if clusters is not None else np.zeros(size), dtype=np.int64),
    )


def pick(strategy, what, n, weight=0.0, quotas=()):
    gate = Gate([parse_quota(q) for q in quotas], what.cells, n)
    return choose(strategy, what, gate, Task(n, weight, 100, 0))


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_k_center_takes_the_farthest_next():
    """From 0° the farthest is 90°, then the one in the middle, 45°."""
    assert pick("kcenter", candidates(on_circle(0, 20, 45, 80, 90)), 3) == [0, 4, 2]


def test_facility_location_takes_the_middle_of_the_crowd_first():
    """Of 0°, 10°, 20° and 180° the one at 10° covers most, then the lone one."""
    assert pick("facility", candidates(on_circle(0, 10, 20, 180)), 2) == [1, 3]


def coverage(vectors, rows):
    return np.maximum(vectors @ vectors[list(rows)].T, 0).max(axis=1).mean()


def test_facility_location_is_near_the_best_of_all_choices():
    """Greedy is within 1 − 1/e of the best choice (Nemhauser et al. 1978); lazy equals eager."""
    rng = np.random.default_rng(3)
    what = candidates(rng.normal(size=(14, 5)))
    found = pick("facility", what, 4)
    best = max(coverage(what.vectors, rows) for rows in combinations(range(14), 4))
    assert coverage(what.vectors, found) >= (1 - 1 / np.e) * best
    eager: list[int] = []
    for _ in range(4):
        left = [k for k in range(14) if k not in eager]
        eager.append(max(left, key=lambda k: coverage(what.vectors, [*eager, k])))
    assert found == eager


@pytest.mark.parametrize("strategy", ["facility", "kcenter", "clusters", "quality"])
def test_quality_alone_decides_with_weight_one(strategy):
    what = candidates(on_circle(0, 30, 60, 90), quality=[0.1, 0.9, 0.3, 0.7])
    assert pick(strategy, what, 2, weight=1.0) == [1, 3]


def test_clusters_take_turns_by_size():
    what = candidates(
        np.eye(6), quality=[0.5, 0.6, 0.7, 0.1, 0.2, 0.9], clusters=[0, 0, 0, 1, 1, 2]
    )
    assert pick("clusters", what, 5) == [2, 4, 5, 1, 3]


def test_random_looks_at_nothing_but_the_seed():
    """300 draws of 2 of 4: each of the four is in half of them, whatever its quality."""
    what = candidates(on_circle(0, 1, 2, 90), quality=[0.0, 1.0, 1.0, 0.0])
    gates = (Gate([], what.cells, 2) for _ in range(300))
    drawn = [choose("random", what, gate, Task(2, 1.0, 100, k)) for k, gate in enumerate(gates)]
    counts = np.bincount(np.concatenate(drawn), minlength=4)
    assert (np.abs(counts - 150) < 4 * np.sqrt(300 * 0.25)).all()
    assert pick("random", what, 2) == pick("random", what, 2)


@pytest.mark.parametrize("strategy", ["facility", "kcenter", "clusters", "quality", "random"])
def test_every_strategy_keeps_the_quotas_and_takes_nobody_twice(strategy):
    rng = np.random.default_rng(1)
    cells = [(f"s{k % 3}", f"t{k % 4}") for k in range(60)]
    what = candidates(rng.normal(size=(60, 8)), rng.random(60), rng.integers(0, 5, 60), cells)
    found = pick(strategy, what, 20, 0.5, ("source:s0=3", "topic:t1=-2", "source:s2=8-12"))
    assert len(set(found)) == 20
    sources = [cells[k][0] for k in found]
    assert sources.count("s0") == 3
    assert 8 <= sources.count("s2") <= 12
    assert sum(cells[k][1] == "t1" for k in found) <= 2


def test_nearest_leaves_itself_out_when_asked():
    vectors = unit(on_circle(0, 10, 90))
    place, cosine = nearest(vectors, [0, 2])
    assert place.tolist() == [0, 0, 1]
    assert cosine[1] == pytest.approx(np.cos(np.radians(10)))
    place, cosine = nearest(vectors, [0, 2], apart=True)
    assert place.tolist() == [1, 0, 0]
    assert cosine[0] == pytest.approx(0, abs=1e-6)
