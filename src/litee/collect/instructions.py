"""Conversations in chat formats to demonstrations: messages, ShareGPT, Alpaca, OASST trees.

`messages` is also the project's own format: `id, messages, source, license, topic, score, scores`
per line. Knows nothing of where the files come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from litee.collect.cells import JOINED, NO_USER_TURN, Row, UnusableError, mend
from litee.collect.conversations import messages_cell
from litee.collect.reading import Reading
from litee.collect.rows import open_table
from litee.collect.zst import open_stream
from litee.errors import InputError
from litee.records import Demonstration, Message

OTHER_SHAPE = "row of another shape"
BLANK_TURN = "blank message"
NO_ANSWER = "no answer"
CUT_USER = "last user turn without an answer left out"
LATE_SYSTEM = "system message in the middle left out"

_TABLES = (".csv", ".tsv", ".parquet", ".pq")
_PACKED = (".gz", ".zst", ".bz2", ".xz")


def records(path: Path, reading: Reading) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Place and cells of each record: JSON lines, one JSON array, CSV, TSV or parquet.

    Raises:
        InputError: the file is missing, empty or broken.
    """
    name = path.name.lower()
    for ending in _PACKED:
        name = name.removesuffix(ending)
    if name.endswith(_TABLES):
        for row in open_table(path).rows:
            if row.cells:
                yield row.place, row.cells
        return
    with open_stream(path) as stream:
        head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        yield from _array(path)
        return
    for number, cells in reading.json_lines(path):
        yield f"{path}, row {number}", cells


def _array(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    with open_stream(path) as stream:
        data = stream.read()
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        fix = "download the file again, or write JSON lines, of which single ones may be broken"
        raise InputError(f"broken JSON array: {error}", place=str(path), fix=fix) from error
    for number, value in enumerate(values, start=1):
        yield f"{path}, row {number}", value if isinstance(value, dict) else {}


def read_messages(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Rows with `messages` (or `conversations`, `conversation`): roles and contents.

    Raises:
        InputError: a file is missing or broken.
    """
    for path in paths:
        for place, cells in records(path, reading):
            reading.read += 1
            key = next((k for k in ("messages", "conversations", "conversation") if k in cells), "")
            try:
                found = messages_cell(Row(place, 0, cells), key, cells.get(key))
                yield build(place, cells, found, reading)
            except InputError:
                reading.lost.add(OTHER_SHAPE, place)
            except UnusableError as error:
                reading.removed.add(error.reason, place)


def read_alpaca(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Rows with `instruction`, `input` and `output`.

    Raises:
        InputError: a file is missing or broken.
    """
    for path in paths:
        for place, cells in records(path, reading):
            reading.read += 1
            instruction, answer = cells.get("instruction"), cells.get("output")
            given = cells.get("input") or ""
            if not isinstance(instruction, str) or not isinstance(given, str):
                reading.lost.add(OTHER_SHAPE, place)
                continue
            given = "" if given.strip().lower() in ("<noinput>", "<no input>") else given
            if not isinstance(answer, str):
                reading.removed.add(NO_ANSWER, place)
                continue
            found = (
                Message("user", f"{instruction.strip()}\n\n{given.strip()}"),
                Message("assistant", answer),
            )
            try:
                yield build(place, cells, found, reading)
            except UnusableError as error:
                reading.removed.add(error.reason, place)


def build(
    place: str, cells: Mapping[str, object], messages: Sequence[Message], reading: Reading
) -> Demonstration:
    """A demonstration out of messages and the row's other cells.

    A leading system message stays; neighbours of one role are joined; a last user turn without
    an answer is left out. All this is noticed and counted.

    Raises:
        UnusableError: no user turn comes first, no answer, or a message is blank.
    """
    kept: list[Message] = []
    for message in messages:
        text = mend(message.text).strip()
        if not text:
            raise UnusableError(BLANK_TURN)
        if message.role == "system" and kept:
            reading.noticed.add(LATE_SYSTEM, place)
        elif kept and kept[-1].role == message.role:
            kept[-1] = Message(message.role, f"{kept[-1].text}\n\n{text}")
            reading.noticed.add(JOINED, place)
        else:
            kept.append(Message(message.role, text))
    first = 1 if kept and kept[0].role == "system" else 0
    if len(kept) <= first or kept[first].role != "user":
        raise UnusableError(NO_USER_TURN)
    if kept[-1].role == "user":
        kept.pop()
        if len(kept) <= first:
            raise UnusableError(NO_ANSWER)
        reading.noticed.add(CUT_USER, place)
    scores = cells.get("scores")
    named = {str(k): _number(v) for k, v in scores.items()} if isinstance(scores, Mapping) else {}
    name = _name(cells.get("id", cells.get("conversation_id")))
    if not name:
        name = _generated(place)
        reading.made_ids.add(name)
    return Demonstration(
        name,
        tuple(kept),
        source=_name(cells.get("source")) or _generated(place).partition(":")[0],
        license=_name(cells.get("license")),
        topic=_name(cells.get("topic", cells.get("category"))),
        score=_number(cells.get("score")),
        scores={name: value for name, value in named.items() if value is not None},
    )


def _generated(place: str) -> str:
    """An id out of a place: `chats.jsonl, row 3` → `chats:3`."""
    file, _, number = place.rpartition(", row ")
    return f"{Path(file).name.split('.')[0]}:{number}"


def _name(value: object) -> str:
    if isinstance(value, str):
        return mend(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
