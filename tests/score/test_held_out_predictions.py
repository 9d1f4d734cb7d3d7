"""Held-out predictions are asked once, and again whenever judge or pairs are others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from litee.predict.judge import Judge
from litee.records import Pair, Prediction
from litee.score.held_out_predictions import HELD_OUT, held_out_probabilities

PAIRS = [Pair(str(k), ("Why?",), ("a" * k,), ("b",)) for k in range(3)]


class Sayer:
    """Stands in for a judge; its probabilities have no short decimal form."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def predict(self, pairs):
        self.asked.append([p.id for p in pairs])
        third = len(self.asked) / 7
        return tuple(
            Prediction(p.id, (third, 1 - third - 0.1, 0.1), None, None, (0, 0, 0)) for p in pairs
        )


@pytest.fixture
def sayer(monkeypatch: pytest.MonkeyPatch) -> Sayer:
    judge = Sayer()
    monkeypatch.setattr(Judge, "from_pretrained", lambda _: judge)
    return judge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "judge.json").write_text("{}")
    return tmp_path


def test_asked_once_and_found_again_to_the_last_bit(sayer, folder):
    first = held_out_probabilities(folder, PAIRS)
    assert first.shape == (3, 3)
    assert first[0, 0] == 1 / 7
    assert np.array_equal(held_out_probabilities(folder, PAIRS), first)
    assert sayer.asked == [["0", "1", "2"]]


@pytest.mark.parametrize(
    "pairs",
    [PAIRS[:2], PAIRS[::-1], [replace(PAIRS[0], response_b=("c",)), *PAIRS[1:]]],
    ids=["fewer", "another order", "another answer"],
)
def test_other_pairs_are_asked_about(sayer, folder, pairs):
    held_out_probabilities(folder, PAIRS)
    assert held_out_probabilities(folder, pairs)[0, 0] == 2 / 7
    assert sayer.asked[1] == [p.id for p in pairs]


def test_another_judge_in_the_folder_is_asked(sayer, folder):
    held_out_probabilities(folder, PAIRS)
    (folder / "judge.json").write_text('{"other": 1}')
    assert held_out_probabilities(folder, PAIRS)[0, 0] == 2 / 7


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"probabilities": "x"}', "\x00\xff"])
def test_a_damaged_file_is_written_anew(sayer, folder, damage):
    held_out_probabilities(folder, PAIRS)
    (folder / HELD_OUT).write_bytes(damage.encode("latin-1"))
    anew = held_out_probabilities(folder, PAIRS)
    assert anew[0, 0] == 2 / 7
    assert np.array_equal(held_out_probabilities(folder, PAIRS), anew)
    assert len(sayer.asked) == 2


def test_rows_that_are_missing_are_asked_for(sayer, folder):
    held_out_probabilities(folder, PAIRS)
    file = folder / HELD_OUT
    file.write_text(file.read_text().replace('"probabilities": [', '"probabilities": [[1, 0, 0],'))
    assert held_out_probabilities(folder, PAIRS).shape == (3, 3)
    assert len(sayer.asked) == 2
