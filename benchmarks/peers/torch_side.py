"""What the workers on torch share: threads and seeds, counted batches, batched scores, epoch ends.

Runs inside the peers' environments. Knows nothing of which peer it serves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from benchmarks.peers.job import (
    LORA_TARGETS,
    Clock,
    Job,
    Log,
    Row,
    messages,
    probabilities_file,
    write_probabilities,
)
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

Scorer = Callable[[], Sequence[Sequence[float]]]


def begin(job: Job) -> None:
    """Threads and seeds of this process."""
    torch.set_num_threads(job.threads)
    random.seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002  (libraries of the peers draw from it)
    torch.manual_seed(job.seed)


def lora_settings(job: Job) -> dict[str, object]:
    """Arguments of `peft.LoraConfig`."""
    return {
        "r": job.lora_r,
        "lora_alpha": job.lora_alpha,
        "lora_dropout": job.lora_dropout,
        "bias": "none",
        "task_type": "SEQ_CLS",
        "target_modules": list(LORA_TARGETS),
    }


def trainer_settings(job: Job) -> dict[str, Any]:
    """Arguments of `TrainingArguments` and its descendants."""
    return {
        "output_dir": str(job.out / "trainer"),
        "num_train_epochs": job.epochs,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulate,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": job.warmup,
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "seed": job.seed,
        "save_strategy": "no",
    }


class CountingCollator:
    """A collator that counts the tokens of what it hands over."""

    def __init__(self, collate: Callable[[list[Any]], Mapping[str, Any]], log: Log) -> None:
        self._collate, self._log = collate, log

    def __call__(self, features: list[Any]) -> Mapping[str, Any]:
        """The plain collator's batch."""
        batch = self._collate(features)
        for name, value in batch.items():
            if name.endswith("attention_mask"):
                self._log.count(value)
        return batch


class EpochEnds(TrainerCallback):  # type: ignore[misc]
    """Keeps losses, times epochs, and validates after each with `score`, off the training clock."""

    def __init__(self, job: Job, clock: Clock, log: Log, ids: Sequence[str]) -> None:
        self._job, self._clock, self._log, self._ids = job, clock, log, ids
        self.score: Scorer | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """The training clock starts."""
        self._clock.switch("train")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Keep the step's loss."""
        if logs and "loss" in logs:
            self._log.losses.append(float(logs["loss"]))

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Stop the training clock, validate, and start it again."""
        epoch = self._log.end_epoch(self._clock)
        if self.score is not None:
            path = probabilities_file(self._job, epoch)
            write_probabilities(path, self._ids, self.score())
        self._clock.switch("train")


def fit(trainer: Trainer, log: Log, clock: Clock) -> None:
    """Train with counted batches; the clock is left at `save`.

    A trainer without a loss of its own is told that its model does not divide by the pairs of a
    step. It believes the contrary of sequence classifiers, and would add up the accumulated means.
    """
    if trainer.compute_loss_func is None:
        trainer.model_accepts_loss_kwargs = False
    trainer.data_collator = CountingCollator(trainer.data_collator, log)
    log.trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    trainer.train()
    clock.switch("save")


@torch.inference_mode()
def scores(
    forward: Callable[..., torch.Tensor],
    tokenizer: Any,  # noqa: ANN401  (of whichever transformers is installed)
    texts: Sequence[str],
    batch: int,
) -> np.ndarray:
    """(texts, k) outputs of `forward(input_ids, attention_mask)`, in the texts' order.

    Texts of like length go together, so that little is padded.
    """
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda k: -len(encoded[k]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        width = len(encoded[rows[0]])
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for k, row in enumerate(rows):
            ids[k, : len(encoded[row])] = torch.tensor(encoded[row])
            mask[k, : len(encoded[row])] = 1
        out = forward(input_ids=ids, attention_mask=mask).float().numpy()
        found.update(zip(rows, out, strict=True))
    return np.stack([found[k] for k in range(len(encoded))])


def reward_probabilities(
    forward: Callable[..., torch.Tensor],
    tokenizer: Any,  # noqa: ANN401
    rows: Sequence[Row],
    batch: int,
) -> list[tuple[float]]:
    """P(a beats b) = σ(reward of a − reward of b) (Bradley and Terry, 1952), one per row."""
    texts = [
        tokenizer.apply_chat_template(messages(row.prompt, answer), tokenize=False)
        for row in rows
        for answer in (row.a, row.b)
    ]
    rewards = scores(forward, tokenizer, texts, 2 * batch).reshape(len(rows), 2)
    with np.errstate(over="ignore"):
        return [(float(p),) for p in 1 / (1 + np.exp(rewards[:, 1] - rewards[:, 0]))]


def conversations(rows: Sequence[Row]) -> list[dict[str, list[dict[str, str]]]]:
    """Decisive rows as prompt, chosen and rejected messages; ties are left out."""
    found = []
    for row in rows:
        if row.label != "tie":
            chosen, rejected = (messages(row.prompt, answer) for answer in row.winner_first)
            found.append({"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]})
    return found
