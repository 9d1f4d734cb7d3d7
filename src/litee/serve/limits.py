"""Who may ask, how much, how often and how many at once: a gate in front of the API.

Keys come from a file or the environment, are compared in constant time and never logged. Pure
ASGI, so that streams are not buffered. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from litee.errors import ConfigError, InputError
from litee.serve.api_errors import ApiError
from litee.serve.api_settings import ServeSettings
from litee.serve.hardening import Rate
from litee.serve.metrics import Metrics
from litee.serve.vote_settings import LOCAL_HOSTS

#: Variable with the keys, separated by commas.
KEYS_VARIABLE = "LITEE_API_KEYS"

#: Shorter keys can be guessed.
SHORTEST_KEY = 16

#: Routes whose names appear in the metrics; all others are `other`.
ROUTES = (
    "/v1/chat/completions",
    "/v1/models",
    "/v1/judge",
    "/v1/best-of",
    "/health",
    "/metrics",
    "/openapi.json",
)

#: May be asked without a key.
_OPEN = ("/health",)


class Keys:
    """The keys that let a client in; only their digests are kept.

    Args:
        keys: in plain text.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"Keys({len(self._digests)})"

    def holder(self, authorization: str) -> str | None:
        """A name for the holder of a header's key, None when the key is none of these.

        Every key is compared, each in constant time.

        >>> Keys(["a-key-of-16-chars"]).holder("Bearer a-key-of-16-chars") is not None
        True
        >>> Keys(["a-key-of-16-chars"]).holder("Bearer another") is None
        True
        """
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        found = [digest for digest in self._digests if hmac.compare_digest(digest, given)]
        return found[0].hex()[:12] if found and scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """Keys of a file (one per line, `#` starts a comment) and of the environment.

    Raises:
        InputError: the file cannot be read, holds no key, or a key is too short. The key itself
            is not shown.
    """
    found: list[tuple[str, str]] = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("cannot read the keys", place=str(file), fix="check it") from error
        kept = [(k, line.strip()) for k, line in enumerate(lines, start=1)]
        found = [(f"{file}, line {k}", key) for k, key in kept if key and not key.startswith("#")]
        if not found:
            fix = "write one key per line, each of 16 or more characters"
            raise InputError("the file holds no key", place=str(file), fix=fix)
    parts = environment.get(KEYS_VARIABLE, "").split(",")
    found += [(KEYS_VARIABLE, part.strip()) for part in parts if part.strip()]
    for place, key in found:
        if len(key) < SHORTEST_KEY:
            fix = "make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
            raise InputError(
                f"a key has {len(key)} characters, fewer than {SHORTEST_KEY}", place=place, fix=fix
            )
    return Keys([key for _, key in found])


def check_exposure(settings: ServeSettings, keys: Keys) -> None:
    """Refuse to serve other machines without keys.

    Raises:
        ConfigError: `host` is not this machine's own address, and there are no keys.
    """
    if settings.host not in LOCAL_HOSTS and not keys:
        raise ConfigError(
            f"host = {settings.host!r} lets other machines in, and there are no keys",
            fix=f"add --keys FILE or set {KEYS_VARIABLE}; or leave host at 127.0.0.1",
        )


class _TooLargeError(Exception):
    """The body grew past its limit while it was read."""


class Gate:
    """Wraps the API.

    Args:
        app: what is protected.
        settings: limits and address.
        keys: none lets everybody on this machine in.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, keys: Keys, metrics: Metrics) -> None:
        self.app, self.settings, self.keys, self.metrics = app, settings, keys, metrics
        per_second = settings.requests_per_minute / 60
        self.rate = Rate(per_second=per_second, burst=max(per_second * 10, 10))
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in ROUTES else "other"
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_SAFE]
            await send(message)

        try:
            try:
                self._admit(scope, Headers(scope=scope))
                await self._pass(scope, receive, sending)
            except ApiError as error:
                if not status:
                    await error.response()(scope, receive, sending)
        finally:
            self.metrics.requests.labels(route, str(status or 499)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        free = scope["path"] in _OPEN
        if self.under_way >= self.settings.max_requests and not free:
            raise ApiError(429, "too many requests are under way", code="busy", retry_after=1)
        self.under_way += not free
        self.metrics.under_way.set(self.under_way)
        body = _Body(receive, self.settings.max_body)

        async def unless_too_large(message: Message) -> None:
            if not body.too_large:  # else the application answers to a body that it got no end of
                await send(message)

        try:
            await self.app(scope, body.receive, unless_too_large)
        except _TooLargeError:
            pass
        finally:
            self.under_way -= not free
            self.metrics.under_way.set(self.under_way)
        if body.too_large:
            raise self._too_large()

    def _admit(self, scope: Scope, headers: Headers) -> None:
        name = self._name(scope, headers)
        if self.settings.requests_per_minute and not self.rate.allows(name):
            raise ApiError(
                429, "too many requests in a minute", code="rate_limit_exceeded", retry_after=1
            )
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise ApiError(400, "the length of the request cannot be read")
        if len(length) > 15 or int(length) > self.settings.max_body:
            raise self._too_large()

    def _name(self, scope: Scope, headers: Headers) -> str:
        """Whose requests are counted together: the key's holder, or the address."""
        client = scope.get("client")
        address = client[0] if client else "local"
        if scope["path"] in _OPEN:
            return f"open {address}"
        if not self.keys:
            self._check_host(headers)
            return str(address)
        holder = self.keys.holder(headers.get("authorization", ""))
        if holder is None:
            if self.settings.requests_per_minute and not self.rate.allows(f"refused {address}"):
                raise ApiError(
                    429, "too many wrong keys", code="rate_limit_exceeded", retry_after=1
                )
            raise ApiError(
                401, "no or wrong key: send Authorization: Bearer KEY", code="invalid_api_key"
            )
        return holder

    @staticmethod
    def _check_host(headers: Headers) -> None:
        """Without keys, pages of other sites must not reach the server through a name of theirs."""
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name.lower().strip("[]") not in LOCAL_HOSTS:
            raise ApiError(421, "this server is not known by that name", code="wrong_host")

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"at most {self.settings.max_body:,} bytes are taken", code="request_too_large"
        )


class _Body:
    """A request's body that ends in an error past a number of bytes."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._total = 0

    @property
    def too_large(self) -> bool:
        return self._total > self._limit

    async def receive(self) -> Message:
        message = await self._receive()
        self._total += len(message.get("body", b""))
        if self.too_large:
            raise _TooLargeError
        return message


_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
