"""Votes and ranked samples as preferences: ties, counts, odd pairs."""

from __future__ import annotations

import pytest

from litee.errors import InputError
from litee.finetune.chat_data import ChatEncoder
from litee.finetune.preference_data import (
    Preference,
    encode_preferences,
    preferences_from_samples,
    preferences_from_votes,
)
from litee.records import Message, Outcome, Pair, VotedPair
from tiny_models import byte_tokenizer

A, B, T = Outcome.A, Outcome.B, Outcome.TIE


def voted(*winners, a="good", b="bad", prompt=("q",)):
    a, b = ((x,) if isinstance(x, str) else x for x in (a, b))
    counts = [sum(w.class_index == k for w in winners) for k in range(3)]
    shares = tuple(c / len(winners) for c in counts)
    return VotedPair(Pair("1", prompt, a, b), shares, len(winners), tuple(winners))


def directions(result):
    return [(r.chosen, r.rejected) for r in result.rows]


VOTES = [voted(A, A, T), voted(B), voted(T, T), voted(A, B), voted(Outcome.BOTH_BAD)]


def test_majorities_count_and_ties_are_dropped():
    found = preferences_from_votes(VOTES, "drop")
    assert directions(found) == [("good", "bad"), ("bad", "good")]
    assert found.dropped.counts == {"tied votes": 3}


def test_ties_in_both_directions():
    found = preferences_from_votes(VOTES[:3], "both")
    assert directions(found)[2:] == [("good", "bad"), ("bad", "good")]
    assert found.noticed.counts == {"tied votes, used in both directions": 1}


def test_every_vote_an_example():
    found = preferences_from_votes([voted(A, B, A, T, T, T)], "votes")
    assert directions(found).count(("good", "bad")) == 4  # two of three ties
    assert directions(found).count(("bad", "good")) == 2
    assert found.noticed.counts == {"tie votes, used in alternating directions": 3}


def test_pairs_without_a_common_history_are_counted():
    odd = [
        voted(A, a=("x", "good"), b=("y", "bad"), prompt=("q", "r")),
        voted(A, a="same", b=" same "),
        voted(A, a="", b="bad"),
        voted(A, a=("x", "good"), b=("x", "bad"), prompt=("q", "r")),
    ]
    found = preferences_from_votes(odd, "drop")
    assert [m.text for m in found.rows[0].messages] == ["q", "x", "r"]
    assert directions(found) == [("good", "bad")]
    assert found.dropped.counts == {
        "the answers to earlier turns differ": 1,
        "both answers are the same text": 1,
        "the preferred answer is empty": 1,
    }
    with pytest.raises(InputError, match="no preference is left"):
        preferences_from_votes(odd[:3], "drop")


def test_the_best_against_the_worst_sample():
    ask = (Message("user", "q"),)
    found = preferences_from_samples(
        [ask, ask, ask, ask],
        [["a", "b", "c"], ["a", "b", "c"], ["a", "a", "a"], ["", "b", "b"]],
        [[0.1, 0.9, -0.5], [0.1, 0.15, 0.12], [1, 2, 3], [1, 0, 0]],
        margin=0.1,
        finished=[[True, False, True]] * 4,
    )
    assert found.rows == (Preference(ask, "b", "c", 1.4, (False, True)),)
    assert found.noticed.counts == {"the preferred answer was cut off": 1}
    assert found.dropped.total == 3
    with pytest.raises(InputError, match="differ by less than"):
        preferences_from_samples(
            [ask], [["a", "b"]], [[1.0, 1.0]], margin=0.0, finished=[[True, True]]
        )


def test_ids_end_with_the_end_of_turn():
    tokenizer = byte_tokenizer(chat=True)
    encoder = ChatEncoder(tokenizer, 60)
    ask = (Message("user", "q"),)
    rows = [Preference(ask, "good", ""), Preference((Message("user", "q" * 60),), "a", "b")]
    (one,), dropped = encode_preferences(rows, encoder)
    end = tokenizer.eos_token_id
    assert one.chosen[-1] == one.rejected[-1] == end
    cut = [Preference(ask, "good", "bad", 1.0, (False, True))]
    (half,), _ = encode_preferences(cut, encoder)
    assert half.chosen == tuple(encoder.encode_text("good")) and half.rejected[-1] == end
    assert len(one.rejected) == 1
    assert dropped.total == 1
