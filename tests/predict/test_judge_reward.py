"""A judge as a reward: the same numbers as `Judge.reward`, many at once."""

from __future__ import annotations

import pytest
from tiny_judge import write_judge

from litee.errors import ModelError
from litee.finetune.rewards import Exchange, RuleRewards, checked_rewards
from litee.predict.judge import Judge
from litee.predict.judge_reward import JudgeReward
from litee.records import Message


def talk(*texts):
    roles = ("user", "assistant") * len(texts)
    return tuple(Message(r, t) for r, t in zip(roles, texts, strict=False))


EXCHANGES = [
    Exchange(talk("Is it far?"), "No, ten minutes."),
    Exchange(talk("Hi", "Hello.", "And then?"), "- one\n- two"),
    Exchange(talk("Is it far?"), ""),
]


def test_rewards_equal_the_judges_own(tiny, tmp_path):
    written = write_judge(tmp_path / "judge", tiny("llama"), ("statistics", "probe", "lora"))
    reward = JudgeReward.load(written.folder)
    judge = Judge.from_pretrained(written.folder)
    alone = [
        judge.reward("Is it far?", "No, ten minutes."),
        judge.reward(["Hi", "And then?"], ["Hello.", "- one\n- two"]),
        judge.reward("Is it far?", ""),
    ]
    assert reward(EXCHANGES) == pytest.approx(alone, abs=1e-6)
    assert len(set(alone)) == 3


def test_a_judge_without_rewards_is_refused(tiny, tmp_path):
    written = write_judge(tmp_path / "judge", tiny("llama"), ("joint",))
    with pytest.raises(ModelError, match="joint or verdict members only"):
        JudgeReward.load(written.folder)


def test_rules_by_hand():
    rules = RuleRewards(0.5, unfinished_penalty=2, pattern=r"^\d+$", pattern_reward=1)
    told = [Exchange((), "1234"), Exchange((), "x" * 100), Exchange((), "", finished=False)]
    assert rules(told) == pytest.approx([1 - 0.02, -0.5, -2])
    assert not RuleRewards().active


def test_unusable_rewards_stop_with_the_answer_named():
    one = [Exchange((), "the answer")]
    with pytest.raises(ModelError, match="is nan"):
        checked_rewards(lambda e: [float("nan")], one)
    with pytest.raises(ModelError, match="explodes"):
        checked_rewards(lambda e: [-1e6], one, limit=1e4)
    with pytest.raises(ModelError, match="2 numbers for 1"):
        checked_rewards(lambda e: [1.0, 2.0], one)
    assert checked_rewards(lambda e: [3], one) == [3.0]
