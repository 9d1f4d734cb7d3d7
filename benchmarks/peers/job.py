"""What a worker is told, and how it reports: the one module that both sides share.

Runs inside the peers' environments, so it needs the standard library alone. Knows nothing of
peers, of litee and of how a probability is judged: workers write probabilities, others judge them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Stage = Literal["train", "predict"]

#: Tokens a peer's template may add to the texts of a pair. Texts are chosen to fit, nothing is cut.
TEMPLATE_ROOM = 128
#: LoRA goes into every linear layer of the blocks, as in pairjudge's own defaults.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: Libraries whose versions a result names.
_VERSIONED = ("torch", "transformers", "peft", "accelerate", "trl", "pairjudge", "rewarduq")


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one peer's run.

    Attributes:
        stage: train, or predict with what an earlier train stage left in `folder`.
        train: JSON lines of training votes.
        valid: JSON lines of validation votes.
        backbone: folder of safetensors and tokenizer.
        folder: where the worker writes everything.
        started: `time.time()` just before the child was started.
        max_tokens: most text tokens of a pair.
        epochs: passes over the training votes.
        batch: pairs per forward and backward pass.
        accumulate: passes per optimiser step.
        predict_batch: pairs per forward pass in prediction.
        threads: compute threads.
        seed: of weights, order and dropout.
        learning_rate: peak learning rate.
        warmup: steps with rising rate.
        lora_r: LoRA rank.
        lora_alpha: LoRA scale is alpha / r.
        lora_dropout: dropout before the LoRA matrices.
    """

    stage: Stage
    train: str
    valid: str
    backbone: str
    folder: str
    started: float
    max_tokens: int
    epochs: int = 2
    batch: int = 2
    accumulate: int = 4
    predict_batch: int = 4
    threads: int = 2
    seed: int = 0
    learning_rate: float = 2e-4
    warmup: int = 20
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05

    def write(self, path: Path) -> None:
        """Store as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Load what `write` stored."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def out(self) -> Path:
        """The worker's folder."""
        return Path(self.folder)

    @property
    def max_length(self) -> int:
        """Sequence length with room for a template."""
        return self.max_tokens + TEMPLATE_ROOM


@dataclass(frozen=True, slots=True)
class Row:
    """One pair with its most frequent vote.

    Attributes:
        id: the pair's id.
        prompt: user turns.
        a: answers of A, one per turn.
        b: answers of B.
        label: `a`, `b` or `tie`; the first of the most frequent in a file's order.
    """

    id: str
    prompt: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]
    label: str

    @property
    def winner_first(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Chosen and rejected answers; only for decisive rows."""
        return (self.a, self.b) if self.label == "a" else (self.b, self.a)


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a split's file."""
    rows = []
    with Path(path).open(encoding="utf-8") as stream:
        for line in stream:
            raw = json.loads(line)
            cast = [outcome for _, outcome in raw["votes"]]
            label = max(cast, key=cast.count)
            prompt, a, b = (tuple(raw[name]) for name in ("prompt", "response_a", "response_b"))
            rows.append(Row(raw["pair_id"], prompt, a, b, label))
    return rows


def messages(prompt: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    """A conversation in the form of chat templates.

    >>> messages(("Hi",), ("Hello",))
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    turns = []
    for user, assistant in zip(prompt, answers, strict=True):
        turns.append({"role": "user", "content": user})
        turns.append({"role": "assistant", "content": assistant})
    return turns


class Clock:
    """Seconds by phase; a phase lasts until the next `switch`. The first one is `load`."""

    def __init__(self, started: float) -> None:
        self.phases: dict[str, float] = {"load": time.time() - started}
        self._phase, self._since = "load", time.perf_counter()

    def switch(self, phase: str) -> None:
        """End the present phase and begin (or go on with) another."""
        now = time.perf_counter()
        self.phases[self._phase] = self.phases.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    @property
    def phase(self) -> str:
        """The present phase."""
        return self._phase


@dataclass(slots=True)
class Log:
    """What a training worker has seen so far.

    Attributes:
        losses: mean loss of every optimiser step.
        tokens: tokens that went through the model in training, without padding.
        padded: with padding.
        trainable: trained parameters.
        epochs: per finished epoch, its steps so far and seconds of the phases so far.
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    padded: int = 0
    trainable: int = 0
    epochs: list[dict[str, float]] = field(default_factory=list)

    def count(self, mask: Any) -> None:  # noqa: ANN401  (a tensor; torch is not imported here)
        """Count a batch by its attention mask."""
        self.tokens += int(mask.sum())
        self.padded += int(mask.numel())

    def end_epoch(self, clock: Clock) -> int:
        """Note an epoch's end; its number, from 1. To be called before validation begins."""
        clock.switch("validate")
        self.epochs.append({"steps": float(len(self.losses)), **clock.phases})
        return len(self.epochs)


def probabilities_file(job: Job, epoch: int) -> Path:
    """Validation probabilities after an epoch; epoch 0 is the prediction stage."""
    return job.out / (f"epoch{epoch}.jsonl" if epoch else "predicted.jsonl")


def write_probabilities(path: Path, ids: Iterable[str], rows: Iterable[Sequence[float]]) -> None:
    """One line per pair: P(a), P(b), P(tie), or P(a beats b) alone from a binary peer."""
    with path.open("w", encoding="utf-8") as stream:
        for name, p in zip(ids, rows, strict=True):
            stream.write(json.dumps({"id": name, "p": [float(x) for x in p]}) + "\n")


def versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a result."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_worker(stages: Mapping[str, Callable[[Job, Clock], Log | None]]) -> None:
    """Read the job named on the command line, run its stage, and write `<stage>.json`."""
    job = Job.read(Path(sys.argv[1]))
    clock = Clock(job.started)
    log = stages[job.stage](job, clock)
    clock.switch("end")
    report = {"versions": versions(), "phases": clock.phases, **(asdict(log) if log else {})}
    (job.out / f"{job.stage}.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
