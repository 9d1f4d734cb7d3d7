"""Settings of `litee raft build`. Knows nothing of how rows are made."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from litee.config import Settings


class RaftSettings(Settings):
    """How the rows of retrieval-augmented fine-tuning are made."""

    oracle_share: float = Field(
        0.8, ge=0, le=1, description="Share of training rows whose documents hold the oracle."
    )
    distractors: int = Field(4, ge=0, description="Documents beside the oracle.")
    distractor_kind: Literal["hard", "random", "mixed"] = Field(
        "mixed",
        description="Distractors: those that search finds for the question, random ones, or half "
        "of each.",
    )
    most_oracles: int = Field(
        4, ge=1, description="Oracle documents of a row; further ones are left out of it."
    )
    without_oracle: Literal["answer", "decline"] = Field(
        "answer",
        description="Answer of rows without the oracle: the same as with it, but without quotes "
        "(as the RAFT paper trains), or that the documents do not say.",
    )
    questions_per_chunk: int = Field(5, ge=1, description="Questions that a model asks per chunk.")
    history: int = Field(5, ge=1, description="Last messages of a dialogue that make the question.")
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the questions for validation, by entity or document."
    )
    test_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the questions for the test, by entity or document."
    )
    test_distractors: tuple[int, ...] = Field(
        (0, 2, 4, 8), description="Numbers of distractors for which a test file is written."
    )
    retrieved: int = Field(5, ge=1, description="Documents of a row in the retrieved test file.")
    seed: int = Field(0, ge=0, description="Seed of the split, the shuffles and the random picks.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share leave nothing to train on")
        if min(self.test_distractors, default=0) < 0:
            raise ValueError("test_distractors must not be negative")
        if self.oracle_share < 1 and not self.distractors:
            raise ValueError(
                f"oracle_share = {self.oracle_share} leaves rows without any document when "
                "distractors = 0: raise distractors, or set oracle_share to 1"
            )
        return self
