"""The voter's own questions: two systems answer side by side, then the person votes.

What is sent while they write says left or right, never who. Knows nothing of how systems are
reached.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Protocol

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, StringConstraints

from litee.errors import LiteeError, ResourceError
from litee.rundir import Json
from litee.serve.ballots import LiveAnswers
from litee.serve.page import Page, RefusedError

_logger = logging.getLogger("litee.serve")

MAX_PROMPT = 4000
#: An answer is cut off after this many characters.
MAX_ANSWER = 20_000

_Item = tuple[int, str | Exception | None]


class Systems(Protocol):
    """Systems that can be asked."""

    @property
    def names(self) -> Sequence[str]:
        """Of the systems, as votes have them."""
        ...

    def stream(self, name: str, prompt: str) -> AsyncGenerator[str, None]:
        """A system's answer, piece by piece; closing the generator ends the writing.

        Raises:
            LiteeError: it does not answer.
        """
        ...


class AskIn(BaseModel):
    """A person's own question."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True, min_length=1, max_length=MAX_PROMPT, pattern=r"^[^\x00]+$"
        ),
    ]


class LiveRoutes:
    """The route for questions.

    Args:
        page: of the campaign.
        systems: at least two.
    """

    def __init__(self, page: Page, systems: Systems) -> None:
        self.page, self.campaign, self.systems = page, page.campaign, systems
        self._asking: set[int] = set()
        self.router = APIRouter()
        self.router.add_api_route("/api/live", self.ask, methods=["POST"], response_model=None)

    async def ask(
        self, request: Request, body: AskIn, x_litee_form: Annotated[str, Header()] = ""
    ) -> Response:
        """Ask two systems; their answers come as events, the last of which says how it ended."""
        session = self.page.session(request, owner=False)
        self.page.check_form(request, session, x_litee_form)
        assert session.person is not None
        person = session.person.number
        if person in self._asking or self.campaign.desk.waiting(person):
            raise RefusedError(409, "One question at a time", "Judge what is there, then ask.")
        if not self.campaign.desk.may_ask(person):
            raise RefusedError(409, "You judged as many as were asked for", "Thank you!")
        if len(self._asking) >= self.page.settings.live_at_once:
            raise RefusedError(429, "Many people are asking just now", "Try again in a moment.")
        return StreamingResponse(
            self._events(person, body.prompt),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    async def _events(self, person: int, prompt: str) -> AsyncGenerator[bytes, None]:
        if person in self._asking:  # another one came first, between the answer's head and body
            yield _event({"problem": "One question at a time"})
            return
        self._asking.add(person)
        try:
            two = self.campaign.desk.live_systems(self.systems.names)
            texts = ["", ""]
            async with (
                asyncio.timeout(self.page.settings.live_seconds),
                aclosing(self._both(two, prompt)) as pieces,
            ):
                async for side, text in pieces:
                    texts[side] += text
                    yield _event({"side": ("left", "right")[side], "text": text})
            await self.campaign.add_live(person, LiveAnswers(prompt, texts[0], texts[1], *two))
            yield _event({"done": True})
        except TimeoutError:
            yield _event({"problem": "The answers took too long. Nothing was stored."})
        except LiteeError as error:
            _logger.warning("a question was not answered: %s", error)
            yield _event({"problem": "One of the two did not answer. Nothing was stored."})
        finally:
            self._asking.discard(person)

    async def _both(
        self, names: Sequence[str], prompt: str
    ) -> AsyncGenerator[tuple[int, str], None]:
        """(0 for left or 1, text) as they come; closing ends both.

        Raises:
            LiteeError: of the system that failed first, with its name.
        """
        inbox: asyncio.Queue[_Item] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._follow(inbox, k, name, prompt))
            for k, name in enumerate(names)
        ]
        try:
            left = len(tasks)
            while left:
                side, item = await inbox.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    left -= 1
                elif item:
                    yield side, item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, inbox: asyncio.Queue[_Item], side: int, name: str, prompt: str) -> None:
        """Put a system's pieces, or what went wrong, into the inbox; None at the end."""
        length = 0
        try:
            async with aclosing(self.systems.stream(name, prompt)) as pieces:
                async for piece in pieces:
                    text = piece.replace("\x00", "")[: MAX_ANSWER - length]
                    length += len(text)
                    inbox.put_nowait((side, text))
                    if length >= MAX_ANSWER:
                        break
        except LiteeError as error:
            inbox.put_nowait((side, ResourceError(f"{name}: {error.problem}", fix=error.fix)))
        except Exception as error:
            _logger.exception("a live system failed")
            inbox.put_nowait((side, ResourceError(f"{name}: {type(error).__name__}")))
        inbox.put_nowait((side, None))


def _event(value: dict[str, Json]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
