"""Models that write free text in a given JSON form: what the retrieval metrics are made from.

An endpoint, and replies kept on disk around any writer. Knows nothing of metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Protocol

from litee.records import JudgeVerdict
from litee.rundir import Json, sha256_json
from litee.score.endpoint import Endpoint, Reply
from litee.score.llm_judge_engine import Usage, VerdictStore

#: Reply → why it is unusable, "" when it is fine.
Check = Callable[[str], str]


class Writer(Protocol):
    """A model that writes.

    Attributes:
        id: whatever its replies hang on. Part of the address of a stored one.
        at_once: how many threads may ask it at the same time.
    """

    @property
    def id(self) -> str:
        """Whatever its replies hang on."""

    @property
    def at_once(self) -> int:
        """How many threads may ask it at the same time."""

    def write(self, prompt: str, schema: Mapping[str, Json], check: Check) -> Reply:
        """A reply to one prompt that follows the schema, or the reason why there is none."""


class EndpointWriter:
    """Writes through an OpenAI-compatible endpoint.

    Args:
        endpoint: where to ask.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @property
    def id(self) -> str:
        """Endpoint, model and the settings that can change a reply."""
        s = self.endpoint.settings
        return f"{s.base_url}/{s.model}/{s.structured}/{s.temperature}/{s.max_reply_tokens}"

    @property
    def at_once(self) -> int:
        """Requests under way at once."""
        return self.endpoint.settings.concurrency

    def write(self, prompt: str, schema: Mapping[str, Json], check: Check) -> Reply:
        """A reply to one prompt.

        Raises:
            ModelError: the endpoint refuses the key or does not know the address or the model.
        """
        messages = [{"role": "user", "content": prompt}]
        return self.endpoint.chat(messages, schema=strict_schema(schema), check=check)


class StoredWriter:
    """A writer whose usable replies are kept; failures are asked again by the next run.

    Args:
        writer: that is asked.
        store: where replies are kept, None to ask every time.
    """

    def __init__(self, writer: Writer, store: VerdictStore | None) -> None:
        self.writer, self.store = writer, store
        self.usage = Usage()
        self.version = f"ragas {metadata.version('ragas')}"

    @property
    def id(self) -> str:
        """Whatever the replies hang on beside the prompts."""
        return self.writer.id

    def key(self, prompt: str, schema: Mapping[str, Json]) -> str:
        """Content address of a reply."""
        text = prompt.encode("utf-8", "backslashreplace").decode()
        return sha256_json({"writer": self.writer.id, "prompt": text, "schema": schema})

    def stored(self, prompt: str, schema: Mapping[str, Json]) -> str | None:
        """A reply from the disk."""
        found = None if self.store is None else self.store.get(self.key(prompt, schema))
        if found is not None:
            self.usage.add(found)
        return None if found is None else found.label

    def keep(self, prompt: str, schema: Mapping[str, Json], reply: Reply) -> None:
        """Count a fresh reply, and keep it when it is usable."""
        verdict = JudgeVerdict(
            reply.text,
            reason=reply.reason,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            seconds=reply.seconds,
            attempts=reply.attempts,
        )
        self.usage.add(verdict)
        if self.store is not None and verdict.label is not None:
            self.store.put(self.key(prompt, schema), verdict)

    def close(self) -> None:
        """Close the store."""
        if self.store is not None:
            self.store.close()


def strict_schema(schema: Mapping[str, Json]) -> dict[str, Json]:
    """A JSON schema as strict structured output needs it: all properties required, no others.

    >>> strict_schema({"type": "object", "properties": {"a": {"type": "string", "default": ""}}})
    {'type': 'object', 'properties': {'a': {'type': 'string'}}, 'additionalProperties': False, \
'required': ['a']}
    """
    found = {k: _strict(k, v) for k, v in schema.items() if k != "default"}
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        found |= {"additionalProperties": False, "required": list(properties)}
    return found


def _strict(name: str, value: Json) -> Json:
    if isinstance(value, Mapping):
        if name in {"properties", "$defs"}:  # names of fields and types, not of keywords
            return {k: strict_schema(v) for k, v in value.items() if isinstance(v, Mapping)}
        return strict_schema(value)
    if isinstance(value, list):
        return [strict_schema(v) if isinstance(v, Mapping) else v for v in value]
    return value
