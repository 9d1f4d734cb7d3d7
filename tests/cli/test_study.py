"""`litee study`: a study file becomes a results file, or says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import SETTINGS, Done, litee, vote_rows, write_rows, write_yaml
from safetensors.numpy import load_file

from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.errors import ResourceError
from litee.predict.judge import Judge
from litee.score.results import is_stale, read_result

ARMS = {"kind": "ablations"}
CURVE = {"kind": "learning_curve"}


@pytest.fixture
def study(tmp_path: Path, backbone: Path, quick: None) -> Callable[..., Done]:
    """Write a study with small settings, and run it."""
    small = SETTINGS | {"members": ["statistics", "probe"], "backbones": [str(backbone)]}

    def run(*more: object, settings: dict[str, object] | None = None, **values: object) -> Done:
        content = {"name": "tiny", "settings": small | (settings or {}), **values}
        file = write_yaml(tmp_path / "tiny.yaml", content)
        places = ("--out", tmp_path / "out", "--data", tmp_path / "data")
        return litee("study", file, *places, "--results", tmp_path / "results", *more)

    return run


@pytest.fixture
def train(tmp_path: Path) -> str:
    return write_rows(tmp_path / "train.jsonl", vote_rows(source="school")).name


@pytest.fixture
def bench(tmp_path: Path) -> str:
    """Votes in another source, numbered as MT-Bench numbers its pairs."""
    rows = []
    for k, row in enumerate(vote_rows(6, 2, seed=3, source="bench")):
        first, second = ("alpha", "beta") if k % 2 else ("beta", "gamma")
        question = 81 + k // 2
        name = f"mt-{question}-1-{first}-{second}"
        rows.append(row | {"id": "", "pair_id": name, "model_a": first, "model_b": second})
    return write_rows(tmp_path / "test.jsonl", rows).name


@pytest.fixture
def verdicts(tmp_path: Path, bench: str) -> str:
    """A judge that always prefers the first answer; half of its pairs are the other way round."""
    rows = []
    for line in (tmp_path / bench).read_text().splitlines():
        vote = json.loads(line)
        question, first, second = vote["pair_id"].split("-")[1], vote["model_a"], vote["model_b"]
        won = "model_a"
        if int(question) % 2:
            first, second, won = second, first, "model_b"
        rows.append(
            {
                "question_id": int(question),
                "turn": 1,
                "model_a": first,
                "model_b": second,
                "winner": won,
            }
        )
    return write_rows(tmp_path / "verdicts.jsonl", rows).name


def result_of(folder: Path):
    found = read_result(folder / "results" / "tiny.json")
    assert not is_stale(folder / "results")
    assert found.command.startswith("litee study ")
    return found


def test_a_fit_study(study, train, tmp_path):
    done = study(kind="fit", votes=[train], notes="Small.")
    assert done.code == 0, done.err
    assert "results: " in done.out
    result = result_of(tmp_path)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result.metrics["log_loss"] == report["metrics"]["log_loss"]
    assert result.metrics["accuracy"] == report["metrics"]["accuracy"]
    assert result.metrics["floor_log_loss"] <= result.metrics["uniform_log_loss"]
    assert result.metrics["uniform_log_loss"] == pytest.approx(1.0986, abs=1e-4)
    low, high = result.intervals["log_loss"]
    assert low <= result.metrics["log_loss"] <= high
    assert result.tables["pairs"] == 30
    assert sum(result.tables["weights"].values()) == pytest.approx(1)
    assert result.notes == "Small."
    assert set(result.receipt["inputs"]) == {"train.jsonl"}
    first = result.metrics | {"seconds": 0}
    assert study(kind="fit", votes=[train], notes="Small.").code == 0
    assert result_of(tmp_path).metrics | {"seconds": 0} == first


def test_a_transfer_study_with_verdicts(study, train, bench, verdicts, tmp_path):
    done = study(kind="transfer", votes=[train], test=[bench], verdicts=verdicts)
    assert done.code == 0, done.err
    result = result_of(tmp_path)
    winners = [json.loads(line)["winner"] for line in (tmp_path / bench).read_text().splitlines()]
    # the verdicts name the answer that the votes file shows first, in whichever order they list it
    assert result.metrics["gpt4_accuracy"] == pytest.approx(winners.count("a") / len(winners))
    assert 0 < result.metrics["log_loss"] < 20
    assert "out_of_fold_log_loss" in result.metrics
    assert set(result.receipt["inputs"]) == {"train.jsonl", "test.jsonl"}
    assert result.tables["pairs"] == 12
    assert "no prompt of the test was seen" in (tmp_path / "out" / "test.html").read_text()


def test_an_in_source_study_fits_each_file_by_itself(study, train, tmp_path):
    other = write_rows(tmp_path / "other.jsonl", vote_rows(8, 2, seed=4, source="college")).name
    done = study(kind="in_source", votes=[train, other])
    assert done.code == 0, done.err
    result = result_of(tmp_path)
    assert result.tables["school"]["pairs"] == 30
    assert result.tables["college"]["pairs"] == 16
    for source in ("school", "college"):
        report = json.loads((tmp_path / "out" / source / "report.json").read_text())
        assert result.metrics[f"{source}.log_loss"] == report["metrics"]["log_loss"]
        for metric in ("log_loss", "accuracy", "ece", "ece_by_chance", "less_best_member"):
            low, high = result.intervals[f"{source}.{metric}"]
            assert low <= result.metrics[f"{source}.{metric}"] <= high
        gain = (
            result.metrics[f"{source}.log_loss"] - result.metrics[f"{source}.best_member_log_loss"]
        )
        assert result.metrics[f"{source}.less_best_member"] == pytest.approx(gain)
        file = tmp_path / {"school": train, "college": other}[source]
        _check_members_alone(tmp_path / "out" / source, file, result, source)
    assert set(result.receipt["inputs"]) == {"train.jsonl", "other.jsonl"}


def _check_members_alone(folder, votes, result, source):
    """Both bounds, from what the fit has left in its folder."""
    names = [m["name"] for m in json.loads((folder / "judge.json").read_text())["members"]]
    stored = [load_file(folder / "run" / f"{n}.safetensors")["out_of_fold"] for n in names]
    voted = gather(load_votes([votes]).votes)
    assert {v.votes for v in voted} == {1}
    shares = np.array([v.shares for v in voted])
    losses = -np.log([(p * shares).sum(1) for p in stored])
    bent = np.linspace(0, 1, 1001)[:, None]
    mixed = -np.log(bent * np.exp(-losses[0]) + (1 - bent) * np.exp(-losses[1])).mean(1)
    hindsight = result.metrics[f"{source}.log_loss_in_hindsight"]
    assert hindsight == pytest.approx(mixed.min(), abs=2e-4)
    calibrated = result.metrics[f"{source}.best_member_calibrated_log_loss"]
    assert hindsight - 0.1 < calibrated
    assert calibrated == pytest.approx(losses.mean(1).min(), abs=0.1)
    assert calibrated != pytest.approx(losses.mean(1).min(), abs=1e-6)


def test_an_ablation_study_compares_arms_pair_by_pair(study, train, tmp_path):
    arms = {"states": {"members": ["probe"]}, "ridge": {"ridge": [4000.0]}}
    done = study(kind="ablations", votes=[train], arms=arms)
    assert done.code == 0, done.err
    result = result_of(tmp_path)
    reports = {
        arm: json.loads((tmp_path / "out" / arm / "report.json").read_text())
        for arm in ("base", "states", "ridge")
    }
    losses = {arm: report["metrics"]["log_loss"] for arm, report in reports.items()}
    assert len(set(losses.values())) == 3
    for arm, loss in losses.items():
        assert result.metrics[f"{arm}.log_loss"] == pytest.approx(loss)
    for arm in arms:
        found = result.metrics[f"{arm}.log_loss_difference"]
        assert found == pytest.approx(losses[arm] - losses["base"])
        low, high = result.intervals[f"{arm}.log_loss_difference"]
        assert low <= found <= high
        assert result.metrics[f"{arm}.source_log_loss"] == pytest.approx(losses[arm])  # one source
    assert "base.log_loss_difference" not in result.metrics
    assert result.metrics["uniform_log_loss"] == pytest.approx(1.0986, abs=1e-4)
    assert result.tables["arms"]["ridge"]["changes"] == {"ridge": [4000.0]}
    assert set(result.tables["arms"]["states"]["log_loss_per_source"]) == {"school"}


@pytest.mark.parametrize("how", ["lengths", "effects", "apart"])
def test_sources_may_differ(study, train, tmp_path, how):
    rows = vote_rows(8, 2, seed=4, source="college")
    for row in rows:  # of the opposite taste
        row["response_a"], row["response_b"] = row["response_b"], row["response_a"]
    other = write_rows(tmp_path / "other.jsonl", rows).name
    arms = {"own": {"sources": how}}
    small = {"members": ["statistics"]}
    done = study(kind="ablations", votes=[train, other], arms=arms, settings=small)
    assert done.code == 0, done.err
    metrics = result_of(tmp_path).metrics
    assert abs(metrics["own.log_loss"] - metrics["base.log_loss"]) > 0.01


def test_a_learning_curve_adds_prompts_and_keeps_the_held_out_ones(study, train, tmp_path):
    done = study(kind="learning_curve", votes=[train], sizes=[9], held_out=0.3)
    assert done.code == 0, done.err
    result = result_of(tmp_path)
    few, all_others = sorted(int(key) for key in result.tables if key.isdigit())
    assert 9 <= few < all_others
    held_out = result.tables["held_out"]["pairs"]
    assert all_others + held_out == 30
    prompts = [result.tables[str(k)]["prompt_groups"] for k in (few, all_others)]
    assert prompts[0] < prompts[1]
    for k in (few, all_others):
        low, high = result.intervals[f"{k}.log_loss"]
        assert low <= result.metrics[f"{k}.log_loss"] <= high
        assert result.metrics[f"{k}.uniform_log_loss"] == pytest.approx(1.0986, abs=1e-4)
        one_source = result.metrics[f"{k}.source_log_loss"]
        assert one_source == pytest.approx(result.metrics[f"{k}.log_loss"])
    assert (tmp_path / "out" / "learning_curve.png").stat().st_size > 1000
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {str(few), str(all_others)}


BUDGETS = {
    "kind": "budgets",
    "held_out": 0.3,
    "arms": {"both": {}, "words": {"members": ["statistics"]}},
    "budgets": ["10m"],
}


def test_budgets_compare_arms_at_the_same_wall_time(
    study, train, tmp_path, monkeypatch, no_fresh_process
):
    done = study(votes=[train], **BUDGETS)
    assert done.code == 0, done.err
    before = result_of(tmp_path)
    first, second = (before.metrics[f"10m.{arm}.log_loss"] for arm in ("both", "words"))
    found = before.metrics["10m.words.log_loss_difference"]
    assert found == pytest.approx(second - first)
    low, high = before.intervals["10m.words.log_loss_difference"]
    assert low <= found <= high
    assert "10m.both.log_loss_difference" not in before.metrics
    assert 0 < before.metrics["10m.both.seconds"] < 600
    assert before.tables["10m.both"]["members"] != ["statistics"]
    assert before.tables["10m.words"]["members"] == ["statistics"]
    assert before.metrics["uniform_log_loss"] == pytest.approx(1.0986, abs=1e-4)
    assert (tmp_path / "out" / "budgets.png").stat().st_size > 1000
    assert not list((tmp_path / "out").glob("*/*/.cold"))
    # what was spent is kept, and an unfinished arm begins anew
    kept = tmp_path / "out/10m/both/spent.json"
    spent = json.loads(kept.read_text())
    spent["seconds"] += 9900
    del spent["asked"]["settings"]["teacher_weight"]  # as if that setting had not existed then
    kept.write_text(json.dumps(spent))
    begun = tmp_path / "out/10m/words"
    (begun / "spent.json").unlink()
    (begun / "of-the-first-try").touch()
    asked = []
    loaded = Judge.from_pretrained

    def seen(folder: Path) -> Judge:
        asked.append(Path(folder).name)
        return loaded(folder)

    monkeypatch.setattr(Judge, "from_pretrained", seen)
    assert study(votes=[train], **BUDGETS).code == 0
    assert asked == ["words"]  # what the other one said of held-out prompts is kept
    after = result_of(tmp_path).metrics
    assert after["10m.both.seconds"] > 9900
    assert not (begun / "of-the-first-try").exists()
    assert (begun / "spent.json").is_file()
    for name, value in before.metrics.items():
        if "second" not in name:
            assert after[name] == pytest.approx(value, abs=1e-6), name
    changed = study(votes=[train], settings={"seed": 5}, **BUDGETS)
    assert changed.code == 2
    assert "was run with other settings or votes" in changed.err


def test_an_arm_that_fits_no_budget_says_why(study, train, tmp_path):
    arms = {"words": {"members": ["statistics"]}}
    done = study(votes=[train], **(BUDGETS | {"budgets": ["1s"], "arms": arms}))
    assert done.code == 0, done.err
    result = result_of(tmp_path)
    assert "even the leanest fit needs" in result.tables["1s.words"]["reason"]
    assert "1s.words.log_loss" not in result.metrics


def test_a_study_made_of_studies_brings_them_together(tmp_path, train, backbone, quick):
    small = SETTINGS | {"members": ["statistics", "probe"], "backbones": [str(backbone)]}
    one = {"name": "one", "kind": "fit", "votes": [train], "settings": small, "notes": "Fit."}
    two = {"name": "two", "kind": "ablations", "votes": [train], "settings": small}
    two["arms"] = {"words": {"members": ["statistics"]}}
    for content in (one, two):
        write_yaml(tmp_path / f"{content['name']}.yaml", content)
    whole = {"name": "tiny", "kind": "parts", "parts": ["one.yaml", "two.yaml"]}
    headlines = {"log_loss": "one.log_loss", "words": "two.words.log_loss_difference"}
    file = write_yaml(tmp_path / "tiny.yaml", whole | {"headlines": headlines, "notes": "Both."})
    places = ("--out", tmp_path / "out/tiny", "--data", tmp_path, "--results", tmp_path / "results")
    done = litee("study", file, *places)
    assert done.code == 0, done.err
    made = result_of(tmp_path)
    parts = {name: read_result(tmp_path / f"results/{name}.json") for name in ("one", "two")}
    assert made.metrics == {
        "log_loss": parts["one"].metrics["log_loss"],
        "words": parts["two"].metrics["words.log_loss_difference"],
    }
    assert made.intervals["words"] == parts["two"].intervals["words.log_loss_difference"]
    assert [part["name"] for part in made.tables["parts"]] == ["one", "two"]
    page = (tmp_path / "out/tiny/report.html").read_text()
    assert page.count("<svg") == 2
    assert 'id="two"' in page
    for text in ("Fit.", "Both.", "words"):
        assert text in page
    # results of finished parts are taken as they are, unless another command has made them
    shutil.rmtree(tmp_path / "out")
    kept = tmp_path / "results" / "one.json"
    kept.write_text(kept.read_text().replace('"notes": "Fit."', '"notes": "Kept."'))
    other = tmp_path / "results" / "two.json"
    other.write_text(other.read_text().replace("two.yaml", "elsewhere/two.yaml"))
    assert litee("study", file, *places, "--finished").code == 0
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"tiny", "two"}
    assert result_of(tmp_path).metrics == pytest.approx(made.metrics)
    assert read_result(other).command.endswith(f"study {tmp_path.as_posix()}/two.yaml")
    page = (tmp_path / "out/tiny/report.html").read_text()
    assert "Kept." in page and page.count("<svg") == 1
    litee("study", file, *places, "--finished", "--restart").refused(2, "--restart throws away")
    litee("study", tmp_path / "one.yaml", *places, "--finished").refused(2, "this study has none")
    # results that are there already are shown beside the parts, and a wrong name is an error
    shown = whole | {"parts": ["one.yaml"], "beside": ["two"]}
    write_yaml(file, shown | {"headlines": {"words": "two.words.log_loss_difference"}})
    assert litee("study", file, *places).code == 0
    assert result_of(tmp_path).metrics == {"words": made.metrics["words"]}
    write_yaml(file, shown | {"headlines": {"words": "two.nothing"}})
    refused = litee("study", file, *places)
    assert refused.code == 3
    assert "headline words = 'two.nothing': two has no metric of this name" in refused.err
    write_yaml(file, shown | {"headlines": {"words": "three.log_loss"}})
    litee("study", file, *places).refused(2, "headline words = 'three.log_loss': no part")
    assert "Traceback" not in refused.err


def test_a_full_disk_is_no_outcome_of_a_budget(study, train, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise ResourceError("the disk is full", fix="free some space")

    monkeypatch.setattr("litee.score.budgets.fit_votes", full)
    arms = {"words": {"members": ["statistics"]}}
    done = study(votes=[train], **(BUDGETS | {"arms": arms}))
    assert done.code == 5
    assert "the disk is full" in done.err
    assert not list((tmp_path / "out").rglob("spent.json"))


def test_restart_throws_every_run_of_the_study_away(study, train, tmp_path):
    assert study(kind="in_source", votes=[train]).code == 0
    done = study(kind="in_source", votes=[train], settings={"seed": 9})
    assert done.code == 2
    assert "settings.seed: 0 → 9" in done.err
    mine = tmp_path / "out" / "mine.txt"
    mine.write_text("kept")
    done = study("--restart", kind="in_source", votes=[train], settings={"seed": 9})
    assert done.code == 0, done.err
    assert mine.read_text() == "kept"


def test_a_test_prompt_that_was_learnt_from_is_refused_before_the_fit(study, train, tmp_path):
    rows = [*vote_rows(6, 2, seed=3), vote_rows()[0] | {"id": "leak"}]
    leaky = write_rows(tmp_path / "leaky.jsonl", rows).name
    done = study(kind="transfer", votes=[train], test=[leaky])
    done.refused(3, "train and test share", vote_rows()[0]["prompt"], "data split")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "results").exists()


def test_votes_of_left_out_annotators_are_not_learnt_from(study, train, tmp_path):
    assert study(kind="fit", votes=[train], leave_out_annotators=["rater0"]).code == 0
    assert result_of(tmp_path).tables["votes"] == 20
    done = study(kind="fit", votes=[train], leave_out_annotators=["rater1"])  # as many votes
    done.refused(2, "the run to resume was started with other settings: votes: ")
    everyone = ["rater0", "rater1", "rater2"]
    done = study(kind="fit", votes=[train], leave_out_annotators=everyone)
    done.refused(3, "train.jsonl", "0 pairs")


def test_what_is_held_out_may_not_change_when_a_study_goes_on(
    study, train, tmp_path, no_fresh_process
):
    curve = {"kind": "learning_curve", "votes": [train], "sizes": [9]}
    assert study(held_out=0.3, **curve).code == 0
    done = study(held_out=0.4, **curve)
    done.refused(2, "the run to resume was started with other settings", "votes: ")
    shutil.rmtree(tmp_path / "out")
    arms = {"words": {"members": ["statistics"]}}
    budgets = BUDGETS | {"votes": [train], "arms": arms}
    assert study(**budgets).code == 0
    study(**budgets | {"held_out": 0.5}).refused(2, "was run with other settings or votes")


def test_whole_sources_held_out_are_called_so(study, tmp_path):
    rows = vote_rows(6, source="one") + vote_rows(6, seed=9, source="two")
    votes = write_rows(tmp_path / "two.jsonl", rows).name
    assert study(kind="fit", votes=[votes], settings={"fold_by": "source"}).code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 sources, each held out whole" in page and "folds by prompt" not in page


@pytest.mark.parametrize(
    ("values", "code", "parts"),
    [
        ({"kind": "guess"}, 2, ("tiny.yaml", "kind = 'guess'", "'transfer'")),
        ({"kind": "fit", "colour": "red"}, 2, ("tiny.yaml", "unknown setting 'colour'")),
        ({"kind": "fit", "name": "Tiny!"}, 2, ("tiny.yaml", "small letters")),
        ({"kind": "fit", "name": "demonstrations"}, 2, ("name 'demonstrations'", "share")),
        ({"kind": "fit", "settings": {"lora_rank": 1}}, 2, ("tiny.yaml, settings", "lora_rank")),
        ({"kind": "fit", "settings": {"sources": "effects"}}, 2, ("needs votes of two sources",)),
        ({"kind": "fit", "votes": []}, 2, ("tiny.yaml", "votes")),
        ({"kind": "fit", "votes": ["none.jsonl"]}, 3, ("none.jsonl is neither in", "--data")),
        ({"kind": "transfer"}, 2, ("a transfer study names votes under test",)),
        ({"kind": "fit", "test": ["x"]}, 2, ("a transfer study names votes under test",)),
        ({"kind": "learning_curve"}, 2, ("a learning curve names sizes",)),
        (CURVE | {"sizes": [9, 3]}, 2, ("sizes [9, 3]", "ascending")),
        (CURVE | {"sizes": [500]}, 3, ("a point of 500 pairs", "remove sizes of")),
        (CURVE | {"sizes": [1]}, 3, ("a point of 1 pairs has 1 prompts",)),
        ({"kind": "ablations"}, 2, ("ablations, judges and budgets name arms",)),
        (
            {"kind": "fit", "arms": {"x": {"folds": 2}}},
            2,
            ("ablations, judges and budgets name arms",),
        ),
        ({"kind": "parts"}, 2, ("all studies but those made of parts name votes",)),
        ({"kind": "parts", "votes": []}, 2, ("a study made of parts names them",)),
        ({"kind": "fit", "beside": ["x"]}, 2, ("beside belongs to",)),
        ({"kind": "fit", "headlines": {"x": "y.z"}}, 2, ("headlines belong to",)),
        ({"kind": "budgets", "arms": {"x": {}}}, 2, ("a study of budgets names some",)),
        (BUDGETS | {"budgets": ["2m", "60s"]}, 2, ("budgets 2m, 60s", "ascending")),
        (BUDGETS | {"budgets": ["soon"]}, 2, ("budgets = 'soon'", "90s, 20m or 2h")),
        (ARMS | {"arms": {"base": {"folds": 2}}}, 2, ("arm 'base'",)),
        (ARMS | {"arms": {"x": {"seed": 2}}}, 2, ("arm x", "seed = 2", "under settings")),
        (ARMS | {"arms": {"x": {"depht": 2}}}, 2, ("arm x", "unknown setting 'depht'")),
        (ARMS | {"arms": {"x": {"members": ["statistics", "probe"]}}}, 2, ("changes nothing",)),
        ({"kind": "fit", "verdicts": "x"}, 2, ("verdicts are compared with in a transfer",)),
    ],
)
def test_studies_that_cannot_be_run(study, train, tmp_path, values, code, parts):
    study(**({"votes": [train]} | values)).refused(code, *parts)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"winner": "alpha"}, "verdicts.jsonl, row 1: unknown verdict 'alpha'"),
        ({"winner": None}, "verdicts.jsonl, row 1: unknown verdict ''"),
        ({"question_id": "first"}, "verdicts.jsonl, row 1: question_id 'first'"),
        ({"question_id": 999}, "verdicts.jsonl: no verdict on pair 'mt-81-1-"),
        ({"turn": float("nan")}, "verdicts.jsonl, row 1: column 'turn' holds NaN"),
    ],
)
def test_verdicts_that_cannot_be_used(study, train, bench, verdicts, tmp_path, change, said):
    file = tmp_path / verdicts
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_rows(file, [rows[0] | change, *rows[1:]])
    done = study(kind="transfer", votes=[train], test=[bench], verdicts=verdicts)
    done.refused(3, said)
    assert not (tmp_path / "out").exists()


def test_pairs_that_are_not_of_mt_bench_have_no_verdicts(study, train, verdicts, tmp_path):
    other = write_rows(tmp_path / "other.jsonl", vote_rows(4, 1, seed=5)).name
    renamed = [row | {"id": f"x{k}"} for k, row in enumerate(vote_rows(4, 1, seed=5))]
    write_rows(tmp_path / other, renamed)
    done = study(kind="transfer", votes=[train], test=[other], verdicts=verdicts)
    done.refused(3, "has no question and turn")
