"""Task collections to demonstrations: Super-Natural-Instructions and Self-Instruct's seed tasks.

Knows nothing of conversations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from litee.collect.cells import mend
from litee.collect.reading import Reading
from litee.collect.zst import DamagedError, open_stream
from litee.errors import InputError
from litee.records import Demonstration, Message

OTHER_CATEGORY = "task of another category"
NOT_ENGLISH = "task whose output is not English"
NO_INSTANCES = "task without usable examples"
BLANK_OUTPUT = "example without an output"
NOT_DRAWN = "example not drawn"
BROKEN_TASK = "broken task file"

#: Task files hold thousands of examples; one that is larger than this is none.
_LARGEST = 1 << 30


def read_natural_instructions(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Random examples of each task of the wanted categories (files, or folders of task files).

    The prompt is the task's definition and the example's input, apart by a blank line.

    Raises:
        InputError: no task file can be read.
    """
    files = [file for path in paths for file in _task_files(path)]
    good = 0
    for file in files:
        task = _task(file, reading)
        if task is None:
            continue
        good += 1
        yield from _examples(file, task, reading)
    if not good:
        fix = "give task files such as task001_name.json, or their folder"
        place = ", ".join(map(str, paths))
        raise InputError(f"no readable task among {len(files):,} files", place=place, fix=fix)


def _task_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(f for f in path.iterdir() if ".json" in f.suffixes)


def _task(file: Path, reading: Reading) -> Mapping[str, object] | None:
    """A task file's object; None, counted, when it is broken."""
    try:
        with open_stream(file) as stream:
            value = json.loads(stream.read(_LARGEST).decode("utf-8-sig"))
    except (ValueError, RecursionError, DamagedError) as error:
        reading.lost.add(BROKEN_TASK, f"{file} ({str(error).splitlines()[0][:80]})")
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("Instances"), list):
        reading.lost.add(BROKEN_TASK, f"{file} (no object with Instances)")
        return None
    return value


def _examples(file: Path, task: Mapping[str, object], reading: Reading) -> Iterator[Demonstration]:
    categories, languages = _words(task, "Categories"), _words(task, "Output_language")
    instances = task["Instances"]
    assert isinstance(instances, list)
    reading.read += len(instances)
    wanted = {c.casefold() for c in reading.settings.categories}
    reason = ""
    if wanted and not wanted & {c.casefold() for c in categories}:
        reason = OTHER_CATEGORY
    elif languages and "English" not in languages:
        reason = NOT_ENGLISH
    usable = [] if reason else [k for k, item in enumerate(instances) if _answer(item)]
    if not usable:
        for _ in range(max(len(instances), 1)):
            reading.removed.add(reason or NO_INSTANCES, str(file))
        return
    for _ in range(len(instances) - len(usable)):
        reading.removed.add(BLANK_OUTPUT, str(file))
    count = min(reading.settings.per_task or len(usable), len(usable))
    drawn = sorted(reading.random.choice(len(usable), size=count, replace=False).tolist())
    for _ in range(len(usable) - count):
        reading.removed.add(NOT_DRAWN, str(file))
    definition = "\n".join(_words(task, "Definition"))
    name = file.name.split(".")[0]
    for k in (usable[d] for d in drawn):
        prompt = f"{definition}\n\n{mend(str(instances[k].get('input', '')))}".strip()
        if not prompt:
            reading.removed.add(NO_INSTANCES, str(file))
            continue
        yield Demonstration(
            f"natural-instructions/{name}/{k}",
            (Message("user", prompt), Message("assistant", _answer(instances[k]))),
            source=f"natural-instructions/{categories[0] if categories else name}",
            license=", ".join(_words(task, "Instance License")),
            topic=categories[0] if categories else "",
        )


def _words(task: Mapping[str, object], name: str) -> list[str]:
    value = task.get(name, [])
    items = value if isinstance(value, list) else [value]
    return [mend(item) for item in items if isinstance(item, str) and item.strip()]


def _answer(instance: object) -> str:
    """An example's first output, "" when there is none."""
    if not isinstance(instance, Mapping):
        return ""
    output = instance.get("output")
    if isinstance(output, list):
        output = output[0] if output else ""
    return mend(output).strip() if isinstance(output, str) else ""


def read_seed_tasks(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Self-Instruct's seed tasks: instruction, input and output of each instance.

    Raises:
        InputError: a file is missing or damaged.
    """
    for path in paths:
        for number, row in reading.json_lines(path):
            place = f"{path}, row {number}"
            instances = row.get("instances")
            instruction = row.get("instruction")
            if not isinstance(instances, list) or not isinstance(instruction, str):
                reading.read += 1
                reading.removed.add(NO_INSTANCES, place)
                continue
            for k, item in enumerate(instances):
                reading.read += 1
                answer = _answer(item)
                if not answer or not instruction.strip():
                    reading.removed.add(BLANK_OUTPUT, place)
                    continue
                given = item.get("input") or ""
                prompt = mend(f"{instruction}\n\n{given}").strip()
                yield Demonstration(
                    f"{row.get('id', number)}/{k}" if k else str(row.get("id", number)),
                    (Message("user", prompt), Message("assistant", answer)),
                    source="self-instruct",
                    license="Apache-2.0",
                )
