"""Settings of text generation; the defaults are LIMA's (arXiv 2305.11206).

Imports no torch and knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from litee.config import Settings

PresetName = Literal["lima", "greedy", "plain"]

#: Sampling by name. LIMA: nucleus sampling with p = 0.9, temperature 0.7, repetition penalty 1.2.
PRESETS: Mapping[str, Mapping[str, float]] = {
    "lima": {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2},
    "greedy": {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0},
    "plain": {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0},
}


class SamplingSettings(Settings):
    """How the next token is drawn."""

    preset: PresetName = Field(
        "lima",
        description="Temperature, top_p and repetition_penalty by name: lima (0.7, 0.9, 1.2), "
        "greedy (0, 1, 1) or plain (1, 1, 1); values given themselves override it.",
    )
    temperature: float = Field(
        PRESETS["lima"]["temperature"],
        ge=0,
        le=10,
        description="Divides the logits; 0 takes the most probable token.",
    )
    top_p: float = Field(
        PRESETS["lima"]["top_p"],
        gt=0,
        le=1,
        description="Smallest set of most probable tokens with this mass is drawn from.",
    )
    repetition_penalty: float = Field(
        PRESETS["lima"]["repetition_penalty"],
        ge=0.1,
        le=10,
        description="Divides positive logits of tokens that occurred, multiplies negative ones.",
    )
    penalise_prompt: bool = Field(
        False,
        description="Count the prompt's tokens as occurred, as transformers and vLLM do; LIMA "
        "and CTRL count written ones, which leaves the end-of-turn token and the question's words "
        "alone.",
    )
    max_new_tokens: int = Field(
        512, ge=1, le=1 << 20, description="Tokens after which an answer is cut off."
    )
    seed: int = Field(
        0, ge=0, lt=1 << 63, description="Seed; every prompt and sample gets its own from it."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        preset = PRESETS.get(str(values.get("preset", "lima")), {})
        return {**preset, **values}


class ModelSettings(Settings):
    """Which model writes, and how it is run."""

    backbone: str = Field(
        "smollm2-135m-instruct",
        description="Chat model: a packaged name, a folder, a .gguf file or owner/name on the hub.",
    )
    template: Literal["auto", "chat", "plain"] = Field(
        "auto", description="Prompt template: the model's chat template, a plain one, or auto."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Data type of the weights; auto: bfloat16 on a GPU, float32 elsewhere."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs; auto takes a GPU when there is one."
    )
    threads: int = Field(0, ge=0, description="Compute threads; 0 takes all usable cores.")
    max_batch: int = Field(16, ge=1, le=4096, description="Answers that are written at once.")
    max_batch_tokens: int = Field(
        32768,
        ge=64,
        description="Tokens held for all answers in writing; further ones wait. Bounds the memory.",
    )


class GenerateSettings(SamplingSettings, ModelSettings):
    """Settings of `litee generate`."""

    system: str = Field("", description="System message before every prompt; empty for none.")
    best_of: int = Field(
        1, ge=1, le=1024, description="Samples per prompt of which the judge keeps the best one."
    )
    samples: int = Field(1, ge=1, le=1024, description="Answers written out per prompt.")

    @model_validator(mode="after")
    def _agree(self) -> GenerateSettings:
        if self.best_of > 1 and self.samples > 1:
            raise ValueError(
                f"samples = {self.samples} and best_of = {self.best_of} exclude each other: "
                "leave samples at 1, and add --all to keep every candidate"
            )
        if self.temperature == 0 and max(self.best_of, self.samples) > 1:
            raise ValueError(
                "temperature = 0 writes the same answer every time: raise the temperature, or "
                "leave samples and best_of at 1"
            )
        return self
