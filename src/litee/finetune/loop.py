"""The one training loop: accumulation, clipping, warm-up and cosine, validation, early stop.

Loops that share a pass run side by side, and each does what it would do alone.
Randomness depends on the seed and the step alone, and everything else that a step needs is in
the checkpoint, so a run that was killed and resumed ends in the same bytes as one that was not.
Knows nothing of models and data: it is given parameters and functions.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar

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


@dataclass(frozen=True, slots=True)
class Part(Generic[Batch]):
    """A batch that a loop wants the loss of.

    Attributes:
        loop: number of the loop.
        batch: what it learns from.
        seed: of everything drawn while the loss is computed.
    """

    loop: int
    batch: Batch
    seed: int


class Loop(Generic[Batch]):
    """Trains parameters until the validation loss stops falling, and leaves the best values in.

    Args:
        parameters: name → trainable tensor; changed in place.
        batches: epoch → the batches in order, at least one; must depend on nothing but the epoch.
            Epochs may differ in their number.
        validate: → validation loss.
        settings: numbers.
        checkpoint: file that `run` writes at each validation; it resumes from it when it exists.
        rates: peak learning rate of some parameters by name; the others have the settings'.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        batches: Callable[[int], Sequence[Batch]],
        validate: Callable[[], float],
        settings: LoopSettings,
        checkpoint: Path,
        rates: Mapping[str, float] | None = None,
        loss: Callable[[Batch], tuple[Tensor, float]] | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self.batches, self.loss, self.validate = batches, loss, validate
        self.settings = settings
        self.checkpoint = checkpoint
        size = settings.gradient_accumulation_steps
        self.epoch_ends = tuple(
            accumulate(math.ceil(len(batches(e)) / size) for e in range(settings.num_train_epochs))
        )
        self.history = History()
        self._losses: list[float] = []
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
        """Train this loop by itself; see `run_together`."""
        loss = self.loss
        if loss is None:
            raise ValueError("a loop without a loss runs together with others only")

        def losses(parts: Sequence[Part[Batch]]) -> list[tuple[Tensor, float]]:
            with seeded(parts[0].seed):
                return [loss(parts[0].batch)]

        return run_together([self], losses, checkpoint=self.checkpoint, title=title)[0]

    @property
    def total(self) -> int:
        """Optimiser steps of all epochs."""
        return self.epoch_ends[-1]

    @property
    def running(self) -> bool:
        """Whether there are steps left."""
        return not self.history.stopped

    def begin(self) -> None:
        """Judge the start, which no later state may be worse than."""
        self._evaluate()

    def step_batches(self) -> list[tuple[Batch, int]]:
        """The batches of the next optimiser step, each with the seed of its dropout."""
        epoch = bisect_right(self.epoch_ends, self.history.step)
        place = self.history.step - (self.epoch_ends[epoch - 1] if epoch else 0)
        size = self.settings.gradient_accumulation_steps
        batches = self.batches(epoch)[place * size : (place + 1) * size]
        self.optimiser.zero_grad(set_to_none=True)
        found = []
        for number, batch in enumerate(batches):
            seed = np.random.SeedSequence([self.settings.seed, self.history.step, number])
            found.append((batch, int(seed.generate_state(1, np.uint64)[0] >> 1)))
        return found

    def finish_step(self, summed: float, weight: float) -> bool:
        """Step with the gradients at hand.

        Args:
            summed: sum of the weighted losses of the step's batches.
            weight: sum of their weights.

        Returns:
            Whether the state was judged on validation prompts after the step.

        Raises:
            ModelError: the loss is not finite.
        """
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
        share = rate_at(self.history.step, self.total, self.settings) / self.settings.learning_rate
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["peak"]
        self.optimiser.step()
        self.history.step += 1
        self._losses.append(summed / weight)
        every = max(1, self.epoch_ends[0] // self.settings.evaluations_per_epoch)
        last = self.history.step == self.total
        if self.history.step % every and not last:
            return False
        self.history.training.append(float(np.mean(self._losses)))
        self._losses.clear()
        self._evaluate()
        if last and self.running:
            self.history.stopped = "all epochs done"
        return True

    def stop(self, why: str) -> None:
        """End early, for a reason that the history keeps."""
        self.history.stopped = self.history.stopped or why

    def keep_best(self) -> None:
        """Put the best values seen into the parameters."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.best[name])

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

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Everything that the next step depends on: tensors, and the history as JSON."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            tensors[f"now.{name}"] = parameter.detach()
            tensors[f"best.{name}"] = self.best[name]
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        tensors = {k: v.contiguous().clone() for k, v in tensors.items()}
        return tensors, {"history": asdict(self.history), "losses": list(self._losses)}

    def restore(self, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        """Go back to a state."""
        history = dict(saved["history"])
        history["validation"] = [(int(step), float(loss)) for step, loss in history["validation"]]
        self.history = History(**history)
        self._losses = [float(loss) for loss in saved["losses"]]
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"now.{name}"])
            self.best[name] = tensors[f"best.{name}"].to(parameter.device, copy=True)
            state = {  # AdamW counts its steps on the CPU
                key: tensors[f"{key}.{name}"].to(
                    "cpu" if key == "step" else parameter.device, copy=True
                )
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
            if state:
                self.optimiser.state[parameter] = state


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` within the block, and leave the generators as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def run_together(
    loops: Sequence[Loop[Batch]],
    losses: Callable[[Sequence[Part[Batch]]], list[tuple[Tensor, float]]],
    *,
    checkpoint: Path,
    title: str,
    out_of_time: Callable[[], bool] = lambda: False,
) -> list[History]:
    """Train loops side by side, one optimiser step of each at a time.

    Each loop does what it would do alone: its batches, rates, validations and stop are its own.
    The losses of the loops' next batches are asked for at once, so that they can share a pass.

    Args:
        loops: with disjoint parameters.
        losses: parts, at most one per loop → (sum of weighted losses, sum of weights) of each.
        checkpoint: written whenever a loop was judged; resumed from when it exists.
        title: of the progress bar.
        out_of_time: asked before each step; when true all loops stop, with their best states.

    Returns:
        The histories; the parameters hold the best values seen.

    Raises:
        ModelError: a loss is not finite.
    """
    if checkpoint.exists():
        _load(loops, checkpoint)
    else:
        for loop in loops:
            loop.begin()
        _save(loops, checkpoint)
    with progress(title, sum(loop.total for loop in loops), "steps") as advance:
        advance(sum(loop.history.step for loop in loops))
        while active := [k for k, loop in enumerate(loops) if loop.running]:
            if out_of_time():
                for k in active:
                    loops[k].stop("the time is up")
                _save(loops, checkpoint)
                break
            if _round(loops, active, losses):
                _save(loops, checkpoint)
            advance(len(active))
    for loop in loops:
        loop.keep_best()
    return [loop.history for loop in loops]


def _round(
    loops: Sequence[Loop[Batch]],
    active: Sequence[int],
    losses: Callable[[Sequence[Part[Batch]]], list[tuple[Tensor, float]]],
) -> bool:
    """One optimiser step of every active loop; whether any was judged after it."""
    todo = {k: loops[k].step_batches() for k in active}
    summed = dict.fromkeys(active, 0.0)
    weight = dict.fromkeys(active, 0.0)
    for number in range(max(map(len, todo.values()))):
        parts = [Part(k, *todo[k][number]) for k in active if number < len(todo[k])]
        found = losses(parts)
        torch.stack([loss for loss, _ in found]).sum().backward()  # type: ignore[no-untyped-call]
        for part, (loss, weights) in zip(parts, found, strict=True):
            summed[part.loop] += float(loss.detach())
            weight[part.loop] += weights
    judged = [loops[k].finish_step(summed[k], weight[k]) for k in active]
    return any(judged)


def _save(loops: Sequence[Loop[Batch]], file: Path) -> None:
    tensors: dict[str, Tensor] = {}
    saved = []
    for number, loop in enumerate(loops):
        own, rest = loop.state()
        tensors |= {f"{number}.{name}": tensor for name, tensor in own.items()}
        saved.append(rest)
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata={"loops": json.dumps(saved)})


def _load(loops: Sequence[Loop[Batch]], file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        saved = json.loads(opened.metadata()["loops"])
    tensors = load_file(file)
    for number, (loop, rest) in enumerate(zip(loops, saved, strict=True)):
        start = f"{number}."
        own = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        loop.restore(own, rest)
