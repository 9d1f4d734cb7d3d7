"""Bad votes and settings at the entry point: one message with place and fix, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from commands import litee, vote_rows, write, write_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litee.collect.folds import make_folds
from litee.collect.pairs import check_learnable, gather
from litee.collect.votes import load_pairs, load_votes
from litee.errors import LiteeError

HEADER = "prompt,response_a,response_b,winner\n"
ROWS = vote_rows()


BAD_VOTES: dict[str, tuple[str, str | bytes | list[dict], tuple[str, ...]]] = {
    "broken CSV": ("v.csv", HEADER + 'q,"x,y,a\n', ("row 2", "never closed", "close every quoted")),
    "a ragged row": ("v.csv", HEADER + "q,x,y,a\nq,x,y\n", ("row 3", "3 cells", "quote cells")),
    "unknown label": ("v.csv", HEADER + "q,x,y,left\n", ("row 2", "'left'", "--labels")),
    "missing column": ("v.csv", "prompt,response_a,winner\nq,x,a\n", ("'response_b'", "--columns")),
    "no column known": ("v.csv", "one,two\n1,2\n", ("one, two", "--columns")),
    "header only": ("v.csv", HEADER, ("no rows", "check the file")),
    "nothing": ("v.jsonl", "", ("holds no rows", "check the file")),
    "broken JSON": ("v.jsonl", '{"prompt": "q",\n', ("row 1", "broken JSON", "one complete JSON")),
    "a list": ("v.jsonl", "[1, 2]\n", ("row 1", "found list", "write rows as")),
    "not UTF-8": ("v.csv", (HEADER + "caf\xe9,x,y,a\n").encode("latin-1"), ("0xe9", "iconv")),
    "UTF-16": ("v.csv", (HEADER + "q,x,y,a\n").encode("utf-16"), ("UTF-16", "iconv -f UTF-16")),
    "NaN": (
        "v.jsonl",
        '{"prompt": "q", "response_a": NaN, "response_b": "x", "winner": "a"}\n',
        ("row 1", "'response_a' holds NaN", "fill in the cell"),
    ),
    "a weight of zero": ("v.jsonl", [ROWS[0] | {"weight": 0}], ("row 1", "weight", "positive")),
    "an id with two contents": (
        "v.jsonl",
        [ROWS[0], ROWS[1] | {"id": ROWS[0]["id"]}],
        ("row 2", "another content than in", "row 1", "its own id"),
    ),
    "three rows": ("v.jsonl", ROWS[:3], ("3 pairs", "2 folds", "lower --folds")),
    "one outcome": ("v.jsonl", [row | {"winner": "b"} for row in ROWS], ("the same outcome",)),
    "only ties, under two names": (
        "v.jsonl",
        [row | {"winner": ("tie", "both_bad")[k % 2]} for k, row in enumerate(ROWS)],
        ("the same outcome", "data inspect"),
    ),
    "all answers empty": (
        "v.jsonl",
        [row | {"response_a": "", "response_b": ""} for row in ROWS],
        ("identical; there is nothing to learn", "data inspect"),
    ),
    "all answers null": (
        "v.jsonl",
        [row | {"response_a": None} for row in ROWS],
        ("no usable vote: null response: 30", "row 1", "fill in the answer"),
    ),
    "no winner anywhere": (
        "v.jsonl",
        [row | {"winner": None} for row in ROWS],
        ("no usable vote: no winner: 30", "fill in the winner"),
    ),
    "not a known ending": ("v.txt", "hello", ("v.txt", "rename the file")),
    "broken gzip": ("v.csv.gz", b"\x1f\x8b\x08rubbish", ("broken gzip", "again")),
    "broken parquet": ("v.parquet", b"PAR1rubbishPAR1", ("broken parquet", "again")),
}


@pytest.mark.parametrize("case", BAD_VOTES)
def test_votes_that_cannot_be_used(fit, tmp_path, case):
    name, content, parts = BAD_VOTES[case]
    file = write(tmp_path / name, content)
    fit(file).refused(3, str(file), *parts)
    assert not (tmp_path / "out").exists()


def test_votes_file_that_is_not_there(fit, tmp_path):
    fit(tmp_path / "none.csv").refused(3, "none.csv", "no such file")


def test_identical_answers_are_refused_when_strict_and_counted_otherwise(fit, tmp_path, quick):
    rows = [row | {"response_b": row["response_a"]} if k < 3 else row for k, row in enumerate(ROWS)]
    file = write_rows(tmp_path / "v.jsonl", rows)
    fit(file, "--strict").refused(3, "v.jsonl, row 1: identical answers", "without --strict")
    done = fit(file, "--members", "statistics")
    assert done.code == 0
    assert "kept but odd 3: identical answers" in done.err


def test_an_answer_of_a_million_characters_is_cut_and_counted(fit, tmp_path, quick):
    rows = [ROWS[0] | {"response_a": "very long " * 100_000}, *ROWS[1:]]
    done = fit(write_rows(tmp_path / "v.jsonl", rows), "--members", "statistics,probe")
    assert done.code == 0
    assert "kept but odd 1: answer over 100,000 characters" in done.err
    pairs = write_rows(tmp_path / "p.jsonl", rows[:1])
    done = litee("predict", tmp_path / "out", pairs, "-o", tmp_path / "o.jsonl")
    assert done.code == 0
    assert "1 pairs were cut to the budget" in done.err
    (line,) = (tmp_path / "o.jsonl").read_text().splitlines()
    assert json.loads(line)["tokens_cut"][1] > 0


def test_dropped_rows_are_counted(fit, tmp_path, quick):
    rows = [*ROWS, ROWS[0] | {"id": "n", "response_a": None}, ROWS[0]]
    done = fit(write_rows(tmp_path / "v.jsonl", rows), "--members", "statistics")
    assert done.code == 0
    assert "2 rows dropped" in done.err
    assert "dropped 1: null response" in done.err
    assert "dropped 1: exact duplicate of an earlier row" in done.err


def test_two_files_of_one_name_are_refused(fit, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    one = write_rows(tmp_path / "v.jsonl", ROWS)
    two = write_rows(other / "v.jsonl", vote_rows(seed=1))
    done = fit(one, two)
    assert done.code == 2
    assert "two files have the same name\n  fix: rename" in done.err


BAD_SETTINGS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "too few folds": (("--folds", 1), ("folds = 1", "greater than or equal to 2")),
    "a depth that is no number": (("--depth", "deep"), ("depth = 'deep'", "auto")),
    "a depth below 1": (("--depth", 0), ("depth must be 1 or more",)),
    "unknown member": (("--members", "probes"), ("'probes'", "joint-lora")),
    "no member": (("--members", ""), ("members is empty", "statistics, probe")),
    "a member twice": (("--members", "probe,probe"), ("names a kind twice",)),
    "lora without its probe": (("--members", "lora"), ("add probe to members",)),
    "joint-lora without joint": (("--members", "probe,joint-lora"), ("add joint to members",)),
    "more LoRA layers than depth": (
        ("--depth", 2, "--lora-layers", 3),
        ("lora_layers = 3 is more than depth = 2",),
    ),
    "unknown pool": (("--pool", "median"), ("pool = 'median'", "'log'")),
    "negative rate": (("--learning-rate", -1), ("learning_rate = -1.0", "greater than 0")),
    "a backbone twice": (("--backbone", "x", "--backbone", "x"), ("names a backbone twice",)),
    "unknown format": (("--format", "xml"), ("unknown format 'xml'", "canonical")),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_cannot_be(fit, votes, tmp_path, case):
    more, parts = BAD_SETTINGS[case]
    fit(votes, *more).refused(2, *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("lora_rank: 3", ("unknown setting 'lora_rank'", "lora_r")),
        ("folds: [1", ("cannot read", "check the file")),
        ("- folds", ("expected `name: value` lines",)),
        ("folds: many", ("folds = 'many'", "valid integer")),
        (b"\xff\xfe", ("cannot read", "check the file")),
        ("sources: lengths\nanswer_length: false", ("sources = 'lengths'", "answer_length on")),
        ("sources: lengths\nmembers: [joint]", ("sources = 'lengths'", "lora, probe, statistics")),
    ],
)
def test_config_files_that_cannot_be_used(votes, tmp_path, content, parts):
    file = write(tmp_path / "c.yaml", content)
    done = litee("fit", votes, "--out", tmp_path / "out", "--config", file)
    done.refused(2, "c.yaml", *parts)


def test_a_config_file_that_is_not_there(votes, tmp_path):
    done = litee("fit", votes, "--out", tmp_path / "out", "--config", tmp_path / "none.yaml")
    done.refused(2, "none.yaml", "cannot read")


CELLS = st.sampled_from(
    ["", "a", "b", "tie", "left", "q", "NaN", "nan", "null", "[]", '["a"]', '[null, "b"]', "\x00"]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    CELLS,
    st.text(max_size=5),
    st.lists(st.one_of(st.none(), CELLS, st.integers()), max_size=3),
    st.dictionaries(st.sampled_from(["role", "content", "x"]), CELLS, max_size=2),
)
NAMES = (
    "id prompt response_a response_b winner weight annotator pair_id votes chosen rejected "
    "conversation_a conversation_b left right turn"
)
COLUMNS = st.sampled_from(NAMES.split())


@st.composite
def damaged_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good file with some bytes or cells gone wrong, or rows that nobody meant."""
    kind = draw(st.sampled_from(["csv", "tsv", "json", "jsonl", "jsonl.gz", "parquet"]))
    if draw(st.booleans()):
        columns = draw(st.lists(COLUMNS, min_size=1, max_size=6, unique=True))
        rows = draw(st.lists(st.fixed_dictionaries({c: VALUES for c in columns}), max_size=3))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if kind in {"csv", "tsv"}:
            sign = "," if kind == "csv" else "\t"
            lines = [columns, *([str(row[c]) for c in columns] for row in rows)]
            text = "".join(sign.join(line) + "\n" for line in lines)
        data = text.encode("utf-8", "surrogatepass")
    else:
        data = bytearray("".join(json.dumps(row) + "\n" for row in ROWS[:4]).encode())
        random = Random(draw(st.integers(0, 9999)))
        for _ in range(draw(st.integers(1, 4))):
            place = random.randrange(len(data))
            data[place : place + random.randrange(3)] = random.randbytes(random.randrange(3))
        data = bytes(data)
    return kind, data


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged_files())
def test_whatever_the_file_holds_it_is_read_or_refused(tmp_path_factory, damaged):
    kind, data = damaged
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    file = write(folder / f"v.{kind}", data)
    for read in (load_votes, lambda files: load_votes(files, strict=True), _like_fit, _pairs):
        try:
            read([file])
        except LiteeError as error:
            assert error.problem
            assert error.fix
            assert str(file) in str(error)


def _like_fit(files: list[Path]) -> None:
    voted = gather(load_votes(files).votes)
    check_learnable(voted, 2, str(files[0]))
    make_folds(voted, count=2)


def _pairs(files: list[Path]) -> None:
    load_pairs(files[0])
