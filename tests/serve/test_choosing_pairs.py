"""Which pair to ask about next: the formulas against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from litee.serve.choosing import Strengths, map_strengths, ranking_gain


@given(st.integers(0, 10_000), st.integers(2, 7))
def test_the_gain_is_what_a_vote_takes_off_the_trace(seed, count):
    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 4, (count, count)).astype(float)
    np.fill_diagonal(wins, 0)
    known = map_strengths(wins)
    systems = np.array([(i, j) for i in range(count) for j in range(count) if i != j])
    for (a, b), gain in zip(systems, ranking_gain(known, systems), strict=True):
        d = np.eye(count)[a] - np.eye(count)[b]
        p = 1 / (1 + np.exp(-(known.mean @ d)))
        after = np.linalg.inv(np.linalg.inv(known.covariance) + p * (1 - p) * np.outer(d, d))
        assert np.isclose(gain, np.trace(known.covariance) - np.trace(after))


def test_a_vote_on_unknown_systems_teaches_more_than_one_on_known_ones():
    known = Strengths(np.zeros(4), np.diag([0.01, 0.01, 2.0, 2.0]))
    gain = ranking_gain(known, np.array([[0, 1], [0, 2], [2, 3]]))
    assert gain[0] < gain[1] < gain[2]
