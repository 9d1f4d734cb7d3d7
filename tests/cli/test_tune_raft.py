"""`litee tune raft`: rows of `litee raft build`, and of other makers, to an adapter."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path

import pytest
from test_tune import invoke

from litee.config import load_settings
from litee.encode.raft_settings import RaftSettings
from litee.errors import ConfigError, InputError, LeakError
from litee.finetune.chat_settings import DpoSettings, SftSettings
from tiny_models import save_tiny

SHARED = Path(__file__).parents[2] / "../shared/data/travel/wanderchat"
SMALL = ("--threads", 1, "--batch-size", 2, "--lora-r", 2)


def row(number, answer):
    document = f"House {number} opens at {number}."
    told = f"The documents say: ##begin_quote##{document}##end_quote##\n<ANSWER>: {answer}"
    messages = [
        {"role": "user", "content": f"<DOCUMENT>{document}</DOCUMENT>\nWhen does it open?"},
        {"role": "assistant", "content": told},
    ]
    return {"id": str(number), "messages": messages, "answer": answer}


def put(file, rows):
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return file


@pytest.fixture
def rows(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for kind in (".jsonl", ".plain.jsonl"):
        put(folder / f"train{kind}", [row(k, f"At {k} sharp.") for k in range(6)])
        put(folder / f"validation{kind}", [row(k, f"At {k} sharp.") for k in (7, 8)])
    put(folder / "test.k0.jsonl", [{"id": "9", "gold": ["House 99 opens at noon on Fridays."]}])
    return folder


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("micro_batch: 2\nselect_last: 1\nnum_train_epochs: 1\nmax_length: 300\n")
    return file


@pytest.mark.parametrize("plain", [False, True])
def test_rows_are_tuned_on_with_the_presets_settings(tiny, rows, config, tmp_path, plain):
    out = tmp_path / "run"
    more = ["--plain"] if plain else []
    shown = invoke(
        "tune", "raft", rows, "--out", out, "--backbone", tiny("llama"), *SMALL,
        "--config", config, *more,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "1 rows hold none" not in shown.output
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert settings["preset"] == "raft"
    assert not settings["packing"]
    inputs = json.loads((out / "manifest.json").read_text())["inputs"]
    assert {Path(name).name for name in inputs} == (
        {"train.plain.jsonl", "validation.plain.jsonl"}
        if plain
        else {"train.jsonl", "validation.jsonl"}
    )


def test_a_file_or_a_flag_names_another_preset(rows, config, tmp_path):
    config.write_text("preset: lima\nlora_r: 0\n")
    with pytest.raises(ConfigError, match="lora_r"):
        invoke("tune", "raft", rows, "--out", tmp_path / "run", "--config", config)
    with pytest.raises(ConfigError, match="preset"):
        invoke("tune", "raft", rows, "--out", tmp_path / "run", "--preset", "none")


def test_rows_that_answer_a_test_question_are_refused(rows, tmp_path):
    held = [row(k, "At noon.") for k in range(3)]
    put(rows / "train.jsonl", [*held, row(4, "House 99 opens at noon on Fridays.")])
    with pytest.raises(LeakError, match="holds the answer to a test question"):
        invoke("tune", "raft", rows, "--out", tmp_path / "run")
    (rows / "train.jsonl").unlink()
    with pytest.raises(InputError, match="is missing"):
        invoke("tune", "raft", rows, "--out", tmp_path / "run")


@pytest.mark.real_data
def test_the_published_rows_are_audited_and_train(tmp_path, config):
    """WanderChat: 423 and 226 rows, the known shares, a pass of a tiny model over the shortest."""
    files = [SHARED / f"reddit_{name}.jsonl.gz" for name in ("raft_openai", "falcon_raft")]
    if not files[0].exists():
        pytest.skip("../shared/data is absent")
    out = tmp_path / "rows.jsonl"
    shown = invoke("raft", "audit", *files, "--json", "--out", out)
    first, second = json.loads(shown.output).values()
    assert (first["rows"], second["rows"]) == (423, 226)
    assert first["oracle_shown_share"] == second["oracle_shown_share"] == 1.0
    assert (first["oracles"], second["oracles"]) == (86, 45)
    assert (first["answer_mark_share"], first["quote_mark_share"]) == (1.0, 0.9173)
    assert (second["answer_mark_share"], second["quote_mark_share"]) == (0.8805, 0.0796)
    lines = out.read_text().splitlines()
    assert len(lines) == 649
    some = tmp_path / "some.jsonl"
    shortest = sorted(lines[:423], key=len)[:2] + sorted(lines[423:], key=len)[:2]
    some.write_text("\n".join(shortest) + "\n")
    model = save_tiny(tmp_path / "model", "llama", max_position_embeddings=8192)
    config.write_text("dev_prompts: 1\nselect_last: 1\nnum_train_epochs: 1\nmax_length: 8000\n")
    more = ("--backbone", model, "--config", config)
    shown = invoke("tune", "sft", some, "--out", tmp_path / "run", *SMALL, *more)
    assert shown.exit_code == 0, shown.output


def test_the_travel_experiments_settings_load():
    folder = Path(__file__).parents[2] / "experiments/travel"
    kinds = {"rows": RaftSettings, "sft": SftSettings, "dpo": DpoSettings}
    kinds |= dict.fromkeys(("paper_llama2_7b", "paper_mistral_7b"), SftSettings)
    files = {file.stem: file for file in folder.glob("*.yaml")}
    assert files.keys() == kinds.keys()
    found = {name: load_settings(kind, files[name]) for name, kind in kinds.items()}
    assert found["paper_llama2_7b"].lora_r == 64
    assert found["rows"].test_distractors == (0, 2, 4, 8)


def test_ranked_samples_differ_neither_in_format_nor_in_length(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments/travel"))
    rank = importlib.import_module("rank")
    why = Counter()
    texts = [
        "<ANSWER>: Dogs are welcome there.",
        "<ANSWER>: Cats may not come in.",
        "<ANSWER>: Dogs are welcome there, for they are loved by all, and always were, and so on.",
        "Dogs are welcome.",
        "##begin_quote##Dogs <ANSWER>: are welcome.",
    ]
    assert rank.best_and_worst(texts, "Dogs are welcome.", why) == (texts[0], texts[1])
    assert why["sample without the row's format, or a repeat"] == 2
    assert rank.best_and_worst(texts[:1] * 4, "Dogs are welcome.", why) is None
