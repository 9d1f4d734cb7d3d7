"""Supervised fine-tuning of a chat model on demonstrations, over TRL's SFTTrainer.

TRL's own path is used: its collator, packing, fused loss and transformers' loop. Added here are
LIMA's end-of-turn token, residual dropout and the choice of a checkpoint by the quality of its
answers. Knows nothing of judges: a scorer is handed in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from litee.errors import ConfigError, InputError
from litee.finetune.chat_data import (
    ChatEncoder,
    EncodedChats,
    encode_demonstrations,
    hold_out,
)
from litee.finetune.chat_model import ChatModel, known_warnings, load_chat_model
from litee.finetune.chat_settings import SftSettings
from litee.finetune.chat_training import (
    Patience,
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
from litee.finetune.residual_dropout import add_residual_dropout
from litee.finetune.rewards import RewardFunction
from litee.finetune.sft_selection import Candidate, choose, find_candidates, scored
from litee.progress import console
from litee.records import Demonstration, Dropped
from litee.rundir import Json, RunDir, sha256_json, write_json

ADAPTER, MODEL = "adapter", "model"


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished tuning run.

    Attributes:
        folder: the run's folder.
        weights: folder of the adapter, or of the model when all weights were trained.
        chosen: the checkpoint that was exported.
        candidates: all that could be chosen.
        chosen_by: what decided, in words.
        dropped: demonstrations that were not used, by reason.
        noticed: demonstrations that were cut, by reason.
    """

    folder: Path
    weights: Path
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    chosen_by: str
    dropped: Dropped
    noticed: Dropped


def tune_sft(
    demonstrations: Sequence[Demonstration],
    settings: SftSettings,
    *,
    out: Path,
    inputs: Mapping[str, str],
    development: Sequence[Demonstration] | None = None,
    scorer: RewardFunction | None = None,
    scorer_name: str = "",
    resume: bool = False,
) -> Tuned:
    """Tune a chat model on demonstrations.

    Args:
        demonstrations: what to learn.
        settings: backbone, recipe and sizes.
        out: the run's folder; the result is `adapter/` or `model/` in it.
        inputs: input file → sha256, for the manifest.
        development: held-out demonstrations; None splits `dev_prompts` of them off.
        scorer: rewards answers to the held-out prompts and so chooses the checkpoint; None
            leaves the choice to the held-out loss.
        scorer_name: what the scorer is, for the manifest.
        resume: go on with an earlier run.

    Raises:
        ConfigError: settings do not fit together, the machine, or the run to resume.
        InputError: no demonstration is left.
        ModelError: the backbone cannot be used, or the loss is not a number.
    """
    use_threads(settings.threads)
    train, dev = _split(demonstrations, development, settings)
    manifest: dict[str, Json] = {
        "kind": "sft",
        "settings": json.loads(settings.model_dump_json()),
        "inputs": dict(inputs),
        "demonstrations": _digest(demonstrations),
        "development": _digest(development) if development is not None else "",
        "scorer": scorer_name,
    }
    run = RunDir(out, manifest, resume=resume)
    tuned = _tune(train, dev, settings, scorer if dev else None, run)
    write_receipt(run, settings, inputs)
    if not settings.keep_checkpoints:
        shutil.rmtree(_checkpoint_folder(run), ignore_errors=True)
    return tuned


def _checkpoint_folder(run: RunDir) -> Path:
    return run.path / "run" / "checkpoints"


def _tune(
    train: Sequence[Demonstration],
    dev: Sequence[Demonstration],
    settings: SftSettings,
    scorer: RewardFunction | None,
    run: RunDir,
) -> Tuned:
    """Train, choose a checkpoint and export it, each where an earlier session has not."""
    chat = load_chat_model(settings, eot=settings.eot)
    encoder = ChatEncoder(chat.tokenizer, settings.max_length)
    data = encode_demonstrations(train, encoder)
    held = encode_demonstrations(dev, encoder) if dev else None
    _say(data, held, chat)
    folder = _checkpoint_folder(run)
    run.run("train", lambda: _train(chat, data, held, settings, folder))
    candidates = find_candidates(folder, settings, run)
    if scorer is not None:
        candidates = [
            scored(chat, encoder, one, dev, scorer, settings=settings, folder=folder, run=run)
            for one in candidates
        ]
    chosen, reason = choose(candidates, by_answers=scorer is not None)
    weights = run.path / (MODEL if settings.method == "full" else ADAPTER)
    run.run("export", lambda: _export(chat, checkpoints(folder)[chosen.step], weights))
    tuned = Tuned(run.path, weights, chosen, tuple(candidates), reason, data.dropped, data.noticed)
    _write(tuned, chat, data, folder, run)
    return tuned


