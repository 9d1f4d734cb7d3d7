"""The votes that come with the project are what their pages say."""

from collections import Counter
from pathlib import Path

import pytest

from litee.collect.votes import load_votes
from litee.records import Outcome

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def adversarial():
    found = load_votes([str(EXAMPLES / "adversarial_votes.jsonl")])
    assert found.dropped.total == 0
    return found.votes


def answers(vote):
    right, wrong = vote.pair.response_a[0], vote.pair.response_b[0]
    return (right, wrong) if vote.winner is Outcome.A else (wrong, right)


def test_there_are_sixteen_of_each_kind_and_no_side_is_favoured(adversarial):
    kinds = Counter((vote.pair.source, vote.winner) for vote in adversarial)
    assert len({vote.pair.prompt for vote in adversarial}) == 48
    assert set(kinds.values()) == {8}
    assert {kind for kind, _ in kinds} == {
        "longer_but_wrong",
        "confident_but_wrong",
        "formatted_but_empty",
    }


def test_length_and_markup_speak_for_the_wrong_answer(adversarial):
    for vote in adversarial:
        right, wrong = answers(vote)
        if vote.pair.source == "longer_but_wrong":
            assert len(wrong) > 2 * len(right), vote.pair.id
        if vote.pair.source == "formatted_but_empty":
            assert wrong.count("**") + wrong.count("#") > right.count("**") + right.count("#")
            assert len(wrong) > len(right), vote.pair.id
