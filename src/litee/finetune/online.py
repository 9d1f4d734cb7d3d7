"""Tuning a chat model on a reward, with answers drawn as it learns: TRL's GRPO and RLOO trainers.

They stand for the reward-model and PPO step of RLHF: TRL maintains these two, its PPO trainer is
no longer among its stable ones. The reference of the KL term is the adapter switched off. Knows
nothing of judges: rewards are handed in.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from litee.errors import ConfigError, ModelError
from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_model import ChatModel, known_warnings, load_chat_model, lora_config
from litee.finetune.chat_sampling import Sampling
from litee.finetune.chat_settings import OnlineAlgorithm, OnlineSettings
from litee.finetune.chat_training import (
    checkpoints,
    curve_of,
    export,
    load_weights,
    make_arguments,
    no_bars,
    run_trainer,
    write_receipt,
)
from litee.finetune.device import use_threads
from litee.finetune.held_out import HeldOut, best_step, read_looks
from litee.finetune.online_prompts import split_prompts, usable_prompts
from litee.finetune.rewards import Exchange, RewardFunction, RuleRewards, checked_rewards
from litee.records import Dropped, Message, RewardLook
from litee.rundir import Json, RunDir, sha256_json, write_json


@dataclass(frozen=True, slots=True)
class OnlineResult:
    """A finished run.

    Attributes:
        weights: folder of the adapter, or of the model when all weights were trained.
        step: optimiser steps behind them.
        looks: at the held-out prompts, in order of steps.
        stopped_early: whether training and independent reward parted.
        dropped: prompts that were not used, by reason.
    """

    weights: Path
    step: int
    looks: tuple[RewardLook, ...]
    stopped_early: bool
    dropped: Dropped


class GroupReward:
    """A reward in the shape TRL asks for; stops what cannot be learnt from.

    Args:
        reward: of an exchange.
        rules: added to it.
        settings: group size and limits.
        stops: ids of tokens that end an answer.
    """

    def __init__(
        self,
        reward: RewardFunction,
        rules: RuleRewards,
        settings: OnlineSettings,
        stops: frozenset[int],
    ) -> None:
        self.reward, self.rules, self.settings, self.stops = reward, rules, settings, stops
        self.constant = 0
        self.__name__ = "reward"

    def total(self, exchanges: Sequence[Exchange]) -> list[float]:
        """Reward and rules, checked."""
        given = checked_rewards(self.reward, exchanges, limit=self.settings.reward_limit)
        return [a + b for a, b in zip(given, self.rules(exchanges), strict=True)]

    def __call__(
        self,
        prompts: Sequence[Sequence[Mapping[str, str]]],
        completions: Sequence[Sequence[Mapping[str, str]]],
        completion_ids: Sequence[Sequence[int]],
        **_: object,
    ) -> list[float]:
        """TRL's call: conversations, answers and their ids, groups one after another.

        Raises:
            ModelError: a reward is not a number or explodes, or all groups were constant for
                `constant_steps` calls in a row.
        """
        exchanges = [
            Exchange(
                tuple(Message(m["role"], m["content"]) for m in asked),
                answered[0]["content"],
                bool(ids) and ids[-1] in self.stops,
            )
            for asked, answered, ids in zip(prompts, completions, completion_ids, strict=True)
        ]
        values = self.total(exchanges)
        groups = np.array(values).reshape(-1, self.settings.samples)
        self.constant = 0 if (np.ptp(groups, axis=1) > 1e-9).any() else self.constant + 1
        if self.constant >= self.settings.constant_steps:
            raise ModelError(
                f"the reward told no two answers to a prompt apart for {self.constant} steps in a "
                "row: there is nothing to learn from",
                fix="use another judge, raise temperature or answer_tokens; the last checkpoint "
                "is intact",
            )
        return values


def tune_online(
    conversations: Sequence[tuple[Message, ...]],
    reward: RewardFunction,
    settings: OnlineSettings,
    algorithm: OnlineAlgorithm,
    *,
    out: Path,
    inputs: Mapping[str, str],
    independent: RewardFunction | None = None,
    names: tuple[str, str] = ("", ""),
    resume: bool = False,
) -> OnlineResult:
    """Tune a chat model on a reward.

    Args:
        conversations: prompts, each ending with a user message.
        reward: what is learnt.
        settings: backbone, sampling, KL weight and sizes.
        algorithm: `grpo` (arXiv 2402.03300) or `rloo` (arXiv 2402.14740).
        out: the run's folder; the result is `adapter/` or `model/` in it.
        inputs: input file → sha256, for the manifest.
        independent: a reward that is looked at and not learnt; chooses the checkpoint.
        names: what both rewards are, for the manifest.
        resume: go on with an earlier run.

    Raises:
        ConfigError: settings do not fit together, the machine, or the run to resume.
        InputError: too few prompts are left.
        ModelError: the backbone cannot be used, or the reward or the loss cannot be learnt from.
    """
    use_threads(settings.threads)
    texts = [[m.text for m in messages] for messages in conversations]
    manifest: dict[str, Json] = {
        "kind": algorithm,
        "settings": json.loads(settings.model_dump_json()),
        "inputs": dict(inputs),
        "prompts": sha256_json(texts),
        "rewards": list(names),
    }
    run = RunDir(out, manifest, resume=resume)
    task = _Task(conversations, reward, independent, settings, algorithm, run)
    run.run("train", task.train)
    run.run("export", task.export)
    write_receipt(run, settings, inputs)
    if not settings.keep_checkpoints:
        shutil.rmtree(task.folder, ignore_errors=True)
    saved = json.loads((out / "tuning.json").read_text(encoding="utf-8"))
    return OnlineResult(
        task.weights,
        saved["step"],
        tuple(read_looks(task.looks)),
        saved["stopped_early"],
        Dropped(saved["dropped"]),
    )


class _Task:
    """The stages of one run."""

    def __init__(
        self,
        conversations: Sequence[tuple[Message, ...]],
        reward: RewardFunction,
        independent: RewardFunction | None,
        settings: OnlineSettings,
        algorithm: OnlineAlgorithm,
        run: RunDir,
    ) -> None:
        self.conversations, self.reward, self.independent = conversations, reward, independent
        self.settings, self.algorithm = settings, algorithm
        self.run = run
        self.folder = run.path / "run" / "checkpoints"
        self.looks = run.path / "run" / "looks.json"
        self.weights = run.path / ("model" if settings.method == "full" else "adapter")

    def train(self) -> int:
        """The training stage; returns the tokens that went through the model, as TRL counts."""
        settings = self.settings
        chat = load_chat_model(settings, adapt=False)
        encoder = ChatEncoder(chat.tokenizer, settings.max_prompt_tokens)
        prompts, dropped = usable_prompts(self.conversations, encoder, chat)
        held, training = split_prompts(prompts, settings)
        rules = RuleRewards(
            settings.length_penalty,
            settings.unfinished_penalty,
            settings.pattern,
            settings.pattern_reward,
        )
        reward = GroupReward(self.reward, rules, settings, _stops(chat))
        trainer = online_trainer(chat, training, reward, settings, self.algorithm, self.folder)
        watch = HeldOut(
            held,
            encoder,
            chat.tokenizer,
            training=reward.total,
            independent=self.independent,
            how=Sampling(
                settings.answer_tokens, settings.temperature, settings.top_p, seed=settings.seed
            ),
            file=self.looks,
            patience=settings.parting_looks,
        )
        if held:
            trainer.add_callback(watch)
        run_trainer(trainer, self.folder, self.algorithm)
        self._report(chat, len(training), dropped, stopped=watch.stopped)
        tokens = int(trainer.state.num_input_tokens_seen)
        del trainer, chat, watch
        gc.collect()
        return tokens

    def export(self) -> int:
        """The best checkpoint's weights, to their folder."""
        step = json.loads((self.run.path / "tuning.json").read_text(encoding="utf-8"))["step"]
        chat = load_chat_model(self.settings)
        load_weights(chat, checkpoints(self.folder)[step])
        export(chat, self.weights)
        return 0

    def _report(self, chat: ChatModel, prompts: int, dropped: Dropped, *, stopped: bool) -> None:
        whole = checkpoints(self.folder)
        looks = read_looks(self.looks)
        curve = curve_of(list(whole.values())[-1])
        record: dict[str, Json] = {
            "kind": self.algorithm,
            "backbone": {"name": chat.folder.name, "sha256": chat.folder.sha256},
            "step": best_step(looks, list(whole)),
            "stopped_early": stopped,
            "prompts": prompts,
            "dropped": dict(dropped.counts),
            "looks": [asdict(look) for look in looks],
            "curve": curve.to_json(),
        }
        write_json(self.run.path / "tuning.json", record)


