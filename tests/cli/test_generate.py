"""`litee generate` and `litee chat` at the command line."""

from __future__ import annotations

import io
import json
import sys
from unittest import mock

import pytest
from commands import litee, write_rows

SMALL = ("--max-new-tokens", "6", "--threads", "1", "--temperature", "1.2")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A judge of text statistics with random weights."""
    import torch

    from litee.finetune.branch import save_head
    from litee.finetune.heads import make_head
    from litee.predict.artifact import JudgeFile, MemberEntry, save_judge_file
    from litee.predict.ensemble import Ensemble

    folder = tmp_path_factory.mktemp("judge")
    head = make_head("davidson", 30)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
        head.standardise(torch.randn(20, 30, generator=rng))
    save_head(head, folder / "members" / "statistics" / "head.safetensors")
    member = MemberEntry(name="statistics", kind="statistics")
    ensemble = Ensemble(members=("statistics",), weights=(1.0,))
    save_judge_file(JudgeFile(backbones=(), members=(member,), ensemble=ensemble), folder)
    return folder


def test_prompts_to_answers_to_the_best_of_four(tiny, judge, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("Hello\nBye\n", encoding="utf-8")
    out = tmp_path / "a.jsonl"

    done = litee("generate", prompts, "--model", tiny("llama"), "--out", out, *SMALL)

    assert done.code == 0, done.err
    assert "2 answers in" in done.err
    assert "tokens/s" in done.err
    assert [json.loads(row)["id"] for row in out.read_text().splitlines()] == ["1", "2"]

    best = tmp_path / "best.jsonl"
    done = litee(
        *("generate", prompts, "--backbone", tiny("llama"), "--out", best, *SMALL),
        *("--judge", judge, "--best-of", "4", "--all", "--name", "four"),
    )
    assert done.code == 0, done.err
    rows = [json.loads(row) for row in best.read_text().splitlines()]
    assert [row["system"] for row in rows] == ["four"] * 8
    for own in (rows[:4], rows[4:]):
        (kept,) = [row for row in own if row["best"]]
        assert kept["reward"] == max(row["reward"] for row in own)
    receipt = json.loads((tmp_path / "best.receipt.json").read_text())
    assert receipt["kl_bound_nats"] == 0.6363
    assert len(receipt["receipt"]["inputs"]) == 3

    again = litee("generate", prompts, "--model", tiny("llama"), "--out", out, *SMALL)
    again.refused(2, "the file exists")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--out", "a.csv"), 2, "name a .jsonl file"),
        (("--out", "a.jsonl", "--best-of", "4"), 2, "needs a judge"),
        (("--out", "a.jsonl", "--all"), 2, "best_of = 1"),
        (("--out", "a.jsonl", "--preset", "hot"), 2, "preset = 'hot'"),
        (("--out", "a.jsonl", "--top-p", "0"), 2, "top_p"),
        (("--out", "a.jsonl", "--adapter", "nowhere"), 4, "adapter_config.json"),
        (("--out", "a.jsonl", "--column", "ask"), 3, "no column 'ask'"),
        (("--out", "a.jsonl", "--device", "cuda"), 4, "use --device cpu"),
    ],
)
def test_what_cannot_work_is_said(tiny, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": "Hello"}])
    litee("generate", prompts, "--model", tiny("llama"), *arguments).refused(code, said)


def chat(tiny, lines, *arguments):
    with mock.patch.object(sys, "stdin", io.StringIO("".join(f"{x}\n" for x in lines))):
        return litee("chat", "--model", tiny("llama"), *SMALL, *arguments)


def test_a_talk_with_every_command(tiny, tmp_path):
    saved = tmp_path / "talk.jsonl"
    lines = [
        *("/help", "/retry", "/save x.jsonl", "Hello", "/retry", "/adapter none", "/what"),
        *("/save", f"/save {saved}", "/system Be brief.", "And you?", f"/save {saved}"),
        *("x" * 600, "/reset", "/quit", "never said"),
    ]

    done = chat(tiny, lines)

    assert done.code == 0, done.err
    for part in ("nothing was asked yet", "nothing was said yet", "no adapter named 'none'"):
        assert part in done.out
    assert "unknown command /what" in done.out
    assert "the model takes 512" in done.out.replace("\n", " ")
    assert "never said" not in done.out
    first, second = (json.loads(row)["messages"] for row in saved.read_text().splitlines())
    assert [m["role"] for m in first] == ["user", "assistant"]
    assert [m["role"] for m in second] == ["system", "user", "assistant"]
    assert second[0]["content"] == "Be brief."


def test_a_talk_ends_with_the_input(tiny):
    done = chat(tiny, ["Hello"])
    assert done.code == 0
    assert "model" in done.out


def test_adapters_need_names(tiny):
    chat(tiny, [], "--adapter", "a=x", "--adapter", "a=y").refused(2, "adapter name 'a'")
