"""votes → judge → predictions → evaluation, through the entry point."""

from __future__ import annotations

import csv
import json
import re
from importlib import metadata

import numpy as np
import pytest
from commands import digests, judge_bytes, litee, vote_rows, write_rows

from litee.predict.artifact import load_judge_file
from litee.predict.backbone_fit import slug
from litee.predict.judge import Judge
from litee.predict.runner import MemberOutput
from litee.records import Pair
from litee.rundir import sha256_file
from litee.score import fit_report

MEMBERS = ("probe", "lora", "joint", "joint-lora")


def run_files(name: str) -> set[str]:
    """Every file that a fit with all kinds of members and two folds leaves behind."""
    members = {f"members/{kind}-{name}/head.safetensors" for kind in ("probe", "joint")}
    members |= {
        f"members/{kind}-{name}/{label}/{file}"
        for kind in ("lora", "joint-lora")
        for label in ("fold0", "fold1")
        for file in ("adapter_config.json", "adapter_model.safetensors", "head.safetensors")
    }
    branches = {
        f"run/{kind}-{name}/{label}.{ending}"
        for kind in ("lora", "joint-lora")
        for label in ("fold0", "fold1")
        for ending in ("json", "safetensors")
    }
    stages = {f"depth-{name}", "dtype", "member-statistics", "reload-check"}
    stages |= {f"member-{kind}-{name}" for kind in ("probe", "joint")}
    stages |= {f"branch-{kind}-{name}-fold0+fold1" for kind in ("lora", "joint-lora")}
    stages |= {f"states-joint-{name}"}  # the tree's states come from the look at the depths
    return (
        members
        | branches
        | {f"stages/{stage}.json" for stage in stages}
        | {f"run/{kind}-{name}.safetensors" for kind in ("probe", "joint")}
        | {"members/statistics/head.safetensors", "run/statistics.safetensors"}
        | {f"run/depth-{name}.json", "run/dtype.json", "run/reload.json"}
        | {
            "judge.json",
            "manifest.json",
            "receipt.json",
            "out_of_fold.jsonl",
            "report.json",
            "report.html",
            "report.png",
        }
    )


def test_fit_succeeds_and_says_what_it_did(judge):
    out, done = judge
    assert done.code == 0, done.err
    assert done.err.splitlines() == ["30 votes on 30 pairs, 10 prompts; 0 rows dropped"]
    assert "ensemble has a log loss of" in done.out
    assert f"judge: {out}   report: {out / 'report.html'}" in done.out


def test_fit_leaves_exactly_these_files(judge, backbone):
    out, _ = judge
    assert set(digests(out)) == run_files(slug(str(backbone)))


def test_judge_file(judge, backbone, votes):
    out, _ = judge
    name = slug(str(backbone))
    file = load_judge_file(out)
    assert [m.name for m in file.members] == ["statistics", *(f"{k}-{name}" for k in MEMBERS)]
    assert [m.kind for m in file.members] == ["statistics", "probe", "lora", "probe", "lora"]
    assert [m.encoder for m in file.members] == [None, "tree", "tree", "joint", "joint"]
    assert file.trained_on == {"votes.jsonl": sha256_file(votes)}
    assert file.litee_version == metadata.version("lora-litee")
    (entry,) = file.backbones
    assert (entry.name, entry.max_tokens, entry.dtype) == (str(backbone), 64, "float32")
    depths = json.loads((out / "run" / f"depth-{name}.json").read_text())
    losses = {depth: loss for depth, loss in depths["points"]}
    assert list(losses) == [2, 4]
    assert entry.exit_depth == min(losses, key=losses.__getitem__)
    assert all(m.start_depth == entry.exit_depth - 1 for m in file.members if m.kind == "lora")
    assert sum(file.ensemble.weights) == pytest.approx(1)
    rows = [json.loads(line) for line in votes.read_text().splitlines()]
    longest = max(len(row[side]) for row in rows for side in ("response_a", "response_b"))
    reads = {m.name: (m.answer_length, m.longest_answer) for m in file.members[1:]}
    assert reads == {
        f"{kind}-{name}": (True, longest) if kind in ("probe", "lora") else (False, None)
        for kind in MEMBERS
    }


