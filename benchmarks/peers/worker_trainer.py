"""Worker: the plain way, transformers' Trainer and PEFT on a three-label sequence classifier.

Prompt, A and B in one sequence; prediction averages both orders of the answers. Runs in the
environment `trl`, whose transformers and PEFT it uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from benchmarks.peers.job import (
    Clock,
    Job,
    Log,
    Row,
    probabilities_file,
    read_rows,
    run_worker,
    write_probabilities,
)
from benchmarks.peers.torch_side import (
    EpochEnds,
    begin,
    fit,
    lora_settings,
    scores,
    trainer_settings,
)
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

_LABELS = ("a", "b", "tie")


def text_of(prompt: Sequence[str], a: Sequence[str], b: Sequence[str]) -> str:
    """Every turn with both answers, then the question."""
    turns = [
        f"### Prompt\n{p}\n\n### Answer A\n{x}\n\n### Answer B\n{y}\n\n"
        for p, x, y in zip(prompt, a, b, strict=True)
    ]
    return "".join(turns) + "### Better answer (A, B or tie)\n"


def load(job: Job) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = AutoTokenizer.from_pretrained(job.backbone)
    model = AutoModelForSequenceClassification.from_pretrained(
        job.backbone, num_labels=3, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    return model, tokenizer


def probabilities(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    batch: int,
    *,
    swap: bool,
) -> np.ndarray:
    """(rows, 3); with `swap`, the mean over both orders of the answers."""

    def forward(**inputs: torch.Tensor) -> torch.Tensor:
        return model(**inputs).logits.softmax(-1)

    model.eval()
    found = scores(forward, tokenizer, [text_of(r.prompt, r.a, r.b) for r in rows], batch)
    if swap:
        swapped = [text_of(r.prompt, r.b, r.a) for r in rows]
        found = (found + scores(forward, tokenizer, swapped, batch)[:, [1, 0, 2]]) / 2
    return found


def summed_loss(
    outputs: SequenceClassifierOutputWithPast,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Cross-entropy over the pairs of an optimiser step.

    The Trainer's own way would add up the means of the accumulated passes here: it trusts a model
    that takes loss arguments to divide, and sequence classifiers do not.
    """
    total = torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def train(job: Job, clock: Clock) -> Log:
    begin(job)
    model, tokenizer = load(job)
    model = get_peft_model(model, LoraConfig(**lora_settings(job)))
    rows, valid = read_rows(job.train), read_rows(job.valid)
    texts = tokenizer(
        [text_of(r.prompt, r.a, r.b) for r in rows], truncation=True, max_length=job.max_length
    )
    data = Dataset.from_dict({**texts, "labels": [_LABELS.index(r.label) for r in rows]})
    log = Log()
    ends = EpochEnds(job, clock, log, [r.id for r in valid])
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**trainer_settings(job)),
        train_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=summed_loss,
        callbacks=[ends],
    )
    ends.score = lambda: probabilities(model, tokenizer, valid, job.predict_batch, swap=False)
    fit(trainer, log, clock)
    model.save_pretrained(job.out / "adapter")
    return log


def predict(job: Job, clock: Clock) -> None:
    begin(job)
    base, tokenizer = load(job)
    model = PeftModel.from_pretrained(base, job.out / "adapter").merge_and_unload()
    rows = read_rows(job.valid)
    clock.switch("predict")
    found = probabilities(model, tokenizer, rows, job.predict_batch, swap=True)
    clock.switch("end")
    write_probabilities(probabilities_file(job, 0), [r.id for r in rows], found)


if __name__ == "__main__":
    run_worker({"train": train, "predict": predict})
