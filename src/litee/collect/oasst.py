"""OpenAssistant's message trees to demonstrations: the best-ranked path from each root.

Reads the nested trees (`prompt` with `replies`) and the flat messages (`parent_id`). Knows
nothing of other formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from litee.collect.cells import UnusableError
from litee.collect.instructions import OTHER_SHAPE, build, records
from litee.collect.reading import Reading
from litee.records import Demonstration, Message

OTHER_LANGUAGE = "tree in another language"
DELETED = "deleted message"
NO_ANSWER = "root without an answer"

LICENSE = "Apache-2.0"
Node = Mapping[str, object]


def read_oasst(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """One conversation per tree: at each step the assistant's best-ranked reply.

    Raises:
        InputError: a file is missing or broken.
    """
    for path in paths:
        for place, root in _roots(path, reading):
            reading.read += 1
            language = reading.settings.language
            if not isinstance(root.get("text"), str):
                reading.lost.add(OTHER_SHAPE, place)
            elif root.get("deleted") is True:
                reading.removed.add(DELETED, place)
            elif language and root.get("lang", language) != language:
                reading.removed.add(OTHER_LANGUAGE, place)
            else:
                messages = best_path(root)
                if len(messages) < 2:
                    reading.removed.add(NO_ANSWER, place)
                    continue
                cells = {
                    "id": str(root.get("message_id", "")),
                    "source": "oasst",
                    "license": LICENSE,
                }
                try:
                    yield build(place, cells, messages, reading)
                except UnusableError as error:
                    reading.removed.add(error.reason, place)


def _roots(path: Path, reading: Reading) -> Iterator[tuple[str, Node]]:
    """Nested roots as they come; flat messages are brought together first."""
    flat: dict[str, tuple[str, dict[str, object]]] = {}
    for place, cells in records(path, reading):
        if isinstance(cells.get("prompt"), Mapping):
            yield place, cells["prompt"]  # type: ignore[misc]
        elif "message_id" in cells and "role" in cells:
            flat[str(cells["message_id"])] = (place, dict(cells))
        else:
            reading.read += 1
            reading.lost.add(OTHER_SHAPE, place)
    replies: dict[str, list[Node]] = {}
    for _, node in flat.values():
        replies.setdefault(str(node.get("parent_id") or ""), []).append(node)
        node["replies"] = replies.setdefault(str(node["message_id"]), [])
    for place, node in flat.values():
        if not node.get("parent_id"):
            yield place, node


def best_path(root: Node) -> list[Message]:
    """Messages from the root along the best replies; it ends with an assistant's.

    Rank 0 is best; without ranks the first reply is taken. Among users' replies one that has an
    answer comes first.

    >>> leaf = {"role": "assistant", "text": "x", "rank": 0}
    >>> other = {"role": "assistant", "text": "y", "rank": 1}
    >>> [m.text for m in best_path({"role": "prompter", "text": "q", "replies": [other, leaf]})]
    ['q', 'x']
    """
    found: list[Message] = []
    node: Node | None = root
    while node is not None:
        role = "assistant" if node.get("role") == "assistant" else "user"
        text = node.get("text")
        if not isinstance(text, str) or (found and found[-1].role == role):
            break
        found.append(Message(role, text))
        node = _best_reply(node)
    return found if not found or found[-1].role == "assistant" else found[:-1]


def _best_reply(node: Node) -> Node | None:
    replies = node.get("replies")
    usable = [
        r
        for r in (replies if isinstance(replies, list) else [])
        if isinstance(r, Mapping) and r.get("deleted") is not True
    ]
    if not usable:
        return None

    def order(reply: Node) -> tuple[bool, float]:
        rank = reply.get("rank")
        known = isinstance(rank, int | float) and not isinstance(rank, bool)
        return not reply.get("replies") and reply.get("role") != "assistant", (
            float(rank) if known else 1e9  # type: ignore[arg-type]
        )

    return min(usable, key=order)
