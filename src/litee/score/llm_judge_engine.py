"""What every judging model can do, its verdicts on disk, and what they cost.

A stored verdict is found by the model, its settings, the wording and the texts. Knows nothing of
criteria and of how a model is run.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from litee.errors import ResourceError
from litee.records import JudgeQuestion, JudgeVerdict
from litee.rundir import Json, sha256_json
from litee.score.llm_judge_prompts import PROMPT_VERSION
from litee.score.llm_judge_settings import LlmJudgeSettings


class JudgeEngine(Protocol):
    """A language model that answers by label.

    Attributes:
        id: whatever its verdicts hang on: model, weights, settings. Part of their address.
    """

    @property
    def id(self) -> str:
        """Whatever its verdicts hang on."""

    def ask(self, questions: Sequence[JudgeQuestion]) -> Iterator[tuple[int, JudgeVerdict]]:
        """Every question's number with its verdict, once each, as they come."""


def verdict_key(engine: str, question: JudgeQuestion) -> str:
    """Content address of a verdict: hex SHA-256 over engine, wording, texts and labels.

    >>> q = JudgeQuestion("r", (("a", True),), (), ("yes", "no"), "1")
    >>> verdict_key("m", q) == verdict_key("m", q) != verdict_key("n", q)
    True
    """
    return sha256_json({"engine": engine, "question": _plain(asdict(question))})


def _plain(value: object) -> Json:
    """A record as JSON; halves of surrogate pairs, which UTF-8 cannot write, are spelled out."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value).encode("utf-8", "backslashreplace").decode() if value is not None else None


class VerdictStore:
    """Verdicts in one SQLite file; every one is safe on disk once `put` returns.

    Args:
        file: made with its folder when missing. Several processes may use it at once.

    Raises:
        ResourceError: it cannot be opened or written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(file, timeout=60, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._problem(error) from error
        try:
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT NOT NULL)"
            )
        except sqlite3.Error as error:
            self._base.close()
            raise self._problem(error) from error

    def _problem(self, error: Exception) -> ResourceError:
        fix = "free some space, delete the file if it is damaged, or set store: false"
        return ResourceError(f"stored verdicts: {error}", place=str(self.file), fix=fix)

    def get(self, key: str) -> JudgeVerdict | None:
        """The verdict kept under a key, marked as stored; None when there is none."""
        try:
            with closing(
                self._base.execute("SELECT verdict FROM verdicts WHERE key = ?", (key,))
            ) as rows:
                row = rows.fetchone()
        except sqlite3.Error as error:
            raise self._problem(error) from error
        if row is None:
            return None
        try:
            found = json.loads(row[0])
            probabilities = tuple(map(float, found.pop("probabilities")))
            return JudgeVerdict(**{**found, "probabilities": probabilities, "stored": True})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # written by another version: asked again and overwritten

    def put(self, key: str, verdict: JudgeVerdict) -> None:
        """Keep a verdict."""
        text = json.dumps(asdict(verdict), ensure_ascii=True)
        try:
            self._base.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (key, text))
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def close(self) -> None:
        """Close the file."""
        self._base.close()


@dataclass(slots=True)
class Usage:
    """What a run's questions cost; stored verdicts cost nothing.

    Attributes:
        asked: questions put to the model.
        stored: verdicts found on disk.
        repeated: questions that stood twice in one block and were asked once.
        attempts: requests, repeated ones included.
        tokens_in: tokens read.
        tokens_out: tokens written.
        cut: questions with a text that was cut.
        seconds: per question asked, waiting included.
        unscored: reason → questions without verdict.
    """

    asked: int = 0
    stored: int = 0
    repeated: int = 0
    attempts: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cut: int = 0
    seconds: list[float] = field(default_factory=list)
    unscored: dict[str, int] = field(default_factory=dict)

    def add(self, verdict: JudgeVerdict) -> None:
        """Count a verdict."""
        if verdict.label is None:
            self.unscored[verdict.reason] = self.unscored.get(verdict.reason, 0) + 1
        self.cut += verdict.cut > 0
        if verdict.stored:
            self.stored += 1
            return
        self.asked += 1
        self.attempts += verdict.attempts
        self.tokens_in += verdict.tokens_in
        self.tokens_out += verdict.tokens_out
        self.seconds.append(verdict.seconds)

    def to_json(self, settings: LlmJudgeSettings, engine: str, version: str) -> dict[str, Json]:
        """For the receipt: counts, tokens, price and the latency's distribution."""
        latency = {
            f"p{q}": round(float(np.percentile(self.seconds, q)), 4) if self.seconds else None
            for q in (50, 90, 99)
        }
        return {
            "model": settings.model,
            "endpoint": settings.base_url,
            "engine": engine,
            "prompt_version": version,
            "asked": self.asked,
            "stored": self.stored,
            "repeated": self.repeated,
            "attempts": self.attempts,
            "unscored": dict(self.unscored),
            "cut": self.cut,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "price": settings.price(self.tokens_in, self.tokens_out),
            "seconds": round(sum(self.seconds), 3),
            "latency": latency,
        }


class CachedJudge:
    """An engine whose verdicts are kept: a question that was answered before is not asked again.

    Failures are not kept, so the next run asks them again.

    Args:
        engine: that is asked.
        store: where verdicts are kept, None to ask every question.
    """

    def __init__(self, engine: JudgeEngine, store: VerdictStore | None) -> None:
        self.engine, self.store = engine, store
        self.usage = Usage()
        self.version = PROMPT_VERSION

    @property
    def id(self) -> str:
        """Whatever the verdicts hang on beside the questions."""
        return self.engine.id

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeVerdict]:
        """One verdict per question, in order."""
        keys = [verdict_key(self.engine.id, q) for q in questions]
        found: dict[str, JudgeVerdict] = {}
        fresh: dict[str, JudgeQuestion] = {}
        for key, question in zip(keys, questions, strict=True):
            if key in found or key in fresh:
                self.usage.repeated += 1
                continue
            verdict = self.store.get(key) if self.store is not None else None
            if verdict is None:
                fresh[key] = question
            else:
                found[key] = verdict
                self.usage.add(verdict)
        names = list(fresh)
        for number, verdict in self.engine.ask(list(fresh.values())):
            found[names[number]] = verdict
            self.usage.add(verdict)
            if self.store is not None and verdict.label is not None:
                self.store.put(names[number], verdict)
        return [found[key] for key in keys]

    def close(self) -> None:
        """Close the store."""
        if self.store is not None:
            self.store.close()
