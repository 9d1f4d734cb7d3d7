"""What a judge is made of in the end: averaged or new branches, and another judge's opinions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from commands import SETTINGS, judge_bytes, litee, vote_rows, write_rows, write_yaml
from safetensors.numpy import load_file, save_file

from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.finetune import branch_member
from litee.finetune.task import blend
from litee.predict.artifact import load_judge_file
from litee.predict.judge import Judge
from litee.records import Pair


def settings_file(folder: Path, **changes: object) -> Path:
    return write_yaml(folder / "settings.yaml", SETTINGS | changes)


def fitted(folder: Path, votes: Path, backbone: Path, *more: object, **changes: object):
    config = settings_file(folder, **changes)
    out = folder / "out"
    return out, litee("fit", votes, "--out", out, "--config", config, "--backbone", backbone, *more)


def change_of(folder: Path) -> dict[str, np.ndarray]:
    """Layer → B A · alpha / r of a saved adapter."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    return {
        name: tensors[name.replace("lora_A", "lora_B")] @ a * (config["lora_alpha"] / config["r"])
        for name, a in tensors.items()
        if "lora_A" in name
    }


# branches


def test_a_branch_starts_under_a_ridge_chosen_without_its_own_fold(
    tmp_path, votes, backbone, quick, monkeypatch
):
    losses = np.array([[1.0, 2.0], [2.0, 1.9]])  # fold 0 wants the first ridge, fold 1 the second
    monkeypatch.setattr("litee.finetune.members.ridge_losses", lambda *_, **__: losses)
    fit, ridges = branch_member.fit_probe, []

    def seen(*given: object, ridge: float, **more: object):
        ridges.append(ridge)
        return fit(*given, ridge=ridge, **more)

    monkeypatch.setattr(branch_member, "fit_probe", seen)
    members = ["probe", "lora"]
    out, done = fitted(tmp_path, votes, backbone, members=members, lora_final="refit", depth=2)
    assert done.code == 0, done.err
    assert ridges == [50.0, 500.0, 50.0]  # and the last branch, on all pairs, as the final probe
    (kept,) = (out / "run").glob("probe-*.safetensors")
    assert load_file(kept)["ridges"].tolist() == ridges


@pytest.mark.parametrize("member", ["lora", "joint-lora"])
def test_averaged_branches_have_the_mean_of_all_weights(tmp_path, votes, backbone, quick, member):
    kinds = [{"lora": "probe", "joint-lora": "joint"}[member], member]
    changes = {"members": kinds, "lora_final": "average", "learning_rate": 0.01}
    out, done = fitted(tmp_path, votes, backbone, **changes)
    assert done.code == 0, done.err
    (kept,) = (out / "members").glob(f"{member}-*")
    assert [f.name for f in kept.iterdir()] == ["average"]
    parts = [out / "run" / kept.name / f"fold{k}" for k in range(2)]
    changes = [change_of(part) for part in parts]
    found = change_of(kept / "average")
    assert found.keys() == changes[0].keys() != set()
    for name, change in found.items():
        np.testing.assert_allclose(change, (changes[0][name] + changes[1][name]) / 2, atol=1e-7)
    assert max(np.abs(change).max() for change in found.values()) > 0
    heads = [load_file(part / "head.safetensors") for part in (*parts, kept / "average")]
    for name, tensor in heads[2].items():
        np.testing.assert_allclose(tensor, (heads[0][name] + heads[1][name]) / 2, rtol=1e-5)
    judge = Judge.from_pretrained(out)
    entries = {entry.name: entry for entry in judge.file.members}
    assert entries[kept.name].branches == ("average",)
    config = json.loads((kept / "average" / "adapter_config.json").read_text())
    assert config["r"] == 2 * SETTINGS["lora_r"]
    pairs = [voted.pair for voted in gather(load_votes([str(votes)]).votes)]
    found = np.array([p.probabilities for p in judge.predict(pairs)])
    turned = np.array([p.probabilities for p in judge.predict([q.swapped() for q in pairs])])
    np.testing.assert_allclose(found, turned[:, [1, 0, 2]], atol=1e-5)
    assert found.std(axis=0).max() > 1e-3


def with_attention(folder: Path, votes: Path, backbone: Path, member: str, **changes: object):
    """A judge whose branches weigh their means, and the folder of its LoRA member."""
    changes = {"learning_rate": 0.01, "branch_pooling": "attention"} | changes
    kinds = [{"lora": "probe", "joint-lora": "joint"}[member], member]
    out, done = fitted(folder, votes, backbone, members=kinds, **changes)
    assert done.code == 0, done.err
    (kept,) = (out / "members").glob(f"{member}-*")
    return out, kept


def query_of(folder: Path) -> np.ndarray:
    return load_file(folder / "query.safetensors")["query"]


