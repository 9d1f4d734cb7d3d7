"""Votes to a judge to tuned chat models at the command line, on a tiny model."""

from __future__ import annotations

import json

import pytest
import tiny_judge
from typer.testing import CliRunner

from litee.cli import app
from litee.errors import ConfigError


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_votes_to_a_judge_to_tuned_models(tiny, tmp_path, monkeypatch):
    """dpo from votes, dpo from samples, grpo and rloo, each through the command line."""
    entry = tiny_judge.KINDS["probe"].model_copy(update={"pooling": "last"})
    monkeypatch.setitem(tiny_judge.KINDS, "probe", entry)
    judge = tiny_judge.write_judge(
        tmp_path / "judge", tiny("llama"), ("statistics", "probe")
    ).folder
    votes = tmp_path / "votes.jsonl"
    rows = [
        {"id": str(k), "prompt": [f"Question {k}?"], "response_a": [f"yes {k}"],
         "response_b": ["no"], "winner": winner}
        for k, winner in enumerate(["a", "b", "tie", "a", "b", "a"])
    ]  # fmt: skip
    votes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "settings.yaml"
    shared = "lora_r: 2\nbatch_size: 2\nmicro_batch: 2\nanswer_tokens: 5\nthreads: 1\n"
    config.write_text(shared + "samples: 2\nmargin: 0\nmax_length: 96\n")
    online = tmp_path / "online.yaml"
    online.write_text(shared + "samples: 2\nmax_steps: 2\nsave_steps: 1\ndev_prompts: 2\n")
    answers = tmp_path / "answers.jsonl"
    written = [{"prompt": f"Question {k}?", "answer": a} for k in range(4) for a in ("yes", "no")]
    answers.write_text("".join(json.dumps(one) + "\n" for one in written))
    common = ["--backbone", tiny("llama")]
    for number, arguments in enumerate(
        [
            ("dpo", votes, "--config", config),
            ("dpo", "--prompts", votes, "--judge", judge, "--config", config),
            ("dpo", "--answers", answers, "--judge", judge, "--config", config),
            ("grpo", votes, "--judge", judge, "--independent", judge, "--config", online),
            ("rloo", votes, "--judge", judge, "--config", online),
        ]
    ):
        out = tmp_path / f"run{number}"
        shown = invoke("tune", *arguments, *common, "--out", out)
        assert shown.exit_code == 0, shown.output
        assert (out / "adapter/adapter_model.safetensors").is_file()
    page = (out / "rewards.html").read_text()
    assert "No independent judge was asked" in page
    assert "independent" in shown.output or "held-out" in shown.output
    with pytest.raises(ConfigError, match="votes, or from --prompts"):
        invoke("tune", "dpo", "--out", tmp_path / "x")
    with pytest.raises(ConfigError, match="not all answers have a reward"):
        invoke("tune", "dpo", "--answers", answers, "--out", tmp_path / "x")
    exported = invoke("export-reward", judge, "--out", tmp_path / "reward")
    assert exported.exit_code == 0, exported.output
    assert "member probe" in exported.output
