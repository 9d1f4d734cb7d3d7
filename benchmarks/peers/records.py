"""The JSON record of one peer's run, and the arithmetic that judges it.

Knows nothing of processes, models and files of votes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter

from litee.records import Triple

_TINY = 1e-15


@dataclass(frozen=True, slots=True)
class Quality:
    """How good probabilities are, against the vote shares of pairs (each pair weighs the same).

    Attributes:
        log_loss: three-way, nats; None for a judge without ties.
        log_loss_constant_tie: three-way, when a binary judge is given the training votes' share of
            ties for every pair; None for others.
        decisive_log_loss: of a against b, nats, over the votes that are not ties.
        decisive_accuracy: share of the votes that are not ties that go to the more probable answer;
            equal probabilities count half.
    """

    log_loss: float | None
    log_loss_constant_tie: float | None
    decisive_log_loss: float
    decisive_accuracy: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """Validation after an epoch.

    Attributes:
        epoch: from 1; 0 when the trainer has no epochs to show.
        steps: optimiser steps so far.
        seconds: wall seconds from the start of the process, loading included, validation left out.
        train_seconds: of these, seconds of training.
        train_loss: mean loss of the epoch's steps, None when it is not known.
        quality: on the validation pairs, one order of the answers.
    """

    epoch: int
    steps: int
    seconds: float
    train_seconds: float
    train_loss: float | None
    quality: Quality


@dataclass(frozen=True, slots=True)
class Cost:
    """What one child process cost.

    Attributes:
        wall_seconds: from start to exit.
        cpu_seconds: user and system time of all its threads; near wall × threads when undisturbed.
        phases: seconds by phase: load, train, validate, save; or load, predict.
        peak_rss_mb: largest resident memory (VmHWM), in 10^6 bytes.
        host_load: one-minute load average before and after.
    """

    wall_seconds: float
    cpu_seconds: float
    phases: Mapping[str, float]
    peak_rss_mb: float
    host_load: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One peer, trained and asked once.

    Attributes:
        peer: its name.
        version: of its package.
        versions: of the libraries below it.
        split_sha256: of the votes.
        train_votes: in the split.
        train_pairs: they are on; a binary peer leaves out the ties.
        valid_pairs: in the split.
        max_tokens: most text tokens of a pair.
        settings: threads, epochs, batch and the like.
        training: cost of training.
        trainable: trained parameters, 0 when not known.
        tokens: tokens that went through the model in training, without padding; 0 when not known.
        tokens_padded: with padding.
        epochs: validation after each.
        prediction: cost of predicting all validation pairs, symmetric in the answers.
        pairs_per_second: validation pairs / seconds of the phase `predict`; for litee's command,
            which has no phases, / wall seconds.
        predicted: quality of the symmetric predictions.
        prior: quality of the training votes' shares as a constant prediction.
        doubts: why this run may not have learned; empty when it did.
        device: the processor.
        command: what was typed.
        started: when, in ISO 8601.
        losses: mean training loss of every optimiser step.
        config: text of the settings file that litee was given, empty for others.
    """

    peer: str
    version: str
    versions: Mapping[str, str]
    split_sha256: str
    train_votes: int
    train_pairs: int
    valid_pairs: int
    max_tokens: int
    settings: Mapping[str, float]
    training: Cost
    trainable: int
    tokens: int
    tokens_padded: int
    epochs: tuple[Epoch, ...]
    prediction: Cost
    pairs_per_second: float
    predicted: Quality
    prior: Quality
    doubts: tuple[str, ...] = ()
    device: str = ""
    command: str = ""
    started: str = ""
    losses: tuple[float, ...] = ()
    config: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """Useful training tokens per second of training, None when they were not counted."""
        seconds = self.training.phases.get("train", 0.0)
        return self.tokens / seconds if self.tokens and seconds else None

    def seconds_to(self, log_loss: float) -> float | None:
        """Seconds (loading included) until validation was at most `log_loss`; None if it never was.

        A binary peer is measured with a constant share of ties.
        """
        for epoch in self.epochs:
            q = epoch.quality
            reached = q.log_loss if q.log_loss is not None else q.log_loss_constant_tie
            if reached is not None and reached <= log_loss:
                return epoch.seconds
        return None


