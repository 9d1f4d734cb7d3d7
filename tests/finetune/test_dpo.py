"""DPO over TRL: loss and gradients by hand, the reference, resume, samples, export."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from litee.config import load_settings
from litee.errors import ConfigError, InputError, ModelError
from litee.finetune import dpo
from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_model import load_chat_model, lora_config
from litee.finetune.chat_settings import DpoSettings
from litee.finetune.chat_training import last_checkpoint
from litee.finetune.preference_data import Preference, Preferences, encode_preferences
from litee.records import Dropped, Message

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def ask(text):
    return (Message("user", text),)


ROWS = tuple(
    Preference(ask(f"q{k}"), better, worse)
    for k, (better, worse) in enumerate(
        [("yes", "no no"), ("a b", "c"), ("", "x"), ("long one", "b")]
    )
)
GIVEN = Preferences(ROWS, Dropped({"tied votes": 2}), Dropped())


def settings(folder, **changes):
    common = {
        "backbone": str(folder),
        "lora_r": 2,
        "batch_size": 2,
        "micro_batch": 2,
        "max_length": 80,
        "num_train_epochs": 2,
        "save_steps": 1,
        "learning_rate": 1e-3,
        "answer_tokens": 5,
        "threads": 1,
    }
    return DpoSettings(**(common | changes))


def log_p(model, prompt, answer):
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0]
    told = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return sum(told[k, token] for k, token in enumerate(answer))


def by_hand(model, rows, beta, *, ipo=False):
    """Mean loss of DPO (Rafailov et al., 2023, eq. 7), or of IPO (Azar et al., 2023, eq. 17)."""
    losses = []
    for row in rows:
        ratios = []
        for answer in (row.chosen, row.rejected):
            with torch.no_grad(), model.disable_adapter():
                reference = log_p(model, row.prompt, answer)
            ratio = log_p(model, row.prompt, answer) - reference
            ratios.append(ratio / len(answer) if ipo else ratio)
        gap = ratios[0] - ratios[1]
        losses.append((gap - 1 / (2 * beta)) ** 2 if ipo else -functional.logsigmoid(beta * gap))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_loss_and_gradients_equal_a_hand_computation(tiny, tmp_path, family, loss):
    chosen = settings(tiny(family), beta=0.3, loss=loss, batch_size=4, micro_batch=4)
    chat = load_chat_model(chosen, adapt=False)
    rows, _ = encode_preferences(ROWS, ChatEncoder(chat.tokenizer, 80))
    arguments = dpo.dpo_arguments(chosen, tmp_path, device="cpu")
    trainer = dpo.dpo_trainer(chat, rows, arguments, lora_config(chosen))
    model = trainer.model
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.05)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n for n in trained)
    batch = next(iter(trainer.get_train_dataloader()))
    found = trainer.compute_loss(model, batch)
    found.backward()
    gradients = {n: p.grad.clone() for n, p in trained.items()}
    model.zero_grad()
    expected = by_hand(model, rows, 0.3, ipo=loss == "ipo")
    expected.backward()
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-4, atol=1e-5)
    assert max(g.abs().max() for g in gradients.values()) > 1e-3
    for name, parameter in trained.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=2e-3, atol=1e-5)


def test_the_first_loss_is_log_two(tiny, tmp_path):
    """Before the first step the model is its own reference, so every margin is 0."""
    done = dpo.tune_dpo(GIVEN, settings(tiny("llama")), out=tmp_path / "run", inputs={})
    report = json.loads((tmp_path / "run/tuning.json").read_text())
    assert report["curve"][0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert report["dropped"] == {"tied votes": 2}
    assert done.preferences == 4
    assert done.steps == 4
    base = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    tuned = PeftModel.from_pretrained(base, str(done.weights))
    assert list(tuned.peft_config) == ["default"]
    assert not (done.weights / "ref").exists()
    assert json.loads((tmp_path / "run/receipt.json").read_text())["tokens"] > 0


def test_a_killed_run_resumes_to_the_same_weights(tiny, tmp_path, monkeypatch):
    chosen = settings(tiny("llama"))
    straight = dpo.tune_dpo(GIVEN, chosen, out=tmp_path / "straight", inputs={})
    real, stops = dpo.run_trainer, []

    def stop_after_two_steps(trainer, *rest):
        class Stop(type(trainer.callback_handler.callbacks[0])):
            def on_save(self, args, state, control, **_):
                if state.global_step == 3 and not stops:
                    stops.append(1)
                    raise KeyboardInterrupt

        trainer.add_callback(Stop())
        real(trainer, *rest)

    monkeypatch.setattr(dpo, "run_trainer", stop_after_two_steps)
    with pytest.raises(KeyboardInterrupt):
        dpo.tune_dpo(GIVEN, chosen, out=tmp_path / "killed", inputs={})
    with pytest.raises(ConfigError, match="already holds a run"):
        dpo.tune_dpo(GIVEN, chosen, out=tmp_path / "killed", inputs={})
    resumed = dpo.tune_dpo(GIVEN, chosen, out=tmp_path / "killed", inputs={}, resume=True)
    a, b = (load_file(d.weights / "adapter_model.safetensors") for d in (straight, resumed))
    assert stops
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_checkpoint_cut_in_its_last_file_is_not_gone_on_with(tmp_path):
    """As SIGKILL leaves it: what was written before counts, what was cut is removed."""
    folder = tmp_path / "checkpoints"
    for step, content in ((1, '{"global_step": 1}'), (2, ""), (3, '{"global_st')):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(content)
    assert last_checkpoint(folder) == folder / "checkpoint-1"
    assert [p.name for p in folder.iterdir()] == ["checkpoint-1"]


def test_samples_are_ranked_once_and_learnt_from(tiny, tmp_path):
    calls = []

    def reward(exchanges):
        calls.append(len(exchanges))
        return [float(k) for k in range(len(exchanges))]

    prompts = [ask("Hi"), ask("Is it far?")]
    chosen = settings(tiny("llama"), samples=3, micro_batch=1)
    out = tmp_path / "run"
    dpo.tune_dpo_on_samples(prompts, reward, chosen, out=out, inputs={})
    again = dpo.tune_dpo_on_samples(prompts, reward, chosen, out=out, inputs={}, resume=True)
    assert calls == [6]
    assert again.preferences == 2
    saved = json.loads((out / "run/samples.json").read_text())
    assert [s["prompt"] for s in saved] == ["Hi", "Is it far?"]
    assert sorted(r for s in saved for r in s["rewards"]) == [0, 1, 2, 3, 4, 5]


def test_constant_and_broken_rewards_stop_before_training(tiny, tmp_path):
    prompts = [ask("Hi")]
    for number, (reward, error, text) in enumerate(
        [
            (lambda e: [1.0] * len(e), InputError, "differ by less|same text"),
            (lambda e: [float("nan")] * len(e), ModelError, "is nan"),
        ]
    ):
        with pytest.raises(error, match=text):
            dpo.tune_dpo_on_samples(
                prompts, reward, settings(tiny("llama")), out=tmp_path / str(number), inputs={}
            )
    with pytest.raises(InputError, match="no prompts"):
        dpo.tune_dpo_on_samples(
            [], lambda e: [], settings(tiny("llama")), out=tmp_path / "x", inputs={}
        )


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match="label_smoothing"):
        load_settings(DpoSettings, None, {"label_smoothing": 0.1})
    with pytest.raises(ConfigError, match="multiple of micro_batch"):
        load_settings(DpoSettings, None, {"batch_size": 6, "micro_batch": 4})
    assert load_settings(DpoSettings, None, {"loss": "robust", "label_smoothing": 0.1}).loss


def test_a_base_model_is_refused_with_the_way_out(tiny, tmp_path):
    with pytest.raises(ModelError, match="no chat template"):
        dpo.tune_dpo(GIVEN, settings(tiny("llama-base")), out=tmp_path / "run", inputs={})
