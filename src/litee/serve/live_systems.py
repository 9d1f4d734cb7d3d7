"""Systems behind OpenAI-compatible servers that answer people's own questions.

Knows nothing of people and votes. Imports the engines of `litee serve`, so only live mode does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from litee.predict.generation_sampling import Sampling
from litee.records import Message
from litee.serve.engines import Call
from litee.serve.engines_remote import EndpointEngine
from litee.serve.vote_settings import LiveSystem

#: As chat assistants are usually run.
_SAMPLING = Sampling(temperature=0.7, top_p=0.9)


class RemoteSystems:
    """Asks each system at its address.

    Args:
        systems: names, models and addresses.
        key: sent to all of them, "" for none; never logged.
        max_tokens: of an answer.
    """

    def __init__(self, systems: Sequence[LiveSystem], *, key: str = "", max_tokens: int) -> None:
        self._systems = {system.name: system for system in systems}
        self._engines = {
            url: EndpointEngine(url, key) for url in {system.url for system in systems}
        }
        self._max_tokens = max_tokens

    @property
    def names(self) -> Sequence[str]:
        """Of the systems, as votes have them."""
        return tuple(self._systems)

    async def stream(self, name: str, prompt: str) -> AsyncGenerator[str, None]:
        """See `litee.serve.live.Systems`."""
        system = self._systems[name]
        sampling = Sampling(_SAMPLING.temperature, _SAMPLING.top_p, max_new_tokens=self._max_tokens)
        given = frozenset({"temperature", "top_p"})
        call = Call(system.model, (Message("user", prompt),), sampling, given)
        async with aclosing(self._engines[system.url].stream(call)) as pieces:
            async for piece in pieces:
                yield piece.text
