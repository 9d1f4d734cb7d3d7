"""Direct preference optimisation over TRL's DPOTrainer; the reference is the adapter switched off.

Preferences come from people's votes, or from the model's own samples ranked by a reward. Knows
nothing of judges: the reward is handed in.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from litee.errors import InputError
from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_model import ChatModel, known_warnings, load_chat_model, lora_config
from litee.finetune.chat_sampling import Sampling, sample_answers
from litee.finetune.chat_settings import DpoSettings
from litee.finetune.chat_training import (
    checkpoints,
    curve_of,
    export,
    load_weights,
    make_arguments,
    no_bars,
    run_trainer,
    write_receipt,
)
from litee.finetune.device import use_threads
from litee.finetune.preference_data import (
    EncodedPreference,
    Preference,
    Preferences,
    encode_preferences,
    preferences_from_samples,
)
from litee.finetune.rewards import Exchange, RewardFunction, checked_rewards
from litee.progress import console
from litee.records import Dropped, Message
from litee.rundir import Json, RunDir, sha256_json, write_json


@dataclass(frozen=True, slots=True)
class DpoResult:
    """A finished run.

    Attributes:
        weights: folder of the adapter, or of the model when all weights were trained.
        preferences: how many were learnt from.
        steps: optimiser steps.
        accuracy: share of the last logged batches' pairs that the tuned model ranks as asked.
        margin: their mean reward margin, β times the difference of log ratios.
        dropped: what was not used, by reason.
        noticed: what was used in a special way, by reason.
    """

    weights: Path
    preferences: int
    steps: int
    accuracy: float
    margin: float
    dropped: Dropped
    noticed: Dropped


class EncodedDPOTrainer(DPOTrainer):
    """TRL's trainer over preferences that are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset


def tune_dpo(
    preferences: Preferences,
    settings: DpoSettings,
    *,
    out: Path,
    inputs: Mapping[str, str],
    resume: bool = False,
) -> DpoResult:
    """Tune a chat model on preferences, e.g. from votes.

    Args:
        preferences: what is better than what.
        settings: backbone, loss and sizes.
        out: the run's folder; the result is `adapter/` or `model/` in it.
        inputs: input file → sha256, for the manifest.
        resume: go on with an earlier run.

    Raises:
        ConfigError: settings do not fit together, the machine, or the run to resume.
        InputError: no preference is left.
        ModelError: the backbone cannot be used, or the loss is not a number.
    """
    use_threads(settings.threads)
    rows = [[r.chosen, r.rejected, *(m.text for m in r.messages)] for r in preferences.rows]
    run = RunDir(out, _manifest("votes", settings, inputs, sha256_json(rows)), resume=resume)
    return _tune(preferences, settings, run, inputs)


def tune_dpo_on_samples(
    conversations: Sequence[tuple[Message, ...]],
    reward: RewardFunction,
    settings: DpoSettings,
    *,
    out: Path,
    inputs: Mapping[str, str],
    reward_name: str = "",
    resume: bool = False,
) -> DpoResult:
    """Sample answers, rank them by a reward, and tune on best against worst.

    Args:
        conversations: prompts, each ending with a user message.
        reward: ranks the samples.
        settings: backbone, sampling, margin, loss and sizes.
        out: the run's folder.
        inputs: input file → sha256, for the manifest.
        reward_name: what the reward is, for the manifest.
        resume: go on with an earlier run.

    Raises:
        ConfigError, InputError, ModelError: as `tune_dpo`; also a reward that is not a number,
            and one that does not tell the samples apart.
    """
    use_threads(settings.threads)
    if not conversations:
        raise InputError("no prompts", fix="give a file with at least one")
    texts = [[m.text for m in messages] for messages in conversations]
    manifest = _manifest(f"samples ranked by {reward_name}", settings, inputs, sha256_json(texts))
    run = RunDir(out, manifest, resume=resume)
    kept = out / "run" / "samples.json"
    run.run("samples", lambda: _sample(conversations, reward, settings, kept))
    saved = json.loads(kept.read_text(encoding="utf-8"))
    preferences = preferences_from_samples(
        conversations,
        [one["answers"] for one in saved],
        [one["rewards"] for one in saved],
        settings.margin,
        finished=[one["finished"] for one in saved],
    )
    return _tune(preferences, settings, run, inputs)


def dpo_arguments(settings: DpoSettings, folder: Path, *, device: str) -> DPOConfig:
    """TRL's config of a run."""
    losses = [settings.loss, *(["sft"] if settings.sft_weight else [])]
    return make_arguments(
        DPOConfig,
        settings,
        folder,
        device=device,
        batch_size=settings.batch_size,
        loss_type=losses,
        loss_weights=[1.0, settings.sft_weight][: len(losses)],
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        num_train_epochs=settings.num_train_epochs,
        max_length=settings.max_length,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
    )


