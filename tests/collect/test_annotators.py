"""Annotators' weights: by hand, under exchanged answers, and for one who votes at random."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from litee.collect.annotators import AnnotatorWeights, agreement_weights
from litee.collect.pairs import gather
from litee.records import CLASSES, Outcome, Pair, Vote, VotedPair


def cast(*ballots: dict[str, str], source: str = "s") -> tuple[VotedPair, ...]:
    """A pair for every {annotator: votes}, such as {"ann": "a", "bob": "b"}; t is a tie."""
    votes = []
    for k, ballot in enumerate(ballots):
        pair = Pair(f"{source}{k}", ("q",), ("x",), ("y",), source=source)
        for name, signs in ballot.items():
            for sign in signs:
                winner = Outcome.TIE if sign == "t" else Outcome(sign)
                votes.append(Vote(str(len(votes)), pair, winner, name))
    return gather(votes)


def test_weights_by_hand():
    voted = cast(
        {"ann": "a", "bob": "a"},
        {"ann": "a", "bob": "b"},
        {"ann": "t", "": "t"},  # whoever it was, it was another
        {"cid": "b"},  # nobody to agree with: the mean
    )
    found = agreement_weights(voted)
    mean = (Fraction(2, 3) + Fraction(1, 2)) / 2
    chance = Fraction(3**2 + 2**2 + 2**2, 7**2)
    ann, bob = (2 + 10 * mean) / (3 + 10) - chance, (1 + 10 * mean) / (2 + 10) - chance
    cid = mean - chance
    scale = 3 / (ann + bob + cid)
    expected = {"ann": ann * scale, "bob": bob * scale, "cid": cid * scale}
    assert found.weights == pytest.approx({("s", n): float(w) for n, w in expected.items()})
    assert found.alike == {}
    a = float(expected["ann"] / (expected["ann"] + expected["bob"]))
    assert found.shares(voted)[1] == pytest.approx([a, 1 - a, 0])
    assert found.shares(voted)[2] == pytest.approx([0, 0, 1])


def test_several_votes_of_one_annotator_on_a_pair():
    # bob's two votes on the first pair are one pair, on which both agree by half
    voted = cast({"ann": "a", "bob": "ab"}, {"ann": "b", "bob": "b"}, {"cid": "t", "ann": "b"})
    found = agreement_weights(voted)
    ann, bob, cid = 1 / 2, 3 / 4, 0.0
    mean = (ann + bob + cid) / 3
    chance = (2**2 + 4**2 + 1**2) / 7**2
    gains = [
        max(0, (n * own + 10 * mean) / (n + 10) - chance) for n, own in ((3, ann), (2, bob), (1, 0))
    ]
    assert min(gains) == 0 < max(gains)
    assert list(found.weights.values()) == pytest.approx([3 * g / sum(gains) for g in gains])


def test_both_bad_is_a_tie():
    pair = Pair("1", ("q",), ("x",), ("y",), source="s")
    other = Pair("2", ("q",), ("x",), ("y",), source="s")
    votes = [
        Vote("1", pair, Outcome.TIE, "ann"),
        Vote("2", pair, Outcome.BOTH_BAD, "bob"),
        Vote("3", other, Outcome.A, "cid"),
        Vote("4", other, Outcome.A, "ann"),
        Vote("5", other, Outcome.B, "bob"),
    ]
    found = agreement_weights(gather(votes)).weights
    assert found["s", "ann"] > found["s", "bob"] > 0  # 3/4 and 1/2; cid has 1/2 of one pair


def test_who_agrees_less_than_by_chance_counts_nothing_except_alone():
    together = [{**dict.fromkeys(("ann", "bob", "cid"), s), "eve": t} for s, t in ("ab", "ba")] * 15
    voted = cast(*together, {"eve": "a"}, {"eve": "ab"})
    found = agreement_weights(voted)
    assert list(found.weights.values()) == pytest.approx([4 / 3] * 3 + [0])
    shares = found.shares(voted)
    assert shares[0].tolist() == [1, 0, 0] and shares[1].tolist() == [0, 1, 0]
    assert shares[30].tolist() == [1, 0, 0] and shares[31].tolist() == [0.5, 0.5, 0]


def made_up(people: dict[str, float], pairs: int = 200, source: str = "s") -> list[dict[str, str]]:
    """Votes of people who see the truth with a chance, and vote at random otherwise."""
    rng = np.random.default_rng([len(people), pairs, len(source)])
    ballots = []
    for truth in rng.choice(list("abt"), pairs):
        ballots.append(
            {
                name: str(truth if rng.random() < skill else rng.choice(list("abt")))
                for name, skill in people.items()
            }
        )
    return ballots


def test_an_annotator_who_votes_at_random_loses_weight():
    voted = cast(*made_up({"ann": 0.8, "bob": 0.8, "cid": 0.8, "rnd": 0.0}))
    weights = agreement_weights(voted).weights
    assert weights["s", "rnd"] < 0.3
    assert all(1.1 < weights["s", name] < 1.5 for name in ("ann", "bob", "cid"))
    assert np.mean(list(weights.values())) == pytest.approx(1)
    plain = np.array([v.shares for v in voted])
    without = np.array(
        [[sum(w.class_index == k for w in v.winners[:3]) / 3 for k in range(3)] for v in voted]
    )
    shares = agreement_weights(voted).shares(voted)
    assert np.abs(shares - without).mean() < 0.5 * np.abs(plain - without).mean()


def test_exchanged_answers_exchange_the_shares():
    voted = cast(*made_up({"ann": 0.9, "bob": 0.5, "cid": 0.2}, 30))
    turned = tuple(v.swapped() for v in voted)
    found, back = agreement_weights(voted), agreement_weights(turned)
    assert back.weights == pytest.approx(found.weights)
    assert max(found.weights.values()) - min(found.weights.values()) > 0.5
    np.testing.assert_allclose(back.shares(turned), found.shares(voted)[:, [1, 0, 2]])
    assert np.abs(found.shares(voted) - np.array([v.shares for v in voted])).max() > 0.05


def test_one_name_in_two_sources_is_two_annotators():
    school = cast(*made_up({"ann": 0.9, "bob": 0.9, "cid": 0.1}), source="school")
    college = cast(*made_up({"ann": 0.1, "bob": 0.9, "dan": 0.9}), source="college")
    found = agreement_weights(school + college)
    assert found.weights["school", "ann"] > 1 > found.weights["college", "ann"]
    alone = [agreement_weights(one) for one in (school, college)]
    assert found.weights == alone[0].weights | alone[1].weights
    shares = [alone[0].shares(school), alone[1].shares(college)]
    np.testing.assert_array_equal(found.shares(school + college), np.concatenate(shares))


@pytest.mark.parametrize(
    ("ballots", "reason"),
    [
        ([{"ann": "a"}, {"bob": "b"}, {"ann": "t"}], "no pair has votes of a named"),
        ([{"": "aab"}, {"": "b"}], "no pair has votes of a named"),
        ([{"ann": "a", "bob": "b"}, {"ann": "b", "bob": "a"}], "nobody agrees"),
        ([{"ann": "a", "bob": "a"}] * 7, "nobody agrees"),  # all say A: chance is 1
    ],
)
def test_votes_count_alike_where_nobody_can_be_preferred(ballots, reason):
    voted = cast(*ballots)
    found = agreement_weights(voted)
    assert set(found.weights.values()) <= {1.0}
    assert list(found.alike) == ["s"] and found.alike["s"].startswith(reason)
    assert found.shares(voted).tolist() == [list(v.shares) for v in voted]


def test_weights_of_the_file_and_of_annotators_multiply():
    pair = Pair("1", ("q",), ("x",), ("y",), source="s")
    votes = [
        Vote("1", pair, Outcome.A, "ann", weight=3.0),
        Vote("2", pair, Outcome.B, "bob", weight=1.0),
        Vote("3", pair, Outcome.TIE, "", weight=2.0),
    ]
    voted = gather(votes)
    assert voted[0].weights == (1.0, 1 / 3, 2 / 3)
    assert gather([Vote("1", pair, Outcome.A, weight=7.0)])[0].weights == ()
    assert AnnotatorWeights({}).shares(voted).tolist() == [list(voted[0].shares)]
    known = AnnotatorWeights({("s", "ann"): 0.5, ("s", "bob"): 1.5, ("t", "bob"): 9.0})
    assert known.shares(voted)[0] == pytest.approx([0.3, 0.3, 0.4])
    turned = known.shares([voted[0].swapped()])[0]
    assert turned == pytest.approx([0.3, 0.3, 0.4])


def test_pairs_whose_votes_are_unknown_keep_their_shares():
    pair = Pair("1", ("q",), ("x",), ("y",), source="s")
    unknown, nameless = (0.25, 0.5, 0.25), (1.0, 0.0, 0.0)
    voted = [VotedPair(pair, unknown, 4), VotedPair(pair, nameless, 1, (Outcome.A,))]
    found = agreement_weights(voted)
    assert found.weights == {}
    assert found.shares(voted).tolist() == [list(unknown), list(nameless)]
    assert found.shares(voted).shape == (2, len(CLASSES))
