"""Presets of tuning, and the settings files of the experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.config import load_settings
from litee.curate.settings import CurateSettings
from litee.errors import ConfigError
from litee.finetune.chat_settings import (
    LIGHT,
    LIMA,
    SFT_PRESETS,
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
    kinds |= {"grpo": OnlineSettings, "sft_preferred": SftSettings}
    kinds |= {"preferred": DemonstrationSettings, "strong": DemonstrationSettings}
    kinds |= {"sft_strong": SftSettings, "strong_chosen": CurateSettings}
    files = {file.stem: file for file in TUNING.glob("*.yaml")}
    assert files.keys() == kinds.keys()
    for name, kind in kinds.items():
        assert load_settings(kind, files[name])
    assert load_settings(OnlineSettings, files["grpo"]).max_steps >= 100


def test_the_travel_preset_is_the_papers_lora():
    found = load_settings(SftSettings, None, {"preset": "travel"})
    assert (found.method, found.lora_r, found.lora_alpha, found.lora_dropout) == (
        "qlora", 64, 16, 0.1,
    )  # fmt: skip
    assert (found.patience, found.num_train_epochs) == (3, 30)
    assert found.learning_rate == found.final_learning_rate == 2e-4


@pytest.mark.parametrize("name", sorted(SFT_PRESETS))
def test_every_preset_agrees_with_itself(name):
    assert SftSettings(preset=name).preset == name


def test_patience_and_a_late_choice_exclude_each_other():
    with pytest.raises(ConfigError, match="patience = 2 may end the run before select_first = 2"):
        load_settings(SftSettings, None, {"patience": 2, "select_first": 2})