def dpo_trainer(
    chat: ChatModel,
    rows: Sequence[EncodedPreference],
    arguments: DPOConfig,
    lora: LoraConfig | None,
) -> DPOTrainer:
    """TRL's trainer; with LoRA the reference is the same model with the adapter off."""
    table = Dataset.from_dict(
        {
            "prompt_ids": [list(r.prompt) for r in rows],
            "chosen_ids": [list(r.chosen) for r in rows],
            "rejected_ids": [list(r.rejected) for r in rows],
        }
    )
    with known_warnings(), no_bars():
        return EncodedDPOTrainer(
            chat.model,
            args=arguments,
            train_dataset=table,
            processing_class=chat.tokenizer,
            peft_config=lora,
        )


def _tune(
    preferences: Preferences, settings: DpoSettings, run: RunDir, inputs: Mapping[str, str]
) -> DpoResult:
    folder = run.path / "run" / "checkpoints"
    weights = run.path / ("model" if settings.method == "full" else "adapter")
    report = run.path / "tuning.json"
    _say(preferences)
    run.run("train", lambda: _train(preferences.rows, settings, folder, report, preferences))

    def finish() -> int:
        chat = load_chat_model(settings)
        load_weights(chat, list(checkpoints(folder).values())[-1])
        export(chat, weights)
        return 0

    run.run("export", finish)
    write_receipt(run, settings, inputs)
    if not settings.keep_checkpoints:
        shutil.rmtree(folder, ignore_errors=True)
    saved = json.loads(report.read_text(encoding="utf-8"))
    return DpoResult(
        weights,
        saved["preferences"],
        saved["steps"],
        saved["accuracy"],
        saved["margin"],
        Dropped(saved["dropped"]),
        Dropped(saved["noticed"]),
    )


def _train(
    rows: Sequence[Preference],
    settings: DpoSettings,
    folder: Path,
    report: Path,
    preferences: Preferences,
) -> int:
    chat = load_chat_model(settings, adapt=False)
    encoder = ChatEncoder(chat.tokenizer, settings.max_length)
    encoded, too_long = encode_preferences(rows, encoder)
    arguments = dpo_arguments(settings, folder, device=chat.device)
    trainer = dpo_trainer(chat, encoded, arguments, lora_config(settings))
    run_trainer(trainer, folder, "preferences")
    curve = curve_of(list(checkpoints(folder).values())[-1])
    steps = int(trainer.state.global_step)
    record: dict[str, Json] = {
        "kind": "dpo",
        "backbone": {"name": chat.folder.name, "sha256": chat.folder.sha256},
        "preferences": len(encoded),
        "steps": steps,
        "accuracy": _mean_of_last(curve.values("rewards/accuracies")),
        "margin": _mean_of_last(curve.values("rewards/margins")),
        "dropped": {**preferences.dropped.counts, **too_long.counts},
        "noticed": dict(preferences.noticed.counts),
        "end_of_turn": asdict(chat.eot),
        "curve": curve.to_json(),
    }
    write_json(report, record)
    tokens = sum(2 * len(r.prompt) + len(r.chosen) + len(r.rejected) for r in encoded)
    del trainer, chat
    gc.collect()
    return 2 * tokens * settings.num_train_epochs  # tuned model and reference


def _sample(
    conversations: Sequence[tuple[Message, ...]],
    reward: RewardFunction,
    settings: DpoSettings,
    kept: Path,
) -> int:
    """Samples and their rewards, to a file."""
    chat = load_chat_model(settings, adapt=False)
    encoder = ChatEncoder(chat.tokenizer, settings.max_length)
    asked = [messages for messages in conversations for _ in range(settings.samples)]
    how = Sampling(settings.answer_tokens, settings.temperature, settings.top_p, seed=settings.seed)
    drawn = sample_answers(chat.model, encoder, chat.tokenizer, asked, how, title="samples")
    exchanges = [
        Exchange(messages, one.text, one.finished)
        for messages, one in zip(asked, drawn, strict=True)
    ]
    rewards = checked_rewards(reward, exchanges)
    size = settings.samples
    write_json(
        kept,
        [
            {
                "prompt": messages[-1].text,
                "answers": [one.text for one in drawn[k * size : (k + 1) * size]],
                "finished": [one.finished for one in drawn[k * size : (k + 1) * size]],
                "rewards": rewards[k * size : (k + 1) * size],
            }
            for k, messages in enumerate(conversations)
        ],
    )
    return sum(one.tokens for one in drawn)


def _manifest(
    source: str, settings: DpoSettings, inputs: Mapping[str, str], digest: str
) -> dict[str, Json]:
    return {
        "kind": "dpo",
        "source": source,
        "settings": json.loads(settings.model_dump_json()),
        "inputs": dict(inputs),
        "data": digest,
    }


def _mean_of_last(values: Sequence[tuple[int, float]], count: int = 10) -> float:
    last = [value for _, value in values[-count:]]
    return sum(last) / max(1, len(last))


def _say(preferences: Preferences) -> None:
    console.print(f"{len(preferences.rows):,} preferences", highlight=False)
    counts = {**preferences.dropped.counts}
    for reason, count in counts.items():
        console.print(f"  left out {count:,}: {reason}", highlight=False, markup=False)
    for reason, count in preferences.noticed.counts.items():
        console.print(f"  {count:,}: {reason}", highlight=False, markup=False)
