"""Writing votes: canonical files read back as they were; TRL and evalica say what they lose."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litee.collect.export import write_votes
from litee.collect.rows import open_table
from litee.collect.votes import load_votes
from litee.errors import ConfigError, InputError
from litee.records import Outcome, Pair, Vote

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = TEXT


@st.composite
def vote_lists(draw):
    """Votes as a reader makes them: unique ids, shared pairs, one content per pair id."""
    pairs = []
    for number in range(draw(st.integers(1, 4))):
        turns = draw(st.integers(1, 3))
        texts = [tuple(draw(TEXT) for _ in range(turns)) for _ in range(3)]
        names = [draw(NAME) for _ in range(3)]
        pairs.append(Pair(f"p{number}{draw(NAME)}", *texts, *names))
    votes = []
    for number in range(draw(st.integers(1, 6))):
        vote = Vote(
            f"v{number}{draw(NAME)}",
            draw(st.sampled_from(pairs)),
            draw(st.sampled_from(Outcome)),
            draw(NAME),
            draw(st.floats(1e-300, 1e300)),
            draw(NAME),
        )
        votes.append(vote)
    return tuple(votes)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    vote_lists(), st.sampled_from(["jsonl", "jsonl.gz", "json", "csv", "csv.gz", "tsv", "parquet"])
)
def test_canonical_to_file_and_back_is_identity(tmp_path, votes, ending):
    path = tmp_path / f"votes.{ending}"
    written = write_votes(votes, path)
    assert written.rows == len(votes)
    read = load_votes([path])
    assert read.votes == votes
    assert read.dropped.total == 0


def test_csv_keeps_texts_that_look_like_lists(tmp_path):
    pair = Pair("1", ('["a"]',), ('["b"]',), ("[]",))
    write_votes([Vote("1", pair, Outcome.A)], tmp_path / "v.csv")
    assert load_votes([tmp_path / "v.csv"]).votes[0].pair == pair


def test_gzip_bytes_do_not_depend_on_time_or_name(tmp_path):
    votes = [Vote("1", Pair("1", ("q",), ("x",), ("y",)), Outcome.A)]
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_votes(votes, tmp_path / name)
    data = (tmp_path / "one.jsonl.gz").read_bytes()
    assert data == (tmp_path / "two.jsonl.gz").read_bytes()
    assert data[4:8] == bytes(4)  # the time stamp of RFC 1952
    assert json.loads(gzip.decompress(data))["winner"] == "a"


PAIR = Pair("1", ("q",), ("x",), ("y",), "m", "n")
VOTES = [
    Vote(str(k), PAIR, winner)
    for k, winner in enumerate([Outcome.A, Outcome.B, Outcome.TIE, Outcome.BOTH_BAD])
]


def rows_of(path):
    return [dict(row.cells) for row in open_table(path).rows]


def test_trl_drops_ties_and_says_so(tmp_path):
    path = tmp_path / "t.csv"
    written = write_votes(VOTES, path, to="trl")
    assert (written.rows, written.ties, written.ties_written) == (2, 2, 0)
    assert rows_of(path) == [
        {"prompt": "q", "chosen": "x", "rejected": "y"},
        {"prompt": "q", "chosen": "y", "rejected": "x"},
    ]


def test_trl_can_write_ties_both_ways(tmp_path):
    written = write_votes(VOTES, tmp_path / "t.jsonl", to="trl", ties="both")
    assert (written.rows, written.ties, written.ties_written) == (6, 2, 4)


def test_trl_conversations_read_back(tmp_path):
    same = Pair("1", ("q", "r"), ("x", "y"), ("x", "z"))
    other = Pair("2", ("q", "r"), ("x", "y"), ("w", "z"))
    path = tmp_path / "t.parquet"
    write_votes([Vote("1", same, Outcome.B)], path, to="trl")
    pair = load_votes([path]).votes[0].pair
    assert (pair.prompt, pair.response_a, pair.response_b) == (("q", "r"), ("x", "z"), ("x", "y"))
    path = tmp_path / "t.jsonl"
    write_votes([Vote("1", same, Outcome.B), Vote("2", other, Outcome.A)], path, to="trl")
    assert set(rows_of(path)[0]) == {"prompt", "chosen", "rejected"}
    assert set(rows_of(path)[1]) == {"chosen", "rejected"}
    read = load_votes([path]).votes
    assert read[1].pair.response_b == ("w", "z")
    with pytest.raises(ConfigError, match="do not fit"):
        write_votes([Vote("1", same, Outcome.B)], tmp_path / "t.csv", to="trl")


def test_trl_reads_what_we_write_as_its_own_format(tmp_path):
    from litee.collect.detect import choose_layout

    path = tmp_path / "t.jsonl"
    write_votes(VOTES, path, to="trl")
    assert choose_layout(open_table(path).columns).name == "trl"


def test_arena_reads_what_we_write_as_its_own_format(tmp_path):
    path = tmp_path / "arena.csv"
    written = write_votes(VOTES, path, to="arena")
    assert (written.rows, written.ties, written.merged) == (len(VOTES), 2, 1)
    found = load_votes([path]).votes
    assert [v.winner.class_index for v in found] == [v.winner.class_index for v in VOTES]
    for one, other in zip(found, VOTES, strict=True):
        assert one.pair.prompt == other.pair.prompt
        assert one.pair.response_b == other.pair.response_b
        assert (one.id, one.pair.model_a) == (other.id, other.pair.model_a)


def test_evalica_counts_what_it_cannot_hold(tmp_path):
    nameless = Vote("n", Pair("2", ("q",), ("x",), ("y",)), Outcome.A)
    path = tmp_path / "e.csv"
    written = write_votes([*VOTES, nameless], path, to="evalica")
    assert (written.rows, written.unnamed, written.merged) == (4, 1, 1)
    assert [row["winner"] for row in rows_of(path)] == ["left", "right", "tie", "tie"]


def test_without_a_vote_no_layout_is_blamed(tmp_path):
    with pytest.raises(InputError, match="there are no votes to write") as error:
        write_votes([], tmp_path / "v.jsonl")
    assert "evalica" not in error.value.fix and list(tmp_path.iterdir()) == []


def test_nothing_left_to_write_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match="nothing to write"):
        write_votes(VOTES[2:], tmp_path / "t.jsonl", to="trl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("v.jsonl", {"to": "kaggle"}, "unknown target"),
        ("v.jsonl", {"to": "trl", "ties": "half"}, "unknown treatment"),
        ("v.parquet.gz", {}, "not gzipped"),
    ],
)
def test_wrong_options(tmp_path, name, options, message):
    with pytest.raises(ConfigError, match=message):
        write_votes(VOTES, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_many_rows_of_parquet(tmp_path):
    votes = [Vote(str(k), PAIR, Outcome.A) for k in range(2500)]
    write_votes(votes, tmp_path / "v.parquet")
    assert load_votes([tmp_path / "v.parquet"]).votes == tuple(votes)
