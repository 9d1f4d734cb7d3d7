"""`litee tune sft` and `litee tune merge` at the command line, on a tiny model."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from litee.cli import app
from litee.errors import ModelError
from litee.finetune.chat_merge import load_adapted, merge
from tiny_models import save_tiny

SMALL = ["--threads", "1", "--batch-size", "2", "--max-length", "96", "--lora-r", "2"]


@pytest.fixture
def demos(tmp_path):
    file = tmp_path / "demos.jsonl"
    rows = [
        {
            "id": str(k),
            "messages": [
                {"role": "user", "content": f"Question {k}?"},
                {"role": "assistant", "content": f"Answer {k}."},
            ],
        }
        for k in range(8)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_tune_and_merge(tiny, demos, tmp_path):
    out, config = tmp_path / "run", tmp_path / "settings.yaml"
    config.write_text("micro_batch: 2\ndev_prompts: 2\n")
    shown = invoke(
        "tune", "sft", demos, "--out", out, "--backbone", tiny("gemma3-base"), *SMALL,
        "--config", config,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "chosen by: held-out loss" in shown.output
    merged = invoke("tune", "merge", out, "--out", tmp_path / "whole")
    assert merged.exit_code == 0, merged.output
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    assert whole.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = torch.tensor([[5, 6, tokenizer.eos_token_id, 7]])
    with torch.no_grad():
        expected = load_adapted(out / "adapter")(ids).logits
        torch.testing.assert_close(whole(ids).logits, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="not empty"):
        merge(out, tmp_path / "whole")
    with pytest.raises(ModelError, match="no adapter here"):
        merge(tmp_path, tmp_path / "other")


def test_a_token_added_beyond_the_embedding_survives_merging(demos, tmp_path):
    model = save_tiny(tmp_path / "model", "llama", chat=False)
    out = tmp_path / "run"
    shown = invoke(
        "tune", "sft", demos, "--out", out, "--backbone", model, "--eot", "<fin>", *SMALL
    )
    assert shown.exit_code == 0, shown.output
    folder = merge(out, tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.eos_token == "<fin>"
    assert whole.get_input_embeddings().num_embeddings == len(tokenizer) == 261
    adapted = load_adapted(out / "adapter").merge_and_unload()
    assert torch.equal(
        whole.lm_head.weight[tokenizer.eos_token_id],
        adapted.lm_head.weight[tokenizer.eos_token_id],
    )
