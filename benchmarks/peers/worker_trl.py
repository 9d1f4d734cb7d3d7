"""Worker: TRL's RewardTrainer with PEFT; ties are left out, as its data format has none.

Prediction is symmetric in the answers as it stands: a reward for each, no second pass.
"""

from __future__ import annotations

import torch
from benchmarks.peers.job import (
    Clock,
    Job,
    Log,
    probabilities_file,
    read_rows,
    run_worker,
    write_probabilities,
)
from benchmarks.peers.torch_side import (
    EpochEnds,
    begin,
    conversations,
    fit,
    lora_settings,
    reward_probabilities,
    trainer_settings,
)
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer


def load(job: Job) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    tokenizer = AutoTokenizer.from_pretrained(job.backbone)
    model = AutoModelForSequenceClassification.from_pretrained(
        job.backbone, num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def rewards(model: torch.nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    """(batch,) rewards."""
    logits: torch.Tensor = model(**inputs).logits
    return logits[:, 0]


def train(job: Job, clock: Clock) -> Log:
    begin(job)
    model, tokenizer = load(job)
    valid = read_rows(job.valid)
    log = Log()
    ends = EpochEnds(job, clock, log, [r.id for r in valid])
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            **trainer_settings(job), max_length=job.max_length, gradient_checkpointing=False
        ),
        train_dataset=Dataset.from_list(conversations(read_rows(job.train))),
        processing_class=tokenizer,
        peft_config=LoraConfig(**lora_settings(job), modules_to_save=["score"]),
        callbacks=[ends],
    )
    tuned = trainer.model

    def score() -> list[tuple[float]]:
        tuned.eval()
        return reward_probabilities(
            lambda **x: rewards(tuned, **x), tokenizer, valid, job.predict_batch
        )

    ends.score = score
    fit(trainer, log, clock)
    trainer.save_model(str(job.out / "adapter"))
    return log


def predict(job: Job, clock: Clock) -> None:
    begin(job)
    base, tokenizer = load(job)
    model = PeftModel.from_pretrained(base, job.out / "adapter").merge_and_unload().eval()
    rows = read_rows(job.valid)
    clock.switch("predict")
    found = reward_probabilities(
        lambda **x: rewards(model, **x), tokenizer, rows, job.predict_batch
    )
    clock.switch("end")
    write_probabilities(probabilities_file(job, 0), [r.id for r in rows], found)


if __name__ == "__main__":
    run_worker({"train": train, "predict": predict})
