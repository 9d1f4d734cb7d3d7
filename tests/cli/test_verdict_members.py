"""Judges whose members answer A, B or tie themselves: fit, reload, predict, errors."""

from __future__ import annotations

import json

import pytest
from commands import litee, write_yaml

from litee.predict.artifact import load_judge_file
from litee.predict.judge import Judge
from litee.records import Pair

SETTINGS = {
    "members": ["verdict", "verdict-lora"],
    "verdict_shots": 1,
    "folds": 2,
    "lora_r": 2,
    "lora_layers": 2,
    "num_train_epochs": 2,
    "evaluations_per_epoch": 1,
    "learning_rate": 1e-2,
    "batch_tokens": 512,
    "max_tokens": 64,
    "dtype": "float32",
    "threads": 1,
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory, tiny):
    """A backbone with room for a solved example."""
    from tiny_models import save_tiny

    return save_tiny(
        tmp_path_factory.mktemp("wide") / "llama", "llama", max_position_embeddings=900
    )


def test_fit_reloads_and_predicts_the_same_in_either_order(tmp_path, votes, wide):
    config = write_yaml(tmp_path / "config.yaml", SETTINGS)
    out = tmp_path / "judge"
    done = litee("fit", votes, "--out", out, "--config", config, "--backbone", wide)
    assert done.code == 0, done.err  # the reload check in a fresh process is part of it
    file = load_judge_file(out)
    assert [m.encoder for m in file.members] == ["verdict", "verdict"]
    assert [m.head for m in file.members] == ["verdict", "verdict"]
    assert file.backbones[0].exit_depth == 4 and file.backbones[0].verdict_shots == 1
    frozen, tuned = (m.held_out_log_loss for m in file.members)
    assert frozen is not None and tuned is not None and frozen != tuned
    assert max(file.members[1].best_steps) > 0
    judge = Judge.from_pretrained(out)
    one, two = judge.predict(
        [
            Pair("1", ("amber",), ("basin cedar",), ("delta",)),
            Pair("2", ("amber",), ("delta",), ("basin cedar",)),
        ]
    )
    swapped = [two.probabilities[k] for k in (1, 0, 2)]
    assert list(one.probabilities) == pytest.approx(swapped, abs=1e-6)
    with pytest.raises(Exception, match="no reward"):
        judge.reward("amber", "delta")


def test_learning_alone_needs_no_frozen_verdict(tmp_path, votes, wide, quick):
    changed = SETTINGS | {"members": ["verdict-lora"], "verdict_shots": 0}
    config = write_yaml(tmp_path / "config.yaml", changed)
    out = tmp_path / "judge"
    done = litee("fit", votes, "--out", out, "--config", config, "--backbone", wide)
    assert done.code == 0, done.err
    (member,) = json.loads((out / "judge.json").read_text())["members"]
    assert member["kind"] == "lora" and member["start_depth"] == 2


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"depth": 3}, ("depth = 3", "last layer", "--depth 4")),
        ({"members": ["probe"], "verdict_shots": 2}, ("verdict_shots = 2", "verdict-lora")),
        ({"verdict_shots": 4}, ("verdict_shots", "3")),
    ],
)
def test_contradictions_are_named(tmp_path, votes, wide, changes, parts):
    config = write_yaml(tmp_path / "config.yaml", SETTINGS | changes)
    out = tmp_path / "judge"
    done = litee("fit", votes, "--out", out, "--config", config, "--backbone", wide)
    assert done.code != 0 and "Traceback" not in done.err
    for part in parts:
        assert part in done.err