def test_length_counts_up_to_the_longest_answer_learnt_from(judge, backbone):
    """Of two answers that are cut to the same tokens, only what is beyond the longest is alike."""
    folder, _ = judge
    probe = f"probe-{slug(str(backbone))}"
    longest = next(m for m in load_judge_file(folder).members if m.name == probe).longest_answer
    assert longest is not None
    texts = ["y" * n for n in (longest // 2, 500, 600)]
    assert longest < 500
    pairs = [Pair(str(k), ("Hi",), (text,), ("No",)) for k, text in enumerate(texts)]
    rewards = Judge.from_pretrained(folder).member_outputs(pairs)[probe].rewards
    assert rewards is not None
    assert abs(rewards[1, 0] - rewards[2, 0]) < 1e-5
    assert abs(rewards[0, 0] - rewards[1, 0]) > 1e-3


def test_reloading_gave_the_same_probabilities(judge):
    found = json.loads((judge[0] / "run" / "reload.json").read_text())
    assert found["pairs"] == 8
    assert found["largest"] <= 1e-5


def test_receipt_is_plausible(judge, votes):
    receipt = json.loads((judge[0] / "receipt.json").read_text())
    assert receipt["seconds"] == pytest.approx(sum(receipt["stages"].values()), abs=1e-3)
    assert 0 < receipt["seconds"] < 600
    assert 50 < receipt["peak_rss_mb"] < 16_000
    assert (receipt["threads"], receipt["seed"]) == (1, 0)
    assert receipt["inputs"] == {"votes.jsonl": sha256_file(votes)}
    assert {"torch", "transformers", "peft", "numpy", "lora-litee"} <= set(receipt["versions"])
    # 30 pairs of at most 64 text tokens with 20 of the template, through the trunk once for the
    # depths, once per order for the joint sequences, and once for each of the two token stores
    assert 30 * 20 < receipt["tokens"] < 2 * 3 * 30 * 2 * 84


def test_report_needs_nothing_from_outside(judge):
    page = (judge[0] / "report.html").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href|srcset|poster)\s*=\s*["']?([^"'\s>]+)""", page)
    assert all(link.startswith(("data:", "#")) for link in links), links
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)[a-z/]", page)
    assert "<script" not in page
    for word in ("statistics", "joint-lora", "equal weights", "temperature"):
        assert word in page


def test_report_json_holds_every_system(judge, backbone):
    report = json.loads((judge[0] / "report.json").read_text())
    name = slug(str(backbone))
    for system in ("ensemble", "equal weights", "statistics", *(f"{k}-{name}" for k in MEMBERS)):
        assert system in json.dumps(report), system


@pytest.fixture(scope="module")
def predictions(judge, votes, tmp_path_factory):
    """The same predictions as JSON lines and as CSV."""
    folder = tmp_path_factory.mktemp("predictions")
    for kind in ("jsonl", "csv"):
        done = litee("predict", judge[0], votes, "-o", folder / f"p.{kind}", "--threads", 1)
        assert (done.code, done.out) == (0, ""), done.err
        assert done.err.startswith("30 predictions in ")
    rows = [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]
    with (folder / "p.csv").open(newline="") as handle:
        return rows, list(csv.DictReader(handle))


def test_predictions_are_probabilities_of_the_file_s_pairs(predictions):
    rows, _ = predictions
    assert [row["id"] for row in rows] == [row["id"] for row in vote_rows()]
    for row in rows:
        p = {"a": row["p_a"], "b": row["p_b"], "tie": row["p_tie"]}
        assert min(p.values()) > 0
        assert sum(p.values()) == pytest.approx(1, abs=2e-6)
        assert p[row["winner"]] == max(p.values())
        assert len(row["tokens_cut"]) == 3


def test_csv_and_json_lines_agree(predictions):
    rows, cells = predictions
    assert len(rows) == len(cells) == 30
    for row, cell in zip(rows, cells, strict=True):
        assert (cell["id"], cell["winner"]) == (row["id"], row["winner"])
        for key in ("p_a", "p_b", "p_tie", "reward_a", "reward_b"):
            assert float(cell[key]) == row[key]
        assert int(cell["tokens_cut"]) == sum(row["tokens_cut"])


def test_csv_quotes_ids(judge, tmp_path):
    names = ['say "hi", please', "two\nlines", "plain"]
    rows = [row | {"id": name} for row, name in zip(vote_rows(3, 1), names, strict=True)]
    done = litee(
        "predict", judge[0], write_rows(tmp_path / "v.jsonl", rows), "-o", tmp_path / "p.csv"
    )
    assert done.code == 0
    with (tmp_path / "p.csv").open(newline="") as handle:
        assert [row["id"] for row in csv.DictReader(handle)] == names


def test_pairs_need_no_votes_and_exchanging_answers_exchanges_probabilities(judge, tmp_path):
    rows = [{k: v for k, v in row.items() if k != "winner"} for row in vote_rows(4, 1)]
    turned = [
        row | {"response_a": row["response_b"], "response_b": row["response_a"]} for row in rows
    ]
    found = []
    for name, content in (("x", rows), ("y", turned)):
        file = write_rows(tmp_path / f"{name}.jsonl", content)
        assert litee("predict", judge[0], file, "-o", tmp_path / f"{name}-p.jsonl").code == 0
        text = (tmp_path / f"{name}-p.jsonl").read_text()
        found.append([json.loads(line) for line in text.splitlines()])
    for one, other in zip(*found, strict=True):
        assert one["p_a"] == pytest.approx(other["p_b"], abs=3e-6)
        assert one["p_tie"] == pytest.approx(other["p_tie"], abs=3e-6)
        assert one["reward_a"] == pytest.approx(other["reward_b"], abs=1e-4)


def test_command_and_library_agree(judge, predictions):
    from litee.predict.judge import Judge

    row = vote_rows()[7]
    pair = Pair(row["id"], (row["prompt"],), (row["response_a"],), (row["response_b"],))
    (found,) = Judge.from_pretrained(judge[0]).predict([pair])
    written = predictions[0][7]
    assert written["p_a"] == pytest.approx(found.probabilities[0], abs=2e-5)
    assert written["reward_a"] == pytest.approx(found.reward_a, abs=1e-3)


def test_evaluate_prints_a_table_and_writes_a_report(judge, votes, tmp_path):
    page = tmp_path / "report.html"
    fresh = write_rows(tmp_path / "fresh.jsonl", vote_rows(seed=1))
    done = litee("evaluate", judge[0], fresh, "--training", votes, "--report", page, "--threads", 1)
    assert (done.code, done.err) == (0, "")
    assert "equal weights" in done.out
    assert "Tested on fresh.jsonl" in page.read_text()


def test_evaluate_prints_nothing_but_json_when_asked(judge, tmp_path):
    fresh = write_rows(tmp_path / "fresh.jsonl", vote_rows(4, 2, seed=1))
    done = litee("evaluate", judge[0], fresh, "--json", "--threads", 1)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["counts"] == {"pairs": 8, "votes": 8, "groups": 4}
    assert found["metrics"]["swap_flip_rate"] == 0

    assert any("was not checked" in caution for caution in found["tables"]["cautions"])
    fitted_on = write_rows(tmp_path / "votes.jsonl", vote_rows())
    done = litee("evaluate", judge[0], fresh, "--training", fitted_on, "--json", "--threads", 1)
    assert not any("was not checked" in c for c in json.loads(done.out)["tables"]["cautions"])


def test_evaluate_refuses_votes_it_was_fitted_on(judge, votes, tmp_path):
    litee("evaluate", judge[0], votes, "--training", votes).refused(3, "train and test share")
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_bytes(votes.read_bytes())
    done = litee("evaluate", judge[0], renamed, "--threads", 1)
    done.refused(3, "the judge was fitted on renamed.jsonl", "other votes")


def test_evaluate_says_that_texts_were_cut(judge, tmp_path):
    """A joint member has 64 tokens for prompt and both answers."""
    fresh = write_rows(tmp_path / "fresh.jsonl", vote_rows(4, 2, seed=1))
    done = litee("evaluate", judge[0], fresh, "--threads", 1)
    assert "8 of 8 pairs were cut to the judge's token budget" in " ".join(done.out.split())


def test_a_few_pairs_that_were_cut_are_no_caution():
    """Rows alternate with their mirror images; a pair counts once, whatever member cut it."""
    whole, p = np.zeros((80, 3), dtype=np.int64), np.full((80, 3), 1 / 3)
    one, other = whole.copy(), whole.copy()
    one[[0, 1], 1], other[[2, 3], 2] = 5, 7
    outputs = [MemberOutput(p, None, cut) for cut in (one, other)]
    assert fit_report._cut_caution(outputs, 40) == ()
    other[[4, 5], 0] = 1
    (said,) = fit_report._cut_caution(outputs, 40)
    assert said.startswith("3 of 40 pairs were cut")


def test_same_seed_same_bytes_other_seed_other_bytes(
    judge, votes, backbone, config, tmp_path, monkeypatch, quick
):
    """With an empty cache, so that nothing is taken over from the first fit."""
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    base = ("fit", votes, "--config", config, "--backbone", backbone)
    assert litee(*base, "--out", tmp_path / "same").code == 0
    assert judge_bytes(tmp_path / "same") == judge_bytes(judge[0])
    assert litee(*base, "--out", tmp_path / "other", "--seed", 1).code == 0
    other, first = judge_bytes(tmp_path / "other"), judge_bytes(judge[0])
    name = slug(str(backbone))
    assert set(other) == set(first)
    for file in (
        "judge.json",
        f"members/lora-{name}/fold0/adapter_model.safetensors",
        f"members/joint-lora-{name}/fold1/adapter_model.safetensors",
    ):
        assert other[file] != first[file], file
