import numpy as np
import pytest

from litee.records import Score
from litee.score.enough import needed


def test_an_interval_without_zero_is_settled():
    found = needed(Score(0.1, 0.02, 0.2), prompts=50, votes=100)
    assert found.settled and found.more_votes == 0 and found.in_words() == "settled"


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (Score(None, reason="constant"), "constant"),
        (Score(0.1), "no interval"),
        (Score(0.0005, -0.1, 0.1), "no difference"),
    ],
)
def test_what_cannot_be_said_has_a_reason(score, word):
    found = needed(score, prompts=50, votes=100)
    assert found.prompts is None and word in found.in_words()


def test_that_many_prompts_find_the_difference_in_four_of_five_tries():
    rng = np.random.default_rng(0)
    true, spread, n = 0.05, 0.5, 100
    error = 1.96 * spread / np.sqrt(n)
    found = needed(Score(true, true - error, true + error), prompts=n, votes=3 * n)
    means = true + spread / np.sqrt(found.prompts) * rng.normal(size=20_000)
    power = np.mean(means - 1.96 * spread / np.sqrt(found.prompts) > 0)
    assert power == pytest.approx(0.8, abs=0.02)
    assert found.more_votes == 3 * found.more_prompts
