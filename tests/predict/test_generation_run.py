"""Files of prompts to files of answers: reading, units, resuming, best-of-n, receipts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from test_best_of import ByLength

from litee.errors import ConfigError, InputError
from litee.predict.generation import Engine, Request, write_answers
from litee.predict.generation_journal import journal_path
from litee.predict.generation_model import GenerationModel
from litee.predict.generation_prompts import Prompt, read_prompts
from litee.predict.generation_run import Task, answer_prompts, receipt_path, units
from litee.predict.generation_sampling import Sampling
from litee.predict.generation_settings import PRESETS, GenerateSettings
from litee.records import Message

SMALL = {"max_new_tokens": 6, "max_batch": 2, "threads": 1, "seed": 3}


def prompts_of(tmp_path: Path, text: str, name: str = "p.jsonl", **given):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_prompts(tmp_path / name, **given)


@pytest.fixture(scope="module")
def model(tiny):
    return GenerationModel(GenerateSettings(backbone=str(tiny("llama")), threads=1))


def task_of(model, prompts, **settings):
    own = GenerateSettings(backbone=model.folder.name, **{**SMALL, **settings})
    return Task(tuple(prompts), own, "tiny", inputs={"p": "0"})


def engine_of(model, task):
    return Engine(model, max_batch=task.settings.max_batch)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# reading


def test_prompts_in_every_layout(tmp_path):
    text = prompts_of(tmp_path, "one\n\n two \none\n", "p.txt", system="s")
    assert [(p.id, p.turns, p.system) for p in text.prompts] == [
        ("1", ("one",), "s"),
        ("3", (" two ",), "s"),
        ("4", ("one",), "s"),
    ]
    odd = prompts_of(
        tmp_path, "one\u2028two\x0cthree\r\nfour\n", "p.txt"
    )  # only newlines end lines
    assert [p.turns for p in odd.prompts] == [("one\u2028two\x0cthree",), ("four",)]
    lines = [
        {"question_id": 81, "prompt": ["first", "second"]},
        {"question_id": 82, "prompt": " "},
        {"question_id": 83, "prompt": None},
        {"question_id": 81, "prompt": ["first", "second"]},
        {"question_id": 84, "prompt": '["x", "y"]'},
    ]
    table = prompts_of(tmp_path, "".join(json.dumps(row) + "\n" for row in lines))
    assert [(p.id, p.turns) for p in table.prompts] == [
        ("81", ("first", "second")),
        ("84", ("x", "y")),
    ]
    assert table.dropped.total == 3
    assert table.dropped.counts["the same prompt again"] == 1
    said = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "old"},
        {"role": "user", "content": "r"},
    ]
    (one,) = prompts_of(tmp_path, json.dumps({"messages": said}) + "\n", system="other").prompts
    assert (one.turns, one.system) == (("q", "r"), "Be kind.")
    csv = prompts_of(tmp_path, "n,ask\n1,why\n", "p.csv", column="ask")
    assert csv.prompts[0].turns == ("why",)
    vote = {"conversation_a": [{"role": "user", "content": "hm"}], "model_a": "x", "winner": "tie"}
    vote["conversation_a"].append({"role": "assistant", "content": "a"})
    vote |= {"conversation_b": vote["conversation_a"], "model_b": "y"}
    votes = prompts_of(tmp_path, (json.dumps(vote) + "\n") * 2)
    assert [p.turns for p in votes.prompts] == [("hm",)]
    pair = {"prompt": "q", "response_a": "x", "response_b": "y"}
    pairs = "".join(json.dumps({"id": str(k), **pair}) + "\n" for k in range(3))
    assert [p.turns for p in prompts_of(tmp_path, pairs).prompts] == [("q",)]


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ('{"prompt": " "}\n', {}, "no usable prompt"),
        ('{"prompt": "x"}\n', {"column": "ask"}, "no column 'ask'"),
        ('{"prompt": "x"\n', {}, "JSON"),
    ],
)
def test_files_without_prompts_are_errors(tmp_path, text, given, said):
    with pytest.raises(InputError, match=said):
        prompts_of(tmp_path, text, **given)
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "none.jsonl")


def test_presets_fill_in_what_is_not_given():
    assert GenerateSettings().model_dump().items() >= PRESETS["lima"].items()
    greedy = GenerateSettings(preset="greedy", top_p=0.5)
    assert (greedy.temperature, greedy.top_p, greedy.repetition_penalty) == (0.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="same answer every time"):
        GenerateSettings(preset="greedy", samples=2)
    with pytest.raises(ValueError, match="exclude each other"):
        GenerateSettings(best_of=2, samples=2)


# answering


def test_turns_are_answered_in_order_with_what_was_said_before(model, tmp_path):
    prompt = Prompt("7", ("Hello", "And then?"), "Be brief.")
    task = task_of(model, [prompt])

    answer_prompts(task, engine_of(model, task), tmp_path / "a.jsonl")

    first = _alone(model, task, prompt, [])
    second = _alone(model, task, prompt, [first.text])
    (row,) = rows(tmp_path / "a.jsonl")
    assert row["prompt"] == ["Hello", "And then?"]
    assert row["answer"] == [first.text, second.text]
    assert row["tokens"] == first.tokens + second.tokens
    assert row["finish_reason"] == [first.finish_reason, second.finish_reason]
    assert (row["id"], row["system"], row["sample"]) == ("7", "tiny", 0)


def _alone(model, task, prompt, answers):
    seed = prompt.seed(task.settings.seed, 0, len(answers))
    messages = [Message("system", "Be brief.")]
    for k, turn in enumerate(prompt.turns[: len(answers) + 1]):
        messages.append(Message("user", turn))
        if k < len(answers):
            messages.append(Message("assistant", answers[k]))
    request = Request(tuple(messages), Sampling.of(task.settings, seed=seed))
    return write_answers(Engine(model), [request])[0]


def test_a_killed_run_resumes_to_the_same_bytes(model, tmp_path):
    prompts = [Prompt(str(k), (f"Question {k}" * (k % 4 + 1),)) for k in range(11)]
    task = task_of(model, prompts)
    answer_prompts(task, engine_of(model, task), tmp_path / "whole.jsonl")
    out = tmp_path / "cut.jsonl"

    def stop(after):
        left = iter(range(after))

        def advance(n):
            if next(left, None) is None:
                raise KeyboardInterrupt

        return advance

    with pytest.raises(KeyboardInterrupt):
        answer_prompts(task, engine_of(model, task), out, advance=stop(1))
    journal = journal_path(out)
    with journal.open("ab") as handle:  # killed in the middle of a line
        handle.write(b'{"seconds": 1, "ans')
    with pytest.raises(ConfigError, match="add --resume"):
        answer_prompts(task, engine_of(model, task), out)
    other = task_of(model, prompts, temperature=0.9)
    with pytest.raises(ConfigError, match="other prompts, settings or models"):
        answer_prompts(other, engine_of(model, other), out, resume=True)
    answered = []
    engine = engine_of(model, task)
    add = engine.add
    engine.add = lambda request: answered.append(request) or add(request)
    answer_prompts(task, engine, out, resume=True)

    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert 0 < len(answered) < len(prompts)
    assert not journal.exists()
    with pytest.raises(ConfigError, match="the file exists"):
        answer_prompts(task, engine_of(model, task), out)


def test_units_hold_every_prompt_once_in_order_of_length(model):
    prompts = [Prompt(str(k), ("x" * (k * 7 % 13 + 1),)) for k in range(13)]
    found = list(units(task_of(model, prompts, samples=2)))
    assert [len(unit) for unit in found] == [2] * 6 + [1]
    lengths = [len(p.turns[0]) for unit in found for p in unit]
    assert lengths == sorted(lengths, reverse=True)
    assert {p.id for unit in found for p in unit} == {p.id for p in prompts}


@pytest.mark.parametrize("keep_all", [False, True])
def test_the_best_of_n_is_kept_with_its_reward(model, tmp_path, keep_all):
    prompts = [Prompt("a", ("Hello",)), Prompt("b", ("Bye",))]
    task = Task(
        tuple(prompts),
        GenerateSettings(backbone=model.folder.name, best_of=3, temperature=1.5, **SMALL),
        "tiny",
        keep_all=keep_all,
    )
    judge = ByLength()
    out = tmp_path / "a.jsonl"
    with pytest.raises(ConfigError, match="needs a judge"):
        answer_prompts(task, engine_of(model, task), out)
    summary = answer_prompts(task, engine_of(model, task), out, judge=judge)

    found = rows(out)
    receipt = json.loads(receipt_path(out).read_text())
    assert summary.written == 6
    assert receipt["kl_bound_nats"] == round(math.log(3) - 2 / 3, 4)
    assert len(judge.pairs) == 6
    assert all(row["reward"] == len(row["answer"]) for row in found)
    if not keep_all:
        assert [row["id"] for row in found] == ["a", "b"]
        return
    assert [row["sample"] for row in found] == [0, 1, 2] * 2
    for own in (found[:3], found[3:]):
        best = max(row["reward"] for row in own)
        assert [row["best"] for row in own].count(True) == 1
        assert next(row["reward"] for row in own if row["best"]) == best
    assert len({row["answer"] for row in found[:3]}) > 1


def test_the_receipt_says_what_it_cost(model, tmp_path):
    task = task_of(model, [Prompt("1", ("Hi",))])
    summary = answer_prompts(task, engine_of(model, task), tmp_path / "a.jsonl")
    receipt = json.loads((tmp_path / "a.receipt.json").read_text())
    assert receipt["receipt"]["tokens"] == summary.tokens > 0
    assert receipt["tokens_per_second"] > 0
    assert 0 <= receipt["stop_rate"] <= 1
    assert receipt["receipt"]["inputs"] == {"p": "0"}
    assert "kl_bound_nats" not in receipt
