"""The journal of an unfinished run: finished units of answers, one line each.

A killed run leaves whole lines and at most one half of a line, which is left out when read. Knows
nothing of models and prompts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from litee.errors import ConfigError
from litee.records import Completion
from litee.rundir import Json, write_error

#: Key of a prompt → its answers, by sample.
Found = dict[str, tuple[Completion, ...]]


def journal_path(out: Path) -> Path:
    """Where the unfinished work for an output lies.

    >>> journal_path(Path("a/answers.jsonl")).as_posix()
    'a/.answers.jsonl.partial'
    """
    return out.with_name(f".{out.name}.partial")


class Journal:
    """Finished units, appended one by one.

    Args:
        path: of the journal.
        identity: digest of all that the answers depend on.

    Attributes:
        seconds: wall time of the units, over all sessions.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        self.seconds = 0.0
        self._handle: int | None = None

    def open(self, out: Path, *, resume: bool) -> Found:
        """Start, or read what an interrupted run has finished.

        Raises:
            ConfigError: `out` exists, an interrupted run is there and `resume` is false, or it had
                other prompts, settings or models.
        """
        if out.exists():
            fix = "choose another --out, or remove the file"
            raise ConfigError("the file exists", place=str(out), fix=fix)
        found: Found = {}
        if self.path.exists():
            if not resume:
                raise ConfigError(
                    "an interrupted run wrote to this file",
                    place=str(out),
                    fix=f"add --resume to go on, or remove {self.path.name}",
                )
            found = self._read(out)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise write_error(error, out) from error
        if not found and not self.path.stat().st_size:
            self._append({"identity": self.identity})
        return found

    def _read(self, out: Path) -> Found:
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):  # killed while writing
            os.truncate(self.path, len(whole))
        lines = whole.splitlines()
        if not lines:
            return {}
        if json.loads(lines[0]).get("identity") != self.identity:
            raise ConfigError(
                "the interrupted run had other prompts, settings or models",
                place=str(out),
                fix=f"use the same ones, or remove {self.path.name} and start anew",
            )
        found: Found = {}
        for line in lines[1:]:
            unit = json.loads(line)
            self.seconds += unit["seconds"]
            for key, several in unit["answers"].items():
                found[key] = tuple(_from_json(one) for one in several)
        return found

    def write(self, found: Found, seconds: float) -> None:
        """Add a finished unit."""
        self.seconds += seconds
        answers = {key: [_to_json(one) for one in several] for key, several in found.items()}
        self._append({"seconds": round(seconds, 3), "answers": answers})

    def _append(self, value: Mapping[str, Json]) -> None:
        assert self._handle is not None
        line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._handle, line) :]
            os.fsync(self._handle)
        except OSError as error:
            raise write_error(error, self.path) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _to_json(one: Completion) -> dict[str, Json]:
    fields = ("id", "prompt", "response", "model", "sample", "seed", "finish_reasons", "tokens")
    return {name: getattr(one, name) for name in (*fields, "prompt_tokens", "reward")}


def _from_json(row: dict[str, object]) -> Completion:
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Completion(**lists)  # type: ignore[arg-type]
