"""--budget and --max-memory: planned, kept, and a judge whatever the time allows."""

from __future__ import annotations

import json

import pytest
from commands import litee

from litee.amounts import bytes_of, seconds_of
from litee.errors import ConfigError
from litee.finetune.deadline import Deadline, TimeUpError
from litee.finetune.states import PooledStore, TokenStore
from litee.predict import fit as fit_module

# one is measured where an arm fits no budget
pytestmark = pytest.mark.usefixtures("no_fresh_process")


@pytest.fixture
def command(votes, backbone, config):
    return ("fit", votes, "--config", config, "--backbone", backbone)


def test_a_plan_is_printed_and_writes_nothing(votes, backbone, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = litee("plan", votes, "--config", config, "--backbone", backbone)
    assert done.code == 0, done.err
    for word in ("step", "statistics", "LoRA on", "reload check", "tokens per pair", "measured in"):
        assert word in done.out
    assert not list(tmp_path.iterdir())


def test_a_plan_takes_the_options_of_a_fit(votes, config):
    done = litee("plan", votes, "--config", config, "--members", "statistics", "--folds", "3")
    assert done.code == 0, done.err
    assert "members: statistics; backbones: " in done.out
    assert "3 folds" in done.out
    assert litee("plan", votes, "--out", "x").code == 2


def test_a_fit_within_its_budget_keeps_its_promise_in_the_receipt(command, tmp_path, quick):
    out = tmp_path / "judge"
    done = litee(*command, "--out", out, "--budget", "10m", "--max-memory", "100GB")
    assert done.code == 0, done.err
    plan = json.loads((out / "plan.json").read_text())
    receipt = json.loads((out / "receipt.json").read_text())
    assert receipt["predicted"] == {k: plan[k] for k in ("seconds", "peak_rss_mb")}
    assert "planned " in done.out and " took " in done.out


def test_a_small_memory_is_refused_before_anything_is_written(command, tmp_path):
    done = litee(*command, "--out", tmp_path / "judge", "--max-memory", "1MB")
    assert done.code == 5
    assert "leanest fit needs about" in done.err
    assert not (tmp_path / "judge").exists()


def test_a_plan_that_was_too_low_is_said(command, tmp_path, monkeypatch, quick):
    plain = fit_module.RunDir.receipt

    def receipt(*given, **more):
        found = plain(*given, **more)
        found.peak_rss_mb = 150_000.0
        return found

    monkeypatch.setattr(fit_module.RunDir, "receipt", receipt)
    out = tmp_path / "judge"
    done = litee(*command, "--out", out, "--max-memory", "100GB", "--members", "statistics")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "caution: took 150,000 MB, more than the 100,000 MB of --max-memory" in said


class Clock:
    """Seconds that pass only when something is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def late(monkeypatch, owner, name, clock):
    """Let the time run out while `owner.name` is at work."""
    plain = getattr(owner, name)

    def slow(*args, **kwargs):
        found = plain(*args, **kwargs)
        clock.now = 1e6
        return found

    monkeypatch.setattr(owner, name, slow)


def with_clock(monkeypatch, clock):
    plain = fit_module.fit_judge

    def timed(*args, **kwargs):
        kwargs["deadline"] = Deadline(100.0, clock=clock)
        return plain(*args, **kwargs)

    monkeypatch.setattr("litee.score.study_fit.fit_judge", timed)


@pytest.mark.parametrize(
    ("owner", "name", "members"),
    [(PooledStore, "_run", {"statistics"}), (TokenStore, "_compute", {"statistics", "probe"})],
)
def test_members_that_are_late_are_left_out(
    command, tmp_path, monkeypatch, quick, owner, name, members
):
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    clock = Clock()
    late(monkeypatch, owner, name, clock)
    with_clock(monkeypatch, clock)
    out = tmp_path / "judge"
    done = litee(*command, "--out", out, "--members", "statistics,probe,lora")
    assert done.code == 0, done.err
    found = json.loads((out / "judge.json").read_text())
    assert {m["name"].split("-")[0] for m in found["members"]} == members
    assert bool(found["backbones"]) == ("probe" in members)
    assert "The time was up while" in (out / "report.html").read_text()


def test_no_member_in_time(command, tmp_path, monkeypatch):
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    clock = Clock()
    late(monkeypatch, PooledStore, "_run", clock)
    with_clock(monkeypatch, clock)
    done = litee(*command, "--out", tmp_path / "judge", "--members", "probe")
    assert done.code == 5
    assert "before any member was fitted" in done.err


def test_parts_of_a_deadline():
    clock = Clock()
    whole = Deadline(100.0, reserve=20.0, clock=clock)
    half = whole.part(0.5)
    clock.now = 39.0
    assert not half.passed() and whole.left() == 41.0
    clock.now = 40.0
    assert half.passed() and not whole.passed()
    clock.now = 80.0
    with pytest.raises(TimeUpError):
        whole.check()
    assert Deadline().part(0.5).left() == float("inf")


@pytest.mark.parametrize("text", ["", "20x", "-5m", "0s", "m20", "1e3s", "nan"])
def test_amounts_that_are_none(text):
    with pytest.raises(ConfigError, match="is no amount"):
        seconds_of(text)
    with pytest.raises(ConfigError, match="is no amount"):
        bytes_of(text)
