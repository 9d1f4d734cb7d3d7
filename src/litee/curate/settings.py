"""Settings of `litee curate`. Knows nothing of how they are used; imports nothing heavy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from litee.config import Settings


class CurateSettings(Settings):
    """Settings of `litee curate`."""

    n: int = Field(1000, ge=1, description="Demonstrations to choose.")
    strategy: Literal["facility", "kcenter", "clusters", "quality", "random"] = Field(
        "facility",
        description="How to choose: cover all demonstrations (facility location), stay apart "
        "(k-center), take turns over topics (clusters), the best quality alone, or random, to "
        "compare the others with.",
    )
    quality: tuple[str, ...] = Field(
        ("rules",),
        min_length=1,
        description="What quality is: rules, score (the source's votes) or columns of scores, e.g. "
        "a judge's reward; several are joined by their mean rank.",
    )
    quality_weight: float = Field(
        0.5, ge=0, le=1, description="Weight of quality; the rest is diversity."
    )
    drop_worst: float = Field(
        0.0, ge=0, lt=1, description="Share of demonstrations of the lowest quality left out."
    )
    min_chars: int = Field(20, ge=0, description="Shortest answer, in characters.")
    max_chars: int = Field(16_000, ge=1, description="Longest answer, in characters.")
    near: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity from which two texts are duplicates."
    )
    per_prompt: int = Field(
        1, ge=1, description="Most demonstrations with nearly the same prompt, the best ones."
    )
    ngram: int = Field(
        8, ge=4, description="Words that a demonstration may not share with an evaluation prompt."
    )
    ngram_share: float = Field(
        0.5, gt=0, le=1, description="Share of an evaluation prompt's word runs that is a leak."
    )
    embedding: str = Field(
        "tfidf", description="Vectors of texts: tfidf, all-MiniLM-L6-v2, or an encoder's folder."
    )
    embed: Literal["prompt", "both"] = Field(
        "both", description="What is embedded: the prompt, or prompt and answer."
    )
    dimensions: int = Field(64, ge=2, description="Dimensions of the tfidf vectors.")
    topics: int = Field(
        0, ge=0, description="Number of topic clusters; 0 takes √(n / 2), up to 50."
    )
    topic_by: Literal["auto", "given", "clusters"] = Field(
        "auto",
        description="What a topic is: the files' topic, a cluster, or given when all have one.",
    )
    clients: int = Field(
        2000, ge=10, description="Random demonstrations that facility location has to cover."
    )
    max_per_source: int = Field(0, ge=0, description="Most demonstrations of one source; 0: any.")
    max_per_topic: int = Field(0, ge=0, description="Most demonstrations of one topic; 0: any.")
    quotas: tuple[str, ...] = Field(
        (),
        description="source:PATTERN=LOW-HIGH or topic:PATTERN=NUMBER; LOW- and -HIGH also do.",
    )
    seed: int = Field(0, ge=0, description="Seed of samples, vectors and clusters.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError(
                f"min_chars = {self.min_chars} is more than max_chars = {self.max_chars}: lower one"
            )
        if len(set(self.quality)) != len(self.quality):
            raise ValueError("quality names a column twice")
        return self