_ADAPTER: TypeAdapter[PeerRun] = TypeAdapter(PeerRun)


def to_json(run: PeerRun) -> str:
    """The record as JSON text."""
    return _ADAPTER.dump_json(run, indent=1).decode() + "\n"


def from_json(text: str) -> PeerRun:
    """The record that `to_json` wrote."""
    return _ADAPTER.validate_json(text)


def judge(
    probabilities: Mapping[str, Sequence[float]],
    shares: Mapping[str, Triple],
    tie_share: float,
) -> Quality:
    """Quality of probabilities by pair id.

    Args:
        probabilities: three per pair, or one, P(a beats b), from a binary judge.
        shares: vote shares of the pairs.
        tie_share: share of ties in training, given to binary judges.

    Raises:
        ValueError: pairs differ, a probability is not finite, or no vote is decisive.

    >>> q = judge({"1": (0.5, 0.25, 0.25)}, {"1": (1.0, 0.0, 0.0)}, 0.1)
    >>> round(q.log_loss, 4), round(q.decisive_log_loss, 4), q.decisive_accuracy
    (0.6931, 0.4055, 1.0)
    """
    if set(probabilities) != set(shares):
        raise ValueError("predictions and votes are on different pairs")
    p = np.array([probabilities[name] for name in shares], dtype=float)
    s = np.array(list(shares.values()), dtype=float)
    if not np.isfinite(p).all():
        raise ValueError("a probability is not finite")
    binary = p.shape[1] == 1
    first = p[:, 0] if binary else p[:, 0] / np.maximum(p[:, 0] + p[:, 1], _TINY)
    decisive = s[:, :2]
    if decisive.sum() == 0:
        raise ValueError("no vote is decisive")
    sides = np.stack([first, 1 - first], axis=1)
    right = np.where(sides > 0.5, 1.0, np.where(sides == 0.5, 0.5, 0.0))
    constant = np.column_stack([sides * (1 - tie_share), np.full(len(p), tie_share)])
    return Quality(
        log_loss=None if binary else _log_loss(p, s),
        log_loss_constant_tie=_log_loss(constant, s) if binary else None,
        decisive_log_loss=_log_loss(sides, decisive),
        decisive_accuracy=float((right * decisive).sum() / decisive.sum()),
    )


def _log_loss(p: np.ndarray, shares: np.ndarray) -> float:
    """−Σ share · log p / Σ share."""
    return float(-(shares * np.log(np.clip(p, _TINY, 1))).sum() / shares.sum())


def doubts_of(losses: Sequence[float], epochs: Sequence[Epoch], prior: Quality) -> tuple[str, ...]:
    """Why a run may not have learned: training loss did not fall, or validation misses the prior.

    >>> prior = Quality(1.0, None, 0.69, 0.5)
    >>> doubts_of([1.1, 1.0, 0.9, 0.8], [Epoch(1, 4, 9.0, 8.0, 0.95, prior)], prior)
    ('validation log loss 1.0000 does not beat the prior, 1.0000',)
    """
    found = []
    quarter = len(losses) // 4
    if quarter:
        first, last = (float(np.mean(part)) for part in (losses[:quarter], losses[-quarter:]))
        if not last < first:
            found.append(f"training loss went from {first:.4f} to {last:.4f}")
    if epochs:
        binary = epochs[0].quality.log_loss is None
        name = "decisive_log_loss" if binary else "log_loss"
        best = min(getattr(e.quality, name) for e in epochs)
        line = getattr(prior, name)
        if not (math.isfinite(best) and best < line):
            what = "decisive validation" if binary else "validation"
            found.append(f"{what} log loss {best:.4f} does not beat the prior, {line:.4f}")
    return tuple(found)
