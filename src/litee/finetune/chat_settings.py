"""Settings of chat tuning: `litee tune sft`, `dpo`, `grpo` and `rloo`, and their presets.

A preset fills in what neither the file nor the command line gives. Knows nothing of how the
settings are carried out, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from litee.config import Settings

Method = Literal["lora", "qlora", "full"]
DpoLoss = Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "sigmoid_norm", "discopop"]
Ties = Literal["drop", "both", "votes"]
OnlineAlgorithm = Literal["grpo", "rloo"]

#: LIMA, section 3.2 and appendix (arXiv 2305.11206); its smaller models take batch 64, dropout 0.2.
LIMA: Mapping[str, object] = {
    "method": "full",
    "learning_rate": 1e-5,
    "final_learning_rate": 1e-6,
    "num_train_epochs": 15,
    "batch_size": 32,
    "max_length": 2048,
    "residual_dropout": 0.3,
    "packing": False,
    "select_first": 5,
    "select_last": 10,
    "dev_prompts": 50,
}

#: Made for two CPU cores and models of 100 to 300 million parameters.
LIGHT: Mapping[str, object] = {
    "method": "lora",
    "learning_rate": 5e-4,
    "final_learning_rate": 5e-5,
    "num_train_epochs": 3,
    "batch_size": 4,
    "max_length": 512,
    "residual_dropout": 0.05,
    "packing": True,
    "select_first": 1,
    "select_last": 3,
    "dev_prompts": 24,
}

#: Rows with documents (`litee raft build`) on small machines: long rows, each by itself.
RAFT: Mapping[str, object] = {
    **LIGHT,
    "num_train_epochs": 2,
    "max_length": 1024,
    "packing": False,
    "select_last": 2,
}

#: The travel comparison's QLoRA and RAFT of 7B models (arXiv 2408.03562 and its notebooks): r 64,
#: alpha 16, dropout 0.1, NF4, constant rate, early stopping. Here the loss is looked at once per
#: pass, there every 10 steps.
TRAVEL: Mapping[str, object] = {
    "method": "qlora",
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "learning_rate": 2e-4,
    "final_learning_rate": 2e-4,
    "weight_decay": 0.001,
    "max_grad_norm": 0.3,
    "num_train_epochs": 30,
    "patience": 3,
    "batch_size": 4,
    "max_length": 1536,
    "residual_dropout": 0.0,
    "packing": False,
    "select_first": 1,
    "select_last": 30,
}

SFT_PRESETS: Mapping[str, Mapping[str, object]] = {
    "lima": LIMA,
    "light": LIGHT,
    "raft": RAFT,
    "travel": TRAVEL,
}


class ChatSettings(Settings):
    """What all ways of tuning a chat model have in common."""

    backbone: str = Field(
        "smollm2-135m-instruct",
        description="Model to tune: a packaged name, a folder, a .gguf file or owner/name.",
    )
    method: Method = Field(
        "lora",
        description="What is trained: LoRA matrices, LoRA over 4-bit weights (qlora; CUDA only), "
        "or all weights.",
    )
    lora_r: int = Field(16, ge=1, description="LoRA rank.")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale is alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the mean gradient.")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's decay of its square.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm above which it is scaled.")
    micro_batch: int = Field(
        4, ge=1, description="Rows that go through the model at once; batch_size is made of them."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Data type of the weights; auto: bfloat16 on CUDA, else float32."
    )
    recompute: bool = Field(
        False, description="Compute activations twice instead of keeping them: less memory."
    )
    answer_tokens: int = Field(128, ge=1, description="Longest answer that is sampled, in tokens.")
    keep_checkpoints: bool = Field(False, description="Keep the checkpoints after the export.")
    threads: int = Field(0, ge=0, description="Compute threads; 0 takes all usable cores.")
    seed: int = Field(0, ge=0, description="Seed of order, dropout, splits and samples.")


class SftSettings(ChatSettings):
    """Settings of `litee tune sft`."""

    preset: Literal["light", "lima", "raft", "travel"] = Field(
        "light",
        description="What the other settings default to: light, LoRA for small machines; raft, "
        "the same for rows with documents; lima and travel, those papers' recipes (travel: QLoRA "
        "of 7B models, CUDA only).",
    )
    eot: str = Field(
        "auto",
        description="End-of-turn token: auto takes the chat template's, else one the vocabulary "
        "holds for it, else adds <|eot|>; or a token of your own.",
    )
    learning_rate: float = Field(5e-4, gt=0, description="Learning rate of the first step.")
    final_learning_rate: float = Field(
        5e-5, ge=0, description="Rate that the straight line from learning_rate ends in."
    )
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decay of the trained weights.")
    num_train_epochs: int = Field(3, ge=1, description="Passes over the demonstrations.")
    batch_size: int = Field(4, ge=1, description="Rows per optimiser step (packs, when packing).")
    max_length: int = Field(512, ge=16, description="Tokens of a row; longer ones lose their end.")
    residual_dropout: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Dropout of the residual branches of the last layer; it rises from 0 at the "
        "first layer in a straight line.",
    )
    packing: bool = Field(
        True, description="Put several demonstrations in a row; they do not see each other."
    )
    patience: int = Field(
        0,
        ge=0,
        description="Passes in a row without a lower held-out loss that end the run; 0: none do.",
    )
    select_first: int = Field(1, ge=1, description="First epoch whose checkpoint may be chosen.")
    select_last: int = Field(3, ge=1, description="Last epoch whose checkpoint may be chosen.")
    dev_prompts: int = Field(
        24, ge=0, description="Demonstrations held out to choose the checkpoint; 0 takes the last."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Mapping[str, object]) -> dict[str, object]:
        return _with_preset(values, SFT_PRESETS, "light")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate} is above learning_rate = "
                f"{self.learning_rate}"
            )
        if not self.select_first <= self.select_last <= self.num_train_epochs:
            raise ValueError(
                f"select_first = {self.select_first} and select_last = {self.select_last} must "
                f"rise and not pass num_train_epochs = {self.num_train_epochs}"
            )
        if self.patience and self.select_first > 1:
            raise ValueError(
                f"patience = {self.patience} may end the run before select_first = "
                f"{self.select_first}: set one of them back"
            )
        _check_batches(self.batch_size, self.micro_batch)
        return self


class DpoSettings(ChatSettings):
    """Settings of `litee tune dpo`."""

    loss: DpoLoss = Field(
        "sigmoid",
        description="Loss of TRL's DPOTrainer: sigmoid is DPO; ipo, robust and the others as TRL "
        "documents them.",
    )
    beta: float = Field(0.1, gt=0, description="How strongly the reference model holds (τ of ipo).")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Share of flipped votes that the robust loss assumes."
    )
    sft_weight: float = Field(
        0.0, ge=0, description="Weight of a likelihood term on the preferred answer."
    )
    ties: Ties = Field(
        "drop",
        description="Pairs without a majority: drop them; both, use them in both directions; "
        "votes, make every vote an example, a tie vote one of alternating direction.",
    )
    learning_rate: float = Field(5e-5, gt=0, description="Peak learning rate.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of steps with rising rate.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay of the trained weights.")
    num_train_epochs: int = Field(1, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(16, ge=1, description="Pairs per optimiser step.")
    max_length: int = Field(512, ge=16, description="Tokens of prompt and answer together.")
    save_steps: int = Field(10, ge=1, description="Optimiser steps between checkpoints.")
    samples: int = Field(
        4, ge=2, description="Answers per prompt that are sampled and ranked, with --prompts."
    )
    temperature: float = Field(1.0, gt=0, description="Temperature of the samples.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus of the samples.")
    margin: float = Field(
        0.1,
        ge=0,
        description="Smallest difference of rewards between the best and the worst sample; "
        "prompts below it are left out and counted.",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(f"label_smoothing needs loss = robust, loss is {self.loss}")
        _check_batches(self.batch_size, self.micro_batch)
        return self


class OnlineSettings(ChatSettings):
    """Settings of `litee tune grpo` and `litee tune rloo`."""

    beta: float = Field(
        0.04, ge=0, description="Weight of the KL divergence from the untuned model; 0: none."
    )
    learning_rate: float = Field(5e-5, gt=0, description="Learning rate, constant.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay of the trained weights.")
    max_steps: int = Field(100, ge=1, description="Optimiser steps.")
    samples: int = Field(4, ge=2, description="Answers per prompt in a group.")
    batch_size: int = Field(
        16, ge=2, description="Answers per optimiser step; a multiple of samples."
    )
    max_prompt_tokens: int = Field(
        256, ge=8, description="Prompts that are longer are left out and counted."
    )
    temperature: float = Field(1.0, gt=0, description="Temperature of the samples.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus of the samples.")
    save_steps: int = Field(
        20,
        ge=1,
        description="Optimiser steps between checkpoints, each with a look at held-out prompts.",
    )
    length_penalty: float = Field(
        0.0,
        ge=0,
        description="Taken off the reward for each 100 characters of an answer: against rewards "
        "that grow with length alone.",
    )
    unfinished_penalty: float = Field(
        0.0, ge=0, description="Taken off the reward of an answer cut off at answer_tokens."
    )
    pattern: str = Field(
        "", description="Regular expression that an answer should match, e.g. for a format."
    )
    pattern_reward: float = Field(
        0.0, ge=0, description="Added to the reward of an answer that matches pattern."
    )
    vllm: bool = Field(
        False, description="Sample with vLLM in the same process; needs CUDA and vllm installed."
    )
    dev_prompts: int = Field(
        16, ge=0, description="Prompts held out for the independent judge's curve."
    )
    reward_limit: float = Field(
        1e4, gt=0, description="Size above which a reward counts as exploding; stops the run."
    )
    constant_steps: int = Field(
        10, ge=1, description="Steps in a row with equal rewards in all groups that stop the run."
    )
    parting_looks: int = Field(
        3,
        ge=0,
        description="Looks in a row at which the training reward is above and the independent one "
        "below where it began: stops the run, for the reward is being gamed; 0 never does.",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.batch_size % self.samples:
            raise ValueError(
                f"batch_size = {self.batch_size} is no multiple of samples = {self.samples}"
            )
        _check_batches(self.batch_size, self.micro_batch)
        if bool(self.pattern) != bool(self.pattern_reward):
            raise ValueError("pattern and pattern_reward need each other")
        return self


def _check_batches(batch_size: int, micro_batch: int) -> None:
    if batch_size % min(micro_batch, batch_size):
        raise ValueError(f"batch_size = {batch_size} is no multiple of micro_batch = {micro_batch}")


def _with_preset(
    values: Mapping[str, object], presets: Mapping[str, Mapping[str, object]], default: str
) -> dict[str, object]:
    """The values over those of the preset they name; an unknown preset is left to validation."""
    chosen = presets.get(str(values.get("preset", default)), {})
    return {**chosen, **values}
