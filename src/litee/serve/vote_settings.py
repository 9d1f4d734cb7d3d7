"""Settings of the blind voting page. Imports nothing that serves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from litee.config import Settings

#: Addresses that only this machine can reach.
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


_LIVE = re.compile(r"^(?:([^=@/\s]+)=)?(\S+)@(https?://[^\s@]+)$")


@dataclass(frozen=True, slots=True)
class LiveSystem:
    """A system that answers live.

    Attributes:
        name: as votes have it.
        model: as its server has it.
        url: of the server, up to and with `/v1`.
    """

    name: str
    model: str
    url: str


def live_system(text: str) -> LiveSystem:
    """A system as it is written in the settings.

    Raises:
        ValueError: it is written in another way.

    >>> live_system("tuned=short@http://localhost:8000/v1")
    LiveSystem(name='tuned', model='short', url='http://localhost:8000/v1')
    """
    match = _LIVE.match(text)
    if match is None:
        raise ValueError(
            f"live = {text!r}: write MODEL@http://host:port/v1 or NAME=MODEL@http://host:port/v1"
        )
    return LiveSystem(match[1] or match[2], match[2], match[3].rstrip("/"))


class VoteSettings(Settings):
    """Settings of `litee vote`."""

    title: str = Field(
        "Which answer is better?", min_length=1, max_length=120, description="Heading of the page."
    )
    mode: Literal["compare", "grade"] = Field(
        "compare",
        description="compare: which answer is better; grade: fail, pass or excellent for each "
        "answer (the better grade wins).",
    )
    people_per_pair: int = Field(
        1, ge=1, le=1000, description="Votes wanted on each pair, each by another person."
    )
    per_person: int = Field(
        0, ge=0, description="Most pairs that one person is asked about; 0 asks about all."
    )
    choice: Literal["random", "balanced", "informative"] = Field(
        "balanced",
        description="Which pair is asked next: any; the one with the fewest votes, of the systems "
        "with the fewest votes; or the one whose vote teaches most (about the ranking, or about "
        "what the judge is unsure of).",
    )
    repeats: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of hidden repeats with the sides exchanged, for self-agreement.",
    )
    checks: float = Field(
        0.05, ge=0, le=0.5, description="Share of attention checks, as long as there are any left."
    )
    ratings: bool = Field(False, description="Also offer 1–5 for each answer.")
    per_turn: bool = Field(True, description="Offer a verdict on every turn of a conversation.")
    tags: tuple[str, ...] = Field(
        ("wrong facts", "off topic", "too long", "too short", "unsafe", "badly written"),
        max_length=20,
        description="Defects that may be ticked for each answer.",
    )
    ahead: int = Field(
        3, ge=1, le=20, description="Pairs that the browser holds ready for a lost network."
    )
    live: tuple[str, ...] = Field(
        (),
        description="Systems that answer a person's own question, two at a time: two or more of "
        "MODEL@URL or NAME=MODEL@URL, each at an OpenAI-compatible server (.../v1); its key is "
        "read from LITEE_ENDPOINT_KEY.",
    )
    live_tokens: int = Field(512, ge=1, description="Tokens of a live answer, at most.")
    live_seconds: float = Field(
        120.0, gt=0, description="Seconds that two live answers may take together."
    )
    live_at_once: int = Field(8, ge=1, description="People whose questions are answered at once.")
    hold_minutes: float = Field(
        30.0, gt=0, description="How long a pair that was shown waits for its vote."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="Port; 0 takes 8787 or the next free one.")
    public_url: str = Field(
        "", description="Address people use when it is not host and port, e.g. behind a proxy."
    )
    upload_mb: int = Field(20, ge=1, le=1000, description="Largest file the owner may import.")
    seed: int = Field(0, ge=0, description="Seed of sides, order, repeats and checks.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.tags)) != len(self.tags) or any(
            not tag.strip() or len(tag) > 40 for tag in self.tags
        ):
            raise ValueError("tags must differ and have 1 to 40 characters each")
        if self.repeats + self.checks > 0.6:
            raise ValueError(
                "repeats and checks together take more than 0.6 of the questions: lower one"
            )
        names = [live_system(text).name for text in self.live]
        if len(names) == 1 or len(set(names)) != len(names):
            raise ValueError("live needs two or more systems with different names")
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise ValueError("public_url must start with http:// or https://")
        return self
