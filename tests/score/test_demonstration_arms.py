"""Steps of an arm of a study of demonstrations: what was read, and what is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from litee.score import demonstration_arms
from litee.score.demonstration_arms import read_source
from litee.score.demonstration_settings import ReadSettings
from litee.score.study_store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "shared", tmp_path / "study")


def write(path: Path, answers: list[str]) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"q{k}"}, {"role": "assistant", "content": a}]}
        for k, a in enumerate(answers)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(file, store, **settings):
    return read_source(file, ReadSettings.model_validate(settings), store)


def cells(source, name):
    return [json.loads(line)[name] for line in source.file.read_text().splitlines()]


def test_files_of_one_content_and_two_names_are_read_apart(tmp_path, store):
    one, two = (read(write(tmp_path / name, ["x"]), store) for name in ("a.jsonl", "b.jsonl"))
    assert (cells(one, "id"), cells(one, "source")) == (["a:1"], ["a"])
    assert (cells(two, "id"), cells(two, "source")) == (["b:1"], ["b"])
    again = read(write(tmp_path / "c" / "a.jsonl", ["x"]), store)
    assert again.file == one.file  # its folder is in none of its cells


def test_dumps_are_called_by_their_folders(tmp_path, store):
    post = (
        '<posts><row Id="1" PostTypeId="1" Title="Why is it so?" Body="why?" Score="90" '
        'AcceptedAnswerId="2" Tags="&lt;a&gt;"/><row Id="2" PostTypeId="2" ParentId="1" Score="90" '
        'Body="&lt;p&gt;{}&lt;/p&gt;"/></posts>'
    ).format("Because it is so, and has been for a long time. " * 30)
    for site in ("cooking", "travel"):
        (tmp_path / site).mkdir()
        (tmp_path / site / "Posts.xml").write_text(post)
        found = read(tmp_path / site / "Posts.xml", store)
        assert site in str(cells(found, "source"))


def test_what_reading_loses_is_counted(tmp_path, store):
    file = write(tmp_path / "demos.jsonl", ["x", "x", ""])
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n{broken\n")
    for found in (read(file, store), read(file, store)):  # read, then taken over
        assert found.counts["kept"] == 2
        assert sum(found.counts["removed"].values()) == 2
        assert sum(found.counts["lost"].values()) == 1
        assert found.words.startswith("2 of 4 candidates; lost: 1 ")
        assert "; removed: 1 " in found.words


def test_weights_are_called_as_tuning_calls_them():
    from litee.finetune import sft

    assert (demonstration_arms.ADAPTER, demonstration_arms.MODEL) == (sft.ADAPTER, sft.MODEL)


@pytest.mark.slow
def test_studies_of_other_kinds_do_not_import_trl():
    code = "import sys, litee.score.study_parts; sys.exit('trl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
