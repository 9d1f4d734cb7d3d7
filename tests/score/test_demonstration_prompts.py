"""Which prompts a study of demonstrations asks."""

from __future__ import annotations

import json

import pytest

from litee.errors import InputError
from litee.score.demonstration_prompts import read_asked
from litee.score.study_store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "shared", tmp_path / "study")


def asked(store, file, turns=1, every=1):
    return read_asked(file, turns=turns, every=every, system="", store=store)


def test_prompts_of_a_votes_file_are_asked_and_its_answers_are_not_read(tmp_path, store):
    rows = []
    for k in range(8):  # every question once with one turn, once with two
        turns = [f"Question {k // 2}?", "And then?"][: 1 + k % 2]
        rows.append(
            {
                "id": str(k),
                "prompt": turns,
                "response_a": ["a secret"] * len(turns),
                "response_b": ["another"] * len(turns),
                "winner": "a",
            }
        )
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = asked(store, file)
    assert [p.turns for p in first.prompts] == [(f"Question {k}?",) for k in range(4)]
    both = asked(store, file, turns=2, every=2)
    assert [p.turns for p in both.prompts] == [
        ("Question 0?", "And then?"),
        ("Question 2?", "And then?"),
    ]
    assert "secret" not in both.file.read_text()
    assert both.file != first.file
    assert first.rules == {}
    assert first.left_out == {"asks the same as an earlier one": 4}
    assert both.left_out == {"fewer than 2 user turns": 4, "only one in 2 is asked": 2}
    with pytest.raises(InputError, match="no prompt has 3 user turns"):
        asked(store, file, turns=3)


def test_rules_are_those_of_the_prompts_that_are_asked(tmp_path, store):
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f" q{k} ", "malice": "none"} for k in range(3)] + [{"prompt": "plain"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = asked(store, file, every=2)
    assert [p.turns for p in found.prompts] == [("q0",), ("q2",)]
    assert set(found.rules) == {("q0",), ("q2",)}
    assert asked(store, file, every=2).file == found.file


def test_rows_without_a_prompt_are_counted(tmp_path, store):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "q"}\n{"prompt": " "}\n{"prompt": null}\n')
    assert asked(store, file).left_out == {"null prompt": 1, "blank prompt": 1}


def test_a_rule_for_the_end_of_a_dialogue_is_not_lost(tmp_path, store):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": ["q", "r"], "must": {"lines": 1}}\n')
    assert asked(store, file, turns=2).rules == {("q", "r"): {"must": {"lines": 1}}}
    with pytest.raises(InputError, match="a rule has 2 user turns, and 1 would be asked"):
        asked(store, file)
