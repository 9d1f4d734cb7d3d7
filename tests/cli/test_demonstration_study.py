"""Studies of demonstrations: arms tuned, asked and compared; gone on with; shared; refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import Done, digests, litee, vote_rows, write_rows, write_yaml

from litee.errors import ConfigError
from litee.finetune.backbones import find_backbone
from litee.score import demonstration_study
from litee.score.demonstration_judges import Asking
from litee.score.results import read_result
from litee.score.study_parts import load_part
from litee.score.study_store import LOCK

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

FIT = {"folds": 2, "max_tokens": 64, "ridge": [50.0], "dtype": "float32"}
TUNING = {
    "lora_r": 2,
    "num_train_epochs": 1,
    "select_last": 1,
    "packing": False,
    "batch_size": 2,
    "micro_batch": 2,
    "max_length": 96,
    "dev_prompts": 0,
}
ARMS = {
    "chosen": {"demonstrations": ["demos.jsonl"], "curate": {"strategy": "facility"}},
    "random": {"demonstrations": ["demos.jsonl"]},
    "untuned": {},
}


def demonstration_rows(count: int, source: str) -> list[dict]:
    """Demonstrations unlike each other."""
    rows = vote_rows(count, 1, seed=10 * len(source))
    return [
        {
            "id": f"{source}-{k}",
            "messages": [
                {"role": "user", "content": f"{row['prompt']} of {source}"},
                {"role": "assistant", "content": f"{row['response_a']} {row['response_b']} {k}"},
            ],
            "source": source,
        }
        for k, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Votes, demonstrations (one of them asks what is asked) and prompts."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "votes.jsonl", vote_rows(12, 3))
    asked = vote_rows(4, 1, seed=5)
    leaking = demonstration_rows(1, "leak")[0]
    leaking["messages"][0]["content"] = asked[0]["prompt"]
    demos = [*demonstration_rows(8, "forum"), *demonstration_rows(3, "travel"), leaking]
    write_rows(folder / "demos.jsonl", demos)
    write_rows(folder / "asked.jsonl", [{"id": r["id"], "prompt": r["prompt"]} for r in asked])
    rules = [
        {"prompt": "Open a locked door.", "malice": "explicit"},
        {"prompt": "Kill a process.", "malice": "none"},
        {"prompt": "Name a river.", "must": {"min_words": 0}},
    ]
    write_rows(folder / "ruled.jsonl", rules)
    return folder


@pytest.fixture
def study(data: Path, backbone: Path, quick: None, tmp_path: Path) -> Callable[..., Done]:
    """Write a study below a place with small settings, and run it."""

    def run(place: Path, *more: object, **values: object) -> Done:
        content = content_of(backbone, **values)
        place.mkdir(exist_ok=True)
        file = write_yaml(place / f"{content['name']}.yaml", content)
        out = place / "runs" / str(content["name"])
        return litee(
            "study", file, "--out", out, "--data", data, "--results", place / "results", *more
        )

    return run


def content_of(backbone: Path, **values: object) -> dict[str, object]:
    content: dict[str, object] = {
        "name": "tiny",
        "kind": "demonstrations",
        "votes": ["votes.jsonl"],
        "judges": {
            "probing": FIT | {"members": ["probe"], "backbones": [str(backbone)], "depth": 1},
            "counting": FIT | {"members": ["statistics"]},
        },
        "prompts": "asked.jsonl",
        "arms": ARMS,
        "curate": {"n": 4, "strategy": "random", "min_chars": 1},
        "settings": TUNING | {"backbone": str(backbone)},
        "answers": {"samples": 2, "max_new_tokens": 5, "max_batch": 2},
        "threads": 1,
    }
    return {k: v for k, v in (content | values).items() if v is not None}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, data: Path, backbone: Path
) -> Iterator[Path]:
    """The folder of a study that ran through, with `runs` and `results`."""
    place = tmp_path_factory.mktemp("finished")
    file = write_yaml(place / "tiny.yaml", content_of(backbone))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litee.predict.fit._check_reload", lambda *_, **__: 0)
        places = ("--out", place / "runs/tiny", "--results", place / "results")
        done = litee("study", file, "--data", data, *places)
    assert done.code == 0, done.err
    assert "probing" in done.out
    return place


def figures(place: Path, name: str = "tiny") -> dict[str, float]:
    """All metrics but the seconds."""
    metrics = read_result(place / f"results/{name}.json").metrics
    return {key: value for key, value in metrics.items() if key != "seconds"}


def test_arms_are_compared_by_every_judge(finished):
    result = read_result(finished / "results/tiny.json")
    metrics, tables = result.metrics, result.tables
    assert (metrics["prompts"], metrics["samples_per_prompt"]) == (4, 2)
    for arm in ("chosen", "random"):
        page = (finished / f"runs/tiny/{arm}/comparison.html").read_text()
        assert f"{arm} against untuned" in page
        compared = json.loads((finished / f"runs/tiny/{arm}/comparison.json").read_text())
        assert [one["judge"] for one in compared["judges"]] == ["probing", "counting"]
        assert compared["systems"] == [arm, "untuned"]
        assert compared["pairs"] == 8
        for start, one in zip((f"{arm}.", f"{arm}.counting."), compared["judges"], strict=True):
            assert metrics[f"{start}win_rate"] == one["win_rate"]
            assert metrics[f"{start}win_rate_length_controlled"] == one["length_controlled"]
    assert metrics["win_rate"] == metrics["chosen.win_rate"]
    assert metrics["counting.win_rate"] == metrics["chosen.counting.win_rate"]
    assert metrics["counting.win_rate"] != metrics["win_rate"]
    assert metrics["win_rate_low"] <= metrics["win_rate"] <= metrics["win_rate_high"]
    assert metrics["stop_rate"] == metrics["chosen.stop_rate"]
    assert tables["judges"][0]["learnt from"] == "part 1 of 2 of the votes"
    rows = {row["arm"]: row for row in tables["arms"]}
    assert [rows[arm]["demonstrations"] for arm in ARMS] == [4, 4, 0]
    assert [rows[arm]["steps"] for arm in ARMS] == [2, 2, 0]
    assert sum(tables["chosen"]["chosen"].values()) == 4
    assert len(tables["curves"]["random"]) >= 2
    counts = {"candidates": 12, "kept": 12, "lost": {}, "removed": {}, "noticed": {}}
    assert tables["read"] == {"demos.jsonl": counts}
    assert tables["not used"]["random"] == {"leaks an evaluation prompt": 1}
    assert tables["prompts left out"] == {}
    assert set(result.receipt["inputs"]) == {"asked.jsonl", "demos.jsonl", "votes.jsonl"}
    stages = result.receipt["stages"]
    assert set(stages) == {"judges", "choosing", "tuning", "answering", "judging"}
    assert metrics["seconds"] == pytest.approx(sum(stages.values()), abs=0.01)


def test_demonstrations_that_repeat_a_prompt_are_not_learnt(finished):
    (first, second) = (finished / "runs/demonstrations/chosen").glob("*/chosen.summary.json")
    for summary in (first, second):
        refused = json.loads(summary.read_text())["refused"]
        assert refused == {"leaks an evaluation prompt": 1}
        assert "leak" not in summary.with_name("chosen.jsonl").read_text()


def test_judges_are_known_by_their_backbones(finished, backbone):
    made_of = [
        json.loads(file.read_text())
        for file in (finished / "runs/demonstrations/judges").glob("*/made_of.json")
    ]
    found = {tuple(one["settings"]["members"]): one["backbones"] for one in made_of}
    assert found == {
        ("probe",): {str(backbone): find_backbone(str(backbone)).sha256},
        ("statistics",): {},
    }


def test_all_steps_take_the_threads_of_the_study(study, finished, tmp_path, monkeypatch):
    place = tmp_path / "again"
    shutil.copytree(finished / "runs/demonstrations", place / "runs/demonstrations")
    threads: list[int] = []

    def counted(real):
        def call(*arguments):
            threads.append(torch.get_num_threads())
            torch.set_num_threads(3)  # as an arm's own settings may
            return real(*arguments)

        return call

    monkeypatch.setattr(demonstration_study, "choose", counted(demonstration_study.choose))
    monkeypatch.setattr(Asking, "__init__", counted(Asking.__init__))
    torch.set_num_threads(2)
    try:
        done = study(place)
    finally:
        torch.set_num_threads(1)
    assert done.code == 0, done.err
    assert threads == [1, 3, 1, 3]  # two arms are chosen, two judges asked
    assert "demos.jsonl: 12 of 12 candidates" in done.err
    assert "; not used: 1 leaks an evaluation prompt" in done.err


def test_a_whole_model_goes_on_under_another_spelling_of_out(
    study, backbone, tmp_path, monkeypatch
):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = tmp_path / "whole"
    arms = {"random": ARMS["random"], "untuned": {}}
    values = {"prompts": "ruled.jsonl", "judges": None, "votes": None, "arms": arms}
    values["settings"] = TUNING | {"backbone": str(backbone), "method": "full"}
    with monkeypatch.context() as patch:
        patch.setattr("litee.predict.generation_run.Journal.close", stop)
        assert study(place, **values).code == 130
    assert list(place.rglob("*.partial"))
    done = study(place / ".." / "whole", **values)
    assert done.code == 0, done.err


def test_judges_share_no_prompt(finished):
    rows = {
        folder.name: {
            json.loads(line)["id"].rpartition("-")[0]
            for line in (folder / "out_of_fold.jsonl").read_text().splitlines()
        }
        for folder in (finished / "runs/demonstrations/judges").iterdir()
    }
    first, second = rows.values()
    assert len(first) + len(second) == 12
    assert not first & second
    assert abs(len(first) - len(second)) <= 2


@pytest.mark.slow
def test_an_interrupted_study_goes_on_to_the_same_result(study, finished, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = tmp_path / "again"
    for target in (
        "litee.curate.curating.compare",  # while demonstrations are chosen
        "litee.score.study_fit.evaluate_fit",  # before a judge's report
        "litee.finetune.sft.export",  # after the last step of tuning
        "litee.predict.generation_run.Journal.close",  # some prompts answered
        "litee.predict.generation_run._write_receipt",  # answers are there, their receipt is not
        "litee.score.demonstration_judges.write_json",  # verdicts are there, their receipt is not
        "litee.score.demonstration_study.write_comparison_page",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, stop)
            assert study(place).code == 130, target
    assert study(place).code == 0
    assert figures(place) == figures(finished)
    tuned = "runs/demonstrations/tuned"
    weights = [
        {k: v for k, v in digests(root / tuned).items() if k.endswith("model.safetensors")}
        for root in (place, finished)
    ]
    assert len(weights[0]) == 2
    assert weights[0] == weights[1]
    assert not list((place / "runs").rglob("*.partial"))


def test_answers_go_on_within_a_file(study, finished, tmp_path, monkeypatch):
    """After a kill, prompts that were answered are not asked again."""
    from litee.predict import generation_run

    place = tmp_path / "again"
    shutil.copytree(finished / "runs/demonstrations", place / "runs/demonstrations")
    shutil.rmtree(place / "runs/demonstrations/answers")
    answered: list[int] = []
    real = generation_run._answer

    def counted(task, unit, engine):
        if len(answered) == 2:
            answered.append(0)
            raise KeyboardInterrupt
        answered.append(len(unit))
        return real(task, unit, engine)

    monkeypatch.setattr(generation_run, "_answer", counted)
    assert study(place).code == 130
    assert study(place).code == 0
    assert sum(answered) == 3 * 4  # three arms, four prompts, none of them twice
    assert figures(place) == figures(finished)


def test_what_another_study_has_made_is_not_made_again(study, finished, tmp_path, monkeypatch):
    from litee.finetune import sft

    place = tmp_path / "second"
    shutil.copytree(finished / "runs/demonstrations", place / "runs/demonstrations")
    tuned: list[Path] = []
    real = sft.tune_sft

    def counted(*arguments, out, **more):
        tuned.append(out)
        assert (out / LOCK).read_text() == f"process {os.getpid()}"
        return real(*arguments, out=out, **more)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(sft, "tune_sft", counted)
    monkeypatch.setattr("litee.score.demonstration_judges.fit_votes", never)
    few = {"demonstrations": ["demos.jsonl"], "curate": {"n": 2}}
    arms = {"few": few, "random": ARMS["random"]}
    done = study(place, name="other", arms=arms)
    assert done.code == 0, done.err
    assert len(tuned) == 1
    metrics = figures(place, "other")
    assert "few.win_rate" not in metrics  # one comparison: plain names alone
    assert 0 < metrics["win_rate"] < 1
    assert study(place, name="other", arms=arms | {"untuned": {}}, against="random").code == 0
    assert len(tuned) == 1
    again = figures(place, "other")
    assert again["few.win_rate"] == again["win_rate"] == metrics["win_rate"]


def test_restart_throws_away_what_the_study_used(study, finished, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = tmp_path / "fresh"
    shutil.copytree(finished / "runs", place / "runs")
    others = place / "runs/demonstrations/tuned/0123456789abcdef"
    others.mkdir()
    monkeypatch.setattr("litee.score.demonstration_study.read_source", stop)
    assert study(place).code == 130
    tuned = place / "runs/demonstrations/tuned"
    assert len(list(tuned.iterdir())) == 3
    assert study(place, "--restart").code == 130
    assert list(tuned.iterdir()) == [others]
    assert not list((place / "runs/demonstrations").glob("verdicts/*"))


def test_finished_judges_may_be_named(study, finished, data, tmp_path):
    place = tmp_path / "own"
    shutil.copytree(finished / "runs/demonstrations", place / "runs/demonstrations")
    probing = read_result(finished / "results/tiny.json").metrics["win_rate"]
    folders = sorted((finished / "runs/demonstrations/judges").iterdir())
    (own,) = [f for f in folders if json.loads((f / "judge.json").read_text())["backbones"]]
    shutil.copytree(own, place / "mine")
    done = study(place, judges={"mine": "mine"}, votes=None)
    assert done.code == 0, done.err
    result = read_result(place / "results/tiny.json")
    assert result.metrics["win_rate"] == probing
    assert "judge mine" in result.receipt["inputs"]
    assert result.tables["judges"][0]["learnt from"] == "finished: mine"
    assert study(place, judges={"mine": str(place / "mine")}, votes=None).code == 0
    (row,) = read_result(place / "results/tiny.json").tables["judges"]
    assert row["learnt from"] == "finished: mine"
    refused(study(place, judges={"mine": "yours"}, votes=None), 3, "judge mine: no folder yours")


def test_rules_are_checked_without_a_judge(study, finished, tmp_path):
    place = tmp_path / "rules"
    arms = {"random": ARMS["random"], "untuned": {}}
    done = study(place, prompts="ruled.jsonl", judges=None, votes=None, arms=arms)
    assert done.code == 0, done.err
    assert "form kept, random: 100% [21%, 100%]" in done.out
    result = read_result(place / "results/tiny.json")
    for arm in arms:
        assert result.metrics[f"{arm}.refused_explicit"] == 0
        assert result.metrics[f"{arm}.form_kept"] == 1
        # Wilson's interval for one prompt: 1.96² / (1 + 1.96²)
        assert result.intervals[f"{arm}.refused_none"] == pytest.approx((0, 0.7935), abs=1e-4)
    assert result.metrics["difference.refused_explicit"] == 0
    assert "win_rate" not in result.metrics
    assert "Wilson" in result.notes
    refused(study(place, judges=None, votes=None), 2, "the prompts have no rules")


def test_a_part_of_another_study(finished, data, tmp_path, backbone):
    place = tmp_path / "parts"
    shutil.copytree(finished / "runs", place / "runs")
    write_yaml(place / "tiny.yaml", content_of(backbone))
    whole = {"name": "whole", "kind": "parts", "parts": ["tiny.yaml"]}
    file = write_yaml(place / "whole.yaml", whole | {"headlines": {"won": "tiny.win_rate"}})
    places = ("--out", place / "runs/whole", "--data", data, "--results", place / "results")
    done = litee("study", file, *places)
    assert done.code == 0, done.err
    assert figures(place, "whole") == {"won": figures(finished)["win_rate"]}
    page = (place / "runs/whole/report.html").read_text()
    assert "length_<wbr>controlled" in page


def refused(done: Done, code: int, part: str) -> None:
    """A message with a fix after what was read."""
    assert done.code == code, done.err
    assert done.err.count("litee: ") == done.err.count("  fix: ") == 1
    assert part in done.err
    assert "Traceback" not in done.err


def arm(**values: object) -> dict[str, object]:
    return {"arms": {"one": {"demonstrations": ["demos.jsonl"]} | values, "untuned": {}}}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"arms": {"untuned": {}}}, ("arms names 1", "two or more")),
        ({"arms": {"one": {}, "two": {}}}, ("arm two: is the same as arm one",)),
        ({"name": "demonstrations"}, ("name 'demonstrations'", "studies share")),
        ({"arms": {"One": {}, "two": {}}}, ("name 'One'", "small letters")),
        ({"against": "none"}, ("against = 'none' is no arm", "chosen, random, untuned")),
        ({"judges": {"chosen": "x", "y": {}}}, ("an arm and a judge are called 'chosen'",)),
        ({"votes": []}, ("judge probing is to be fitted", "name votes")),
        ({"judges": {"mine": "mine"}}, ("votes are named, but no judge is fitted",)),
        ({"judges": {"a": {"member": ["probe"]}}}, ("judge a", "unknown setting 'member'")),
        ({"colour": "red"}, ("unknown setting 'colour'",)),
        ({"turns": 0}, ("turns = 0", "greater than or equal to 1")),
        ({"reading": {"x": {}}}, ("reading names 'x'", "demos.jsonl")),
        ({"reading": {"demos.jsonl": {"format": "x"}}}, ("format 'x' is unknown", "alpaca")),
        ({"reading": {"demos.jsonl": {"m": 1}}}, ("reading demos.jsonl", "setting 'm'")),
        (arm(curate={"strategy": "best"}), ("arm one, curate: strategy = 'best'", "'facility'")),
        (arm(settings={"lora": 2}), ("arm one, settings: unknown setting 'lora'", "lora_r")),
        (arm(settings={"num_train_epochs": 2}), ("select_last = 1", "set select_last to 2")),
        (arm(colour="red"), ("arm one: unknown setting 'colour'",)),
        ({"arms": {"one": {"curate": {"n": 3}}, "two": {}}}, ("need demonstrations",)),
        (arm(demonstrations=["a", "a"]), ("names a file twice",)),
        (arm(demonstrations=["a/x.csv", "b/x.jsonl.gz"]), ("a/x.csv and b/x.jsonl.gz", "rename")),
        ({"answers": {"backbone": "x"}}, ("backbone = 'x'", "under settings")),
        ({"answers": {"best_of": 4}}, ("best_of = 4", "samples")),
        ({"answers": {"temperature": 0, "samples": 3}}, ("answers", "temperature = 0")),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, backbone, values, parts):
    file = write_yaml(tmp_path / "tiny.yaml", content_of(backbone, **values))
    with pytest.raises(ConfigError) as caught:
        load_part(file)
    for part in (*parts, "tiny.yaml", "fix: "):
        assert part in str(caught.value)


def test_nothing_long_begins_when_an_arm_cannot_be_chosen(study, tmp_path, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("began")

    monkeypatch.setattr("litee.score.demonstration_judges.fit_votes", never)
    monkeypatch.setattr("litee.finetune.sft.tune_sft", never)
    place = tmp_path / "early"
    many = {"demonstrations": ["demos.jsonl"], "curate": {"n": 99}}
    done = study(place, arms={"random": ARMS["random"], "many": many})
    refused(done, 3, "tiny, arm many (demos.jsonl): 11 of 12 demonstrations are usable, n = 99")
    missing = {"demonstrations": ["none.jsonl"]}
    done = study(place, arms={"random": ARMS["random"], "many": missing})
    refused(done, 3, "demonstrations none.jsonl is neither in")
    done = study(place, settings=TUNING | {"backbone": "no/such/model"})
    assert done.code != 0
    assert "no/such/model" in done.err
    assert not (place / "results").exists()


def test_the_ablations_of_lima_are_what_was_published():
    """Same choices and steps as in `results/lima_*.json`, and shared where they agree."""
    folder = Path(__file__).resolve().parents[2] / "experiments"
    arms = {}
    for name in ("quality", "diversity", "quantity", "multiturn", "safety", "format"):
        plan = load_part(folder / f"lima_{name}.yaml").settings
        for one in plan.arms:
            steps = one.curate.n // one.tuning.batch_size * one.tuning.num_train_epochs
            assert steps == 24
            key = (one.demonstrations, one.curate, one.tuning)
            assert arms.setdefault(one.name, key) == key
            assert one.answers.samples == 5
    assert len(arms) == 7