@pytest.mark.parametrize("member", ["lora", "joint-lora"])
def test_a_reloaded_branch_predicts_with_its_query(tmp_path, votes, backbone, quick, member):
    out, kept = with_attention(tmp_path, votes, backbone, member)
    assert np.abs(query_of(kept / "fold0") - query_of(kept / "fold1")).max() > 1e-3
    pairs = [voted.pair for voted in gather(load_votes([str(votes)]).votes)]

    def alone() -> np.ndarray:  # the branch of the first fold
        return Judge.from_pretrained(out).member_outputs(pairs)[kept.name].probabilities

    raw = json.loads((out / "judge.json").read_text())
    assert [m["branch_pooling"] for m in raw["members"]] == ["states", "attention"]
    raw["members"][1]["branches"] = ["fold0"]
    (out / "judge.json").write_text(json.dumps(raw))
    trained = load_file(out / "run" / kept.name / "fold0.safetensors")["probabilities"]
    distance = np.abs(trained[:, None] - alone()[None]).max(-1)
    assert 10 < len(trained) < 20 and distance.min(1).max() < 1e-5
    query = query_of(kept / "fold0")
    save_file({"query": -query}, kept / "fold0" / "query.safetensors")
    assert np.abs(trained[:, None] - alone()[None]).max(-1).min(1).max() > 1e-4


@pytest.mark.parametrize("member", ["lora", "joint-lora"])
def test_averaged_branches_have_the_mean_query(tmp_path, votes, backbone, quick, member):
    out, kept = with_attention(tmp_path, votes, backbone, member, lora_final="average")
    one, two = (query_of(out / "run" / kept.name / f"fold{k}") for k in range(2))
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_allclose(query_of(kept / "average"), (one + two) / 2, rtol=1e-6)
    judge = Judge.from_pretrained(out)
    pairs = [voted.pair for voted in gather(load_votes([str(votes)]).votes)]
    found = np.array([p.probabilities for p in judge.predict(pairs)])
    turned = np.array([p.probabilities for p in judge.predict([q.swapped() for q in pairs])])
    np.testing.assert_allclose(found, turned[:, [1, 0, 2]], atol=1e-5)


def test_an_averaged_member_is_a_plain_reward_model(tmp_path, votes, backbone, quick):
    changes = {"members": ["probe", "lora"], "pooling": "last", "learning_rate": 0.01}
    changes["answer_length"] = False  # a classifier cannot read it
    out, done = fitted(tmp_path, votes, backbone, lora_final="average", **changes)
    assert done.code == 0, done.err
    (kept,) = (out / "members").glob("lora-*")
    done = litee("export-reward", out, "--member", kept.name, "--out", tmp_path / "reward")
    assert done.code == 0, done.err  # the export itself compares its rewards with the judge's
    assert (tmp_path / "reward" / "model.safetensors").is_file()


def test_an_interrupted_average_goes_on_to_the_same_bytes(
    tmp_path, votes, backbone, quick, monkeypatch
):
    from litee.finetune import branch_member

    changes = {"members": ["probe", "lora"], "lora_final": "average"}
    whole, done = fitted(tmp_path, votes, backbone, **changes)
    assert done.code == 0, done.err
    other = tmp_path / "other"
    other.mkdir()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(branch_member, "average_heads", killed)
        assert fitted(other, votes, backbone, **changes)[1].code == 130
    out, done = fitted(other, votes, backbone, "--resume", **changes)
    assert done.code == 0, done.err
    assert judge_bytes(out) == judge_bytes(whole)


def test_a_branch_fitted_anew_learns_from_all_prompts(tmp_path, votes, backbone, quick):
    out, done = fitted(tmp_path, votes, backbone, members=["probe", "lora"], lora_final="refit")
    assert done.code == 0, done.err
    (kept,) = (out / "members").glob("lora-*")
    assert [f.name for f in kept.iterdir()] == ["final"]
    assert {f.stem for f in (out / "run" / kept.name).glob("*.json")} == {"fold0", "fold1", "final"}


# teachers


def opinions(file: Path, votes: Path, *, every: int = 1) -> Path:
    """A teacher that is sure of a tie, on every so many pairs."""
    rows = [json.loads(line) for line in votes.read_text().splitlines()]
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["pair_id", "p_a", "p_b", "p_tie"])
        writer.writerows([row["id"], 0.05, 0.05, 0.9] for row in rows[::every])
    return file


def mean_of(out: Path, votes: Path) -> np.ndarray:
    """(3,) mean prediction of a judge."""
    pairs = [voted.pair for voted in gather(load_votes([str(votes)]).votes)]
    return np.mean([p.probabilities for p in Judge.from_pretrained(out).predict(pairs)], axis=0)


