"""DSTC9 and DSTC11 dialogues with the knowledge they draw on, to grounded demonstrations.

A folder holds `*logs.json`, `*labels.json` and `knowledge.json` (packed or not). Each turn that
needs knowledge becomes a conversation: the documents of the answer as system message, the
dialogue, and the crowd worker's answer. Knows nothing of retrieval.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from litee.collect.cells import UnusableError
from litee.collect.conversations import to_dialogue
from litee.collect.reading import Reading
from litee.collect.zst import open_stream
from litee.errors import InputError
from litee.records import Demonstration, Message

NO_KNOWLEDGE = "turn that needs no knowledge"
NO_RESPONSE = "turn without an answer"
LOST_DOCUMENT = "turn whose document is missing"

_LEAD = "Answer with the help of these documents."


def read_grounded(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Demonstrations of every folder.

    Raises:
        InputError: a folder lacks one of the three files, they are broken, or do not match.
    """
    for path in paths:
        folder = path if path.is_dir() else path.parent
        knowledge = _json(_only(folder, "knowledge"))
        log_file = _only(folder, "logs")
        logs, labels = _json(log_file), _json(_only(folder, "labels"))
        if not (isinstance(logs, list) and isinstance(labels, list) and len(logs) == len(labels)):
            problem = "logs and labels are not two lists of one length"
            raise InputError(problem, place=str(folder), fix="download the three files again")
        if not isinstance(knowledge, Mapping):
            raise InputError("knowledge is no JSON object", place=str(folder), fix="check the file")
        split = log_file.name.split("_")[0]
        for number, (log, label) in enumerate(zip(logs, labels, strict=True)):
            reading.read += 1
            place = f"{log_file}, turn {number}"
            try:
                yield _demonstration(f"{folder.name}/{split}/{number}", log, label, knowledge)
            except UnusableError as error:
                reading.removed.add(error.reason, place)


def _only(folder: Path, word: str) -> Path:
    found = (
        sorted(f for f in folder.glob(f"*{word}.json*") if f.is_file()) if folder.is_dir() else []
    )
    if len(found) != 1:
        problem = f"{len(found)} files named *{word}.json"
        fix = "give a folder with one logs.json, one labels.json and knowledge.json"
        raise InputError(problem, place=str(folder), fix=fix)
    return found[0]


def _json(path: Path) -> object:
    try:
        with open_stream(path) as stream:
            return json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"broken JSON: {error}", place=str(path), fix="download it again"
        ) from error


def _demonstration(
    name: str, log: object, label: object, knowledge: Mapping[str, object]
) -> Demonstration:
    """One turn.

    Raises:
        UnusableError: it needs no knowledge, or its answer, document or dialogue is missing.
    """
    if not isinstance(label, Mapping) or not label.get("target"):
        raise UnusableError(NO_KNOWLEDGE)
    answer, pieces = label.get("response"), label.get("knowledge")
    if not isinstance(answer, str) or not answer.strip():
        raise UnusableError(NO_RESPONSE)
    if not isinstance(pieces, list) or not pieces or not isinstance(log, list):
        raise UnusableError(LOST_DOCUMENT)
    documents = [_document(piece, knowledge) for piece in pieces]
    said = [
        Message("user" if turn.get("speaker") == "U" else "assistant", str(turn.get("text", "")))
        for turn in log
        if isinstance(turn, Mapping) and str(turn.get("text", "")).strip()
    ]
    dialogue = to_dialogue([*said, Message("assistant", answer.strip())])
    system = "\n".join([_LEAD, *(f"- {text}" for text in dict.fromkeys(documents))])
    messages = [Message("system", system)]
    for user, reply in zip(dialogue.users, dialogue.answers, strict=True):
        messages += [Message("user", user), Message("assistant", reply)]
    domain = str(pieces[0]["domain"])
    return Demonstration(
        name, tuple(messages), source=name.split("/")[0], license="CDLA-Sharing-1.0", topic=domain
    )


def _document(piece: object, knowledge: Mapping[str, object]) -> str:
    """One piece of knowledge with its place's name.

    Raises:
        UnusableError: the knowledge file has no such piece.
    """
    try:
        entity = knowledge[piece["domain"]][str(piece["entity_id"])]  # type: ignore[index]
        kind = piece.get("doc_type", "doc")  # type: ignore[attr-defined]
        number = str(piece["doc_id"])  # type: ignore[index]
        if kind == "review":
            text = entity["reviews"][number]["sentences"][str(piece["sent_id"])]  # type: ignore[index]
        else:
            found = entity["faqs" if kind == "faq" else "docs"][number]
            question, reply = (
                found.get("question", found.get("title")),
                found.get("answer", found.get("body")),
            )
            text = f"{question} {reply}"
        return f"{entity['name'] or piece['domain']}: {text}"  # type: ignore[index]
    except (KeyError, TypeError, AttributeError):
        raise UnusableError(LOST_DOCUMENT) from None
