"""What all of TRL's trainers share here: arguments, guards, progress, checkpoints, export.

Knows nothing of losses and data; the loop itself is transformers' Trainer.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from datasets import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled
from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from litee.errors import ModelError
from litee.finetune.backbones import quiet
from litee.finetune.chat_model import ChatModel, base_name, known_warnings
from litee.finetune.chat_settings import ChatSettings
from litee.finetune.device import device_name
from litee.finetune.heap import kept_memory
from litee.progress import progress
from litee.rundir import Json, RunDir, write_error, write_json

_Config = TypeVar("_Config", bound=TrainingArguments)

#: Written last into a checkpoint: without it the checkpoint is not whole.
_STATE = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class Curve:
    """What a trainer logged.

    Attributes:
        steps: (step, name → value) in order; NaN and infinities are left out.
    """

    steps: tuple[tuple[int, Mapping[str, float]], ...]

    def values(self, name: str) -> list[tuple[int, float]]:
        """(step, value) pairs of one quantity."""
        return [(step, logged[name]) for step, logged in self.steps if name in logged]

    def to_json(self) -> Json:
        """A list of objects with `step` first."""
        return [{"step": step, **logged} for step, logged in self.steps]


def make_arguments(
    kind: type[_Config], settings: ChatSettings, folder: Path, *, device: str, **own: object
) -> _Config:
    """A TRL config with what all of them share; `own` goes on top.

    Checkpoints are kept until the run ends, logs stay in memory, nothing is reported anywhere,
    and a loss that is not a number shows as such.
    """
    batch = cast(int, own.pop("batch_size"))
    micro = min(settings.micro_batch, batch)
    shared: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro,
        "per_device_eval_batch_size": micro,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": device == "cuda" and settings.dtype != "float32",
        "use_cpu": device == "cpu",
        "activation_checkpointing": settings.recompute,
        "gradient_checkpointing": None,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": device == "cuda",
    }
    with known_warnings():
        return kind(**{**shared, **own})


class Guard(TrainerCallback):
    """Stops a run whose loss or gradient is not a number; the last checkpoint stays as it is."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, object] | None = None,
        **_: object,
    ) -> None:
        """Look at what was logged for this step."""
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise ModelError(
                    f"{name.replace('_', ' ')} is {value} at step {state.global_step}",
                    place=str(args.output_dir),
                    fix="lower the learning rate, or use --dtype float32; the last checkpoint is "
                    "intact",
                )


class Patience(TrainerCallback):
    """Ends a run when the held-out loss has not fallen for some looks in a row.

    It reads the run's own log, so a resumed run counts the looks before it was stopped.

    Args:
        looks: without a lower loss than before.
    """

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """A run that was killed when it was to end ends after its next step."""
        self.on_evaluate(args, state, control)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Compare with the lowest loss so far."""
        losses = [float(log["eval_loss"]) for log in state.log_history if "eval_loss" in log]
        if losses and len(losses) - 1 - losses.index(min(losses)) >= self.looks:
            control.should_training_stop = True


class Steps(TrainerCallback):
    """Shows optimiser steps as they are made."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._open: Any = None
        self._advance: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Open the bar."""
        self._open = progress(self.title, state.max_steps, "steps")
        self._advance = self._open.__enter__()
        self._advance(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """One step further."""
        self._advance(1)

    def close(self) -> None:
        """Close the bar, also after an error."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def run_trainer(trainer: Trainer, folder: Path, title: str) -> None:
    """Train to the end, from the last whole checkpoint in the folder when there is one.

    Raises:
        ModelError: the loss is not a number, or a checkpoint cannot be read.
        ResourceError: the disk is full.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    steps = Steps(title)
    trainer.add_callback(steps)
    trainer.add_callback(Guard())
    last = last_checkpoint(folder)
    try:
        with known_warnings(), no_bars(), kept_memory():
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except OSError as error:
        raise write_error(error, folder) from error
    finally:
        steps.close()


def checkpoints(folder: Path) -> dict[int, Path]:
    """Step → whole checkpoint, in order of steps."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        if path.name.rpartition("-")[2].isdigit() and _is_whole(path):
            found[int(path.name.rpartition("-")[2])] = path
    return dict(sorted(found.items()))


def _is_whole(checkpoint: Path) -> bool:
    """Whether the file that is written last is there to its end."""
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint; those that a kill left unfinished are removed."""
    if not folder.is_dir():
        return None
    whole = checkpoints(folder)
    for path in folder.glob("checkpoint-*"):
        if path not in whole.values():
            shutil.rmtree(path, ignore_errors=True)
    return list(whole.values())[-1] if whole else None


def curve_of(checkpoint: Path) -> Curve:
    """What was logged up to a checkpoint."""
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    steps = []
    for entry in state["log_history"]:
        logged = {
            name: float(value)
            for name, value in entry.items()
            if name not in ("step", "epoch")
            and isinstance(value, int | float)
            and math.isfinite(value)
        }
        steps.append((int(entry["step"]), logged))
    return Curve(tuple(steps))


def load_weights(chat: ChatModel, checkpoint: Path) -> None:
    """Put a checkpoint's weights into the model.

    Raises:
        ModelError: the files are damaged or belong to another model.
    """
    try:
        if isinstance(chat.model, PeftModel):
            state = load_file(checkpoint / "adapter_model.safetensors")
            set_peft_model_state_dict(chat.model, state)
            return
        state = {}
        for file in sorted(checkpoint.glob("model*.safetensors")):
            state |= load_file(file)
        missing, unknown = chat.model.load_state_dict(state, strict=False)
        tied = set(chat.model.all_tied_weights_keys)
        if not state or unknown or set(missing) - tied:
            raise ValueError("the files lack weights of the model")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"cannot read the weights: {error}",
            place=str(checkpoint),
            fix="run again from the start",
        ) from error


def export(chat: ChatModel, target: Path) -> None:
    """Write the tuned model: a PEFT adapter, or a whole model; with its tokenizer.

    The folder appears only when it is complete. Both forms load in plain transformers and vLLM.
    """
    scratch = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        with known_warnings(), quiet():
            if isinstance(chat.model, PeftModel):
                chat.model.peft_config["default"].base_model_name_or_path = base_name(chat.folder)
                chat.model.save_pretrained(str(scratch), save_embedding_layers=False)
            else:
                chat.model.save_pretrained(scratch)
            chat.tokenizer.save_pretrained(scratch)
            if chat.plain.generation_config is not None:
                chat.plain.generation_config.save_pretrained(scratch)
    except OSError as error:
        raise write_error(error, target) from error
    shutil.rmtree(target, ignore_errors=True)
    scratch.replace(target)


def write_receipt(run: RunDir, settings: ChatSettings, inputs: Mapping[str, str]) -> None:
    """What the run cost, to receipt.json."""
    receipt = run.receipt(
        seed=settings.seed,
        threads=torch.get_num_threads(),
        device=device_name(),
        inputs=dict(inputs),
    )
    if torch.cuda.is_available():
        receipt.peak_gpu_mb = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    write_json(run.path / "receipt.json", receipt.to_json())


@contextmanager
def no_bars() -> Iterator[None]:
    """Within the block the datasets library shows no bars of its own."""
    shown = is_progress_bar_enabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
