"""`litee score` with language models: local and tiny, and an endpoint on this machine."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from commands import litee, write_rows, write_yaml

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("score", "predict")]
from bad_server import chat_server
from tiny_judge import write_judge

ANSWERS = [
    {"id": 1, "system": "x", "prompt": "Why?", "answer": "So.", "reference": "Because."},
    {"id": 2, "system": "y", "prompt": "Why?", "answer": "bad", "reference": ""},
    {"id": 3, "system": "x", "prompt": "How?", "answer": "", "reference": "Thus."},
]
PAIRS = [
    {"id": "p1", "prompt": "Why?", "response_a": "one", "response_b": "another one"},
    {"id": "p2", "prompt": "Why?", "response_a": "one", "response_b": "bad"},
    {"id": "p3", "prompt": "How?", "response_a": "so and so", "response_b": "so"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Bytes are its tokens, so a question needs some thousand positions."""
    from tiny_models import save_tiny

    return save_tiny(tmp_path_factory.mktemp("long"), "llama", max_position_embeddings=4096)


@pytest.fixture
def answers(tmp_path):
    return write_rows(tmp_path / "answers.jsonl", ANSWERS)


@pytest.fixture
def pairs(tmp_path):
    return write_rows(tmp_path / "pairs.jsonl", PAIRS)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def receipt(path: Path) -> dict:
    return json.loads(path.with_name(path.name + ".receipt.json").read_text(encoding="utf-8"))


def test_a_local_model_scores_answers_and_a_second_run_asks_nothing(answers, model, tmp_path):
    outs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for out in outs:
        metrics = "llm,perplexity,token_f1"
        done = litee(
            "score", answers, "--metrics", metrics, "--llm", model,
            "--perplexity-model", model, "--out", out,
        )  # fmt: skip
        assert done.code == 0, done.err
    one, two = map(table, outs)
    assert one == two
    assert all(0 < float(row["llm_helpfulness"]) < 1 for row in one)
    assert all(1 < float(row["llm_scale"]) < 6 for row in one)
    assert float(one[0]["perplexity"]) > 1
    assert json.loads(one[2]["unscored"])["perplexity"] == "empty answer"
    assert json.loads(one[1]["unscored"])["llm_correct"] == "no reference"
    first, second = (receipt(out)["llm"] for out in outs)
    assert (first["asked"], first["stored"]) == (20, 0)
    assert (second["asked"], second["stored"], second["tokens_in"]) == (0, 20, 0)
    assert first["tokens_in"] > 0 and first["latency"]["p50"] > 0 and first["price"] is None


def test_a_local_model_judges_pairs_for_agree_and_rank(votes, model, tmp_path):
    out, few = tmp_path / "verdicts.csv", tmp_path / "few.jsonl"
    lines = votes.read_text(encoding="utf-8").splitlines()[:5]
    names = [{"model_a": f"m{k % 2}", "model_b": f"m{2 - k % 2}"} for k in range(5)]
    write_rows(few, [json.loads(line) | name for line, name in zip(lines, names, strict=True)])
    done = litee("score", few, "--pairs", "--metrics", "pairwise", "--llm", model, "--out", out)
    assert done.code == 0, done.err
    rows = table(out)
    assert {r["verdict"] for r in rows} <= {"a", "b", "tie"}
    assert all(
        sum(float(r[f"p_{x}"]) for x in ("a", "b", "tie")) == pytest.approx(1, abs=1e-5)
        for r in rows
    )
    found = litee("agree", f"llm={out}", "--votes", few, "--resamples", "20", "--json")
    assert {"llm.pairwise_accuracy", "llm.verdict.pairwise_accuracy"} <= set(
        json.loads(found.out)["metrics"]
    )
    assert receipt(out)["verdicts"]["pairs"] == len(rows)
    ranked = litee("rank", few, "--verdicts", out, "--resamples", "20", "--json")
    assert ranked.code == 0, ranked.err
    assert len(json.loads(ranked.out)["standings"]) > 1


