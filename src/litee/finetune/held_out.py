"""Looks at held-out prompts while a reward is being learnt: the guard against fooling oneself.

At every checkpoint the model answers the same prompts; the training reward and, when there is
one, an independent reward are averaged. Knows nothing of how the model is trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_sampling import Sampling, sample_answers
from litee.finetune.rewards import Exchange, RewardFunction, checked_rewards
from litee.progress import console
from litee.records import Message, RewardLook
from litee.rundir import write_json


def parting(looks: Sequence[RewardLook]) -> int:
    """How many of the last looks in a row show the rewards parting.

    They part when the training reward is above and the independent one below its first value.

    >>> rewards = [(0.0, 1.0), (1.0, 1.1), (2.0, 0.9)]
    >>> looks = [RewardLook(k, *both, 9, 1) for k, both in enumerate(rewards)]
    >>> parting(looks), parting(looks[:2])
    (1, 0)
    """
    count = 0
    for look in reversed(looks[1:]):
        first = looks[0]
        if look.independent is None or first.independent is None:
            break
        if not (look.training > first.training and look.independent < first.independent):
            break
        count += 1
    return count


def best_step(looks: Sequence[RewardLook], steps: Sequence[int]) -> int:
    """The checkpoint with the highest independent reward, or the last one without such a reward.

    >>> rewards = {0: (0, 9.0), 5: (1, 2.0), 10: (2, 1.0)}
    >>> looks = [RewardLook(step, *both, 9, 1) for step, both in rewards.items()]
    >>> best_step(looks, [5, 10])
    5
    """
    rewards = {k.step: k.independent for k in looks if k.independent is not None}
    judged = [step for step in steps if step in rewards]
    return max(judged, key=lambda step: rewards[step]) if judged else steps[-1]


def read_looks(file: Path) -> list[RewardLook]:
    """The looks that were written, in order of steps."""
    if not file.is_file():
        return []
    return [RewardLook(**one) for one in json.loads(file.read_text(encoding="utf-8"))]


class HeldOut(TrainerCallback):
    """Takes a look before the first step and at every checkpoint; stops when the rewards part.

    Args:
        prompts: conversations that are not trained on.
        encoder: of the model's template.
        tokenizer: of the model.
        training: the reward that is being learnt.
        independent: another one, by other votes or another backbone.
        how: the answers are drawn.
        file: where the looks are kept, so that a resumed run goes on with them.
        patience: looks in a row with parting rewards that stop the run; 0 never does.
    """

    def __init__(
        self,
        prompts: Sequence[tuple[Message, ...]],
        encoder: ChatEncoder,
        tokenizer: PreTrainedTokenizerBase,
        *,
        training: RewardFunction,
        independent: RewardFunction | None,
        how: Sampling,
        file: Path,
        patience: int,
    ) -> None:
        self.prompts, self.encoder, self.tokenizer = prompts, encoder, tokenizer
        self.training, self.independent = training, independent
        self.how, self.file, self.patience = how, file, patience
        self.looks = read_looks(file)
        self.stopped = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: object = None,
        **_: object,
    ) -> None:
        """The first look, or the one that a kill prevented, and its stop if it was the last."""
        self.looks = [k for k in self.looks if k.step <= state.global_step]
        self._look(state.global_step, model)
        self._stop(state, control)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: object = None,
        **_: object,
    ) -> None:
        """A look at the checkpoint's weights."""
        self._look(state.global_step, model)
        self._stop(state, control)

    def _stop(self, state: TrainerState, control: TrainerControl) -> None:
        if self.patience and parting(self.looks) >= self.patience:
            self.stopped = True
            control.should_training_stop = True
            console.print(
                f"stopped at step {state.global_step}: the training reward rises while the "
                "independent one falls; the checkpoint with the best independent reward is kept",
                style="yellow",
                soft_wrap=True,
            )

    def _look(self, step: int, model: object) -> None:
        if any(k.step == step for k in self.looks):
            return
        answers = sample_answers(
            cast(PreTrainedModel, model),
            self.encoder,
            self.tokenizer,
            self.prompts,
            self.how,
            title=f"held-out answers at step {step}",
        )
        exchanges = [
            Exchange(messages, one.text, one.finished)
            for messages, one in zip(self.prompts, answers, strict=True)
        ]
        other = None
        if self.independent is not None:
            other = float(np.mean(checked_rewards(self.independent, exchanges)))
        look = RewardLook(
            step,
            float(np.mean(checked_rewards(self.training, exchanges))),
            other,
            float(np.mean([len(one.text) for one in answers])),
            float(np.mean([one.finished for one in answers])),
        )
        self.looks.append(look)
        write_json(self.file, [asdict(one) for one in self.looks])
        shown = "" if other is None else f", independent {other:+.3f}"
        console.print(
            f"step {step}: held-out reward {look.training:+.3f}{shown}, "
            f"{look.characters:.0f} characters, {look.finished:.0%} finished",
            highlight=False,
        )
