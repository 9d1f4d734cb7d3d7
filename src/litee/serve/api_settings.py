"""Settings of `litee serve`. Imports nothing that serves."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from litee.predict.generation_settings import ModelSettings, SamplingSettings

EngineName = Literal["transformers", "vllm", "endpoint", "none"]


class ServeSettings(SamplingSettings, ModelSettings):
    """Settings of `litee serve`; sampling values are what a request gets that names none."""

    engine: EngineName = Field(
        "transformers",
        description="What writes answers: this process, a vLLM server started for it, another "
        "OpenAI-compatible server (endpoint), or none (a judge alone).",
    )
    endpoint: str = Field(
        "",
        description="Address of the other server, such as http://host:8000/v1; its key is read "
        "from LITEE_ENDPOINT_KEY.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8000, ge=0, le=65535, description="Port; 0 takes the first free one from 8787."
    )
    max_body: int = Field(1_048_576, ge=1024, description="Bytes of a request, at most.")
    max_messages: int = Field(256, ge=1, description="Messages of a dialogue, at most.")
    max_samples: int = Field(64, ge=1, le=1024, description="Answers per request, at most.")
    max_pairs: int = Field(512, ge=1, description="Pairs per request to the judge, at most.")
    max_requests: int = Field(
        128, ge=1, description="Requests under way at once; further ones are told to come back."
    )
    requests_per_minute: int = Field(
        1200, ge=0, description="Requests per minute and key (or address); 0 for no limit."
    )
    batch_wait_ms: float = Field(
        5.0, ge=0, le=1000, description="How long the judge waits for more requests to run with."
    )
    shutdown_seconds: int = Field(
        30, ge=0, description="Time that answers in writing get to end when the server stops."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.engine == "endpoint" and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("engine = endpoint needs endpoint = http://… or https://…")
        if self.endpoint and self.engine != "endpoint":
            raise ValueError(
                f"endpoint is given, but engine = {self.engine}: use --engine endpoint"
            )
        return self
