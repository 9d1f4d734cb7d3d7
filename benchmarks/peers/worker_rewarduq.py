"""Worker: rewarduq's LoRA ensemble (binary; ties are left out), one member of it.

An ensemble of M costs M times as much: rewarduq trains members one at a time and its model loops
over the adapters. It checkpoints gradients, which it offers no way to turn off. Its release needs
transformers before version 5, which reads an older layout of a backbone's config.
"""

from __future__ import annotations

import json
from pathlib import Path

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
from rewarduq.methods.lora_ensemble import (
    LoraEnsembleModel,
    LoraEnsembleModelConfig,
    LoraEnsemblePipeline,
    LoraEnsembleTrainer,
    LoraEnsembleTrainerConfig,
)


def older_backbone(source: Path, target: Path) -> Path:
    """A folder with the same weights, whose config transformers 4 understands.

    Transformers 5 keeps the rotary base in `rope_parameters`; 4 would silently take 10,000.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        link = target / file.name
        if not link.exists():
            link.symlink_to(file.resolve())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", {})
    if rope.get("rope_type", "default") != "default":
        raise SystemExit(f"cannot translate rope_parameters {rope} for transformers 4")
    config["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    config["torch_dtype"] = config.pop("dtype", "float32")
    tokenizer = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(tokenizer.get("extra_special_tokens"), list):
        tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
    for name, value in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        (target / name).unlink(missing_ok=True)
        (target / name).write_text(json.dumps(value), encoding="utf-8")
    return target


def model_config(job: Job, adapters: list[str] | None = None) -> LoraEnsembleModelConfig:
    return LoraEnsembleModelConfig(
        base_model_name_or_path=str(older_backbone(Path(job.backbone), job.out / "backbone")),
        base_model_init_kwargs={"num_labels": 1, "dtype": torch.float32},
        peft_config={**lora_settings(job), "modules_to_save": ["score"]},
        adapter_paths=adapters,
    )


def train(job: Job, clock: Clock) -> Log:
    begin(job)
    valid = read_rows(job.valid)
    data = Dataset.from_list(conversations(read_rows(job.train)))
    args = LoraEnsembleTrainerConfig(
        **trainer_settings(job), max_length=2 * job.max_length, remove_unused_columns=False
    )
    pipeline = LoraEnsemblePipeline(model_config(job), args)
    log = Log()
    ends = EpochEnds(job, clock, log, [r.id for r in valid])
    trainer = LoraEnsembleTrainer(
        model=pipeline.model,
        args=pipeline.trainer_config,
        train_dataset=data,
        processing_class=pipeline.tokenizer,
        peft_config=None,
        callbacks=[ends],
    )
    tuned = trainer.model

    def forward(**inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = tuned(**inputs).logits
        return logits[:, 0]

    def score() -> list[tuple[float]]:
        tuned.eval()
        return reward_probabilities(forward, pipeline.tokenizer, valid, job.predict_batch)

    ends.score = score
    fit(trainer, log, clock)
    trainer.save_model(str(job.out / "adapter"))
    return log


def predict(job: Job, clock: Clock) -> None:
    begin(job)
    model = LoraEnsembleModel(model_config(job, [str(job.out / "adapter")])).eval()
    rows = read_rows(job.valid)

    def forward(**inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(**inputs)["rewards"]
        return found[:, 0]

    clock.switch("predict")
    found = reward_probabilities(forward, model.tokenizer, rows, job.predict_batch)
    clock.switch("end")
    write_probabilities(probabilities_file(job, 0), [r.id for r in rows], found)


if __name__ == "__main__":
    run_worker({"train": train, "predict": predict})
