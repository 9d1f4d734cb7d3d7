"""The page of a run on a reward."""

from __future__ import annotations

import json

import pytest

from litee.errors import InputError
from litee.records import RewardLook
from litee.score.reward_page import (
    RewardRun,
    read_reward_run,
    reward_plots,
    warnings_of,
    write_reward_page,
)


def saved(folder, looks, **more):
    rows = [
        dict(zip(("step", "training", "independent", "characters", "finished"), k, strict=True))
        for k in looks
    ]
    curve = [{"step": 1, "kl": 0.0}, {"step": 2, "kl": 0.25}, {"step": 2, "loss": 1.0}]
    run = {"kind": "grpo", "step": 2, "stopped_early": False, "looks": rows, "curve": curve} | more
    (folder / "tuning.json").write_text(json.dumps(run))
    return folder


def test_a_good_run_has_no_warning(tmp_path):
    folder = saved(tmp_path, [(0, 0.0, 1.0, 100, 0.9), (2, 1.5, 1.25, 120, 0.95)])
    run = read_reward_run(folder)
    assert warnings_of(run) == []
    assert run.kl == ((1, 0.0), (2, 0.25))
    rewards, divergence = reward_plots(run)
    said = "Rewards at step 2, from their start: being learnt +1.500, independent +0.250."
    assert rewards.alt == said
    assert divergence.alt == "KL divergence of 0.250 nats at step 2."
    page = write_reward_page(folder).read_text()
    assert "training reward +1.500, independent reward +0.250" in page
    assert "Before you believe" not in page


def test_parting_rewards_stand_first(tmp_path):
    looks = [(0, 0.0, 1.0, 100, 0.9), (2, 0.5, 1.1, 90, 0.9), (4, 1.5, 0.5, 160, 0.6)]
    page = write_reward_page(saved(tmp_path, looks, stopped_early=True)).read_text()
    places = [page.index(t) for t in ("The rewards part", "was stopped", "grew", "Fewer", "<table")]
    assert places == sorted(places)


def test_what_was_not_looked_at_is_said():
    alone = RewardLook(0, 0.0, None, 10, 1.0)
    run = RewardRun("rloo", 1, False, (alone,), ())
    assert reward_plots(run) == [None, None]
    assert "No independent judge" in warnings_of(run)[0]
    assert "held out" in warnings_of(RewardRun("rloo", 1, False, (), ()))[0]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"looks": [{}], "curve": []}'])
def test_other_folders_are_refused(tmp_path, text):
    if text:
        (tmp_path / "tuning.json").write_text(text)
    with pytest.raises(InputError, match="no run on a reward"):
        read_reward_run(tmp_path)