def sft_arguments(settings: SftSettings, folder: Path, *, device: str, evaluate: bool) -> SFTConfig:
    """TRL's config of a run: LIMA's optimiser and schedule are transformers' own.

    The rate goes in a straight line from `learning_rate`, without warm-up, to
    `final_learning_rate`: transformers' polynomial schedule of power 1.
    """
    falling = settings.final_learning_rate < settings.learning_rate
    schedule = {"lr_end": settings.final_learning_rate, "power": 1.0} if falling else None
    return make_arguments(
        SFTConfig,
        settings,
        folder,
        device=device,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="polynomial" if falling else "constant",
        lr_scheduler_kwargs=schedule,
        warmup_steps=0,
        weight_decay=settings.weight_decay,
        num_train_epochs=settings.num_train_epochs,
        max_length=settings.max_length,
        packing=settings.packing,
        packing_strategy="bfd",
        eval_packing=False,
        save_strategy="epoch",
        eval_strategy="epoch" if evaluate else "no",
        prediction_loss_only=True,
    )


def sft_trainer(
    chat: ChatModel, data: EncodedChats, held: EncodedChats | None, arguments: SFTConfig
) -> SFTTrainer:
    """TRL's trainer over rows that are encoded already.

    Raises:
        ConfigError: packing with an attention that would let packed rows see each other.
    """
    attention = chat.plain.config._attn_implementation
    apart = attention in ("sdpa", "eager", "flex_attention") or "flash" in attention
    if arguments.packing and not apart:
        raise ConfigError(
            f"packing = true, but with {attention} attention packed rows would see each other",
            fix="set packing to false",
        )
    with known_warnings(), no_bars():
        return SFTTrainer(
            chat.model,
            args=arguments,
            train_dataset=_table(data),
            eval_dataset=None if held is None else _table(held),
            processing_class=chat.tokenizer,
        )


def _train(
    chat: ChatModel,
    data: EncodedChats,
    held: EncodedChats | None,
    settings: SftSettings,
    folder: Path,
) -> int:
    arguments = sft_arguments(settings, folder, device=chat.device, evaluate=held is not None)
    trainer = sft_trainer(chat, data, held, arguments)
    if held is not None and settings.patience:
        trainer.add_callback(Patience(settings.patience))
    handles = add_residual_dropout(chat.plain, settings.residual_dropout)
    try:
        run_trainer(trainer, folder, "tuning")
    finally:
        for handle in handles:
            handle.remove()
    return data.tokens * settings.num_train_epochs


def _export(chat: ChatModel, checkpoint: Path, target: Path) -> int:
    load_weights(chat, checkpoint)
    export(chat, target)
    return 0


def _split(
    demonstrations: Sequence[Demonstration],
    development: Sequence[Demonstration] | None,
    settings: SftSettings,
) -> tuple[list[Demonstration], list[Demonstration]]:
    if not demonstrations:
        raise InputError("no demonstrations", fix="give a file with at least one")
    if development is not None:
        return list(demonstrations), list(development)
    return hold_out(demonstrations, settings.dev_prompts, settings.seed)


def _table(data: EncodedChats) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [list(row.ids) for row in data.rows],
            "labels": [list(row.labels) for row in data.rows],
        }
    )


def _digest(demonstrations: Sequence[Demonstration]) -> str:
    return sha256_json([[d.id, [[m.role, m.text] for m in d.messages]] for d in demonstrations])


def _write(tuned: Tuned, chat: ChatModel, data: EncodedChats, folder: Path, run: RunDir) -> None:
    """tuning.json: what was chosen and why, what was learnt from, and the curve."""
    whole = checkpoints(folder)
    if not whole:
        return  # an earlier session wrote it
    record: dict[str, Json] = {
        "kind": "sft",
        "weights": tuned.weights.name,
        "backbone": {"name": chat.folder.name, "sha256": chat.folder.sha256},
        "end_of_turn": asdict(chat.eot),
        "chosen": asdict(tuned.chosen),
        "chosen_by": tuned.chosen_by,
        "candidates": [asdict(one) for one in tuned.candidates],
        "rows": len(data.rows),
        "tokens": data.tokens,
        "trained_tokens": data.trained_tokens,
        "dropped": dict(tuned.dropped.counts),
        "noticed": dict(tuned.noticed.counts),
        "curve": curve_of(list(whole.values())[-1]).to_json(),
    }
    write_json(run.path / "tuning.json", record)


def _say(data: EncodedChats, held: EncodedChats | None, chat: ChatModel) -> None:
    console.print(
        f"{len(data.rows):,} demonstrations, {data.tokens:,} tokens, {data.trained_tokens:,} of "
        f"them trained; {len(held.rows) if held else 0:,} held out; turns end with "
        f"{chat.eot.token} (from the {_ORIGINS[chat.eot.origin]})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for reason, count in {**data.dropped.counts, **data.noticed.counts}.items():
        console.print(f"  {count:,}: {reason}", highlight=False, markup=False)


_ORIGINS = {
    "template": "chat template",
    "reserve": "vocabulary, where no base model has used it",
    "added": "tokens added here",
}
