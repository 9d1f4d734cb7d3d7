"""What is dropped, what is kept and noticed, how ids and repeats are treated."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.errors import InputError
from litee.records import Outcome, Pair, Vote
from litee.rundir import sha256_file

DUPLICATE = "exact duplicate of an earlier row"


def test_votes_on_one_content_share_the_pair(write, row):
    rows = [row(annotator="x"), row(annotator="y", winner="b"), row(prompt="other")]
    votes = load_votes([write(rows)]).votes
    assert votes[0].pair is votes[1].pair
    assert votes[0].pair is not votes[2].pair
    assert [vote.id for vote in votes] == ["votes:1", "votes:2", "votes:3"]
    assert votes[0].pair.id == "votes:1"


def test_other_models_or_sources_make_another_pair(write, row):
    rows = [row(model_a="m", source=""), row(model_a="n", source=""), row(model_a="m", source="s")]
    assert len(gather(load_votes([write(rows)]).votes)) == 3


def test_exact_duplicate_with_an_id_is_dropped(write, row):
    vote_set = load_votes([write([row(id="1"), row(id="1")])])
    assert len(vote_set.votes) == 1
    assert vote_set.dropped.counts == {DUPLICATE: 1}
    assert vote_set.dropped.examples[DUPLICATE][0].endswith("row 2")


def test_exact_duplicate_of_a_named_annotator_is_dropped(write, row):
    vote_set = load_votes([write([row(annotator="x"), row(annotator="x"), row(annotator="y")])])
    assert [vote.annotator for vote in vote_set.votes] == ["x", "y"]
    assert vote_set.dropped.counts == {DUPLICATE: 1}


def test_equal_rows_of_unknown_annotators_are_votes_of_their_own(write, row):
    vote_set = load_votes([write([row(), row()])])
    assert len(vote_set.votes) == 2
    assert vote_set.dropped.total == 0


def test_an_id_may_name_the_pair(write, row):
    rows = [row(id="p", annotator="x"), row(id="p", annotator="y", winner="b")]
    votes = load_votes([write(rows)]).votes
    assert [vote.id for vote in votes] == ["p", "p#2"]
    assert len(gather(votes)) == 1


def test_second_vote_of_one_annotator_is_kept_and_noticed(write, row):
    vote_set = load_votes([write([row(annotator="x"), row(annotator="x", winner="b")])])
    assert len(vote_set.votes) == 2
    assert vote_set.noticed.counts == {"one annotator votes again on the same pair": 1}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"response_a": ""}, {"empty answer"}),
        ({"response_b": "  \n"}, {"empty answer"}),
        ({"prompt": ""}, {"empty prompt"}),
        ({"response_a": "Little.", "winner": "tie"}, {"identical answers"}),
        (
            {"response_a": "Little."},
            {"identical answers", "winner given for identical answers"},
        ),
        ({"response_a": "x" * 100_001}, {"answer over 100,000 characters"}),
        ({"response_a": "x" * 100_000}, set()),
        ({"response_a": "nan"}, {"answer reads 'nan'"}),
    ],
)
def test_odd_rows_are_kept_and_counted(write, row, changes, reasons):
    vote_set = load_votes([write([row(**changes)])])
    assert len(vote_set.votes) == 1
    assert set(vote_set.noticed.counts) == reasons
    assert vote_set.dropped.total == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": None}, "null prompt"),
        ({"prompt": []}, "no user turn"),
        ({"response_b": None}, "null response"),
        ({"response_b": [None]}, "null response"),
        ({"prompt": ["q", None], "response_a": ["x", "x"]}, "null turn"),
        ({"prompt": ["q", "r"]}, "turns do not match"),
        ({"response_a": []}, "turns do not match"),
        ({"winner": None}, "no winner"),
        ({"winner": " "}, "no winner"),
    ],
)
def test_unusable_rows_are_dropped_by_reason(write, row, changes, reason):
    vote_set = load_votes([write([row(), row(**changes)])])
    assert len(vote_set.votes) == 1
    assert vote_set.dropped.counts == {reason: 1}
    assert vote_set.dropped.examples[reason][0].endswith("votes.jsonl, row 2")


def test_blank_lines_are_counted(write, row):
    import json

    text = "\n" + json.dumps(row()) + "\n\n"
    assert load_votes([write(text)]).dropped.counts == {"blank line": 2}


def test_no_more_than_five_examples(write, row):
    rows = [row()] + [row(prompt=None)] * 9
    dropped = load_votes([write(rows)]).dropped
    assert dropped.counts == {"null prompt": 9}
    assert len(dropped.examples["null prompt"]) == 5


@pytest.mark.parametrize("name", ["v.csv", "v.jsonl"])
def test_a_million_characters(write, row, name):
    text = "x" * 1_000_001
    if name == "v.csv":
        path = write(f"prompt,response_a,response_b,winner\nq,{text},y,a\n", name)
    else:
        path = write([row(response_a=text)], name)
    assert len(load_votes([path]).votes[0].pair.response_a[0]) == 1_000_001


def test_three_rows_of_one_class_are_allowed(write, row):
    votes = load_votes([write([row(prompt=str(k)) for k in range(3)])]).votes
    assert {vote.winner for vote in votes} == {Outcome.A}


def test_source_defaults_to_the_file(write, row):
    paths = [write([row()], "one.jsonl"), write([row()], "two.csv.jsonl.gz")]
    votes = load_votes(paths).votes
    assert [vote.pair.source for vote in votes] == ["one", "two.csv"]


def test_files_of_one_name_get_different_ids(write, row, tmp_path):
    (tmp_path / "sub").mkdir()
    paths = [write([row()]), write([row(prompt="z")], "sub/votes.jsonl")]
    assert [vote.id for vote in load_votes(paths).votes] == ["votes:1", "votes-2:1"]


def test_inputs_hold_the_files_hashes(write, row):
    path = write([row()])
    assert load_votes([path]).inputs == {str(path): sha256_file(path)}


def test_gather_sums_weights_and_counts_both_bad_as_tie():
    pair = Pair("p", ("q",), ("x",), ("y",))
    votes = [
        Vote("1", pair, Outcome.A, "x", weight=2.0),
        Vote("2", pair, Outcome.B, "y", weight=1.0),
        Vote("3", pair, Outcome.BOTH_BAD, "z", weight=1.0),
    ]
    (voted,) = gather(votes)
    assert voted.shares == (0.5, 0.25, 0.25)
    assert (voted.votes, voted.annotators) == (3, ("x", "y", "z"))
    assert voted.winners == (Outcome.A, Outcome.B, Outcome.BOTH_BAD)


def test_gather_survives_huge_weights():
    pair = Pair("p", ("q",), ("x",), ("y",))
    votes = [Vote(str(k), pair, Outcome.A, weight=1e308) for k in range(9)]
    assert gather(votes)[0].shares == (1.0, 0.0, 0.0)


def test_gather_refuses_one_id_for_two_contents():
    votes = [
        Vote("1", Pair("p", ("q",), ("x",), ("y",)), Outcome.A),
        Vote("2", Pair("p", ("q",), ("z",), ("y",)), Outcome.A),
    ]
    with pytest.raises(InputError, match="two contents"):
        gather(votes)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(Outcome)), min_size=1, max_size=30))
def test_nothing_is_lost_between_rows_and_shares(write, row, ballots):
    rows = [row(prompt=f"prompt {k}", winner=winner.value) for k, winner in ballots]
    vote_set = load_votes([write(rows)])
    voted = gather(vote_set.votes)
    assert sum(item.votes for item in voted) == len(ballots)
    assert [item.pair.prompt[0] for item in voted] == list(
        dict.fromkeys(f"prompt {k}" for k, _ in ballots)
    )
    for item in voted:
        mine = [w.class_index for k, w in ballots if f"prompt {k}" == item.pair.prompt[0]]
        assert item.shares == pytest.approx([mine.count(c) / len(mine) for c in range(3)])


def test_votes_of_nobody_in_particular_on_a_named_pair_all_count(write, row):
    rows = [row(id=..., annotator=..., pair_id="p", winner=w) for w in ("a", "a", "a", "b")]
    found = load_votes([write(rows)])
    assert len(found.votes) == 4 and not found.dropped.counts
    (voted,) = gather(found.votes)
    assert voted.shares == (0.75, 0.25, 0.0)
