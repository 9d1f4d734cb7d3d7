"""The one training loop: accumulation, clipping, warm-up and cosine, validation, early stop.

Randomness depends on the seed and the step alone, and everything else that a step needs is in
the checkpoint, so a run that was killed and resumed ends in the same bytes as one that was not.
Knows nothing of models and data: it is given parameters and functions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from litee.config import FitSettings
from litee.errors import ModelError
from litee.progress import progress
from litee.rundir import atomic_path

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Numbers of the loop; see `config.FitSettings` for their meaning."""

    learning_rate: float
    weight_decay: float = 0.01
    num_train_epochs: int = 1
    gradient_accumulation_steps: int = 1
    max_grad_norm: float = 1.0
    warmup_ratio: float = 0.1
    evaluations_per_epoch: int = 1
    patience: int = 2
    seed: int = 0

    @classmethod
    def of(cls, settings: FitSettings, *, seed: int) -> LoopSettings:
        """The loop's part of a fit's settings."""
        shared = [f.name for f in fields(cls) if f.name != "seed"]
        return cls(**{name: getattr(settings, name) for name in shared}, seed=seed)


@dataclass(slots=True)
class History:
    """What happened.

    Attributes:
        step: optimiser steps done.
        best_step: step of the lowest validation loss; 0 is the start.
        best_loss: that loss.
        validation: (step, loss) pairs, the first at step 0.
        training: mean training loss between validations.
        stopped: why the loop ended.
        waited: validations since the best one.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    validation: list[tuple[int, float]] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    stopped: str = ""
    waited: int = 0


def rate_at(step: int, total: int, settings: LoopSettings) -> float:
    """Learning rate of a step (0-based): linear warm-up, then a half cosine to zero.

    >>> settings = LoopSettings(1.0, warmup_ratio=0.5)
    >>> [round(rate_at(s, 4, settings), 3) for s in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warmup = int(settings.warmup_ratio * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


class Loop(Generic[Batch]):
    """Trains parameters until the validation loss stops falling, and leaves the best values in.

    Args:
        parameters: name → trainable tensor; changed in place.
        batches: epoch → the batches in order; must depend on nothing but the epoch.
        loss: batch → (sum of weighted losses, sum of weights).
        validate: → validation loss.
        settings: numbers.
        checkpoint: file that is written at each validation; the loop resumes from it when it
            exists.
        rates: peak learning rate of some parameters by name; the others have the settings'.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        batches: Callable[[int], Sequence[Batch]],
        loss: Callable[[Batch], tuple[Tensor, float]],
        validate: Callable[[], float],
        settings: LoopSettings,
        checkpoint: Path,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self.batches, self.loss, self.validate = batches, loss, validate
        self.settings = settings
        self.checkpoint = checkpoint
        self.history = History()
        self.best = {n: p.detach().clone() for n, p in self.parameters.items()}
        peaks = rates or {}
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p], "peak": peaks.get(name, settings.learning_rate)}
                for name, p in self.parameters.items()
            ],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def run(self, *, title: str) -> History:
        """Train, or go on training; afterwards the parameters hold the best values seen.

        Raises:
            ModelError: the loss is not finite.
        """
        if self.checkpoint.exists():
            self._load()
        else:
            self._evaluate()
            self._save()
        per_epoch = math.ceil(len(self.batches(0)) / self.settings.gradient_accumulation_steps)
        total = per_epoch * self.settings.num_train_epochs
        every = max(1, per_epoch // self.settings.evaluations_per_epoch)
        losses: list[float] = []
        with progress(title, total, "steps") as advance:
            advance(self.history.step)
            while not self.history.stopped:
                if self.history.step >= total:
                    self.history.stopped = "all epochs done"
                    self._save()
                    break
                losses.append(self._step(per_epoch, total))
                advance(1)
                if self.history.step % every == 0 or self.history.step == total:
                    self.history.training.append(float(np.mean(losses)))
                    losses.clear()
                    self._evaluate()
                    self._save()
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.best[name])
        return self.history

    def _step(self, per_epoch: int, total: int) -> float:
        epoch, place = divmod(self.history.step, per_epoch)
        size = self.settings.gradient_accumulation_steps
        batches = self.batches(epoch)[place * size : (place + 1) * size]
        self.optimiser.zero_grad(set_to_none=True)
        summed, weight = 0.0, 0.0
        for number, batch in enumerate(batches):
            with torch.random.fork_rng():
                seed = np.random.SeedSequence([self.settings.seed, self.history.step, number])
                torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
                loss, weights = self.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            summed += float(loss.detach())
            weight += weights
        if not math.isfinite(summed):
            raise ModelError(
                f"the training loss is {summed} at step {self.history.step}",
                place=str(self.checkpoint.parent),
                fix="lower --learning-rate, or use --dtype float32; the last checkpoint is intact",
            )
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad /= weight
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_grad_norm)
        share = rate_at(self.history.step, total, self.settings) / self.settings.learning_rate
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["peak"]
        self.optimiser.step()
        self.history.step += 1
        return summed / weight

    def _evaluate(self) -> None:
        loss = self.validate()
        history = self.history
        history.validation.append((history.step, loss))
        if loss < history.best_loss - 1e-6:
            history.best_loss, history.best_step, history.waited = loss, history.step, 0
            self.best = {n: p.detach().clone() for n, p in self.parameters.items()}
        else:
            history.waited += 1
            if history.waited >= self.settings.patience:
                history.stopped = "no gain on validation prompts"

    def _save(self) -> None:
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            tensors[f"now.{name}"] = parameter.detach()
            tensors[f"best.{name}"] = self.best[name]
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        tensors = {k: v.contiguous().clone() for k, v in tensors.items()}
        with atomic_path(self.checkpoint) as temporary:
            save_file(tensors, temporary, metadata={"history": json.dumps(asdict(self.history))})

    def _load(self) -> None:
        with safe_open(self.checkpoint, framework="pt") as file:
            saved = json.loads(file.metadata()["history"])
        saved["validation"] = [(int(step), float(loss)) for step, loss in saved["validation"]]
        self.history = History(**saved)
        tensors = load_file(self.checkpoint)
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"now.{name}"])
            self.best[name] = tensors[f"best.{name}"].clone()
            state = {
                key: tensors[f"{key}.{name}"].clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
            if state:
                self.optimiser.state[parameter] = state
