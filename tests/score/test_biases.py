import gzip
import json

import numpy as np
import pytest

from litee.records import Outcome, Pair, VotedPair
from litee.score.biases import audit, refuses


def pairs(rows):
    """(answer a, answer b, model a, winner) → voted pairs."""
    for k, (a, b, model, winner) in enumerate(rows):
        pair = Pair(f"p{k}", (f"q{k}",), (a,), (b,), model, "other", "s")
        shares = tuple(float(winner.class_index == c) for c in range(3))
        yield VotedPair(pair, shares, 1, (winner,))


ROWS = [
    ("long answer", "no", "me", Outcome.A),
    ("no", "long answer", "x", Outcome.A),
    ("- a\n- b", "plain", "me", Outcome.B),
    ("I'm sorry, I can't help with that.", "Yes.", "x", Outcome.B),
    ("same", "size", "me", Outcome.TIE),
]


def by_trait(p, **more):
    voted = list(pairs(ROWS))
    found = audit(voted, range(len(voted)), np.array(p, dtype=float), resamples=50, **more)
    return {b.trait: b for b in found.biases}, found


def test_shares_by_hand():
    first = [[1, 0, 0]] * 5
    traits, found = by_trait(first, own="me")
    shown = traits["shown first"]
    assert (shown.pairs, shown.judge.value, shown.people.value) == (4, 1.0, 0.5)
    longer = traits["longer"]  # A, B, A, A are the longer ones; people chose A, A, B, B
    assert longer.judge.value == pytest.approx(3 / 4)
    assert longer.people.value == pytest.approx(1 / 4)
    assert longer.difference.value == pytest.approx(1 / 2)
    assert traits["more list items"].judge.value == 1 and traits["more list items"].pairs == 1
    assert traits["refusal"].difference.value == pytest.approx(1.0)
    assert traits["the judge's own"].pairs == 2  # the tie is not decisive
    assert "more bold" in traits and "differ" in traits["more bold"].judge.reason
    assert found.flip_rate.value is None and "exchanged" in found.flip_rate.reason


def test_a_judge_that_votes_as_people_do_has_no_bias():
    voted = list(pairs(ROWS))
    p = np.array([v.shares for v in voted])
    found = audit(voted, range(len(voted)), p, resamples=50)
    known = [b.difference.value for b in found.biases if b.difference.value is not None]
    assert len(known) >= 4 and np.allclose(known, 0)


def test_flips_and_missing_verdicts():
    p = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [np.nan] * 3, [0, 0, 1]]
    exchanged = [[0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]]
    traits, found = by_trait(p, swapped=np.array(exchanged, dtype=float))
    assert found.unscored == 1 and traits["shown first"].pairs == 3
    assert found.flip_rate.value == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("I cannot assist with that request.", True),
        ("As an AI language model, I have no opinion.", True),
        ("I can’t do that.", True),
        ("You can't miss the inn.", False),
        ("x" * 300 + " I'm sorry", False),
        ("", False),
    ],
)
def test_refusals_by_their_opening(text, is_one):
    assert refuses(text) is is_one


def test_the_command_prints_json(tmp_path, capsys):
    from litee.cli.audit import audit as command

    rows = [
        {"pair_id": f"p{k}", "prompt": [f"q{k}"], "response_a": [a], "response_b": [b],
         "model_a": m, "model_b": "o", "source": "s", "votes": [["r", w.value]]}
        for k, (a, b, m, w) in enumerate(ROWS)
    ]  # fmt: skip
    votes = tmp_path / "votes.jsonl.gz"
    votes.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    verdicts = tmp_path / "verdicts.csv"
    verdicts.write_text("pair_id,gpt\np0,a\np1,b\np2,a\np3,b\n", encoding="utf-8")
    command(str(verdicts), votes=[str(votes)], resamples=20, as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["unscored"] == 1 and record["biases"][0]["trait"] == "shown first"
