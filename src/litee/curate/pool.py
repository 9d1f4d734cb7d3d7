"""All demonstrations at hand, read once: what choosing needs of each, the rest on disk.

In memory stay the heads of the texts (1,000 characters of prompt and answer) and some numbers;
whole demonstrations lie in a file, one JSON line each, and are read back by their place. Knows
nothing of duplicates, vectors and choices.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litee.collect.demonstrations import read_demonstrations, to_json
from litee.collect.gathering import Tally
from litee.collect.reading import Reading
from litee.collect.seven_zip import is_seven_zip
from litee.collect.zst import byte_lines
from litee.curate.leaks import Leaks
from litee.curate.quality import judge_by_rules
from litee.errors import ConfigError, InputError
from litee.progress import progress
from litee.records import Demonstration
from litee.rundir import write_error

#: Characters of a prompt and of an answer that are compared and embedded.
HEAD = 1000
_CHUNK = 500

#: Quality columns that need no file.
RULES, SCORE = "rules", "score"


@dataclass(slots=True)
class Pool:
    """Demonstrations in file order.

    Attributes:
        file: their JSON lines.
        offsets: where each line starts, in bytes.
        ids, sources, topics: as in the records.
        prompts: all user turns, cut to 1,000 characters.
        answers: all answers, likewise.
        prompt_chars, answer_chars: their whole lengths.
        quality: column → one number per demonstration, NaN where it has none.
        faults: broken rules of each.
        leaks: share of an evaluation prompt's words and the prompt's number, by demonstration.
    """

    file: Path
    offsets: array[int] = field(default_factory=lambda: array("q"))
    ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    prompt_chars: array[int] = field(default_factory=lambda: array("q"))
    answer_chars: array[int] = field(default_factory=lambda: array("q"))
    quality: dict[str, array[float]] = field(default_factory=dict)
    faults: list[Mapping[str, float]] = field(default_factory=list)
    leaks: dict[int, tuple[float, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> NDArray[np.float64]:
        """One quality column, NaN where a demonstration has no value."""
        return np.array(self.quality[name], dtype=np.float64)

    def lines(self, rows: Sequence[int]) -> Iterator[str]:
        """The JSON lines of some demonstrations, in the given order."""
        with self.file.open("rb") as handle:
            for row in rows:
                handle.seek(self.offsets[row])
                yield handle.readline().decode("utf-8")


def read_pool(
    paths: Sequence[Path],
    file: Path,
    reading: Reading,
    *,
    format: str = "auto",
    columns: Sequence[str] = (RULES,),
    scores: Mapping[str, Mapping[str, float]] | None = None,
    leaks: Leaks | None = None,
) -> Pool:
    """Read demonstrations into a pool and judge them by rules.

    Args:
        paths: files of one format that `collect.demonstrations` reads.
        file: where the whole demonstrations are written.
        reading: counts of what was removed and lost.
        format: of the files.
        columns: quality columns: `rules`, `score`, or a name of the records' or files' scores.
        scores: id → named scores from other files; they come before the records' own.
        leaks: evaluation prompts to look for.

    Raises:
        InputError: a file is broken or nothing is usable.
        ConfigError: no demonstration has a value in a column.
        ResourceError: the disk is full.
    """
    pool = Pool(file, quality={name: array("d") for name in columns})
    own = scores or {}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as handle, progress("reading", _lines(paths), "rows") as advance:
            for k, item in enumerate(read_demonstrations(paths, reading, format)):
                pool.offsets.append(handle.tell())
                line = json.dumps(to_json(item), ensure_ascii=False, allow_nan=False) + "\n"
                handle.write(line.encode())
                _add(pool, item, own.get(item.id, {}))
                found = leaks.find(_asked(item), item.answer) if leaks is not None else None
                if found is not None:
                    pool.leaks[k] = found
                if k % _CHUNK == _CHUNK - 1:
                    advance(_CHUNK)
    except OSError as error:
        raise write_error(error, file) from error
    _check_columns(pool, columns)
    return pool


def _lines(paths: Sequence[Path]) -> int:
    """Lines of the files, for the progress shown; 1 for what is not one record per line."""
    count = 1
    for path in paths:
        if path.is_file() and not is_seven_zip(path):
            quiet = Tally()
            try:
                count += sum(1 for _ in byte_lines(path, quiet))
            except InputError:  # reading it will say so
                break
    return count


def _asked(item: Demonstration) -> str:
    return "\n".join(m.text for m in item.messages if m.role == "user")


def _add(pool: Pool, item: Demonstration, scores: Mapping[str, float]) -> None:
    asked, answer = _asked(item), item.answer
    judged = judge_by_rules(item)
    pool.ids.append(item.id)
    pool.sources.append(item.source)
    pool.topics.append(item.topic)
    pool.prompts.append(asked[:HEAD])
    pool.answers.append(answer[:HEAD])
    pool.prompt_chars.append(len(asked))
    pool.answer_chars.append(len(answer))
    pool.faults.append(judged.faults)
    known = {**item.scores, **scores}
    for name, column in pool.quality.items():
        if name == RULES:
            value: float | None = judged.value
        elif name == SCORE:
            value = scores.get(SCORE, item.score)
        else:
            value = known.get(name)
        column.append(float("nan") if value is None else value)


def _check_columns(pool: Pool, columns: Sequence[str]) -> None:
    for name in columns:
        if not np.isfinite(pool.column(name)).any():
            fix = "name rules, score, or a column that --scores or the files' scores have"
            raise ConfigError(f"no demonstration has a quality {name!r}", fix=fix)
