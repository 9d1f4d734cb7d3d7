"""Texts and what is asked about them: conversations, documents, completions, verdicts.

Knows nothing of files, models and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat: the role is `user`, `assistant` or `system`."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation that shows how to answer: what a chat model is tuned on.

    Attributes:
        id: unique within a data set.
        messages: at most one system message first, then user and assistant in turns; the last
            is the assistant's. No text is blank.
        source: where it comes from, e.g. `stackexchange/cooking`; quotas count by it.
        license: of the text, "" when unknown.
        topic: a given category, "" when there is none.
        score: what readers gave it at its source (up-votes), None when unknown.
        scores: quality by name, e.g. a judge's reward or a grade from 1 to 6; all finite.

    Raises:
        ValueError: the roles do not alternate, a text is blank, or a score is not finite.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    license: str = ""
    topic: str = ""
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roles = [message.role for message in self.messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
            raise ValueError(f"roles must be user, assistant in turns, found {', '.join(roles)}")
        if not all(message.text.strip() for message in self.messages):
            raise ValueError("a message is blank")
        numbers = [*self.scores.values(), 0.0 if self.score is None else self.score]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a score is not finite")

    @property
    def prompt(self) -> str:
        """The first user turn.

        >>> Demonstration("1", (Message("user", "q"), Message("assistant", "x"))).prompt
        'q'
        """
        return next(message.text for message in self.messages if message.role == "user")

    @property
    def answer(self) -> str:
        """All assistant turns, joined by a blank line."""
        return "\n\n".join(m.text for m in self.messages if m.role == "assistant")


@dataclass(frozen=True, slots=True)
class Document:
    """A text to look things up in.

    Attributes:
        id: unique within a data set.
        text: not blank.
        source: where it lies, e.g. `guide.pdf, page 3`.
        title: what it is about, e.g. the name of a hotel; "" when unknown.

    Raises:
        ValueError: the text is blank.
    """

    id: str
    text: str
    source: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("a document is blank")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A verbatim part of a document: what is searched, shown and quoted.

    Attributes:
        id: unique within a data set.
        document: id of the document.
        text: the document's characters `start` to `end`, not blank.
        start: offset of the first character in the document.
        end: offset after the last one.
        source: the document's.
        title: the document's.

    Raises:
        ValueError: the text is blank or is not as long as the offsets say.
    """

    id: str
    document: str
    text: str
    start: int
    end: int
    source: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip() or not 0 <= self.start == self.end - len(self.text):
            raise ValueError(f"chunk {self.id!r} is blank or does not fit its offsets")

    @property
    def titled(self) -> str:
        """The text, led by the title unless it is named in the text.

        >>> Chunk("1", "1", "Dogs are welcome.", 0, 17, title="Hill Inn").titled
        'Hill Inn: Dogs are welcome.'
        """
        if not self.title or self.title.casefold() in self.text.casefold():
            return self.text
        return f"{self.title}: {self.text}"


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer that a model wrote.

    Attributes:
        id: of the prompt.
        prompt: the user's turns, at least one.
        response: the answers, one per turn.
        model: who wrote them, as `system` stands in files of answers.
        sample: number of this answer among several to the same prompt, from 0.
        seed: what its random numbers came from.
        finish_reasons: per turn `stop` (the model ended its turn), `length` (it was cut off) or
            `cancelled`.
        tokens: tokens written, over all turns, end-of-turn tokens included.
        prompt_tokens: tokens read, over all turns.
        reward: a judge's scalar reward of the answer, None when no judge was asked.

    Raises:
        ValueError: the numbers of turns differ.
    """

    id: str
    prompt: tuple[str, ...]
    response: tuple[str, ...]
    model: str = ""
    sample: int = 0
    seed: int = 0
    finish_reasons: tuple[str, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    reward: float | None = None

    def __post_init__(self) -> None:
        if not self.prompt or not len(self.prompt) == len(self.response):
            raise ValueError(f"{len(self.prompt)} user turns but {len(self.response)} answers")
        if self.finish_reasons and len(self.finish_reasons) != len(self.prompt):
            raise ValueError("one finish reason per turn is needed")

    @property
    def stopped(self) -> bool:
        """Whether every answer was ended by the model itself."""
        return bool(self.finish_reasons) and set(self.finish_reasons) == {"stop"}


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """What a language model is asked about one or two answers; its reply is one of `labels`.

    Attributes:
        rules: what the model is told about its task; written by the project.
        shared: passages that stand first and are the same in several questions on the same
            texts, so that a local model reads them once. A passage is its text and whether it
            was quoted from outside: quoted ones may be cut to a limit.
        rest: the passages after them.
        labels: allowed replies, at least two, all different.
        version: of the wording; part of what a stored verdict is found by.

    Raises:
        ValueError: fewer than two labels, or one twice.
    """

    rules: str
    shared: tuple[tuple[str, bool], ...]
    rest: tuple[tuple[str, bool], ...]
    labels: tuple[str, ...]
    version: str = ""

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len({x.casefold() for x in self.labels}) < len(self.labels):
            raise ValueError(f"a question needs two or more different labels, got {self.labels}")


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """A language model's reply to a `JudgeQuestion`.

    Attributes:
        label: the one it chose, None when it gave no usable reply.
        probabilities: over the question's labels, sum 1; empty when the model does not tell.
        reason: why `label` is None; empty otherwise.
        comment: what the model wrote before its verdict, if it was asked to.
        tokens_in: tokens it read, those shared with other questions counted once.
        tokens_out: tokens it wrote.
        seconds: from question to reply, waiting included.
        attempts: times it was asked.
        cut: tokens or characters of quoted passages that did not fit the limit.
        mass: share of the model's whole probability that lay on the labels, None when unknown.
        stored: whether it was found on disk and cost nothing now.

    Raises:
        ValueError: neither a label nor a reason, or both.
    """

    label: str | None
    probabilities: tuple[float, ...] = ()
    reason: str = ""
    comment: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    attempts: int = 1
    cut: int = 0
    mass: float | None = None
    stored: bool = False

    def __post_init__(self) -> None:
        if (self.label is None) != bool(self.reason):
            raise ValueError("a verdict has either a label or a reason for having none")
