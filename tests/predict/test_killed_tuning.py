"""Tuning killed with SIGKILL in a process of its own goes on to the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_judge
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from litee.cli import app

SHARED = "lora_r: 2\nbatch_size: 2\nmicro_batch: 2\nthreads: 1\nlearning_rate: 0.01\n"
SETTINGS = {
    "sft": "num_train_epochs: 6\nselect_last: 6\nmax_length: 96\n",
    "grpo": "samples: 2\nmax_steps: 9\nsave_steps: 3\ndev_prompts: 2\nanswer_tokens: 5\n",
}


@pytest.fixture
def command(tiny, tmp_path, monkeypatch):
    """Arguments of a small run of each kind."""

    def arguments(kind: str) -> list[str]:
        config = tmp_path / "settings.yaml"
        config.write_text(SHARED + SETTINGS[kind])
        rows = [
            {"id": str(k), "prompt": [f"Question {k}?"], "response_a": [f"yes {k}"],
             "response_b": ["no"], "winner": "ab"[k % 2]}
            for k in range(6)
        ]  # fmt: skip
        if kind == "sft":
            rows = [
                {"id": str(k), "messages": [{"role": "user", "content": f"Question {k}?"},
                                            {"role": "assistant", "content": f"Answer {k}."}]}
                for k in range(6)
            ]  # fmt: skip
        given = tmp_path / "given.jsonl"
        given.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = ["tune", kind, given, "--config", config, "--backbone", tiny("llama")]
        if kind == "grpo":
            entry = tiny_judge.KINDS["probe"].model_copy(update={"pooling": "last"})
            monkeypatch.setitem(tiny_judge.KINDS, "probe", entry)
            members = ("statistics", "probe")
            judge = tiny_judge.write_judge(tmp_path / "judge", tiny("llama"), members).folder
            found += ["--judge", judge]
        return [str(part) for part in found]

    return arguments


def run_here(arguments, out, *more):
    result = CliRunner().invoke(app, [*arguments, "--out", str(out), *more])
    assert result.exit_code == 0, result.output


def start(arguments, out):
    program = "from litee.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--out", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_a_killed_process_resumes_to_the_same_weights(command, tmp_path, kind):
    arguments = command(kind)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    process = start(arguments, killed)
    limit = time.monotonic() + 200
    while not any(killed.rglob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "adapter").exists()
    run_here(arguments, killed, "--resume")
    run_here(arguments, straight)
    a, b = (load_file(f / "adapter/adapter_model.safetensors") for f in (straight, killed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    reports = [json.loads((f / "tuning.json").read_text()) for f in (straight, killed)]
    assert reports[0].get("looks") == reports[1].get("looks")
    assert [p["loss"] for p in reports[0]["curve"] if "loss" in p] == [
        p["loss"] for p in reports[1]["curve"] if "loss" in p
    ]
