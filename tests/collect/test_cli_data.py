"""`litee data` from the command line's side."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from litee.cli.data import app, column_names
from litee.collect.votes import load_votes
from litee.errors import ConfigError, InputError

RUNNER = CliRunner(env={"COLUMNS": "80"})


def call(*arguments):
    return RUNNER.invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def votes(write, row):
    rows = [
        row(prompt=f"What about {word * 3}?", winner=winner, annotator=f"r{k}")
        for word in ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")
        for k, winner in enumerate(("a", "b", "tie"))
    ]
    return write([*rows, row(prompt=None)])


def test_inspect_fits_eighty_columns(votes):
    out = call("inspect", votes).stdout
    assert max(map(len, out.splitlines())) <= 80
    assert "null prompt" in out
    assert "Rows dropped" in out
    assert "prior entropy" in out


def test_inspect_json_and_figure(votes, tmp_path):
    result = call("inspect", votes, "--json", "--figure", tmp_path / "f.png")
    summary = json.loads(result.stdout)
    assert (summary["votes"], summary["pairs"], summary["prompt_groups"]) == (18, 6, 6)
    assert summary["dropped"]["counts"] == {"null prompt": 1}
    assert (tmp_path / "f.png").exists()


def test_inspect_passes_errors_on(votes):
    with pytest.raises(InputError, match="null prompt"):
        call("inspect", votes, "--strict")


def test_columns_and_labels(write):
    path = write("question,one,two,vote\nq,x,y,2\n", "v.csv")
    columns = "prompt=question,response_a=one,response_b=two,winner=vote"
    result = call("inspect", path, "--columns", columns, "--labels", "1=a,2=b", "--json")
    assert json.loads(result.stdout)["outcomes"]["b"] == 1


@pytest.mark.parametrize(
    ("columns", "labels"), [("question", ""), ("query=x", ""), ("prompt=", ""), ("", "a")]
)
def test_malformed_columns(columns, labels):
    with pytest.raises(ConfigError):
        column_names(columns, labels)


def test_no_columns_is_none():
    assert column_names("", "") is None


def test_convert_says_what_was_lost(votes, tmp_path):
    out = call("convert", votes, tmp_path / "t.jsonl", "--to", "trl").stdout
    assert "ties left out (no ties in TRL)" in out
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 12
    out = call("convert", votes, tmp_path / "c.parquet").stdout
    assert load_votes([tmp_path / "c.parquet"]).votes == load_votes([votes]).votes


def test_split_into_folds(votes, tmp_path):
    out = call("split", votes, "--out", tmp_path / "s", "--folds", "3").stdout
    assert "no prompt or answer lies on two sides" in " ".join(out.split())
    record = json.loads((tmp_path / "s" / "folds.json").read_text())
    assert record["parts"] == ["fold-0", "fold-1", "fold-2"]
    assert record["groups"] == 6
    assert list(record["inputs"]) == [str(votes)]
    everything = set()
    for name in record["parts"]:
        part = load_votes([tmp_path / "s" / f"{name}.jsonl"]).votes
        assert len(part) == 6
        assert {record["pairs"][vote.pair.id]["part"] for vote in part} == {name}
        everything |= {vote.id for vote in part}
    assert everything == {vote.id for vote in load_votes([votes]).votes}


def test_split_into_train_and_test(votes, tmp_path):
    call("split", votes, "--out", tmp_path / "s", "--test", "0.34", "--seed", "1")
    assert len(load_votes([tmp_path / "s" / "test.jsonl"]).votes) == 6
    assert len(load_votes([tmp_path / "s" / "train.jsonl"]).votes) == 12


def test_split_refuses_contradictions_and_full_folders(votes, tmp_path):
    with pytest.raises(ConfigError, match="exclude each other"):
        call("split", votes, "--out", tmp_path / "s", "--folds", "3", "--test", "0.2")
    with pytest.raises(ConfigError, match="not an empty folder"):
        call("split", votes, "--out", tmp_path)
    with pytest.raises(InputError, match="cannot fill 7 folds"):
        call("split", votes, "--out", tmp_path / "s", "--folds", "7")
    assert not (tmp_path / "s").exists()


def test_help_loads_no_heavy_library():
    code = (
        "import sys, litee.cli.data; "
        "print([m for m in ('torch', 'pyarrow', 'matplotlib', 'sklearn', 'datasketch', 'numpy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_collect_loads_no_torch():
    code = (
        "import sys, litee.collect.votes, litee.collect.folds, litee.collect.export; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
