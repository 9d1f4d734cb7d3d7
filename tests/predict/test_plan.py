"""Plans: sums to follow by hand, settings that fit, and a calibration of a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from litee.collect.folds import make_folds
from litee.collect.pairs import gather
from litee.config import FitSettings
from litee.errors import ConfigError, ResourceError
from litee.finetune.rates import PeakMemory, Rates
from litee.predict.measure import calibrate
from litee.predict.plan import (
    MARGIN,
    Machine,
    Measured,
    Tokens,
    choose,
    expect,
    kept_settings,
)
from litee.records import Folds, Outcome, Pair, Vote

FOLDS = Folds((0, 1, 2, 3), (0, 1, 0, 1), 2)
MACHINE = Machine(base_bytes=10**8, fresh=2.0, statistics=1.0, calibration=3.0, threads=1)


def rates(**given):
    values = {
        "frozen": 1e-4,
        "trained": 3e-4,
        "spread": 0.1,
        "model_bytes": 10**7,
        "load_bytes": 3 * 10**7,
        "frozen_bytes": 10**6,
        "step_bytes": 0.0,
        "trained_bytes": 100.0,
    }
    return Rates(**(values | given))


def tokens(encoder="tree", *, kept=0):
    return Tokens(encoder, pairs=4, run=1000, kept=kept, sample=500, leaves=8)


def measured(name="one", *, kept=0, both=False, **given):
    own = (tokens(kept=kept), tokens("joint")) if both else (tokens(kept=kept),)
    return Measured(
        name, layers=12, hidden=16, load=5.0, rates=rates(**given), probe=0.5, tokens=own
    )


def settings(**given):
    values = {"backbones": ("one",), "depth": 10, "lora_layers": 2, "num_train_epochs": 2}
    return FitSettings(**(values | {"evaluations_per_epoch": 1, "patience": 1} | given))


def steps(plan):
    return {step.stage: step for step in plan.steps}


def test_every_step_by_hand():
    plan = expect(settings(), FOLDS, MACHINE, [measured()])
    found = {name: step.seconds for name, step in steps(plan).items()}
    fits = 2 * (1 + 3 / 2) + 2 + 1  # a ridge per fold, three more in the same fit; both folds; all
    # half of the tokens in each of two folds; 12 % of them are judged at the start and each epoch
    epochs = 500 * 2 * (2 * 0.88 * 3e-4 + (1 + 2) * 0.12 * 1e-4)
    full = 2 * (epochs + 500 * 2 * 1e-4)
    below = 1000 * 8 * 1e-4
    assert found == {
        "measuring": 3.0,
        "statistics": 1.0,
        "load one": 5.0,
        "tree states of one": pytest.approx(1000 * 10 * 1e-4),
        "probe on one": pytest.approx(fits * 0.5 * 0.5),
        "LoRA on one": pytest.approx(below + full * 0.75),
        "reload check": pytest.approx(2 * 5.0 + 2.0),
        "report": 6.0,
    }
    assert plan.seconds == pytest.approx(sum(found.values()))
    assert plan.low < plan.seconds < plan.high
    assert plan.tokens_per_vote == 250


def test_states_on_the_disk_cost_nothing():
    plan = expect(settings(), FOLDS, MACHINE, [measured(kept=1000)])
    assert steps(plan)["tree states of one"].seconds == 0
    assert "1,000 tokens are on the disk" in steps(plan)["tree states of one"].why


def test_an_unknown_depth_is_looked_for_and_spans_a_range():
    plan = expect(settings(depth="auto"), FOLDS, MACHINE, [measured()])
    assert steps(plan)["depth of one"].seconds == pytest.approx(500 * 12 * 1e-4 + 5.0)
    states = steps(plan)["tree states of one"]
    # the 500 tokens of the sample have been through all layers by then
    assert states.seconds == pytest.approx(500 * 8 * 1e-4)
    assert states.high / states.low > 3


def test_several_depths_run_the_deepest_and_fit_a_probe_each():
    one = steps(expect(settings(depth=10), FOLDS, MACHINE, [measured()]))
    found = steps(expect(settings(depth=(3, 10, 6)), FOLDS, MACHINE, [measured()]))
    assert found["tree states of one"] == one["tree states of one"]
    assert found["LoRA on one"] == one["LoRA on one"]
    assert found["probe on one"].seconds == pytest.approx(3 * one["probe on one"].seconds)


def test_memory_is_the_largest_of_its_moments():
    loading = expect(settings(members=("probe",)), FOLDS, MACHINE, [measured()])
    assert loading.peak_bytes == 10**8 + 3 * 10**7
    training = expect(settings(), FOLDS, MACHINE, [measured(trained_bytes=10**5)])
    assert training.peak_bytes > 10**8 + 10**7 + 2 * 10**5 * 1000


def test_joint_members_are_counted_apart():
    given = settings(members=("probe", "joint", "joint-lora"))
    found = steps(expect(given, FOLDS, MACHINE, [measured(both=True)]))
    assert {"tree states of one", "joint states of one", "joint LoRA on one"} <= set(found)
    assert "LoRA on one" not in found


def test_a_verdict_runs_all_layers_and_fits_no_probe():
    given = settings(members=("verdict", "verdict-lora"), depth="auto")
    one = replace(measured(), tokens=(tokens("verdict"),))
    found = steps(expect(given, FOLDS, MACHINE, [one]))
    assert found["verdict states of one"].seconds == pytest.approx(1000 * 12 * 1e-4)
    assert "verdict LoRA on one" in found
    assert not {"depth of one", "probe on one", "joint probe on one"} & set(found)


def test_verdicts_give_way_step_by_step_to_text_statistics():
    members = ("statistics", "verdict", "verdict-lora")
    given = settings(members=members, depth="auto", verdict_shots=2)
    one = replace(measured(), tokens=(tokens("verdict"),))
    said = set()
    for seconds in (k / 4 for k in range(60, 180)):
        plan = choose(given, FOLDS, MACHINE, [one], seconds=seconds, max_bytes=None)
        said |= {plan.settings.members}
        assert "exit at half of the layers" not in plan.changes  # a verdict needs the last one
    assert said == {members, ("statistics", "verdict"), ("statistics",)}


def test_what_fits_is_left_as_it_was():
    plan = choose(settings(), FOLDS, MACHINE, [measured()], seconds=10_000, max_bytes=None)
    assert plan.settings == settings()
    assert plan.changes == ()


def test_a_smaller_budget_never_gives_a_longer_plan():
    given = settings(backbones=("one", "two"), depth="auto", num_train_epochs=3)
    both = [measured(), measured("two", frozen=2e-4)]
    last = None
    for seconds in (200, 80, 60, 50, 40, 30, 20, 16):
        plan = choose(given, FOLDS, MACHINE, both, seconds=seconds, max_bytes=None)
        assert plan.seconds <= MARGIN * seconds
        assert last is None or plan.seconds <= last
        last = plan.seconds
    assert plan.settings.members == ("statistics",)
    assert plan.changes[-1] == "text statistics alone"


def test_the_costly_backbone_goes_first():
    given = settings(backbones=("one", "two"), members=("statistics", "probe"))
    both = [measured(), measured("two", frozen=9e-4)]
    plan = choose(given, FOLDS, MACHINE, both, seconds=45, max_bytes=None)
    assert plan.settings.backbones == ("one",)


def test_depths_of_backbones_that_go_are_forgotten():
    depth = {"one": (4, 8), "two": 6}
    given = settings(backbones=("one", "two"), depth=depth, members=("statistics", "probe"))
    both = [measured(), measured("two", frozen=9e-4)]
    some = choose(given, FOLDS, MACHINE, both, seconds=45, max_bytes=None).settings
    assert (some.backbones, some.depth) == (("one",), {"one": (4, 8)})
    least = choose(given, FOLDS, MACHINE, both, seconds=16, max_bytes=None).settings
    assert (least.members, least.backbones) == (("statistics",), ())


def test_states_of_several_depths_are_held_at_once():
    many = replace(measured(), tokens=(replace(tokens(), leaves=10**6),))
    one, three = (
        expect(settings(members=("probe",), depth=d), FOLDS, MACHINE, [many]).peak_bytes
        for d in (10, (2, 6, 10))
    )
    assert three - one == 2 * (10**6 * 2 * 16 * 4)  # last and mean of 16 numbers of 4 bytes


def test_memory_takes_the_training_away():
    one = measured(trained_bytes=10**5)
    plan = choose(settings(), FOLDS, MACHINE, [one], seconds=None, max_bytes=2 * 10**8)
    assert plan.settings.members == ("statistics", "probe")


@pytest.mark.parametrize(
    "limits", [{"seconds": 5.0, "max_bytes": None}, {"seconds": None, "max_bytes": 10**6}]
)
def test_nothing_fits(limits):
    with pytest.raises(ResourceError, match="leanest fit needs about") as caught:
        choose(settings(), FOLDS, MACHINE, [measured()], **limits)
    assert "--budget" in caught.value.fix


def test_settings_of_an_earlier_session(tmp_path):
    assert kept_settings(tmp_path) is None
    plan = expect(settings(), FOLDS, MACHINE, [measured()])
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    assert kept_settings(tmp_path) == settings()
    (tmp_path / "plan.json").write_text('{"settings": {"depth": "deep"}}')
    with pytest.raises(ConfigError, match="damaged"):
        kept_settings(tmp_path)


def some_pairs(count=40):
    votes = [
        Vote(str(k), Pair(str(k), (f"question {k % 10}",), ("yes " * (k + 1),), ("no",)), o)
        for k, o in enumerate([Outcome.A, Outcome.B, Outcome.TIE, Outcome.A] * (count // 4))
    ]
    return gather(votes)


def test_a_calibration_of_a_tiny_model(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path))
    voted = some_pairs()
    folds = make_folds(voted, count=2, seed=0)
    given = FitSettings(
        backbones=(str(tiny("llama")),), folds=2, depth=3, lora_layers=1, threads=1, max_tokens=64,
        members=("statistics", "probe", "lora", "joint"),
    )  # fmt: skip
    machine, (one,) = calibrate([v.pair for v in voted], folds, given)
    assert one.rates.frozen > 0 and one.rates.trained > one.rates.frozen
    assert one.layers >= 3 and one.hidden == 32
    assert [t.encoder for t in one.tokens] == ["tree", "joint"]
    assert all(0 < t.sample <= t.run and t.kept == 0 for t in one.tokens)
    assert machine.fresh > 0.1 and machine.base_bytes > 10**7


def test_peak_memory_sees_what_is_gone_again():
    with PeakMemory() as peak:
        block = bytearray(60_000_000)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert 50e6 < peak.bytes < 90e6


def test_layers_are_computed_twice_only_when_memory_asks_for_it():
    one = measured(trained_bytes=10**5)
    asked = settings(lora_layers=4)
    free = choose(asked, FOLDS, MACHINE, [one], seconds=10_000, max_bytes=None)
    assert free.settings == asked
    limit = free.peak_bytes - 1
    plan = choose(asked, FOLDS, MACHINE, [one], seconds=10_000, max_bytes=limit)
    assert plan.settings == asked.model_copy(update={"gradient_checkpointing": True})
    assert "computed twice" in plan.changes[-1]
    assert plan.peak_bytes < limit
    assert plan.seconds > free.seconds
    # one layer's inside and the inputs of four, of 1,000 tokens in two branches
    kept = 2 * 1000 * (10**5 + 4 * 16 * 4)
    assert free.peak_bytes - plan.peak_bytes == 2 * 1000 * 4 * 10**5 - kept


def test_a_gpu_takes_more_branches_at_once_and_holds_no_probes():
    one = measured(trained_bytes=10**5)
    on_gpu = replace(one, on_gpu=True, pass_tokens=8192)
    here, there = (expect(settings(), FOLDS, MACHINE, [m]).peak_bytes for m in (one, on_gpu))
    assert there > here