def _stops(chat: ChatModel) -> frozenset[int]:
    """Tokens at which TRL ends an answer: the end of turn, and what the model's settings name."""
    config = getattr(chat.model, "generation_config", None)
    named = None if config is None else config.eos_token_id
    further = named if isinstance(named, list) else [] if named is None else [named]
    return frozenset({chat.eot.id, *further})


def online_trainer(
    chat: ChatModel,
    prompts: Sequence[tuple[Message, ...]],
    reward: GroupReward,
    settings: OnlineSettings,
    algorithm: OnlineAlgorithm,
    folder: Path,
) -> GRPOTrainer | RLOOTrainer:
    """TRL's trainer; with LoRA the reference is the same model with the adapter off.

    Raises:
        ConfigError: vLLM is asked for and not there.
    """
    if settings.vllm:
        check_vllm()
    arguments = online_arguments(settings, algorithm, folder, device=chat.device)
    rows = [
        [{"role": m.role, "content": m.text} for m in prompts[k]]
        for k in prompt_order(len(prompts), settings)
    ]
    kind: Any = GRPOTrainer if algorithm == "grpo" else RLOOTrainer
    with known_warnings(), no_bars():
        trainer: GRPOTrainer | RLOOTrainer = kind(
            chat.model,
            reward_funcs=[reward],
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": rows}),
            processing_class=chat.tokenizer,
            peft_config=lora_config(settings),
        )
    return trainer


