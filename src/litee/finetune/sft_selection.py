"""Chooses which checkpoint of a tuning run to keep: by its answers, or by held-out loss.

Knows nothing of how checkpoints come about, and nothing of judges: a scorer is handed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from litee.errors import ModelError
from litee.finetune.chat_data import ChatEncoder, asked
from litee.finetune.chat_model import ChatModel
from litee.finetune.chat_sampling import Sampling, sample_answers
from litee.finetune.chat_settings import SftSettings
from litee.finetune.chat_training import checkpoints, curve_of, load_weights
from litee.finetune.rewards import Exchange, RewardFunction, checked_rewards
from litee.records import Demonstration
from litee.rundir import Json, RunDir, write_json

#: LIMA's decoding (section 4.1): nucleus 0.9, temperature 0.7, repetition penalty 1.2.
LIMA_SAMPLING = Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.2)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint that may be chosen.

    Attributes:
        step: optimiser steps behind it.
        epoch: passes behind it, rounded.
        dev_loss: mean loss per answer token on the held-out demonstrations, in nats.
        reward: mean reward of its answers to the held-out prompts; None without a scorer.
        finished: share of those answers that ended by themselves; None without a scorer.
    """

    step: int
    epoch: int
    dev_loss: float | None
    reward: float | None = None
    finished: float | None = None


def choose(candidates: Sequence[Candidate], *, by_answers: bool) -> tuple[Candidate, str]:
    """The checkpoint with the best answers, or the lowest held-out loss, or the last.

    LIMA (appendix B) found that perplexity rises while answers get better, so the loss is only
    taken where nothing else is at hand, and that is said.

    >>> low, good = Candidate(1, 1, 1.0, -2.0), Candidate(2, 2, 1.5, 3.0)
    >>> [choose([low, good], by_answers=answers)[0].epoch for answers in (True, False)]
    [2, 1]
    """
    if by_answers:
        best = max(candidates, key=lambda c: c.reward if c.reward is not None else -np.inf)
        return best, "mean reward of its answers to held-out prompts"
    if all(c.dev_loss is not None for c in candidates):
        best = min(candidates, key=lambda c: c.dev_loss if c.dev_loss is not None else np.inf)
        return best, "held-out loss; with a judge the answers themselves would decide"
    return candidates[-1], "the last one: nothing was held out"


def find_candidates(folder: Path, settings: SftSettings, run: RunDir) -> list[Candidate]:
    """The checkpoints of the epochs that may be chosen, with their held-out losses.

    Raises:
        ModelError: the run left none.
    """
    kept = run.path / "run" / "candidates.json"
    if run.done("export"):
        return [Candidate(**one) for one in json.loads(kept.read_text(encoding="utf-8"))]
    whole = checkpoints(folder)
    if not whole:
        raise ModelError("the run left no checkpoint", place=str(folder), fix="start a new run")
    losses = dict(curve_of(list(whole.values())[-1]).values("eval_loss"))
    found = []
    for step, path in whole.items():
        epoch = round(json.loads((path / "trainer_state.json").read_text())["epoch"])
        if settings.select_first <= epoch <= settings.select_last:
            found.append(Candidate(step, epoch, losses.get(step)))
    write_json(kept, [asdict(one) for one in found])
    return found


def scored(
    chat: ChatModel,
    encoder: ChatEncoder,
    candidate: Candidate,
    dev: Sequence[Demonstration],
    scorer: RewardFunction,
    *,
    settings: SftSettings,
    folder: Path,
    run: RunDir,
) -> Candidate:
    """The candidate with the mean reward of its answers to the held-out prompts."""
    kept = run.path / "run" / f"answers-epoch-{candidate.epoch}.json"

    def work() -> int:
        load_weights(chat, checkpoints(folder)[candidate.step])
        how = Sampling(
            settings.answer_tokens,
            LIMA_SAMPLING.temperature,
            LIMA_SAMPLING.top_p,
            LIMA_SAMPLING.repetition_penalty,
            seed=settings.seed,
        )
        asking = [asked(one) for one in dev]
        title = f"answers after epoch {candidate.epoch}"
        answers = sample_answers(chat.model, encoder, chat.tokenizer, asking, how, title=title)
        exchanges = [
            Exchange(messages, answer.text, answer.finished)
            for messages, answer in zip(asking, answers, strict=True)
        ]
        rewards = checked_rewards(scorer, exchanges)
        record: dict[str, Json] = {
            "reward": float(np.mean(rewards)),
            "finished": float(np.mean([a.finished for a in answers])),
            "answers": [
                {"prompt": e.messages[-1].text, "answer": e.answer, "reward": r}
                for e, r in zip(exchanges, rewards, strict=True)
            ],
        }
        write_json(kept, record)
        return sum(a.tokens for a in answers)

    run.run(f"answers-epoch-{candidate.epoch}", work)
    saved = json.loads(kept.read_text(encoding="utf-8"))
    return Candidate(
        candidate.step, candidate.epoch, candidate.dev_loss, saved["reward"], saved["finished"]
    )
