"""Dialogue turns that people answered from documents, with the documents they used.

Reads the labels and logs of the DSTC9 and DSTC11 knowledge tracks beside their knowledge base.
DSTC9's published labels come without dialogues: there the question of the gold entry, led by the
name it is about, stands for the user's turn. Knows nothing of search or training rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from litee.collect.documents_knowledge import Entry, knowledge_entries, parse_knowledge
from litee.collect.gathering import Tally
from litee.collect.zst import open_stream
from litee.errors import InputError
from litee.records import Dropped, Message

BROKEN = "label or dialogue of another layout"
NO_DOCUMENT = "gold document that is not in the knowledge base"
NO_ANSWER = "empty answer"
NOT_GROUNDED = "turn that needs no document"

_ROLES = {"U": "user", "S": "assistant"}


@dataclass(frozen=True, slots=True)
class GroundedTurn:
    """A user's turn with a person's answer and what the answer rests on.

    Attributes:
        id: unique within a file.
        messages: the dialogue, ending in the user's turn.
        answer: written by a person.
        documents: ids of the gold documents, in the order of the label, at least one.
        quotes: (document id, sentence) of what was used, verbatim, in that order.
        entities: names of the entities the gold documents are about, first named first.
        dialogue: turns of the same dialogue share it.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str
    documents: tuple[str, ...]
    quotes: tuple[tuple[str, str], ...]
    entities: tuple[str, ...]
    dialogue: str


@dataclass(frozen=True, slots=True)
class GroundedSet:
    """Turns, what was left out and why, and the knowledge base by document id."""

    turns: tuple[GroundedTurn, ...]
    dropped: Dropped
    entries: Mapping[str, Entry]


def read_grounded(labels: Path, knowledge: Path, logs: Path | None = None) -> GroundedSet:
    """Read labels with their knowledge base, and the dialogues when there are some.

    Raises:
        InputError: a file is missing or broken, or the numbers of logs and labels differ.
    """
    with open_stream(knowledge) as handle:
        base = parse_knowledge(handle.read(), knowledge)
    entries = {entry.id: entry for entry in knowledge_entries(base)}
    rows = _rows(labels)
    dialogues: Sequence[object] = [None] * len(rows) if logs is None else _rows(logs)
    if len(dialogues) != len(rows):
        problem = f"{len(dialogues)} dialogues but {len(rows)} labels in {labels}"
        raise InputError(problem, place=str(logs), fix="give the logs that belong to the labels")
    tally = Tally()
    turns = []
    for number, (label, dialogue) in enumerate(zip(rows, dialogues, strict=True), start=1):
        place = f"{labels}, row {number}"
        try:
            turn = _turn(f"{number}", cast(Mapping[str, object], label), dialogue, entries)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration):
            turn = BROKEN
        if isinstance(turn, str):
            tally.add(turn, place)
        else:
            turns.append(turn)
    return GroundedSet(tuple(turns), tally.frozen(), entries)


def _rows(path: Path) -> list[object]:
    fix = "give one JSON array, as the challenge's files are"
    with open_stream(path) as handle:
        raw = handle.read()
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"broken JSON: {error}", place=str(path), fix=fix) from error
    if not isinstance(value, list):
        raise InputError("not a JSON array", place=str(path), fix=fix)
    return value


def _turn(
    own: str, label: Mapping[str, object], dialogue: object, entries: Mapping[str, Entry]
) -> GroundedTurn | str:
    """The turn, or why there is none."""
    if not label.get("target"):
        return NOT_GROUNDED
    answer = str(label.get("response") or "").strip()
    if not answer:
        return NO_ANSWER
    quotes = []
    pieces = cast(Sequence[Mapping[str, object]], label.get("knowledge") or [])
    for piece in pieces:
        kind = piece.get("doc_type", "faq")
        entry = entries.get(f"{piece['domain']}/{piece['entity_id']}/{kind}/{piece['doc_id']}")
        if entry is None:
            return NO_DOCUMENT
        sentence = entry.sentences[int(str(piece["sent_id"]))] if "sent_id" in piece else entry.body
        quotes.append((entry, sentence.strip()))
    if not quotes:
        return NO_DOCUMENT
    messages = tuple(_messages(dialogue)) if dialogue is not None else _asked(quotes[0][0])
    first = next(m.text for m in messages if m.role == "user")
    return GroundedTurn(
        own,
        messages,
        answer,
        tuple(dict.fromkeys(entry.id for entry, _ in quotes)),
        tuple((entry.id, sentence) for entry, sentence in quotes),
        tuple(dict.fromkeys(entry.entity for entry, _ in quotes)),
        " ".join(first.casefold().split()) if dialogue is not None else quotes[0][0].id,
    )


def _messages(dialogue: object) -> Iterator[Message]:
    for said in cast(Sequence[Mapping[str, str]], dialogue):
        yield Message(_ROLES[said["speaker"]], said["text"].strip())


def _asked(entry: Entry) -> tuple[Message, ...]:
    named = entry.entity.casefold() in entry.question.casefold()
    text = entry.question if named else f"{entry.entity}: {entry.question}"
    return (Message("user", text),)
