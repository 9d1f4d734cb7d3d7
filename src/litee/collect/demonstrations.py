"""Files of any known format to demonstrations, and demonstrations to the project's own format.

One JSON object per line: `id, messages, source, license, topic, score, scores`; `messages` is a
list of `role` and `content`, as TRL reads it. Knows nothing of choosing among demonstrations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from litee.collect.cells import DUPLICATE
from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.grounded import read_grounded
from litee.collect.instructions import read_alpaca, read_messages, records
from litee.collect.oasst import read_oasst
from litee.collect.preferred import read_preferred
from litee.collect.reading import NOT_DRAWN, Reading
from litee.collect.reddit_dump import read_reddit
from litee.collect.seven_zip import is_seven_zip
from litee.collect.stack_exchange import read_stack_exchange
from litee.collect.tasks import read_natural_instructions, read_seed_tasks
from litee.collect.wikihow import read_wikihow
from litee.collect.zst import open_stream
from litee.errors import ConfigError, InputError
from litee.records import Demonstration
from litee.rundir import Json, atomic_writer

Reader = Callable[[Sequence[Path], Reading], Iterator[Demonstration]]

SAME_ID = "id used before"

READERS: Mapping[str, Reader] = {
    "messages": read_messages,
    "sharegpt": read_messages,
    "alpaca": read_alpaca,
    "oasst": read_oasst,
    "stack-exchange": read_stack_exchange,
    "wikihow": read_wikihow,
    "reddit": read_reddit,
    "natural-instructions": read_natural_instructions,
    "seed-tasks": read_seed_tasks,
    "grounded": read_grounded,
    "votes": read_preferred,
}

#: Formats whose readers draw among sites, subreddits or categories themselves.
_DRAWN = frozenset({"stack-exchange", "wikihow", "reddit"})

#: Format → cells of its first record; the first whose cells are all there is taken.
_MARKS: tuple[tuple[str, frozenset[str]], ...] = (
    ("messages", frozenset({"messages"})),
    ("sharegpt", frozenset({"conversations"})),
    ("sharegpt", frozenset({"conversation"})),
    ("seed-tasks", frozenset({"instruction", "instances"})),
    ("alpaca", frozenset({"instruction", "output"})),
    ("oasst", frozenset({"prompt", "message_tree_id"})),
    ("oasst", frozenset({"message_id", "parent_id", "text"})),
    ("natural-instructions", frozenset({"Definition", "Instances"})),
    ("reddit", frozenset({"title", "selftext"})),
    ("reddit", frozenset({"body", "link_id"})),
    ("wikihow", frozenset({"title", "text"})),
    ("votes", frozenset({"prompt", "response_a", "response_b"})),
)


def read_demonstrations(
    paths: Sequence[Path], reading: Reading, format: str = "auto"
) -> Iterator[Demonstration]:
    """Demonstrations of one or more files of one format; exact repeats are removed and counted.

    With the setting n, formats without sites, subreddits or categories give n of theirs, drawn
    evenly and in their order.

    Args:
        paths: files; for `grounded` and `natural-instructions` also folders.
        reading: settings, and the counts that grow while reading.
        format: a name in `READERS`, or `auto`.

    Raises:
        ConfigError: unknown format.
        InputError: a file is missing or broken, its format is not known, or nothing is usable.
    """
    name = detect_format(paths[0]) if format == "auto" else format
    if name not in READERS:
        known = ", ".join(("auto", *READERS))
        raise ConfigError(f"--format {format!r} is unknown", fix=f"choose one of {known}")
    items = _unique(READERS[name](paths, reading), reading)
    if reading.settings.n and name not in _DRAWN:
        items = iter(_drawn(items, reading.settings.n, reading))
    kept = 0
    for item in items:
        kept += 1
        yield item
    if not kept:
        raise _nothing(paths, reading)


def _unique(items: Iterable[Demonstration], reading: Reading) -> Iterator[Demonstration]:
    contents: set[int] = set()
    ids: set[str] = set()
    for item in items:
        content = hash(item.messages)
        if content in contents:
            reading.removed.add(DUPLICATE, item.id)
            continue
        if item.id in ids and item.id not in reading.made_ids:
            reading.removed.add(SAME_ID, item.id)
            continue
        number, name = 2, item.id
        while name in ids:  # files of one name in several folders, or parts of one file
            name, number = f"{item.id}+{number}", number + 1
        contents.add(content)
        ids.add(name)
        yield item if name == item.id else replace(item, id=name)


def _drawn(items: Iterable[Demonstration], count: int, reading: Reading) -> list[Demonstration]:
    """`count` items in their order, every choice of them as likely.

    One pass that holds `count` items (algorithm R, Vitter 1985). The others are counted as removed.
    """
    held: dict[int, tuple[int, Demonstration]] = {}
    for number, item in enumerate(items):
        place = number if number < count else int(reading.random.integers(number + 1))
        left = held.get(place, (0, item))[1] if place < count else item
        if number >= count:
            reading.removed.add(NOT_DRAWN, left.id)
        if place < count:
            held[place] = number, item
    return [item for _, item in sorted(held.values(), key=lambda one: one[0])]


def _nothing(paths: Sequence[Path], reading: Reading) -> InputError:
    reasons = [
        f"{count:,} {reason}"
        for tally in (reading.lost, reading.removed)
        for reason, count in tally.counts.items()
    ]
    problem = f"no usable demonstration among {reading.read:,} candidates"
    detail = f": {'; '.join(reasons)}" if reasons else ""
    fix = "loosen the filters named above, or check --format"
    return InputError(problem + detail, place=", ".join(map(str, paths)), fix=fix)


def detect_format(path: Path) -> str:
    """The format of a file or folder, by its first bytes and its first record's cells.

    Raises:
        InputError: no known format.
    """
    if path.is_dir():
        return "grounded" if list(path.glob("*logs.json*")) else "natural-instructions"
    if is_seven_zip(path):
        return "stack-exchange"
    with open_stream(path) as stream:
        head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<"):
        return "stack-exchange"
    if head.startswith(b"{") and b'"Definition"' in head:
        return "natural-instructions"
    reading = Reading(DemonstrationSettings.model_validate({"salvage": True}))
    cells = next((set(map(str.strip, map(str, c))) for _, c in records(path, reading)), set())
    for name, marks in _MARKS:
        if marks <= cells:
            return name
    shown = ", ".join(sorted(cells)[:12]) or "no readable record"
    fix = f"name the format: --format {' | '.join(READERS)}"
    raise InputError(f"no known format of demonstrations ({shown})", place=str(path), fix=fix)


def to_json(item: Demonstration) -> dict[str, Json]:
    """A demonstration as the cells of one line; empty ones are left out.

    >>> from litee.records import Message
    >>> to_json(Demonstration("1", (Message("user", "q"), Message("assistant", "x"))))["id"]
    '1'
    """
    cells: dict[str, Json] = {
        "id": item.id,
        "messages": [{"role": m.role, "content": m.text} for m in item.messages],
    }
    for name, text in (("source", item.source), ("license", item.license), ("topic", item.topic)):
        if text:
            cells[name] = text
    if item.score is not None:
        cells["score"] = item.score
    if item.scores:
        cells["scores"] = dict(item.scores)
    return cells


def write_demonstrations(path: Path, items: Iterable[Demonstration]) -> int:
    """Write demonstrations as JSON lines, all or none; returns their number.

    Raises:
        ResourceError: the file cannot be written.
    """
    count = 0
    with atomic_writer(path) as handle:
        for item in items:
            handle.write(json.dumps(to_json(item), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count
