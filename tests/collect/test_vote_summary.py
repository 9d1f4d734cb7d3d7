"""The figures of a vote summary, by hand, and its drawing."""

import json
import math

import pytest

from litee.collect.figure import summary_figure
from litee.collect.inspect import inspect_votes
from litee.collect.votes import load_votes
from litee.errors import ConfigError
from litee.records import Outcome, Pair, Vote, VoteSet


def votes_on(pair, *winners):
    return [Vote(f"{pair.id}-{k}", pair, w, f"r{k}") for k, w in enumerate(winners)]


A, B, TIE, BAD = Outcome.A, Outcome.B, Outcome.TIE, Outcome.BOTH_BAD
FIRST = Pair("1", ("q",), ("long answer",), ("short",), "m", "n", "s")
SECOND = Pair("2", ("q",), ("short",), ("long answer",), "n", "m", "s")
THIRD = Pair("3", ("other question", "r"), ("same", ""), ("same", ""), source="t")


@pytest.fixture
def summary():
    votes = [
        *votes_on(FIRST, A, A, TIE),
        *votes_on(SECOND, A, B),
        *votes_on(THIRD, BAD),
    ]
    return inspect_votes(VoteSet(tuple(votes)))


def test_counts(summary):
    assert (summary.votes, summary.pairs, summary.prompts, summary.prompt_groups) == (6, 3, 2, 2)
    assert (summary.annotators, summary.models) == (3, 2)
    assert summary.sources == {"s": 5, "t": 1}
    assert summary.votes_per_pair == {1: 1, 2: 1, 3: 1}
    assert summary.turns == {1: 2, 2: 1}
    assert summary.largest_group == 2


def test_balance(summary):
    assert summary.outcomes == {"a": 3, "b": 1, "tie": 1, "both_bad": 1}
    assert summary.shares == pytest.approx((3 / 6, 1 / 6, 2 / 6))
    entropy = -(0.5 * math.log(0.5) + math.log(1 / 6) / 6 + math.log(1 / 3) / 3)
    assert summary.prior_entropy == pytest.approx(entropy)


def test_agreement_counts_pairs_of_votes(summary):
    # pair 1: (a, a) agree, (a, tie) twice not; pair 2: (a, b) not
    assert summary.agreement.vote_pairs == 4
    assert summary.agreement.score.value == 1 / 4
    assert summary.agreement_decisive.vote_pairs == 2
    assert summary.agreement_decisive.score.value == 1 / 2


def test_longer_answer_wins(summary):
    # decisive votes on unequal lengths: a, a on pair 1 (longer), a (shorter) and b on pair 2
    assert summary.longer_wins.value == 3 / 4


def test_lengths(summary):
    # answers: 11, 5, 5, 11, 4, 4 characters
    assert summary.answer_length.median == 5
    assert summary.answer_length.max == 11
    assert summary.length_bins == {4: 4, 8: 2}
    assert summary.prompt_length.median == 1
    assert summary.prompt_length.max == 15


def test_repeats(summary):
    assert summary.reversed_pairs == 2
    assert summary.same_content == 0
    assert summary.identical_answers == 1
    assert summary.empty_answers == 1


def test_reasons_instead_of_figures():
    summary = inspect_votes(VoteSet(tuple(votes_on(THIRD, TIE))))
    assert summary.agreement.score.reason == "no pair has two votes"
    assert summary.agreement_decisive.score.reason == "no pair has two decisive votes"
    assert summary.longer_wins.reason == "no decisive vote"
    assert summary.prior_entropy == 0
    assert str(summary.prior_entropy) == "0.0"


def test_dropped_rows_come_along(write, row):
    summary = inspect_votes(load_votes([write([row(), row(prompt=None), row(response_a="")])]))
    assert summary.dropped.counts == {"null prompt": 1}
    assert summary.noticed.counts == {"empty answer": 1}


def test_json_is_plain(summary):
    value = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert value["agreement"] == {
        "score": {"value": 0.25, "low": None, "high": None, "reason": ""},
        "vote_pairs": 4,
    }


def test_no_votes_is_a_programming_error():
    with pytest.raises(ValueError, match="no votes"):
        inspect_votes(VoteSet(()))


@pytest.mark.parametrize(
    ("name", "magic"), [("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("f.PDF", b"%PDF")]
)
def test_figure_kinds(summary, tmp_path, name, magic):
    summary_figure(summary, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_figure_of_one_vote_and_of_empty_answers(tmp_path):
    for pair in (FIRST, Pair("e", ("",), ("",), ("",))):
        summary_figure(inspect_votes(VoteSet(tuple(votes_on(pair, TIE)))), tmp_path / "f.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["f.svg"]


def test_unknown_figure_kind(summary, tmp_path):
    with pytest.raises(ConfigError, match="unknown kind"):
        summary_figure(summary, tmp_path / "f.bmp")
