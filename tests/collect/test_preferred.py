"""Answers that people preferred as demonstrations: scores by hand, and nothing lost silently."""

import pytest

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.demonstrations import detect_format, read_demonstrations
from litee.collect.preferred import BETTER_THERE, BLANK_TEXT, NOT_PREFERRED, OTHER_SYSTEM
from litee.collect.reading import Reading
from litee.errors import InputError


def read(path, **values):
    reading = Reading(DemonstrationSettings(**values))
    return list(read_demonstrations([path], reading)), reading


def row(number, prompt, a, b, winner):
    names = {"model_a": f"model-{a[:1]}", "model_b": f"model-{b[:1]}"}
    return {
        "pair_id": f"p{number}",
        "prompt": prompt,
        "response_a": a,
        "response_b": b,
        "winner": winner,
        **names,
    }


@pytest.fixture
def votes(write):
    return write(
        [
            row(1, "q", "xx", "yy", "a"),
            row(2, "q", "xx", "zz", "a"),
            row(3, "q", "yy", "zz", "tie"),
            row(4, "r", "uu", "vv", "tie"),
            row(5, "s", "ww", " ", "b"),
        ]
    )


def test_the_winner_of_a_prompt_is_taken_with_its_smoothed_share(votes):
    assert detect_format(votes) == "votes"
    (one,), reading = read(votes)
    assert [(m.role, m.text) for m in one.messages] == [("user", "q"), ("assistant", "xx")]
    assert one.source == "preferred/model-x"
    assert one.score == pytest.approx((2 + 1) / (2 + 2))  # two wins in two pairs
    # y and z: half a win in two pairs, 0.375; u and v: half in one, 0.5; w: none in one
    assert reading.read == 7
    assert dict(reading.removed.counts) == {NOT_PREFERRED: 5, BLANK_TEXT: 1}


def test_more_answers_per_prompt_and_turns_in_order(write):
    rows = [
        row(1, ["q", "and?"], ["x", "x2"], ["y", "y2"], "a"),
        row(2, ["q", "and?"], ["z", "z2"], ["w", "w2"], "b"),
    ]
    for item in rows:
        item["model_a"] = item["model_b"] = ""
    path = write(rows)
    found, reading = read(path)
    assert len(found) == 1 and reading.removed.counts[BETTER_THERE] == 1
    found, _ = read(path, per_prompt=0)
    assert [[m.text for m in item.messages] for item in found] == [
        ["q", "x", "and?", "x2"],
        ["q", "w", "and?", "w2"],
    ]
    assert {item.source for item in found} == {"preferred"}


def test_several_votes_on_a_pair_count_by_their_shares(write):
    rows = [row(1, "q", "x", "y", winner) for winner in ("a", "a", "b")]
    for number, item in enumerate(rows):
        item["annotator"] = str(number)
    (one,), _ = read(write(rows))
    assert one.score == pytest.approx((2 / 3 + 1) / 3, abs=1e-6)


def test_rows_without_a_vote_are_lost_by_reason_and_no_vote_at_all_is_an_error(write):
    good = row(1, "q", "x", "y", "a")
    path = write([good, {**good, "pair_id": "p2", "winner": ""}])
    found, reading = read(path)
    assert len(found) == 1 and sum(reading.lost.counts.values()) == 1
    with pytest.raises(InputError):
        read(write([{**good, "winner": ""}]))


def test_only_the_systems_that_were_asked_for(write):
    path = write([row(1, "q", "xx", "yy", "a"), row(2, "r", "yy", "zz", "a")])
    (one,), reading = read(path, systems=("model-y",))
    assert (one.id, one.source) == ("preferred-1-1", "preferred/model-y")
    assert one.score == pytest.approx(2 / 3, abs=1e-6)
    # x beat y, but was not asked for; y won once and lost once, each on its own prompt
    assert dict(reading.removed.counts) == {OTHER_SYSTEM: 2, NOT_PREFERRED: 1}


def test_a_system_that_wrote_nothing_is_named_with_those_that_did(write):
    path = write([row(1, "q", "xx", "yy", "a")])
    with pytest.raises(InputError, match=r"systems: .*'model-z': there are model-[xy]"):
        read(path, systems=("model-z",))
