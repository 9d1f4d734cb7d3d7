"""Predictions of a file of pairs: chunk by chunk, within time and memory, and resumable.

What is done lies in `OUT.part` beside the output until everything is. A chunk is written whole or
not at all, and a resumed run cuts the same chunks, so it ends in the bytes of one that was never
stopped. Knows nothing of the layout of a line.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from litee.errors import ConfigError, ResourceError
from litee.finetune.deadline import Deadline
from litee.finetune.heap import give_back_memory
from litee.finetune.rates import PeakMemory, resident_bytes
from litee.predict.judge import CHUNK_PAIRS, Judge
from litee.progress import progress
from litee.records import Pair, Prediction
from litee.rundir import sha256_file, write_error, write_text

#: Pairs that are timed and weighed before a budget or a limit is planned for.
TRIAL_PAIRS = 64

#: Chunks of a budget: what a chunk takes is how far the end can be missed.
BUDGET_CHUNKS = 40

#: Seconds between two times that memory is given back: each takes a tenth of a second or more.
GIVE_BACK_SECONDS = 3.0

#: Numbers of 4 bytes that are held per state while a chunk is judged: the states themselves, the
#: copy that heads read, and their products.
HELD = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a prediction may take.

    Attributes:
        seconds: wall time from now on; None for no limit.
        bytes: resident memory; None for no limit.
    """

    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How predictions are written.

    Attributes:
        line: a prediction as one line, without its end.
        header: the first line, or empty.
    """

    line: Callable[[Prediction], str]
    header: str = ""


class Progress(BaseModel):
    """How far a prediction is.

    Attributes:
        chunk: pairs per chunk, 1 or more.
        done: pairs whose lines are on the disk.
        cut: of these, pairs that were cut to the token budget.
        unlike: in which way unlike the training votes → pairs; `any` counts each of them once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunk: int = Field(ge=1)
    done: int = Field(0, ge=0)
    cut: int = Field(0, ge=0)
    unlike: dict[str, int] = {}


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    made_of: dict[str, str]
    progress: Progress


