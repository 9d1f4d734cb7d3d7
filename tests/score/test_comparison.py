"""Two systems pair by pair: pairing, wins, intervals, equal length, other judges' verdicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from litee.errors import InputError
from litee.records import Pair, VotedPair
from litee.score.comparison import compare_systems, length_controlled
from litee.score.comparison_page import (
    ComparisonPage,
    cautions,
    choose_samples,
    headline,
    render_comparison,
)
from litee.score.comparison_pairs import meet, read_verdicts, shares_of

P = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
PAIRS = [Pair(f"{k}-1", (f"q{k}",), ("a" * (k + 1),), ("b",), "new", "old") for k in range(4)]


def answers(path, rows, model):
    lines = [
        {"id": str(k), "prompt": [prompt], "response": [answer], "model": model, "sample": 0}
        for k, (prompt, answer) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_wins_ties_losses_by_hand():
    found = compare_systems(PAIRS, {"j": P}, names=("new", "old"), groups=range(4))
    (one,) = found.judged
    assert (one.wins.value, one.losses.value, one.ties.value) == (0.5, 0.25, 0.25)
    assert one.win_rate.value == pytest.approx((0.85 + 0.3 + 0.45 + 0.6) / 4)
    assert one.win_rate.low < one.win_rate.value < one.win_rate.high
    assert one.better is None
    assert found.characters == (2.5, 1.0)
    assert headline(found).startswith("j cannot tell them apart (55.0 %")
    assert json.dumps(found.to_json(), allow_nan=False)


def test_missing_verdicts_are_counted_and_left_out():
    part = P.copy()
    part[1] = np.nan
    found = compare_systems(
        PAIRS, {"j": part, "none": part * np.nan}, names=("new", "old"), groups=range(4)
    )
    one, none = found.judged
    assert (one.pairs, one.unscored) == (3, 1)
    assert one.win_rate.value == pytest.approx((0.85 + 0.45 + 0.6) / 3)
    assert none.win_rate.reason
    assert any("5 verdicts are missing" in c for c in cautions(found))


@given(st.integers(0, 2**32 - 1))
def test_exchanging_the_systems_mirrors_everything(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), 20)
    lengths = rng.integers(1, 500, (20, 2)).astype(float)
    y = p[:, 0] + p[:, 2] / 2
    ones = np.ones((1, 20))
    straight = length_controlled(y, lengths, ones)
    crossed = length_controlled(1 - y, lengths[:, ::-1], ones)
    assert straight + crossed == pytest.approx(1, abs=1e-6)


def test_equal_length_agrees_with_a_library():
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 900, (300, 2)).astype(float)
    gap = lengths[:, 0] - lengths[:, 1]
    x = np.tanh(gap / gap.std())
    y = (rng.random(300) < 1 / (1 + np.exp(-(0.4 + 1.5 * x)))).astype(float)
    fit = LogisticRegression(C=1 / (1e-3 * 300), tol=1e-10).fit(x[:, None], y)
    expected = 1 / (1 + np.exp(-fit.intercept_[0]))
    found = length_controlled(y, lengths, np.ones((1, 300)))[0]
    assert found == pytest.approx(expected, abs=1e-5)
    twice = length_controlled(y, lengths, np.full((1, 300), 2.0))[0]
    assert twice == pytest.approx(found, abs=1e-9)


def test_a_win_by_length_alone_is_none_at_equal_length():
    gap = np.linspace(-400, 400, 81) + 100.0
    lengths = np.column_stack([500 + gap, np.full(81, 500.0)])
    y = 1 / (1 + np.exp(-2 * np.tanh(gap / gap.std())))
    assert y.mean() > 0.58
    assert length_controlled(y, lengths, np.ones((1, 81)))[0] == pytest.approx(0.5, abs=0.01)


def test_a_constant_difference_of_lengths_cannot_be_told_from_quality():
    pairs = [Pair(str(k), (f"q{k}",), ("long",), ("x",)) for k in range(4)]
    (one,) = compare_systems(pairs, {"j": P}, names=("x", "y"), groups=range(4)).judged
    assert "same number in all pairs" in one.length_controlled.reason


def test_verdicts_that_are_all_the_same_stay_finite():
    sure = np.tile([1.0, 0.0, 0.0], (4, 1))
    (one,) = compare_systems(PAIRS, {"j": sure}, names=("x", "y"), groups=range(4)).judged
    assert one.win_rate.value == 1.0
    assert one.better
    assert 0.99 < one.length_controlled.value <= 1.0


def test_answers_meet_by_prompt(tmp_path):
    one = answers(tmp_path / "one.jsonl", [("q", "1"), ("r", "2"), ("q", "3")], "new")
    two = answers(tmp_path / "two.jsonl", [("r", "x"), ("q", "y"), ("s", "z")], "old")
    met = meet(one, two)
    assert met.names == ("new", "old")
    assert [(p.response_a, p.response_b) for p in met.pairs] == [
        (("1",), ("y",)),
        (("2",), ("x",)),
    ]
    assert met.groups == (0, 1)
    assert met.dropped.total == 2
    with pytest.raises(InputError, match="no prompt was answered by both"):
        meet(one, answers(tmp_path / "three.jsonl", [("t", "x")], "old"))
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(InputError, match="no column of prompts"):
        meet(one, tmp_path / "bad.jsonl")


def test_files_name_systems_without_a_name(tmp_path):
    one = answers(tmp_path / "tuned.jsonl", [("q", "1")], "same")
    two = answers(tmp_path / "base.jsonl", [("q", "2")], "same")
    assert meet(one, two).names == ("tuned", "base")


def test_verdict_tables(tmp_path):
    table = tmp_path / "verdicts.csv"
    table.write_text("pair_id,verdict\n0-1,a\n2-1,tie\n9-9,b\n3-1,\n")
    found = read_verdicts(table, PAIRS)
    assert found[0].tolist() == [1, 0, 0]
    assert found[2].tolist() == [0, 0, 1]
    assert np.isnan(found[[1, 3]]).all()
    table.write_text("pair_id,verdict,p_a,p_b,p_tie\n0-1,a,0.7,0.2,0.1\n1-1,,,,\n")
    assert read_verdicts(table, PAIRS)[0].tolist() == [0.7, 0.2, 0.1]
    table.write_text("pair_id,verdict\n0-1,better\n")
    with pytest.raises(InputError, match="not a, b or tie"):
        read_verdicts(table, PAIRS)
    table.write_text("pair_id,verdict\n9-9,a\n")
    with pytest.raises(InputError, match="no verdict on these pairs"):
        read_verdicts(table, PAIRS)


def test_peoples_votes_count_in_either_order():
    crossed = PAIRS[1].swapped()
    voted = [VotedPair(PAIRS[0], (1.0, 0.0, 0.0), 2), VotedPair(crossed, (0.2, 0.8, 0.0), 5)]
    found = shares_of(voted, PAIRS)
    assert found[0].tolist() == [1.0, 0.0, 0.0]
    assert found[1].tolist() == [0.8, 0.2, 0.0]
    assert np.isnan(found[2:]).all()


def test_the_page_escapes_and_shows_wins_and_losses():
    pairs = [Pair(str(k), ("<script>x</script>",), (f"<b>{k}</b>",), ("y",)) for k in range(20)]
    p = np.column_stack([np.linspace(0, 1, 20), np.linspace(1, 0, 20), np.zeros(20)])
    found = compare_systems(pairs, {"<j>": p}, names=("<n>", "o"), groups=range(20))
    samples = choose_samples(pairs, p)
    assert [s.pair.id for s in samples] == ["19", "18", "17", "16", "3", "2", "1", "0"]
    text = render_comparison(ComparisonPage(found, samples, command="litee compare"))
    assert "<script>" not in text
    assert "<b>19</b>" not in text
    assert "&lt;b&gt;19&lt;/b&gt;" in text
