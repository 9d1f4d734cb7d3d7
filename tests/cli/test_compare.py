"""`litee compare` at the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from litee.cli import app
from litee.errors import ConfigError


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def files(tmp_path):
    made = []
    for name, text in (("tuned", "yes"), ("base", "no")):
        file = tmp_path / f"{name}.jsonl"
        rows = [{"prompt": [f"q{k}"], "response": [f"{text} {k}"]} for k in range(6)]
        rows[0]["response"] = ["" if name == "base" else "something"]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        made.append(file)
    return made


def test_pairs_verdicts_and_votes_make_a_page(files, tmp_path):
    out = tmp_path / "out"
    first = invoke("compare", *files, "--out", out)
    assert first.exit_code == 0, first.output
    pairs = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    assert pairs[0]["model_a"] == "tuned"
    table = tmp_path / "llm.csv"
    table.write_text("pair_id,verdict\n" + "".join(f"{p['id']},a\n" for p in pairs))
    votes = tmp_path / "votes.jsonl"
    votes.write_text("".join(json.dumps({**p, "winner": "b"}) + "\n" for p in pairs))
    shown = invoke(
        "compare", *files, "--out", out, "--verdicts", table, "--votes", votes, "--names", "n,o"
    )
    assert shown.exit_code == 0, shown.output
    record = json.loads((out / "comparison.json").read_text())
    assert [j["judge"] for j in record["judges"]] == ["llm", "people"]
    assert [j["win_rate"] for j in record["judges"]] == [1.0, 0.0]
    assert record["systems"] == ["n", "o"]
    page = (out / "comparison.html").read_text()
    assert "contradict each other" in page and "(empty answer)" in page
    with pytest.raises(ConfigError, match="two judges are called"):
        invoke("compare", *files, "--out", out, "--verdicts", table, "--verdicts", table)
    with pytest.raises(ConfigError, match="names"):
        invoke("compare", *files, "--out", out, "--names", "one")
