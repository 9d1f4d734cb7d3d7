"""Settings of language models as judges: which model, where, what it may cost.

Knows nothing of prompts and metrics; imports no torch.
"""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from litee.config import Settings


class LlmJudgeSettings(Settings):
    """Settings of the language model that judges (`litee score --llm`)."""

    model: str = Field(
        "",
        description="Model that judges: with base_url the endpoint's name for it, else a local "
        "one (a packaged name, a folder, a .gguf file or owner/name on the hub).",
    )
    base_url: str = Field(
        "",
        description="OpenAI-compatible endpoint, e.g. http://localhost:8000/v1; empty: the model "
        "runs here.",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="Environment variable with the endpoint's key; none is sent when it is unset.",
    )
    structured: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema", description="How the endpoint is told to reply in JSON."
    )
    comment: bool = Field(
        True, description="Let the endpoint's model write its reasons before the verdict."
    )
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="Sampling temperature of the endpoint; null leaves it unset."
    )
    max_reply_tokens: int = Field(
        512, ge=1, description="Most tokens of an endpoint's reply to one question."
    )
    reply_tokens_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls max_reply_tokens."
    )
    max_text_tokens: int = Field(
        512,
        ge=8,
        description="Tokens kept of each quoted text, its middle is cut; an endpoint's texts are "
        "cut at four characters a token.",
    )
    timeout: float = Field(60.0, gt=0, description="Seconds an endpoint has for one reply.")
    retries: int = Field(
        3, ge=0, description="How often a failed request is sent again, with growing waits."
    )
    concurrency: int = Field(4, ge=1, le=256, description="Requests under way at once.")
    price_in: float | None = Field(
        None, ge=0, description="Price of a million tokens read, in any currency."
    )
    price_out: float | None = Field(None, ge=0, description="Price of a million tokens written.")
    store: bool = Field(
        True, description="Keep verdicts on disk ($LITEE_CACHE/verdicts) and ask no question twice."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="Data type of a local model; auto measures which is faster."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where a local model runs; auto takes a GPU when there is one."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base_url and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", self.base_url):
            raise ValueError(
                f"base_url = {self.base_url.rsplit('@', 1)[-1]!r} is no http(s) address without "
                "a user name: write http://host:port/v1 and put the key into the environment"
            )
        if self.base_url and not self.model:
            raise ValueError("base_url needs model: the endpoint's name for the model")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out go together: give both or neither")
        return self

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """Price of some tokens, None when no prices are set.

        >>> LlmJudgeSettings(price_in=1.0, price_out=4.0).price(500_000, 250_000)
        1.5
        """
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6
