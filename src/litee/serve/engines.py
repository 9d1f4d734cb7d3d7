"""What writes answers behind the API: one interface, and the engine that runs in this process.

Knows nothing of HTTP requests and judges.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from litee.errors import InputError
from litee.predict.generation import Engine, Request
from litee.predict.generation_model import BASE, GenerationModel
from litee.predict.generation_sampling import Sampling
from litee.records import Message
from litee.serve.api_settings import ServeSettings
from litee.serve.batching import Writer
from litee.serve.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Call:
    """One answer that is asked for.

    Attributes:
        model: which model, as `ChatEngine.models` names them.
        messages: the dialogue.
        sampling: how it is drawn.
        given: names of sampling values that the client gave itself; the others are defaults of
            this server, which another server need not know.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer; token counts are 0 where they are not known yet."""

    text: str
    finish_reason: str = ""
    tokens: int = 0
    prompt_tokens: int = 0


class ChatEngine(Protocol):
    """Writes answers."""

    name: str

    async def models(self) -> Sequence[str]:
        """Names of the models that can be asked."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """One answer, piece by piece; closing the generator ends the writing.

        Raises:
            InputError: the call cannot be answered as it is.
            LiteeError: the engine failed.
        """
        ...

    @property
    def counts(self) -> tuple[int, int]:
        """Answers waiting and in writing, as far as known."""
        ...

    async def close(self) -> None:
        """Let go of threads, connections and processes."""
        ...


class TransformersEngine:
    """Writes in this process, requests of all clients in one batch.

    Args:
        settings: which model, batch sizes.
        adapters: name → folder; each is a model of its own for clients.
        metrics: counts batches.
        name: of the model without an adapter, for clients.
    """

    name = "transformers"

    def __init__(
        self,
        settings: ServeSettings,
        adapters: Mapping[str, Path],
        metrics: Metrics,
        *,
        name: str = "",
    ) -> None:
        base = name or Path(settings.backbone).name
        self._adapters = {base: BASE, **{adapter: adapter for adapter in adapters}}
        if len(self._adapters) <= len(adapters):
            raise InputError(
                f"an adapter is named {base!r}, as the model is", fix="give it another name"
            )
        model = GenerationModel(settings, adapters)
        engine = Engine(
            model, max_batch=settings.max_batch, max_batch_tokens=settings.max_batch_tokens
        )
        self._writer = Writer(engine, metrics)

    @property
    def counts(self) -> tuple[int, int]:
        """Answers waiting and in writing."""
        return self._writer.counts

    async def models(self) -> Sequence[str]:
        """The model and its adapters."""
        return tuple(self._adapters)

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """See `ChatEngine`."""
        request = Request(call.messages, call.sampling, self._adapters[call.model])
        async with aclosing(self._writer.stream(request)) as deltas:
            async for d in deltas:
                yield Piece(d.text, d.finish_reason, d.tokens, d.prompt_tokens)

    async def close(self) -> None:
        """End the thread."""
        self._writer.close()


class NoEngine:
    """Writes nothing: the server has a judge alone."""

    name = "none"
    counts = (0, 0)

    async def models(self) -> Sequence[str]:
        """None."""
        return ()

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """Refuse."""
        raise InputError(f"no model named {call.model!r}", fix="start the server with an engine")
        yield

    async def close(self) -> None:
        """Nothing to do."""
