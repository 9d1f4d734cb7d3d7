"""Runs `litee` in this process, and writes the small votes files that its tests read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

TEXT = (
    "amber basin cedar delta ember fjord grove harbor island jungle kernel lagoon meadow nectar "
    "orchid prairie quartz river summit timber"
)
WORDS = TEXT.split()

#: Smallest settings that still fit every kind of member.
SETTINGS = {
    "members": ["statistics", "probe", "lora", "joint", "joint-lora"],
    "folds": 2,
    "lora_r": 2,
    "lora_layers": 1,
    "num_train_epochs": 3,
    "evaluations_per_epoch": 1,
    "learning_rate": 1e-3,
    "patience": 3,
    "batch_tokens": 512,
    "max_tokens": 64,
    "ridge": [50.0, 500.0],
    "dtype": "float32",
    "threads": 1,
}


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def refused(self, code: int, *parts: str) -> None:
        """One message with a fix on stderr, no traceback, nothing on stdout."""
        assert self.code == code, (self.code, self.err)
        assert self.out == ""
        assert self.err.count("litee: ") == 1, self.err
        assert self.err.count("  fix: ") == 1, self.err
        assert "Traceback" not in self.err
        for part in parts:
            assert part in self.err, (part, self.err)

    def refused_later(self, code: int, *parts: str) -> None:
        """The same, after the line that tells what was read."""
        first, _, rest = self.err.partition("\n")
        assert first.endswith("rows dropped"), self.err
        Done(self.code, self.out, rest).refused(code, *parts)


def litee(*arguments: object) -> Done:
    """Call the entry point with these arguments; what is no `LiteeError` comes through."""
    from litee.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", ["litee", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def vote_rows(prompts: int = 10, pairs: int = 3, seed: int = 0, **cells: object) -> list[dict]:
    """Votes for the longer answer, on prompts that are unlike each other."""
    rng = random.Random(seed)
    rows = []
    for p in range(prompts):
        prompt = f"{' '.join(rng.sample(WORDS, 6))}, question {seed}.{p}?"
        for k in range(pairs):
            a, b = (" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in "ab")
            gain = len(a) - len(b)
            winner = "tie" if abs(gain) < 5 else "a" if gain > 0 else "b"
            rows.append(
                {
                    "id": f"{seed}-{p}-{k}",
                    "prompt": prompt,
                    "response_a": a,
                    "response_b": b,
                    "winner": winner,
                    "annotator": f"rater{k}",
                    **cells,
                }
            )
    return rows


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write(path: Path, content: str | bytes | list[dict]) -> Path:
    if isinstance(content, list):
        return write_rows(path, content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_yaml(path: Path, values: dict[str, object]) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return path


def digests(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file below a folder."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def judge_bytes(run: Path) -> dict[str, str]:
    """Digests of everything that makes the judge: `judge.json` and the members' files."""
    found = {f"members/{name}": digest for name, digest in digests(run / "members").items()}
    found["judge.json"] = hashlib.sha256((run / "judge.json").read_bytes()).hexdigest()
    return found
