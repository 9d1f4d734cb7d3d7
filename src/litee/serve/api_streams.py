"""Answers as server-sent events, in the shape of OpenAI's `chat.completion.chunk`.

Several answers of one request are interleaved as they are written. Knows nothing of routes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from litee.errors import LiteeError
from litee.rundir import Json
from litee.serve.api_errors import ApiError, from_litee
from litee.serve.api_service import Service, answer_id, usage_of
from litee.serve.engines import Call, Piece

_logger = logging.getLogger("litee.serve")

_Item = tuple[int, Piece | Exception]


async def event_stream(
    service: Service, calls: Sequence[Call], *, model: str, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Events of all answers, then usage if asked for, then `[DONE]`.

    An error before the first text is raised, so that it can be an HTTP status; a later one is an
    event with OpenAI's error object, and ends the stream.

    Raises:
        LiteeError: the request cannot be answered.
    """
    head: dict[str, Json] = {
        "id": answer_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }
    if include_usage:
        head["usage"] = None
    started = time.perf_counter()
    last: dict[int, Piece] = {}
    begun: set[int] = set()
    async with aclosing(_interleaved(service, calls)) as items:
        async for index, item in items:
            if isinstance(item, Exception):
                if not begun:
                    raise item
                yield _event(_error_body(item))
                return
            if not begun:
                service.metrics.first_token.observe(time.perf_counter() - started)
            if index not in begun:
                begun.add(index)
                yield _chunk(head, index, {"role": "assistant", "content": ""})
            if item.text:
                yield _chunk(head, index, {"content": item.text})
            if item.finish_reason:
                last[index] = item
                service.count_tokens(item)
                yield _chunk(head, index, {}, item.finish_reason)
    if include_usage:
        usage = usage_of(list(last.values())).model_dump()
        yield _event({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


async def _interleaved(service: Service, calls: Sequence[Call]) -> AsyncGenerator[_Item, None]:
    """(number of the answer, piece or error) as they come; closing ends all answers."""
    inbox: asyncio.Queue[_Item | None] = asyncio.Queue()

    async def follow(index: int, call: Call) -> None:
        try:
            async with aclosing(service.engine.stream(call)) as pieces:
                async for piece in pieces:
                    inbox.put_nowait((index, piece))
        except (LiteeError, ApiError) as error:
            inbox.put_nowait((index, error))
        except Exception as error:
            _logger.exception("an answer failed")
            inbox.put_nowait((index, error))
        inbox.put_nowait(None)

    tasks = [asyncio.create_task(follow(k, call)) for k, call in enumerate(calls)]
    left = len(tasks)
    try:
        while left:
            item = await inbox.get()
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _chunk(
    head: Mapping[str, Json], index: int, delta: Mapping[str, Json], reason: str | None = None
) -> bytes:
    choice: dict[str, Json] = {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": reason,
    }
    return _event({**head, "choices": [choice]})


def _error_body(error: Exception) -> dict[str, Json]:
    if isinstance(error, ApiError):
        return dict(error.body())
    if isinstance(error, LiteeError):
        return dict(from_litee(error).body())
    return dict(ApiError(500, "the server failed; its log says more").body())


def _event(value: Mapping[str, Json]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
