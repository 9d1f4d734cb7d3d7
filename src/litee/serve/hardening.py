"""What every answer of the page carries and every request must pass: headers, hosts, sizes, rates.

Pure ASGI, so that nothing is buffered. Knows nothing of votes and people.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Nothing is loaded from elsewhere, nothing runs in the page but its own script file.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # with no-referrer browsers would send their own forms with the origin "null"
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class _TooLargeError(Exception):
    """The body grew past its limit while it was read."""


@dataclass(slots=True)
class _Wire:
    """One request's messages: counts what comes in, adds headers to what goes out.

    Attributes:
        receive: of the server.
        send: of the server.
        limit: bytes that may come in.
        total: bytes that came in.
        over: whether that was too much.
        started: whether an answer was begun.
    """

    receive: Receive
    send: Send
    limit: int
    total: int = 0
    over: bool = False
    started: bool = False

    async def receiving(self) -> Message:
        """The next message; stops reading past the limit."""
        message = await self.receive()
        self.total += len(message.get("body", b""))
        if self.total > self.limit:
            self.over = True
            raise _TooLargeError
        return message

    async def sending(self, message: Message) -> None:
        """Pass an answer on, unless it is what the application makes of a body cut off."""
        if self.over and not self.started:
            return
        if message["type"] == "http.response.start":
            self.started = True
            found = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                found.setdefault(name, value)
        await self.send(message)


class Hardened:
    """Wraps an application.

    Args:
        app: to protect.
        hosts: names by which it may be called (the Host header without port); empty allows any.
        max_body: bytes, for every path that `large` does not name.
        large: path → bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        max_body: int = 65_536,
        large: dict[str, int] | None = None,
    ) -> None:
        self.app, self.hosts, self.max_body = app, hosts, max_body
        self.large = large or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self.large.get(scope["path"], self.max_body)
        refusal = self._refusal(headers, limit)
        wire = _Wire(receive, send, limit)
        if refusal is not None:
            await refusal(scope, receive, wire.sending)
            return
        with contextlib.suppress(_TooLargeError):
            await self.app(scope, wire.receiving, wire.sending)
        if wire.over and not wire.started:
            wire.over = False
            await _too_large(limit)(scope, receive, wire.sending)

    def _refusal(self, headers: Headers, limit: int) -> PlainTextResponse | None:
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self.hosts and name.lower().strip("[]") not in self.hosts:
            return PlainTextResponse("This page is not known by that address.\n", 421)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return PlainTextResponse("The length of the request cannot be read.\n", 400)
        return _too_large(limit) if int(length) > limit else None


def _too_large(limit: int) -> PlainTextResponse:
    text = f"That is too much at once: at most {limit:,} bytes.\n"
    return PlainTextResponse(text, 413, headers={"connection": "close"})


@dataclass(slots=True)
class Rate:
    """A token bucket per name; the longest unused names are forgotten.

    Attributes:
        per_second: requests allowed on average.
        burst: requests allowed at once.
        names: how many names are remembered.

    >>> rate = Rate(per_second=1, burst=2)
    >>> [rate.allows("me", now=0.0) for _ in range(3)], rate.allows("me", now=1.0)
    ([True, True, False], True)
    """

    per_second: float = 20.0
    burst: float = 60.0
    names: int = 10_000
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def allows(self, name: str, now: float | None = None) -> bool:
        """Take one token; False when there is none."""
        now = time.monotonic() if now is None else now
        tokens, last = self._left.pop(name, (self.burst, now))
        tokens = min(self.burst, tokens + (now - last) * self.per_second)
        allowed = tokens >= 1
        self._left[name] = (tokens - allowed, now)
        while len(self._left) > self.names:
            self._left.popitem(last=False)
        return allowed