def test_an_endpoint_that_fails_now_and_then(answers, pairs, tmp_path):
    def plan(body, times):
        labels = body["response_format"]["json_schema"]["schema"]["properties"]["verdict"]["enum"]
        if "bad" in body["messages"][1]["content"]:
            return "x" * 50_000
        return json.dumps({"verdict": labels[0]})

    config = write_yaml(
        tmp_path / "llm.yaml",
        {"model": "m", "timeout": 5.0, "price_in": 10.0, "price_out": 100.0, "comment": False},
    )
    out, verdicts = tmp_path / "scores.jsonl", tmp_path / "verdicts.csv"
    with chat_server(plan) as server:
        options = ["--llm-url", server.url, "--llm-config", config]
        done = litee("score", answers, "--metrics", "criteria,length", *options, "--out", out)
        assert done.code == 0, done.err
        assert "5 reply too long" in " ".join(done.out.split()) or "reply too" in done.out
        done = litee(
            "score", pairs, "--pairs", "--metrics", "pairwise", *options, "--out", verdicts
        )
        assert done.code == 0, done.err
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [r["llm_relevance"] for r in rows] == [1.0, None, 1.0]
    assert json.loads(rows[1]["unscored"])["llm_relevance"] == "reply too long"
    assert [r["verdict"] for r in table(verdicts)] == ["tie", "", "tie"]
    assert "p_a" not in table(verdicts)[0]
    llm = receipt(out)["llm"]
    assert llm["unscored"] == {"reply too long": 5} and llm["asked"] == 15
    assert llm["tokens_in"] == 100 * 20 and llm["tokens_out"] == 10 * 20
    assert llm["price"] == pytest.approx((2000 * 10 + 200 * 100) / 1e6)
    assert receipt(verdicts)["verdicts"]["favours_first"] == 2


def test_the_reward_of_a_judge(answers, backbone, tmp_path):
    judge = write_judge(tmp_path / "judge", backbone, ("probe",)).folder
    out = tmp_path / "rewards.csv"
    done = litee("score", answers, "--metrics", "reward", "--judge", judge, "--out", out)
    assert done.code == 0, done.err
    from litee.predict.judge import Judge

    wanted = Judge.from_pretrained(judge).reward("Why?", "So.")
    assert float(table(out)[0]["reward"]) == pytest.approx(wanted, abs=1e-4)


def test_what_is_missing_is_said_before_anything_runs(answers, pairs, tmp_path):
    out = tmp_path / "scores.csv"
    ask = ("score", answers, "--out", out, "--metrics")
    litee(*ask, "llm_scale").refused(2, "language model", "--llm")
    litee(*ask, "reward").refused(2, "--judge")
    litee(*ask, "pairwise", "--llm", "m").refused(2, "--pairs")
    litee(*ask, "nonsense").refused(2, "nonsense", "llm_scale")
    litee(*ask, "llm", "--llm", tmp_path / "nowhere").refused(4)
    litee(*ask, "llm", "--llm-url", "http://127.0.0.1:9/v1").refused(2, "model")
    litee("score", answers, "--out", tmp_path / "x.txt").refused(2, "x.txt")
    assert not out.exists()


def test_a_wrong_key_stops_with_what_to_check(answers, tmp_path):
    with chat_server(lambda body, times: "status 401") as server:
        done = litee(
            "score", answers, "--metrics", "criteria", "--llm", "m", "--llm-url", server.url,
            "--out", tmp_path / "x.csv",
        )  # fmt: skip
    done.refused(4, "HTTP 401", "OPENAI_API_KEY")


def test_ragas_is_an_extra_of_its_own(answers, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ragas", None)
    monkeypatch.delitem(sys.modules, "litee.score.retrieval_metrics", raising=False)
    ask = ("score", answers, "--out", tmp_path / "x.csv", "--metrics", "faithfulness")
    litee(*ask).refused(2, "language model")
    litee(*ask, "--llm", "m").refused(4, "ragas", 'pip install "lora-litee[ragas]"')