@pytest.mark.parametrize("members", [["statistics"], ["probe", "lora"]])
def test_members_learn_what_a_teacher_thinks(tmp_path, votes, backbone, quick, members):
    plain, taught = tmp_path / "plain", tmp_path / "taught"
    plain.mkdir()
    taught.mkdir()
    teacher = opinions(tmp_path / "teacher.csv", votes)
    changes = {"members": members, "calibration": "none", "teacher_weight": 1.0}
    alone, done = fitted(plain, votes, backbone, **changes)
    assert done.code == 0, done.err
    out, done = fitted(taught, votes, backbone, "--teacher", teacher, **changes)
    assert done.code == 0, done.err
    assert mean_of(out, votes)[2] > 0.75 > mean_of(alone, votes)[2] + 0.2
    assert "teacher.csv" in json.loads((out / "manifest.json").read_text())["inputs"]
    told = json.loads((out / "report.json").read_text())["metrics"]["log_loss"]
    assert told > json.loads((alone / "report.json").read_text())["metrics"]["log_loss"]


def test_half_a_teacher_is_a_share_of_the_target():
    votes = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 1.0, 0]])
    teacher = np.array([[0.2, 0.2, 0.6], [np.nan] * 3, [0.0, 1.0, 0.0]])
    found = blend(votes, teacher, 0.25)
    np.testing.assert_allclose(found, [[0.8, 0.05, 0.15], [0, 0.5, 0.5], [0, 1, 0]])
    np.testing.assert_allclose(found.sum(1), 1)


def test_pairs_that_a_teacher_leaves_out_have_votes_alone(tmp_path, votes, backbone, quick):
    teacher = opinions(tmp_path / "teacher.csv", votes, every=5)
    changes = {"members": ["statistics"], "calibration": "none", "teacher_weight": 1.0}
    out, done = fitted(tmp_path, votes, backbone, "--teacher", teacher, **changes)
    assert done.code == 0, done.err
    assert 0.1 < mean_of(out, votes)[2] < 0.75
    assert "it has one on 6 of 30 pairs" in (out / "report.html").read_text()


def test_out_of_fold_predictions_are_a_judges_opinions(tmp_path, votes, backbone, quick):
    out, done = fitted(tmp_path, votes, backbone, members=["statistics", "probe"])
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (out / "out_of_fold.jsonl").read_text().splitlines()]
    assert len(rows) == 30 and rows[0].keys() == {"id", "p_a", "p_b", "p_tie"}
    assert all(abs(r["p_a"] + r["p_b"] + r["p_tie"] - 1) < 1e-5 for r in rows)
    # people's votes against it give the report's own accuracy
    page = tmp_path / "page"
    done = litee("agree", f"judge={out / 'out_of_fold.jsonl'}", "--votes", votes, "--out", page)
    assert done.code == 0, done.err
    found = json.loads((page / "agreement.json").read_text())
    own = json.loads((out / "report.json").read_text())["metrics"]["accuracy"]
    assert str(round(own, 4)) in json.dumps(found) or own in _numbers(found)


def _numbers(found: object) -> list[float]:
    if isinstance(found, dict):
        return [n for one in found.values() for n in _numbers(one)]
    if isinstance(found, list):
        return [n for one in found for n in _numbers(one)]
    return [pytest.approx(found)] if isinstance(found, float) else []


def test_a_teacher_that_cannot_be_used_is_told(tmp_path, votes, fit, quick):
    fit(votes, "--teacher", tmp_path / "none.csv").refused_later(3, "none.csv", "no such file")
    labels = tmp_path / "scores.csv"
    labels.write_text("pair_id,length_a,length_b\n0-0-0,3,4\n")
    fit(votes, "--teacher", labels).refused_later(3, "holds no verdicts")
    strange = tmp_path / "strange.csv"
    strange.write_text("pair_id,p_a,p_b,p_tie\nx,0.2,0.3,0.5\n")
    fit(votes, "--teacher", strange).refused_later(3, "says nothing on any of the 30 pairs")


def test_another_teacher_is_another_run(tmp_path, votes, backbone, quick):
    teacher = opinions(tmp_path / "teacher.csv", votes)
    changes = {"members": ["statistics"]}
    assert fitted(tmp_path, votes, backbone, "--teacher", teacher, **changes)[1].code == 0
    again = fitted(tmp_path, votes, backbone, "--teacher", teacher, "--resume", **changes)[1]
    assert again.code == 0, again.err
    opinions(teacher, votes, every=2)
    other = fitted(tmp_path, votes, backbone, "--teacher", teacher, "--resume", **changes)[1]
    other.refused_later(2, "started with other settings", "teacher.csv")


# a study of finished judges


