"""GRPO and RLOO over TRL: guards, the independent curve, resume, export."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, TrainerControl, TrainerState

from litee.config import load_settings
from litee.errors import ConfigError, InputError, ModelError
from litee.finetune import held_out, online
from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_model import load_chat_model
from litee.finetune.chat_sampling import Sampled, Sampling
from litee.finetune.chat_settings import OnlineSettings
from litee.finetune.held_out import best_step, parting
from litee.finetune.online_prompts import split_prompts, usable_prompts
from litee.finetune.rewards import RuleRewards
from litee.records import Message, RewardLook

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def ask(text):
    return (Message("user", text),)


PROMPTS = [ask(f"Question {k}?") for k in range(6)]


def settings(folder, **changes):
    common = {
        "backbone": str(folder),
        "lora_r": 2,
        "batch_size": 4,
        "micro_batch": 2,
        "samples": 2,
        "max_steps": 4,
        "save_steps": 2,
        "dev_prompts": 2,
        "answer_tokens": 6,
        "learning_rate": 1e-2,
        "threads": 1,
    }
    return OnlineSettings(**(common | changes))


def letters(exchanges):
    return [float(len(e.answer)) + 0.1 * sum(map(ord, e.answer)) / 1000 for e in exchanges]


def tune(folder, out, algorithm="grpo", reward=letters, **changes):
    given = {k: changes.pop(k) for k in ("independent", "resume") if k in changes}
    return online.tune_online(
        PROMPTS, reward, settings(folder, **changes), algorithm, out=out, inputs={}, **given
    )


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_a_run_looks_at_held_out_prompts_and_exports(tiny, tmp_path, algorithm):
    done = tune(tiny("llama"), tmp_path / "run", algorithm, independent=lambda e: [1.0] * len(e))
    assert [look.step for look in done.looks] == [0, 2, 4]
    assert done.step in (2, 4)
    assert not done.stopped_early
    base = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    model = PeftModel.from_pretrained(base, str(done.weights))
    assert list(model.peft_config) == ["default"]
    saved = load_file(done.weights / "adapter_model.safetensors")
    assert any(t.abs().max() > 0 for k, t in saved.items() if "lora_B" in k)
    report = json.loads((tmp_path / "run/tuning.json").read_text())
    assert report["prompts"] == 4
    assert {"kl", "reward", "loss"} <= set(report["curve"][0])


def test_a_killed_run_resumes_to_the_same_weights(tiny, tmp_path, monkeypatch):
    straight = tune(tiny("llama"), tmp_path / "straight")
    real, stops = online.run_trainer, []

    def stop_at_the_first_checkpoint(trainer, *rest):
        class Stop(type(trainer.callback_handler.callbacks[0])):
            def on_step_end(self, args, state, control, **_):
                if state.global_step == 3 and not stops:
                    stops.append(1)
                    raise KeyboardInterrupt

        trainer.add_callback(Stop())
        real(trainer, *rest)

    monkeypatch.setattr(online, "run_trainer", stop_at_the_first_checkpoint)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny("llama"), tmp_path / "killed")
    resumed = tune(tiny("llama"), tmp_path / "killed", resume=True)
    assert stops
    assert [look.step for look in resumed.looks] == [0, 2, 4]
    a, b = (load_file(d.weights / "adapter_model.safetensors") for d in (straight, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (lambda e: [float("nan")] * len(e), "is nan"),
        (lambda e: [1e9] * len(e), "explodes"),
        (lambda e: [1.0] * len(e), "told no two answers"),
    ],
)
def test_rewards_that_cannot_be_learnt_from_stop_the_run(tiny, tmp_path, reward, text):
    with pytest.raises(ModelError, match=text):
        tune(tiny("llama"), tmp_path / "run", reward=reward, constant_steps=2, dev_prompts=0)
    assert not (tmp_path / "run/adapter").exists()


def test_a_reward_that_breaks_later_leaves_the_last_checkpoint(tiny, tmp_path):
    calls = []

    def reward(exchanges):
        calls.append(1)
        return letters(exchanges) if len(calls) < 4 else [float("inf")] * len(exchanges)

    with pytest.raises(ModelError, match="is inf"):
        tune(tiny("llama"), tmp_path / "run", reward=reward, dev_prompts=0)
    kept = tmp_path / "run/run/checkpoints/checkpoint-2"
    assert load_file(kept / "adapter_model.safetensors")
    done = tune(tiny("llama"), tmp_path / "run", dev_prompts=0, resume=True)
    assert done.step == 4


def test_parting_rewards_stop_the_run_and_the_best_checkpoint_is_kept(tiny, tmp_path):
    seen = []

    def independent(exchanges):
        seen.append(1)
        return [-float(len(seen))] * len(exchanges)

    rising = iter(range(100))

    def reward(exchanges):
        start = next(rising)
        return [start + 0.01 * k for k in range(len(exchanges))]

    done = tune(
        tiny("llama"), tmp_path / "run", reward=reward, independent=independent, save_steps=1,
        parting_looks=2,
    )  # fmt: skip
    assert done.stopped_early
    assert [look.step for look in done.looks] == [0, 1, 2]
    assert done.step == 1


def test_looks_by_hand():
    looks = [
        RewardLook(0, 0.0, 0.0, 1, 1),
        RewardLook(1, 1.0, -1.0, 1, 1),
        RewardLook(2, 2.0, 0.5, 1, 1),
    ]
    assert parting(looks) == 0
    assert parting([*looks, RewardLook(3, 3.0, -1.0, 1, 1)]) == 1
    assert best_step(looks, [1, 2]) == 2
    assert best_step([], [1, 2]) == 2


def test_rules_are_added_to_the_reward():
    given = online.GroupReward(
        lambda e: [1.0] * len(e), RuleRewards(0.5, unfinished_penalty=2.0),
        settings("x", samples=2, batch_size=4), frozenset({7}),
    )  # fmt: skip
    prompt = [{"role": "user", "content": "q"}]
    answers = [
        [{"role": "assistant", "content": "a" * 100}],
        [{"role": "assistant", "content": ""}],
    ]
    assert given([prompt] * 2, answers, [[5, 7], [5, 5]]) == pytest.approx([0.5, -1.0])


def test_prompts_that_do_not_fit_are_counted(tiny):
    chosen = settings(tiny("llama"))
    chat = load_chat_model(chosen, adapt=False)
    encoder = ChatEncoder(chat.tokenizer, 60)
    given = [ask("a"), ask("a"), ask("b" * 90), ask("<|im_end|>")]
    kept, dropped = usable_prompts(given, encoder, chat)
    assert kept == [ask("a")]
    assert dropped.total == 3
    with pytest.raises(InputError, match="no prompt is left"):
        usable_prompts(given[2:], encoder, chat)
    with pytest.raises(InputError, match="a step takes 2"):
        split_prompts(kept, chosen)


def test_a_line_break_that_is_an_added_token_is_no_special_one(tiny):
    """As in Gemma 3, whose vocabulary has line breaks among the added tokens."""
    chosen = settings(tiny("llama"))
    chat = load_chat_model(chosen, adapt=False)
    chat.tokenizer.add_tokens([AddedToken("\n", normalized=False), AddedToken("<b>")])
    encoder = ChatEncoder(chat.tokenizer, 60)
    given = [ask("a\nb"), ask("<b>c</b>"), ask("<|im_end|>")]
    kept, dropped = usable_prompts(given, encoder, chat)
    assert kept == given[:2]
    assert dropped.counts == {"spells a special token": 1}


def test_prompts_that_are_alike_are_held_out_together():
    prompts = [ask(f"{word} {k}?") for k in range(16) for word in ("Where is", "where  IS")]
    chosen = settings("x", samples=2, batch_size=4, dev_prompts=8)
    held, rest = split_prompts(prompts, chosen)
    assert len(held) == 8 and len(rest) == 24

    def keys(part):
        return {" ".join(m.text for m in one).lower().replace("  ", " ") for one in part}

    assert not keys(held) & keys(rest)


def test_settings_that_contradict_each_other():
    for given, text in (
        ({"batch_size": 6, "samples": 4}, "no multiple of samples"),
        ({"pattern": "x"}, "need each other"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_settings(OnlineSettings, None, given)
    with pytest.raises(ConfigError, match="vllm"):
        online.check_vllm()


@pytest.mark.parametrize("written", [3, 4])
def test_a_run_that_was_killed_when_it_was_to_stop_stops(tmp_path, monkeypatch, written):
    """At step 60, before the last look is there and after; three looks in a row part."""
    monkeypatch.setattr(held_out, "sample_answers", lambda *_, **__: [Sampled("x", 1, True)])
    found = [(0, 0.0, 1.0), (20, 1.0, 0.5), (40, 1.0, 0.5), (60, 1.0, 0.5)]
    looks = [RewardLook(step, one, other, 9.0, 1.0) for step, one, other in found]
    file = tmp_path / "looks.json"
    file.write_text(json.dumps([asdict(look) for look in looks[:written]]))
    watch = held_out.HeldOut(
        [ask("q")],
        None,
        None,
        training=lambda _: [1.0],
        independent=lambda _: [0.5],
        how=Sampling(),
        file=file,
        patience=3,
    )
    control = TrainerControl()
    watch.on_train_begin(None, TrainerState(global_step=60), control, model=None)
    assert control.should_training_stop and watch.stopped
    assert [look.step for look in held_out.read_looks(file)] == [0, 20, 40, 60]