def prompt_order(count: int, settings: OnlineSettings) -> list[int]:
    """Numbers of the prompts in the order of their steps: pass after pass, each shuffled.

    TRL's own shuffling starts again when a run is resumed; this order does not.
    """
    needed = settings.max_steps * settings.batch_size // settings.samples
    rng = np.random.default_rng([settings.seed, 1])
    order: list[int] = []
    while len(order) < needed:
        order += rng.permutation(count).tolist()
    return order[:needed]


def online_arguments(
    settings: OnlineSettings, algorithm: OnlineAlgorithm, folder: Path, *, device: str
) -> GRPOConfig | RLOOConfig:
    """TRL's config of a run; one batch of answers per optimiser step, so all are on-policy."""
    kind: type[GRPOConfig] | type[RLOOConfig] = GRPOConfig if algorithm == "grpo" else RLOOConfig
    return make_arguments(
        kind,
        settings,
        folder,
        device=device,
        batch_size=settings.batch_size,
        num_generations=settings.samples,
        max_completion_length=settings.answer_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=settings.weight_decay,
        max_steps=settings.max_steps,
        shuffle_dataset=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        use_vllm=settings.vllm,
        **({"vllm_mode": "colocate"} if settings.vllm else {}),
    )


def check_vllm() -> None:
    """Raise ConfigError unless vLLM can be used."""
    if not torch.cuda.is_available():
        raise ConfigError("vllm = true needs a CUDA GPU", fix="leave vllm off on a CPU")
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("vllm = true, but vllm is not installed", fix="pip install vllm")
