"""Lists of chat messages to user turns and assistant turns.

Accepts `role`/`content` messages, ShareGPT's `from`/`value`, contents that are lists of text
parts, and the three-sided messages of Arena 140k. Knows nothing of votes or files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litee.collect.cells import (
    JOINED,
    NO_USER_TURN,
    NOT_TEXT,
    NULL_RESPONSE,
    NULL_TURN,
    OTHER_ROLE,
    OTHER_USER_TURNS,
    SYSTEM_LEFT_OUT,
    UNEVEN_TURNS,
    Row,
    Turns,
    UnusableError,
    wrong_cell,
)
from litee.records import Message

_ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation with as many assistant turns as user turns.

    Attributes:
        users: what the user said, at least one turn.
        answers: one answer per user turn.
        notes: what was left out or joined.
    """

    users: Turns
    answers: Turns
    notes: tuple[str, ...] = ()


def messages_cell(row: Row, column: str, value: object) -> tuple[Message, ...]:
    """A cell's messages; a text cell must hold them as JSON.

    Raises:
        UnusableError: a null message, an image, a tool's message.
        InputError: the cell holds no list of messages.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            raise wrong_cell(row, column, value, "a list of messages") from None
    if value is None:
        raise UnusableError(NULL_RESPONSE)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise wrong_cell(row, column, value, "a list of messages")
    return tuple(_message(row, column, item) for item in value)


def _message(row: Row, column: str, item: object) -> Message:
    if item is None:
        raise UnusableError(NULL_TURN)
    if not isinstance(item, Mapping):
        raise wrong_cell(row, column, item, "a list of messages with role and content")
    role = item.get("role", item.get("from"))
    if not isinstance(role, str):
        raise wrong_cell(row, column, item, "a list of messages with role and content")
    known = _ROLES.get(role.lower())
    if known is None:
        raise UnusableError(OTHER_ROLE)
    return Message(known, content_text(row, column, item.get("content", item.get("value"))))


def content_text(row: Row, column: str, content: object) -> str:
    """A message's text: the string itself or its text parts joined.

    Raises:
        UnusableError: null, or a part that is not text.
        InputError: another type.
    """
    if content is None:
        raise UnusableError(NULL_TURN)
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise wrong_cell(row, column, content, "text or a list of text parts")
    parts: list[str] = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type", "text") == "text":
            part = part.get("text")
        elif isinstance(part, Mapping):
            raise UnusableError(NOT_TEXT)
        if part is None:
            raise UnusableError(NULL_TURN)
        if not isinstance(part, str):
            raise wrong_cell(row, column, part, "text or a list of text parts")
        parts.append(part)
    return "\n".join(parts)


def to_dialogue(messages: Sequence[Message]) -> Dialogue:
    """Sort messages into turns; system messages are left out and neighbours of one role joined.

    >>> to_dialogue([Message("user", "q"), Message("assistant", "x")]).answers
    ('x',)

    Raises:
        UnusableError: no user turn comes first, or a user turn has no answer.
    """
    notes: list[str] = []
    kept: list[Message] = []
    for message in messages:
        if message.role == "system":
            notes.append(SYSTEM_LEFT_OUT)
        elif kept and kept[-1].role == message.role:
            kept[-1] = Message(message.role, f"{kept[-1].text}\n\n{message.text}")
            notes.append(JOINED)
        else:
            kept.append(message)
    if not kept or kept[0].role != "user":
        raise UnusableError(NO_USER_TURN)
    if len(kept) % 2:
        raise UnusableError(UNEVEN_TURNS)
    users = tuple(message.text for message in kept[::2])
    answers = tuple(message.text for message in kept[1::2])
    return Dialogue(users, answers, tuple(dict.fromkeys(notes)))


def same_users(a: Dialogue, b: Dialogue) -> Turns:
    """The user turns both conversations share.

    Raises:
        UnusableError: they differ.
    """
    if a.users != b.users:
        raise UnusableError(OTHER_USER_TURNS)
    return a.users
