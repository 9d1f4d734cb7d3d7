"""The settings for LoRA-LiteE's models fit, on tiny models of the same classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from commands import litee, write_yaml

PAPER = Path(__file__).parents[2] / "experiments" / "paper"
PRESETS = sorted(PAPER.glob("*.yaml"))

#: What a test changes beside the backbones: sizes and precision.
SMALL = {
    "dtype": "float32",
    "max_tokens": 64,
    "lora_layers": 2,
    "lora_r": 2,
    "folds": 2,
    "batch_tokens": 512,
    "ridge": [500.0],
    "threads": 1,
}


def family(name: str) -> str:
    return "gemma2" if "gemma-2" in name else "llama"


def test_there_are_the_three_of_the_paper():
    assert [file.stem for file in PRESETS] == ["gemma2_27b", "gemma2_9b_llama3_8b", "llama3_70b"]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_a_preset_fits_on_tiny_models_of_its_classes(preset, tiny, votes, tmp_path, quick):
    settings = yaml.safe_load(preset.read_text(encoding="utf-8"))
    assert settings["dtype"] == "nf4"
    folders = {name: str(tiny(family(name))) for name in settings["backbones"]}
    # the depth of a real model is checked when it is there; a tiny one has four layers
    depth = {folder: 4 for folder in folders.values()} if len(folders) > 1 else 4
    changed = settings | SMALL | {"backbones": list(folders.values()), "depth": depth}
    config = write_yaml(tmp_path / "small.yaml", changed)
    done = litee("fit", votes, "--out", tmp_path / "judge", "--config", config)
    assert done.code == 0, done.err
    judge = json.loads((tmp_path / "judge" / "judge.json").read_text(encoding="utf-8"))
    kinds = [(member["kind"], member["head"]) for member in judge["members"]]
    assert sorted(kinds) == sorted([("probe", "joint"), ("lora", "joint")] * len(folders))
    assert sum(judge["ensemble"]["weights"]) == pytest.approx(1)
