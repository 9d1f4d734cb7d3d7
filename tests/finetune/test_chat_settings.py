"""Presets of tuning, and the settings files of the experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from litee.config import load_settings
from litee.errors import ConfigError
from litee.finetune.chat_settings import (
    LIGHT,
    LIMA,
    DpoSettings,
    OnlineSettings,
    SftSettings,
)

TUNING = Path(__file__).parents[2] / "experiments/tuning"


def test_defaults_are_the_light_presets():
    assert {k: v for k, v in SftSettings().model_dump().items() if k in LIGHT} == dict(LIGHT)


def test_a_preset_gives_way_to_the_file_and_that_to_the_flags(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("preset: lima\nbatch_size: 64\nresidual_dropout: 0.2\n")
    found = load_settings(SftSettings, file, {"residual_dropout": 0.1, "seed": None})
    assert (found.batch_size, found.residual_dropout) == (64, 0.1)
    assert found.learning_rate == LIMA["learning_rate"]
    assert found.method == "full"


def test_unknown_names_are_errors_also_beside_a_preset():
    with pytest.raises(ConfigError, match="unknown setting 'batch'"):
        load_settings(SftSettings, None, {"preset": "lima", "batch": 3})


def test_the_experiments_settings_load():
    kinds = {"sft_smollm2": SftSettings, "sft_gemma": SftSettings, "dpo": DpoSettings}
    kinds["grpo"] = OnlineSettings
    files = {file.stem: file for file in TUNING.glob("*.yaml")}
    assert files.keys() == kinds.keys()
    for name, kind in kinds.items():
        assert load_settings(kind, files[name])
    assert load_settings(OnlineSettings, files["grpo"]).max_steps >= 100