class PartFile:
    """The lines that are done, in `OUT.part`, and `OUT.part.json`, which says of what.

    Args:
        out: where the finished file goes.
        header: first line, or empty.
        made_of: hashes that a resumed run must share.
    """

    def __init__(self, out: Path, *, header: str, made_of: dict[str, str]) -> None:
        self.out, self.header, self.made_of = out, header, made_of
        self.file = out.with_name(out.name + ".part")
        self.note = out.with_name(out.name + ".part.json")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing to the same part file, in which lines would mix.

        Raises:
            ConfigError: another process holds it.
            ResourceError: the file cannot be written.
        """
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            handle = self.file.open("a", encoding="utf-8")
        except OSError as error:
            raise write_error(error, self.file) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    "another process is writing these predictions",
                    place=str(self.out),
                    fix="wait until it is done, or name another --out",
                ) from error
            yield

    def found(self) -> Progress | None:
        """What a stopped run of the same inputs has done; None when there is none to go on from."""
        try:
            note = _Note.model_validate_json(self.note.read_bytes())
            with self.file.open("rb") as handle:
                lines = sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 20), b""))
        except (OSError, ValueError):
            return None
        whole = lines >= note.progress.done + bool(self.header)
        return note.progress if whole and note.made_of == self.made_of else None

    def begin(self, progress: Progress) -> None:
        """Keep the lines of the pairs that are done and forget what follows.

        Raises:
            ResourceError: the disk takes no more.
        """
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            if not progress.done:
                self.file.write_text(self.header and self.header + "\n", encoding="utf-8")
            with self.file.open("rb+") as handle:
                for _ in range(progress.done + bool(self.header)):
                    handle.readline()
                handle.truncate()
        except OSError as error:
            raise write_error(error, self.file) from error
        self._write(progress)

    def add(self, lines: Iterable[str], progress: Progress) -> None:
        """Append a chunk, bring it to the disk, and then count it.

        Raises:
            ResourceError: the disk takes no more; the chunk does not count.
        """
        try:
            with self.file.open("a", encoding="utf-8", newline="\n") as handle:
                handle.write("".join(line + "\n" for line in lines))
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise write_error(error, self.file) from error
        self._write(progress)

    def _write(self, progress: Progress) -> None:
        note = _Note(made_of=self.made_of, progress=progress)
        write_text(self.note, note.model_dump_json(indent=2) + "\n")

    def finish(self) -> None:
        """Put the finished file where it belongs."""
        self.file.replace(self.out)
        self.note.unlink(missing_ok=True)


def predict_file(
    judge: Judge,
    pairs: Callable[[], Iterable[Pair]],
    out: Path,
    *,
    source: Path,
    count: int,
    layout: Layout,
    limits: Limits,
) -> Progress:
    """Predict all pairs, going on where a stopped run of the same inputs was.

    Args:
        judge: loaded.
        pairs: → the pairs in the order of the file; asked for several times.
        out: the output.
        source: the file of pairs, for its hash.
        count: number of its pairs.
        layout: of the lines.
        limits: time and memory.

    Returns:
        The pairs in the output, and how many of them were cut to the token budget.

    Raises:
        ConfigError: another process is writing to `out`.
        ResourceError: the time was up before the last pair, or the memory is too small; what was
            done stays beside `out`.
    """
    deadline = Deadline(limits.seconds)
    made_of = {"pairs": sha256_file(source), "judge": sha256_file(judge.folder / "judge.json")}
    part = PartFile(out, header=layout.header, made_of=made_of | {"suffix": out.suffix})
    with part.held():
        return _go_on(judge, pairs, part, deadline, count=count, line=layout.line, limits=limits)


def _go_on(
    judge: Judge,
    pairs: Callable[[], Iterable[Pair]],
    part: PartFile,
    deadline: Deadline,
    *,
    count: int,
    line: Callable[[Prediction], str],
    limits: Limits,
) -> Progress:
    """Predict the pairs that the part file lacks, and finish it."""
    now = part.found()
    if now is None:
        chunk = choose_chunk(judge, list(islice(pairs(), TRIAL_PAIRS)), limits)
        now = Progress(chunk=chunk)
    part.begin(now)
    rest = islice(pairs(), now.done, None)
    slowest, given_back = 0.0, 0.0
    with progress("predicting", count, "pairs") as advance:
        advance(now.done)
        while some := list(islice(rest, now.chunk)):
            if slowest > max(0.0, deadline.left()):
                raise ResourceError(
                    f"the time is up after {now.done:,} of {count:,} pairs",
                    place=str(part.file),
                    fix="run the same command again to go on, or give it a larger --budget",
                )
            started = time.monotonic()
            found = judge.predict(some)
            cut = now.cut + sum(sum(p.tokens_cut) > 0 for p in found)
            unlike = judge.file.familiar.count(some, now.unlike)
            now = Progress(chunk=now.chunk, done=now.done + len(some), cut=cut, unlike=unlike)
            part.add((line(p) for p in found), now)
            slowest = max(slowest, time.monotonic() - started)
            advance(len(some))
            if time.monotonic() - given_back > GIVE_BACK_SECONDS:
                give_back_memory()  # holes in the heap, which grow with the number of passes
                given_back = time.monotonic()
    part.finish()
    return now


def choose_chunk(judge: Judge, trial: Sequence[Pair], limits: Limits) -> int:
    """Pairs per chunk: as many as memory holds, and a small part of the time.

    Args:
        judge: loaded.
        trial: some pairs, which are run once when there is a limit.
        limits: time and memory.

    Raises:
        ResourceError: the judge by itself takes more memory than it may.
    """
    if not trial or (limits.seconds is None and limits.bytes is None):
        return CHUNK_PAIRS
    give_back_memory()
    resident, started = resident_bytes(), time.monotonic()
    with PeakMemory() as peak:
        judge.predict(trial)
    chunk = float(CHUNK_PAIRS)
    if limits.seconds is not None:
        each = (time.monotonic() - started) / len(trial)
        chunk = min(chunk, limits.seconds / BUDGET_CHUNKS / each)
    if limits.bytes is not None:
        each_pair = judge.state_numbers * 4 * HELD
        free = limits.bytes - resident - peak.bytes
        if free < each_pair:
            raise ResourceError(
                f"this judge takes {(resident + peak.bytes) / 1e6:,.0f} MB to predict, "
                f"--max-memory is {limits.bytes / 1e6:,.0f} MB",
                place=str(judge.folder),
                fix="allow more, use --threads 1, or fit a judge with fewer layers or members",
            )
        chunk = min(chunk, free / each_pair)
    return max(1, int(chunk))
