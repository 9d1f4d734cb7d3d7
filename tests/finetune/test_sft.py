"""Supervised tuning: what is trained, the schedule, packing, resume, export, choice."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from litee.config import load_settings
from litee.errors import ConfigError, InputError, ModelError
from litee.finetune import sft
from litee.finetune.chat_data import IGNORED, ChatEncoder, encode_demonstrations
from litee.finetune.chat_model import load_chat_model
from litee.finetune.chat_settings import SftSettings
from litee.finetune.chat_training import Patience, checkpoints, curve_of, last_checkpoint
from litee.records import Demonstration, Message

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TALKS = [
    ("Is it far?", "No, ten minutes."),
    ("Hi", "Hello!"),
    ("Name a river.", "The Main."),
    ("How much is it?", "Four euros."),
    ("And the way back?", "The same."),
    ("Who is it?", "It is me."),
]


def demonstration(number, *texts):
    roles = ("user", "assistant") * (len(texts) // 2)
    messages = tuple(Message(r, t) for r, t in zip(roles, texts, strict=True))
    return Demonstration(str(number), messages)


DEMOS = [demonstration(k, *talk) for k, talk in enumerate(TALKS)]


def settings(folder, **changes):
    common = {
        "backbone": str(folder),
        "lora_r": 2,
        "num_train_epochs": 3,
        "batch_size": 2,
        "micro_batch": 2,
        "max_length": 128,
        "dev_prompts": 2,
        "answer_tokens": 6,
        "threads": 1,
    }
    return SftSettings(**(common | changes))


def run(folder, out, **changes):
    given = {k: changes.pop(k) for k in ("scorer", "resume", "development") if k in changes}
    return sft.tune_sft(DEMOS, settings(folder, **changes), out=out, inputs={}, **given)


def test_an_adapter_loads_in_plain_transformers_and_gives_what_was_tuned(tiny, tmp_path):
    folder = tiny("llama")
    tuned = run(folder, tmp_path / "run", keep_checkpoints=True)
    base = AutoModelForCausalLM.from_pretrained(folder)
    model = PeftModel.from_pretrained(base, str(tuned.weights)).eval()
    assert not list((tmp_path / "run").rglob("*.tmp"))
    saved = load_file(tuned.weights / "adapter_model.safetensors")
    kept = checkpoints(tmp_path / "run/run/checkpoints")[tuned.chosen.step]
    again = load_file(kept / "adapter_model.safetensors")
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[k], again[k]) for k in saved)
    assert any(t.abs().max() > 0 for k, t in saved.items() if "lora_B" in k)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), model.disable_adapter():
        plain = model(ids).logits
    with torch.no_grad():
        assert not torch.allclose(plain, model(ids).logits)
    report = json.loads((tmp_path / "run/tuning.json").read_text())
    assert report["chosen"]["epoch"] in (1, 2, 3)
    assert report["end_of_turn"]["token"] == "<|im_end|>"
    receipt = json.loads((tmp_path / "run/receipt.json").read_text())
    assert receipt["versions"]["trl"]
    assert receipt["tokens"] > 0


def test_the_rate_falls_in_a_straight_line_without_warm_up(tiny, tmp_path):
    tuned = run(
        tiny("llama"),
        tmp_path / "run",
        learning_rate=1e-3,
        final_learning_rate=1e-4,
        packing=False,
        keep_checkpoints=True,
    )
    folder = tmp_path / "run/run/checkpoints"
    rates = curve_of(list(checkpoints(folder).values())[-1]).values("learning_rate")
    total = 6  # 4 rows, 2 a step, 3 epochs; the rate logged at a step is the one it was made with
    expected = [1e-3 - (1e-3 - 1e-4) * k / total for k in range(total)]
    assert [step for step, _ in rates] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose([rate for _, rate in rates], expected, rtol=1e-9)
    assert len(tuned.candidates) == 3


def test_the_optimiser_is_limas(tiny, tmp_path):
    chosen = load_settings(SftSettings, None, {"preset": "lima", "micro_batch": 8})
    arguments = sft.sft_arguments(chosen, tmp_path, device="cpu", evaluate=True)
    assert (arguments.adam_beta1, arguments.adam_beta2) == (0.9, 0.95)
    assert arguments.weight_decay == 0.1
    assert arguments.learning_rate == 1e-5
    assert arguments.lr_scheduler_kwargs == {"lr_end": 1e-6, "power": 1.0}
    assert arguments.num_train_epochs == 15
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 32
    assert arguments.max_length == 2048
    assert arguments.get_warmup_steps(100) == 0
    assert (chosen.select_first, chosen.select_last, chosen.residual_dropout) == (5, 10, 0.3)


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen2"])
def test_packed_demonstrations_do_not_see_each_other(tiny, tmp_path, family):
    """The first step's gradient is the same, packed and apart: nothing leaks between rows."""
    grads = {}
    for packing in (False, True):
        chosen = settings(tiny(family), packing=packing, batch_size=6 if not packing else 1)
        chosen = chosen.model_copy(update={"micro_batch": 6})
        chat = load_chat_model(chosen, eot="auto")
        data = encode_demonstrations(DEMOS, ChatEncoder(chat.tokenizer, 512))
        chosen = chosen.model_copy(update={"max_length": 512})
        arguments = sft.sft_arguments(chosen, tmp_path, device="cpu", evaluate=False)
        trainer = sft.sft_trainer(chat, data, None, arguments)
        assert len(trainer.train_dataset) == (1 if packing else 6)
        batch = next(iter(trainer.get_train_dataloader()))
        count = (batch["labels"] != IGNORED).sum()
        loss = trainer.compute_loss(chat.model, batch, num_items_in_batch=count)
        loss.backward()
        grads[packing] = {
            n: p.grad.clone() for n, p in chat.model.named_parameters() if p.grad is not None
        }
    assert grads[True].keys() == grads[False].keys()
    assert max(g.abs().max() for g in grads[True].values()) > 1e-3
    for name, gradient in grads[True].items():
        torch.testing.assert_close(gradient, grads[False][name], rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_answer_tokens(tiny, tmp_path):
    """TRL's loss on our rows equals cross-entropy on the labels, written out."""
    chosen = settings(tiny("llama"), packing=False)
    chat = load_chat_model(chosen, eot="auto")
    data = encode_demonstrations(DEMOS[:1], ChatEncoder(chat.tokenizer, 128))
    arguments = sft.sft_arguments(chosen, tmp_path, device="cpu", evaluate=False)
    trainer = sft.sft_trainer(chat, data, None, arguments)
    batch = next(iter(trainer.get_train_dataloader()))
    got = trainer.compute_loss(chat.model.eval(), batch)
    row = data.rows[0]
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    with torch.no_grad():
        log_p = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    places = [k for k, label in enumerate(row.labels) if label != IGNORED]
    by_hand = -sum(log_p[k - 1, row.labels[k]] for k in places) / len(places)
    assert len(places) == len(TALKS[0][1]) + 1  # a byte a token, and the end of the turn
    assert float(got.detach()) == pytest.approx(float(by_hand), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_model_gets_an_end_of_turn_token_whose_row_is_trained(tiny, tmp_path, dtype):
    folder = tiny("gemma3-base")
    tuned = run(folder, tmp_path / "run", dtype=dtype)
    saved = load_file(tuned.weights / "adapter_model.safetensors")
    rows = [k for k in saved if "trainable_tokens_delta" in k]
    assert [tuple(saved[k].shape) for k in rows] == [(1, 32)]  # tied: one row serves both ends
    tokenizer = AutoTokenizer.from_pretrained(tuned.weights)
    assert tokenizer.eos_token == "<|im_end|>"  # its vocabulary holds it in reserve
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    assert text == "<|bos|>q<|im_end|>a<|im_end|>"
    base = AutoModelForCausalLM.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(folder)
    ends = [own.eos_token_id, own("\n", add_special_tokens=False).input_ids[-1]]
    start = base.get_input_embeddings().weight[ends].mean(0)
    untrained = load_chat_model(settings(folder), eot="auto")
    used = untrained.plain.get_input_embeddings().weight[tokenizer.eos_token_id]
    torch.testing.assert_close(used, start)
    named = load_chat_model(settings(folder), eot="<|im_end|>").plain.get_input_embeddings()
    before = base.get_input_embeddings().weight[tokenizer.eos_token_id]
    torch.testing.assert_close(named.weight[tokenizer.eos_token_id], before)
    merged = PeftModel.from_pretrained(base, str(tuned.weights)).merge_and_unload()
    after = merged.get_input_embeddings().weight[tokenizer.eos_token_id]
    # rounded to bfloat16 the start alone differs by less
    assert (after - start).abs().max() > (1e-5 if dtype == "float32" else 2**-8 * start.abs().max())


def test_a_killed_run_resumes_to_the_same_weights(tiny, tmp_path, monkeypatch):
    folder = tiny("llama")
    straight = run(folder, tmp_path / "straight", residual_dropout=0.3)
    real, stops = sft.run_trainer, []

    def stop_after_the_first_epoch(trainer, *rest):
        class Stop(type(trainer.callback_handler.callbacks[0])):
            def on_save(self, args, state, control, **_):
                if state.epoch == 1 and not stops:
                    stops.append(state.global_step)
                    raise KeyboardInterrupt

        trainer.add_callback(Stop())
        real(trainer, *rest)

    monkeypatch.setattr(sft, "run_trainer", stop_after_the_first_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "killed", residual_dropout=0.3)
    half = tmp_path / "killed/run/checkpoints/checkpoint-999"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    resumed = run(folder, tmp_path / "killed", residual_dropout=0.3, resume=True)
    assert stops
    assert not half.exists()
    assert resumed.chosen == straight.chosen
    a, b = (load_file(t.weights / "adapter_model.safetensors") for t in (straight, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_scorer_chooses_the_checkpoint(tiny, tmp_path):
    calls = []

    def scorer(exchanges):
        calls.append(len(exchanges))
        return [float(len(calls) == 2)] * len(exchanges)

    tuned = run(tiny("llama"), tmp_path / "run", scorer=scorer)
    assert tuned.chosen.epoch == 2
    assert [c.reward for c in tuned.candidates] == [0, 1, 0]
    assert "answers" in tuned.chosen_by
    again = run(tiny("llama"), tmp_path / "run", scorer=scorer, resume=True)
    assert again.chosen == tuned.chosen
    assert len(calls) == 3  # nothing was done twice


def test_a_reward_that_is_no_number_stops_with_a_message(tiny, tmp_path):
    with pytest.raises(ModelError, match="reward of an answer is nan"):
        run(tiny("llama"), tmp_path / "run", scorer=lambda e: [float("nan")] * len(e))


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_checkpoint(tiny, tmp_path):
    with pytest.raises(ModelError, match=r"is (nan|inf) at step"):
        run(tiny("llama"), tmp_path / "run", learning_rate=1e30, final_learning_rate=1e30)
    found = last_checkpoint(tmp_path / "run/run/checkpoints")
    assert found is None or (found / "trainer_state.json").is_file()


def test_full_tuning_exports_a_whole_model(tiny, tmp_path):
    tuned = run(tiny("llama"), tmp_path / "run", method="full", learning_rate=1e-3)
    model = AutoModelForCausalLM.from_pretrained(tuned.weights)
    assert tuned.weights.name == "model"
    base = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    assert not torch.equal(model.lm_head.weight, base.lm_head.weight)


def test_messages_for_what_cannot_be_done(tiny, tmp_path):
    with (
        pytest.raises(ConfigError, match="CUDA")
        if not torch.cuda.is_available()
        else (pytest.raises(ConfigError))
    ):
        run(tiny("llama"), tmp_path / "a", method="qlora")
    with pytest.raises(InputError, match="no demonstrations"):
        sft.tune_sft([], settings(tiny("llama")), out=tmp_path / "b", inputs={})
    with pytest.raises(ConfigError, match="select_first"):
        load_settings(SftSettings, None, {"num_train_epochs": 2})
    with pytest.raises(ConfigError, match="final_learning_rate"):
        load_settings(SftSettings, None, {"learning_rate": 1e-5})
    with pytest.raises(ConfigError, match="preset"):
        load_settings(SftSettings, None, {"preset": "lime"})
    shutil.rmtree(tmp_path / "a", ignore_errors=True)


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([3.0, 2.0, 1.0], False),
        ([3.0, 2.0, 2.5], False),
        ([3.0, 2.0, 2.5, 2.1], True),
        ([3.0, 2.0, 2.5, 1.9, 2.0], False),
        ([], False),
    ],
)
def test_a_run_ends_after_two_looks_without_a_lower_loss(losses, stops):
    state = TrainerState(log_history=[{"loss": 9.0}, *({"eval_loss": x} for x in losses)])
    control = TrainerControl()
    Patience(2).on_evaluate(TrainingArguments(), state, control)
    assert control.should_training_stop is stops


def test_patience_ends_a_run_that_learns_nothing(tiny, tmp_path):
    still = {"learning_rate": 1e-12, "final_learning_rate": 0.0, "patience": 1}
    tuned = run(tiny("llama"), tmp_path / "run", num_train_epochs=3, select_last=3, **still)
    assert len(tuned.candidates) < 3
