"""Worker: pairjudge's own training function and judge, called as its command line calls them.

Its functions are wrapped to read the clock, the losses and the token counts; what they compute is
left alone. Prediction is what `pairjudge batch --swap` does, on the merged bundle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pairjudge.artifacts
import pairjudge.training as training
import pandas as pd
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
from pairjudge.judge import PairwiseJudge

_WINNERS = {"a": "winner_model_a", "b": "winner_model_b", "tie": "winner_tie"}


def records(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Rows in pairjudge's layout."""
    found: list[dict[str, object]] = []
    for row in rows:
        won = {column: float(row.label == label) for label, column in _WINNERS.items()}
        texts = {"prompt": row.prompt, "response_a": row.a, "response_b": row.b}
        found.append({"id": row.id, **{k: list(v) for k, v in texts.items()}, **won})
    return found


def write_records(rows: Sequence[Row], path: Path) -> str:
    """JSON lines that pairjudge reads; the path as text."""
    lines = (json.dumps(record) + "\n" for record in records(rows))
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


class Watch:
    """Stands between training and what it calls: notes time, losses, tokens and probabilities."""

    def __init__(self, job: Job, clock: Clock, ids: Sequence[str]) -> None:
        self._job, self._clock, self._ids = job, clock, ids
        self.log = Log()
        self._seen: list[tuple[float, int]] = []
        self._plain_batch, self._plain_evaluate = training._batch, training._evaluate
        self._plain_loss, self._plain_metrics = training.summed_loss, training.compute_metrics
        self._plain_save = pairjudge.artifacts.save_bundle

    def install(self) -> None:
        """Take the places of the functions that training looks up by name."""
        training._batch, training._evaluate = self._batch, self._evaluate
        training.summed_loss, training.compute_metrics = self._loss, self._metrics
        pairjudge.artifacts.save_bundle = self._save

    def _close_step(self) -> None:
        if self._seen:
            losses, sizes = zip(*self._seen, strict=True)
            self.log.losses.append(sum(losses) / sum(sizes))
            self._seen.clear()

    def _batch(self, *args: Any) -> Any:  # noqa: ANN401
        validating = self._clock.phase == "validate"
        if not validating:
            self._clock.switch("train")
        inputs, labels = self._plain_batch(*args)
        if not validating:
            self.log.count(inputs["attention_mask"])
        return inputs, labels

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, mode: str) -> torch.Tensor:
        found: torch.Tensor = self._plain_loss(logits, labels, mode)
        self._seen.append((float(found.detach()), len(labels)))
        if len(self._seen) == self._job.accumulate:
            self._close_step()
        return found

    def _evaluate(self, model: torch.nn.Module, *args: Any) -> dict[str, float]:  # noqa: ANN401
        self._close_step()
        self.log.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.log.end_epoch(self._clock)
        found: dict[str, float] = self._plain_evaluate(model, *args)
        self._clock.switch("save")
        return found

    def _metrics(self, output: Any) -> dict[str, float]:  # noqa: ANN401
        shifted = np.exp(output.predictions - output.predictions.max(axis=1, keepdims=True))
        found = shifted / shifted.sum(axis=1, keepdims=True)
        path = probabilities_file(self._job, len(self.log.epochs))
        write_probabilities(path, self._ids, found)
        measured: dict[str, float] = self._plain_metrics(output)
        return measured

    def _save(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._clock.switch("save")
        return self._plain_save(*args, **kwargs)


def train(job: Job, clock: Clock) -> Log:
    torch.set_num_threads(job.threads)
    valid = read_rows(job.valid)
    watch = Watch(job, clock, [r.id for r in valid])
    watch.install()
    training.train(
        training.JudgeTrainConfig(
            train_path=write_records(read_rows(job.train), job.out / "pairjudge-train.jsonl"),
            validation_path=write_records(valid, job.out / "pairjudge-valid.jsonl"),
            model_name=job.backbone,
            local_files_only=True,
            max_length=job.max_length,
            output_dir=str(job.out / "bundle"),
            n_epochs=job.epochs,
            lr=job.learning_rate,
            warmup_steps=job.warmup,
            per_device_train_batch_size=job.batch,
            gradient_accumulation_steps=job.accumulate,
            per_device_eval_batch_size=job.predict_batch,
            lora_r=job.lora_r,
            lora_alpha=job.lora_alpha,
            lora_dropout=job.lora_dropout,
            device="cpu",
            seed=job.seed,
        )
    )
    return watch.log


def predict(job: Job, clock: Clock) -> None:
    torch.set_num_threads(job.threads)
    judge = PairwiseJudge.from_pretrained(
        str(job.out / "bundle" / "merged"), device="cpu", local_files_only=True
    )
    frame = pd.DataFrame(records(read_rows(job.valid)))
    clock.switch("predict")
    found = judge.predict(frame, swap_debias=True, batch_size=job.predict_batch)
    clock.switch("end")
    rows = [[p["probabilities"][c] for c in ("a_wins", "b_wins", "tie")] for p in found]
    write_probabilities(probabilities_file(job, 0), [p["id"] for p in found], rows)


if __name__ == "__main__":
    run_worker({"train": train, "predict": predict})
