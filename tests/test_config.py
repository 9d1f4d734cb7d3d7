"""Settings: defaults that hold, and errors that name the setting, the value and the fix."""

from __future__ import annotations

from typing import get_args, get_origin

import pytest
import yaml
from pydantic import ValidationError

from litee.config import FitSettings, Settings, load_settings
from litee.errors import EXIT_USAGE, ConfigError


def every_kind() -> list[type[Settings]]:
    """All settings classes; those of later commands are found as well."""
    return Settings.__subclasses__()


def refused(values=None, *, file=None):
    with pytest.raises(ConfigError) as caught:
        load_settings(FitSettings, file, values)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.fix
    return caught.value


def test_all_kinds_were_found():
    assert FitSettings in every_kind()


@pytest.mark.parametrize("kind", every_kind(), ids=lambda k: k.__name__)
def test_defaults_are_valid_and_stay_so_when_written_out(kind):
    required = {n for n, f in kind.model_fields.items() if f.is_required()}
    if required:
        pytest.skip(f"has settings without a default: {sorted(required)}")
    defaults = kind()
    again = kind.model_validate(defaults.model_dump())
    assert again == defaults
    for name in kind.model_fields:  # defaults are not checked by pydantic unless given
        one = kind.model_validate({name: getattr(defaults, name)})
        assert getattr(one, name) == getattr(defaults, name)


@pytest.mark.parametrize("kind", every_kind(), ids=lambda k: k.__name__)
def test_every_setting_is_described(kind):
    assert kind.model_fields
    for name, field in kind.model_fields.items():
        text = field.description or ""
        assert len(text) >= 10 and text.endswith("."), name


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        FitSettings().seed = 3


# order: defaults, file, overrides


def test_overrides_beat_the_file_which_beats_the_defaults(tmp_path):
    file = tmp_path / "fit.yaml"
    file.write_text("folds: 3\nlora_r: 8\nmembers: [statistics, probe]\ndepth: 12\n")
    found = load_settings(FitSettings, file, {"lora_r": 4, "folds": None})
    assert (found.folds, found.lora_r, found.depth) == (3, 4, 12)
    assert found.members == ("statistics", "probe")
    assert found.max_tokens == FitSettings().max_tokens


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_means_the_defaults(tmp_path, text):
    file = tmp_path / "fit.yaml"
    file.write_text(text)
    assert load_settings(FitSettings, file) == FitSettings()


def test_settings_come_back_from_yaml(tmp_path):
    settings = FitSettings(depth=20, ridge=(1.0, 2.5), pool="log", lora_layers=2)
    file = tmp_path / "fit.yaml"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    assert load_settings(FitSettings, file) == settings


# unknown names


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("lora_rank", "lora_r"), ("max_token", "max_tokens"), ("ridges", "ridge"), ("fold", "folds")],
)
def test_an_unknown_setting_names_near_ones(wrong, near):
    error = refused({wrong: 1})
    assert repr(wrong) in error.problem
    assert near in error.fix
    assert len(error.fix) < 150


def test_a_name_like_none_lists_all():
    error = refused({"zzz": 1})
    for name in FitSettings.model_fields:
        assert name in error.fix


# values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 7),
        ("prompt_share", -0.1),
        ("statistics_groups", ()),
        ("prompt_share", 1.0),
        ("lora_dropout", 1.0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("folds", 1),
        ("folds", 2.5),
        ("folds", "many"),
        ("template", "chatml"),
        ("members", ["probe", "oracle"]),
        ("members", "probe"),
        ("depth", "deep"),
        ("pooling", "first"),
        ("head", "bradley-terry"),
        ("dtype", "float16"),
        ("seed", -1),
        ("ridge", []),
        ("ridge", [float("nan")]),
        ("ridge", [-1.0]),
        ("learning_rate", float("inf")),
        ("weight_decay", float("inf")),
        ("max_grad_norm", float("nan")),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    error = refused({name: value})
    assert name in error.problem + error.fix


@pytest.mark.parametrize("name", sorted(FitSettings.model_fields))
@pytest.mark.parametrize("value", [{"a": 1}, "\x00nonsense"])
def test_nonsense_is_refused_by_every_setting(name, value):
    assert name in str(refused({name: value}))


@pytest.mark.parametrize("name", sorted(FitSettings.model_fields))
def test_every_choice_is_accepted(name):
    annotation = FitSettings.model_fields[name].annotation
    choices = [a for a in get_args(annotation) if isinstance(a, str)]
    frozen = {"members": ("statistics", "probe")}  # every choice goes with them
    for choice in choices:
        assert getattr(FitSettings.model_validate(frozen | {name: choice}), name) == choice
    assert choices or get_origin(annotation) is not None or annotation in (int, float, str, bool)


# contradictions


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"members": []}, "members is empty"),
        ({"members": ["probe", "probe"]}, "twice"),
        ({"backbones": ["a", "a"]}, "twice"),
        ({"statistics_groups": ["ending", "ending"]}, "statistics_groups names a group twice"),
        ({"backbones": []}, "backbones is empty"),
        ({"members": ["lora"]}, "add probe"),
        ({"members": ["joint-lora", "probe"]}, "add joint"),
        ({"depth": 0}, "depth must be 1 or more"),
        ({"depth": (3, 0)}, "depth must be 1 or more"),
        ({"depth": ()}, "depth must be 1 or more"),
        ({"depth": (3, 6, 3)}, "one of them twice"),
        ({"depth": (2, 3), "lora_layers": 4}, "lora_layers = 4 is more than depth = 3"),
        ({"depth": 3, "lora_layers": 4}, "lora_layers = 4 is more than depth = 3"),
        ({"sources": "apart"}, "leave lora"),
        ({"branch_pooling": "attention", "pooling": "last"}, "use pooling last+mean or mean"),
        ({"branch_pooling": "attention", "members": ["verdict-lora"]}, "without verdict-lora"),
        ({"ridge": [10.0, -1.0]}, "ridge must not be negative"),
    ],
)
def test_contradictions_are_explained(values, words):
    assert words in refused(values).problem


def test_statistics_need_no_backbone_and_probes_no_lora_layers():
    assert FitSettings(members=("statistics",), backbones=()).backbones == ()
    assert FitSettings(members=("probe",), depth=2, lora_layers=4).depth == 2
    assert FitSettings(depth=4, lora_layers=4).depth == 4


# files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("folds: [3", "cannot read"),
        ("- folds\n- 3\n", "name: value"),
        ("just a text", "name: value"),
        ("a: b: c", "cannot read"),
        ("!!python/object/apply:os.system ['true']", "cannot read"),
        (b"\xff\xfe\xff", "cannot read"),
        ("folds: 1\n", "folds = 1"),
        ("fold: 3\n", "'fold'"),
        ("3: 4\n", "'3'"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, words):
    file = tmp_path / "fit.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    error = refused(file=file)
    assert error.place == str(file)
    assert words in error.problem
    assert "\n" not in error.problem


def test_a_missing_file_is_named(tmp_path):
    assert refused(file=tmp_path / "nowhere.yaml").place.endswith("nowhere.yaml")


@pytest.mark.parametrize(("text", "size"), [("500MB", 500_000_000), ("1.5gb", 1_500_000_000)])
def test_a_cache_size_is_an_amount(text, size):
    assert FitSettings(cache_size=text).cache_bytes == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "5 light years"])
def test_a_cache_size_that_is_none_is_refused(text):
    with pytest.raises(ValidationError, match="500MB or 8GB"):
        FitSettings(cache_size=text)
