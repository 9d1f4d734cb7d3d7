"""Answers of an earlier run as what preferences are made of."""

from __future__ import annotations

import json

import pytest

from litee.errors import InputError, ModelError
from litee.finetune.preference_data import preferences_from_samples
from litee.finetune.written_answers import read_written_answers


def written(tmp_path, rows):
    path = tmp_path / "answers.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(prompt, answer, **more):
    return {"prompt": prompt, "answer": answer, "finish_reason": "stop", **more}


def test_the_best_of_a_prompt_meets_its_worst(tmp_path):
    rows = [
        row("p", "good", reward=2),
        row("q", "lonely", reward=0.0),
        row("p", "bad", reward=-1.0, finish_reason="length"),
        row(["r", "s"], ["x", "y"], reward=1.0),
        row(["p"], ["fair\u2028er"], reward=0.5),
    ]
    found = read_written_answers(written(tmp_path, rows))
    assert [m[0].text for m in found.conversations] == ["p"]
    assert found.answers == (("good", "bad", "fair\u2028er"),)
    assert found.finished == ((True, False, True),)
    assert found.rewards == ((2.0, -1.0, 0.5),)
    assert found.dropped.counts == {
        "more than one turn, whose earlier answers differ": 1,
        "the only answer to its prompt": 1,
    }
    (one,) = preferences_from_samples(
        found.conversations, found.answers, found.rewards, margin=0.1, finished=found.finished
    ).rows
    assert (one.chosen, one.rejected, one.margin) == ("good", "bad", 3.0)
    assert one.finished == (True, False)


def test_rewards_come_from_the_file_or_from_a_reward(tmp_path):
    rows = [row("p", "a", reward=1.0), row("p", "bbb"), row("q", "cc"), row("q", "d")]
    found = read_written_answers(written(tmp_path, rows))
    assert found.rewards is None
    broken = [row("p", "a", reward=1.0), row("p", "b", reward=float("nan"))]
    assert read_written_answers(written(tmp_path, broken)).rewards is None
    ranked = found.ranked_by(lambda asked: [float(len(e.answer)) for e in asked])
    assert ranked == ((1.0, 3.0), (2.0, 1.0))
    with pytest.raises(ModelError, match="is nan"):
        found.ranked_by(lambda asked: [float("nan")] * len(asked))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("p", "a")], "no prompt has two answers"),
        (["{"], "no JSON"),
        (['["p", "a"]'], "no row with prompt and answer"),
        ([{"prompt": "p"}], "no row with prompt and answer"),
    ],
)
def test_other_files_are_refused_with_the_line(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        read_written_answers(written(tmp_path, rows))
    with pytest.raises(InputError, match="cannot read"):
        read_written_answers(tmp_path / "none.jsonl")
