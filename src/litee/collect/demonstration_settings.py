"""Settings of `litee data demonstrations`: LIMA's filters with their published values.

Knows nothing of files. Source of the defaults: Zhou et al. (2023), "LIMA: Less Is More for
Alignment", section 2 and the appendix on data.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from litee.config import Settings

#: Sites that count as STEM, by the first part of their name. The paper does not list its 75.
STEM_SITES = (  # noqa: SIM905
    "ai astronomy bioinformatics biology chemistry computergraphics cs cseducators cstheory "
    "datascience dba dsp earthscience electronics engineering gis hsm math matheducators "
    "mathematica mathoverflow mattermodeling networkengineering or physics quant quantumcomputing "
    "reverseengineering robotics scicomp security softwareengineering space stackoverflow stats "
    "superuser serverfault unix"
).split()


class DemonstrationSettings(Settings):
    """Settings of `litee data demonstrations`."""

    n: int = Field(0, ge=0, description="Demonstrations to sample at most; 0 keeps all.")
    min_score: float = Field(
        10, description="Stack Exchange, Reddit: lowest score of an answer that is used."
    )
    min_chars: int = Field(
        1200, ge=0, description="Stack Exchange, Reddit, wikiHow: shortest answer, in characters."
    )
    max_chars: int = Field(
        4096, ge=1, description="Stack Exchange, Reddit: longest answer, in characters."
    )
    first_person: bool = Field(
        False, description="Stack Exchange: keep answers in the first person (I, my)."
    )
    references: bool = Field(
        False, description="Stack Exchange: keep answers that refer to other posts."
    )
    prompt: Literal["random", "title", "body"] = Field(
        "random", description="Stack Exchange: the question's title or body, or either by chance."
    )
    temperature: float = Field(
        3.0, gt=0, description="Sites are sampled with weight (questions of the site)^(1/this)."
    )
    stem_share: float = Field(
        0.5, ge=0, le=1, description="Stack Exchange: share of n that STEM sites get."
    )
    per_site: int = Field(
        2000, ge=1, description="Stack Exchange, Reddit: best-scored questions held per site."
    )
    language: str = Field("en", description="OASST: language of the trees; empty keeps all.")
    categories: tuple[str, ...] = Field(
        (
            "Summarization",
            "Paraphrasing",
            "Style Transfer",
            "Title Generation",
            "Story Composition",
            "Text Completion",
            "Question Rewriting",
            "Sentence Composition",
            "Dialogue Generation",
            "Poem Generation",
            "Explanation",
        ),
        description="Super-Natural-Instructions: task categories that are used; none keeps all.",
    )
    per_task: int = Field(
        1, ge=0, description="Super-Natural-Instructions: random examples per task; 0 keeps all."
    )
    per_prompt: int = Field(
        1, ge=0, description="Votes: most answers to one prompt, the preferred ones; 0 keeps all."
    )
    systems: tuple[str, ...] = Field(
        (), description="Votes: only answers that these systems wrote; none takes every system's."
    )
    salvage: bool = Field(
        False, description="Keep what comes out of a damaged file before the damage."
    )
    seed: int = Field(0, ge=0, description="Seed of sampling and of title or body.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError(
                f"min_chars = {self.min_chars} is more than max_chars = {self.max_chars}: lower one"
            )
        return self
