"""A judge's member as a plain sequence classifier: the same rewards through plain transformers."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_judge
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from litee.errors import ModelError
from litee.predict.judge import Judge
from litee.predict.reward_export import export_reward
from litee.records import Pair

PAIRS = [
    Pair("1", ("Is it far?",), ("No, ten minutes.",), ("I am sorry.",)),
    Pair("2", ("Hi",), ("",), ("Hello!\n",)),
    Pair("3", ("Hi", "More?"), ("a", "b"), ("c", "d e")),
]


@pytest.fixture
def judge_of(tiny, tmp_path, monkeypatch):
    """Writes a judge whose members read the last state only, by one branch."""

    def written(name, *members, changes=True):
        for kind in ("probe", "lora") if changes else ():
            one = {"pooling": "last"} | ({"branches": ("b",)} if kind == "lora" else {})
            entry = tiny_judge.KINDS[kind].model_copy(update=one)
            monkeypatch.setitem(tiny_judge.KINDS, kind, entry)
        made = tiny_judge.write_judge(tmp_path / f"judge-{name}", tiny(name), members)
        if name.endswith("-base"):
            file = made.folder / "judge.json"
            file.write_text(file.read_text().replace("chat-v", "plain-v"))
        return made.folder

    return written


def talk(pair, answers):
    messages = []
    for asked, answered in zip(pair.prompt, answers, strict=True):
        messages += [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    return messages


def exported_rewards(folder, pairs, *, side="right"):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = [
        tokenizer.apply_chat_template(talk(p, answers), tokenize=False)
        for p in pairs
        for answers in (p.response_a, p.response_b)
    ]
    batch = tokenizer(
        texts, add_special_tokens=False, padding=True, padding_side=side, return_tensors="pt"
    )
    with torch.no_grad():
        return model(**batch).logits[:, 0].double().numpy().reshape(-1, 2)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "qwen2", "qwen3", "llama-base"])
def test_scores_equal_the_members_rewards(judge_of, tmp_path, family):
    folder = judge_of(family, "probe", "lora")
    judge = Judge.from_pretrained(folder)
    for member in ("probe", "lora"):
        done = export_reward(folder, tmp_path / member, member=member)
        expected = judge.member_outputs(PAIRS)[member].rewards
        found = exported_rewards(done.folder, PAIRS)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        padded_left = exported_rewards(done.folder, PAIRS, side="left")
        np.testing.assert_allclose(padded_left, expected, rtol=0, atol=1e-4)
        assert done.largest_difference < 1e-4


def test_members_that_do_not_fit_are_refused_with_the_reason(judge_of, tmp_path):
    folder = judge_of("llama", "statistics", "probe", "joint", changes=False)
    with pytest.raises(ModelError, match=r"last\+mean.*the last one only"):
        export_reward(folder, tmp_path / "out")
    with pytest.raises(ModelError, match="no member 'none'"):
        export_reward(folder, tmp_path / "out", member="none")
    with pytest.raises(ModelError, match="no biases"):
        export_reward(judge_of("phi3", "probe"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ('"prompt_share": 0.2', '"prompt_share": 0.0', "does not see the prompt"),
        ('"max_tokens": 60', '"max_tokens": 8', "8 tokens cuts every text"),
        ('"answer_length": false', '"answer_length": true', "reads the length of an answer"),
    ],
)
def test_a_judge_that_reads_less_than_a_classifier_is_refused(judge_of, tmp_path, was, now, words):
    folder = judge_of("llama", "probe")
    file = folder / "judge.json"
    assert was in file.read_text()
    file.write_text(file.read_text().replace(was, now))
    with pytest.raises(ModelError, match=words):
        export_reward(folder, tmp_path / "out")