def test_finished_judges_are_compared_on_held_out_prompts(tmp_path, quick):
    write_rows(tmp_path / "train.jsonl", vote_rows(16))
    study = {
        "name": "tiny",
        "kind": "judges",
        "votes": ["train.jsonl"],
        "held_out": 0.3,
        "settings": SETTINGS | {"members": ["statistics"], "calibration": "none"},
        "arms": {
            "student": {"teacher_weight": 1.0},
            "same": {},
            "published": {"teacher_weight": 1.0},
        },
        "teachers": {"student": "base", "same": "student", "published": "verdicts.json"},
    }
    told = [{"idx": k, "gpt_result": "Tie" if k % 2 else "garbage"} for k in range(3)]
    (tmp_path / "verdicts.json").write_text(json.dumps(told))
    file = write_yaml(tmp_path / "tiny.yaml", study)
    places = ("--out", tmp_path / "out", "--results", tmp_path / "results")
    done = litee("study", file, *places)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "results" / "tiny.json").read_text())
    metrics, held = result["metrics"], result["tables"]["pairs"]
    learnt = len((tmp_path / "out/base/out_of_fold.jsonl").read_text().splitlines())
    assert held + learnt == 48 and 9 <= held <= 24
    for arm in study["arms"]:
        found = metrics[f"{arm}.log_loss_difference"]
        assert found == pytest.approx(metrics[f"{arm}.log_loss"] - metrics["base.log_loss"])
        low, high = result["intervals"][f"{arm}.log_loss_difference"]
        assert low <= found <= high
    assert all(metrics[f"{a}.seconds_per_1000_pairs"] > 0 for a in ("base", *study["arms"]))
    assert metrics["uniform_log_loss"] == pytest.approx(1.0986, abs=1e-4)
    # the figures are those of the finished judges on the held-out pairs
    students = json.loads((tmp_path / "out/student/manifest.json").read_text())["inputs"]
    assert set(students) == {"train.jsonl", "out_of_fold.jsonl"}
    # verdicts of the pairs that are learnt from alone, by the number at the end of their ids
    lines = (tmp_path / "out/teacher-of-published.csv").read_text().splitlines()
    assert 5 <= len(lines) - 1 <= 14
    assert all(line.split(",")[0].endswith('-1"') and line.endswith(",tie") for line in lines[1:])
    before = {k: v for k, v in metrics.items() if "second" not in k}
    assert litee("study", file, *places).code == 0
    again = json.loads((tmp_path / "results" / "tiny.json").read_text())["metrics"]
    assert {k: v for k, v in again.items() if "second" not in k} == before


@pytest.mark.parametrize(
    "teachers",
    [{"nobody": "base"}, {"one": "two"}, {"one": "one"}, {"base": "one"}, {"nobody": "x.json"}],
)
def test_a_teacher_comes_before_its_pupil(tmp_path, teachers):
    study = {
        "name": "tiny",
        "kind": "judges",
        "votes": ["train.jsonl"],
        "arms": {"one": {"folds": 2}, "two": {"head": "rao-kupper"}},
        "teachers": teachers,
    }
    done = litee("study", write_yaml(tmp_path / "tiny.yaml", study), "--out", tmp_path / "out")
    done.refused(2, "name an arm, and one before it or a file")


@pytest.mark.parametrize(("groups", "same"), [(["ending", "prompt"], True), (["length"], False)])
def test_a_statistics_member_reads_its_groups_alone(tmp_path, votes, backbone, quick, groups, same):
    changes = {"members": ["statistics"], "statistics_groups": groups}
    out, done = fitted(tmp_path, votes, backbone, **changes)
    assert done.code == 0, done.err
    assert load_judge_file(out).members[0].statistics == tuple(groups)
    short, long = Judge.from_pretrained(out).predict(
        [
            Pair("1", ("nothing of it",), ("Fjord.",), ("No fjord.",)),
            Pair("2", ("nothing of it",), ("Fjord, " * 30 + "fjord.",), ("No fjord.",)),
        ]
    )
    assert (short.probabilities == pytest.approx(long.probabilities, abs=1e-6)) == same


def test_majorities_are_learnt_from_and_shares_are_judged_by(tmp_path, backbone, quick):
    rows = vote_rows()
    twice = [row | {"annotator": f"other{k}"} for k in "xy" for row in rows]
    odd = [row | {"annotator": "odd", "winner": "tie"} for row in rows]
    votes = write_rows(tmp_path / "votes.jsonl", [*twice, *odd])
    found = {}
    for soft in (True, False):
        folder = tmp_path / str(soft)
        folder.mkdir()
        changes = {"members": ["statistics"], "soft_labels": soft, "calibration": "none"}
        out, done = fitted(folder, votes, backbone, **changes)
        assert done.code == 0, done.err
        found[soft] = mean_of(out, votes)
    ties = sum(row["winner"] == "tie" for row in rows) / len(rows)
    assert found[True][2] == pytest.approx((2 * ties + 1) / 3, abs=0.12)
    assert found[False][2] == pytest.approx(ties, abs=0.12)
