"""Folders of runs: what a later session may bring."""

import pytest

from litee.errors import ConfigError
from litee.rundir import RunDir

DEFAULTS = {"rank": 8, "effects": False}


def begin(folder, manifest, **more):
    return RunDir(folder, manifest, resume=folder.exists(), settings=DEFAULTS, **more)


def test_a_setting_that_an_older_run_did_not_know_had_its_default_there(tmp_path):
    folder = tmp_path / "run"
    RunDir(folder, {"seed": 1, "settings": {"rank": 16}}, resume=False)
    begin(folder, {"seed": 1, "settings": {"rank": 16, "effects": False}})
    with pytest.raises(ConfigError, match=r"settings\.effects: False → True"):
        begin(folder, {"seed": 1, "settings": {"rank": 16, "effects": True}})
    with pytest.raises(ConfigError, match=r"settings\.rank: 16 → 8"):
        begin(folder, {"seed": 1, "settings": {"rank": 8, "effects": False}})


def test_a_setting_that_is_gone_is_a_difference(tmp_path):
    folder = tmp_path / "run"
    begin(folder, {"settings": {"rank": 8, "effects": False, "old": 3}})
    with pytest.raises(ConfigError, match=r"settings\.old"):
        begin(folder, {"settings": {"rank": 8, "effects": False}})
