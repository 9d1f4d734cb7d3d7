import gzip
import json

import numpy as np
import pytest

from litee.records import Outcome, Pair, VotedPair
from litee.score.audit_page import AuditPage, render_audit
from litee.score.biases import audit, refuses
from litee.score.pair_table import read_orders


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


def test_one_order_says_nothing_of_position():
    """On thirty prompts the judge always picks A, and people never do: quality or place?"""
    voted = [v for k in range(30) for v in pairs([(f"a{k}", f"b{k}", "me", Outcome.B)])]
    always = np.array([[1.0, 0, 0]] * 30)
    alone = AuditPage(audit(voted, range(30), always, resamples=50), "it")
    page = render_audit(alone)
    assert "No preference of it differs" in page and "in one order only" in page
    both = AuditPage(audit(voted, range(30), always, swapped=always, resamples=50), "it")
    page = render_audit(both)
    assert "shown first (+50.0 points)" in page and "in one order only" not in page


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


def test_position_over_both_orders():
    """Always first: every verdict flips. The joined verdicts are ties, so other traits show 0.5."""
    always = np.array([[1.0, 0, 0]] * 5)
    traits, found = by_trait([[0, 0, 1]] * 5, first=always, swapped=always)
    shown = traits["shown first"]
    assert (shown.judge.value, shown.people.value, shown.pairs) == (1.0, 0.5, 4)
    assert found.flip_rate.value == 1 and traits["longer"].judge.value == 0.5


def test_orders_column_is_read_with_the_place_that_each_answer_had(tmp_path):
    table = tmp_path / "llm.csv"
    table.write_text("pair_id,verdict,orders\np0,a,a/a\np1,tie,a/b\np2,,-/tie\nother,a,a/a\n")
    first, swapped = read_orders(f"llm={table}", list(pairs(ROWS)))
    assert first[:2].tolist() == [[1, 0, 0], [1, 0, 0]] and np.isnan(first[2:]).all()
    assert swapped[:3].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    table.write_text("pair_id,verdict\np0,a\n")
    assert read_orders(str(table), list(pairs(ROWS))) is None


def test_the_page_names_what_is_beyond_the_error():
    rows = [("a long answer", "no", "me", Outcome.B)] * 40
    voted = list(pairs(rows))
    always = np.array([[1.0, 0, 0]] * 40)
    found = audit(voted, range(40), always, own="me", resamples=50)
    page = render_audit(AuditPage(found, "<gpt>", "litee audit", {"d/x.csv": "ab12"}))
    assert "What does &lt;gpt&gt; prefer?" in page and "x.csv <code>ab12" in page
    assert "more often than people: longer (+100.0 points), the judge&#39;s own" in page
    assert 'class="main"><th scope="row">longer' in page and "differ in: " in page
    assert "Not known: no verdicts on exchanged answers" in page


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
    out = tmp_path / "audit"
    command(str(verdicts), votes=[str(votes)], resamples=20, as_json=True, out=out)
    assert json.loads((out / "audit.json").read_text())["pairs"] == 5
    assert "What does verdicts prefer?" in (out / "audit.html").read_text(encoding="utf-8")
    record = json.loads(capsys.readouterr().out)
    assert record["unscored"] == 1 and record["biases"][0]["trait"] == "shown first"
