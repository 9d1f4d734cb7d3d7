"""Questions and answers that a model writes about chunks; quotes are checked before they count.

A writer may be an endpoint or a local model: it gets prompts and gives texts, or nothing and a
reason. What it wrote is kept on disk, so that a second run asks only for the rest. Knows nothing of
how a writer works.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from litee.collect.gathering import Tally
from litee.encode.raft_format import (
    ANSWER,
    BEGIN,
    END,
    best_sentence,
    final_answer,
    has_final_answer,
    has_marks,
    mend_quotes,
    quotes_in,
    reasoning_of,
    reasoning_text,
)
from litee.encode.raft_items import RaftItem, group_of
from litee.encode.retrieval_bm25 import words
from litee.errors import InputError
from litee.records import Chunk
from litee.rundir import sha256_json

NO_QUESTION = "no question was written"
NO_ANSWER = "no final answer was written"
BAD_QUOTE = "quote that is not in its document"
NO_QUOTE = "answer without a quote, and no sentence of the document says it"
FAILED = "writer: "

_NUMBERED = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])?\s*")
#: Share of an answer's words that a sentence must have to be quoted for it.
_SAYS_IT = 0.6
#: Version of the prompts: part of the cache's key.
_PROMPTS = 1


@dataclass(frozen=True, slots=True)
class Written:
    """A writer's text, or "" and the reason for having none."""

    text: str
    reason: str = ""


class Writer(Protocol):
    """What answers prompts.

    Attributes:
        name: tells writers apart in the cache, e.g. the model's name.
    """

    name: str

    def write(self, prompts: Sequence[str]) -> Sequence[Written]:
        """One text per prompt, in order."""


@dataclass(slots=True)
class CachedWriter:
    """A writer that asks only for what it has not written before; failures are asked for again.

    Attributes:
        writer: the one that is asked.
        file: JSON lines of key and text; a half-written last line is ignored.
        batch: prompts between writes to the file.
    """

    writer: Writer
    file: Path
    batch: int = 16

    def write(self, prompts: Sequence[str], advance: Callable[[int], None]) -> list[Written]:
        """One text per prompt, in order.

        Raises:
            InputError: the file holds something else.
        """
        known = self._read()
        keys = [sha256_json([_PROMPTS, self.writer.name, prompt]) for prompt in prompts]
        missing = [i for i, key in enumerate(keys) if key not in known]
        advance(len(prompts) - len(missing))
        failed: dict[int, Written] = {}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as handle:
            for start in range(0, len(missing), self.batch):
                part = missing[start : start + self.batch]
                texts = self.writer.write([prompts[i] for i in part])
                for i, written in zip(part, texts, strict=True):
                    if written.reason:
                        failed[i] = written
                        continue
                    known[keys[i]] = written.text
                    line = json.dumps({"key": keys[i], "text": written.text}, ensure_ascii=False)
                    handle.write(f"{line}\n")
                handle.flush()
                advance(len(part))
        return [failed.get(i) or Written(known[key]) for i, key in enumerate(keys)]

    def _read(self) -> dict[str, str]:
        if not self.file.is_file():
            return {}
        raw = self.file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            self.file.write_bytes(whole)
        try:
            rows = [json.loads(line) for line in whole.decode("utf-8").splitlines() if line]
            return {row["key"]: row["text"] for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            fix = "remove the file; its questions and answers are then written again"
            raise InputError("not a cache of answers", place=str(self.file), fix=fix) from error


def question_prompt(chunk: Chunk, count: int) -> str:
    """What a writer is asked for questions."""
    about = f" It is about {chunk.title}." if chunk.title else ""
    return (
        f"Read the document.{about} Write {count} questions that a person could ask and that the "
        "document answers. A question must make sense without the document: name what it is "
        "about. Write one question per line and nothing else.\n\n"
        f"Document:\n{chunk.text}"
    )


def answer_prompt(chunk: Chunk, question: str) -> str:
    """What a writer is asked for an answer with reasoning and quotes."""
    about = f" It is about {chunk.title}." if chunk.title else ""
    return (
        f"Answer the question from the document alone.{about} First reason in one or two "
        "sentences. Copy the words you rely on exactly, each time between "
        f"{BEGIN} and {END}. Then write a last line that starts with {ANSWER} and gives a short "
        "full answer.\n\n"
        f"Document:\n{chunk.text}\n\nQuestion: {question}"
    )


def parse_questions(text: str, most: int) -> list[str]:
    r"""The distinct questions of a text, without numbers and bullets.

    >>> parse_questions("1. Are dogs welcome?\nSure!\n- Is it open?\n- Is it open?", 5)
    ['Are dogs welcome?', 'Is it open?']
    """
    lines = (_NUMBERED.sub("", line).strip() for line in text.splitlines())
    asked = dict.fromkeys(line for line in lines if line.endswith("?") and len(words(line)) > 1)
    return [question for question in asked if not has_marks(question)][:most]


def check_answer(text: str, chunk: Chunk) -> tuple[str, str] | str:
    """Reasoning with verbatim quotes and the final answer, or why there are none.

    A quote in another form is mended (`mend_quotes`). When no quote is left, the reasoning becomes
    the one sentence of the document that says the answer: at least 60 % of the answer's words.
    """
    if not has_final_answer(text):
        return NO_ANSWER
    answer, reasoning = final_answer(text), reasoning_of(text)
    mended = mend_quotes(reasoning, [chunk.text])
    if mended is not None and quotes_in(mended[0]):
        return mended[0], answer
    sentence = best_sentence(answer, [chunk.text])
    wanted = set(words(answer))
    if wanted and len(wanted & set(words(sentence))) / len(wanted) >= _SAYS_IT:
        return reasoning_text([sentence]), answer
    return BAD_QUOTE if mended is None else NO_QUOTE


def written_items(
    chunks: Sequence[Chunk],
    writer: CachedWriter,
    questions: int,
    *,
    dropped: Tally,
    advance: Callable[[int], None] = lambda n: None,
) -> list[RaftItem]:
    """Items that a writer made: questions of every chunk, then an answer to each.

    Args:
        chunks: to ask about.
        writer: asked for both.
        questions: per chunk.
        dropped: gets what was unusable, by reason.
        advance: is told of every prompt that is done.
    """
    asked: list[tuple[Chunk, int, str]] = []
    replies = writer.write([question_prompt(chunk, questions) for chunk in chunks], advance)
    for chunk, reply in zip(chunks, replies, strict=True):
        found = parse_questions(reply.text, questions)
        if not found:
            dropped.add(f"{FAILED}{reply.reason}" if reply.reason else NO_QUESTION, chunk.id)
        asked += [(chunk, number, question) for number, question in enumerate(found)]
    answers = writer.write([answer_prompt(chunk, q) for chunk, _, q in asked], advance)
    items = []
    for (chunk, number, question), reply in zip(asked, answers, strict=True):
        own = f"{chunk.id}/q{number}"
        checked = f"{FAILED}{reply.reason}" if reply.reason else check_answer(reply.text, chunk)
        if isinstance(checked, str):
            dropped.add(checked, own)
            continue
        reasoning, answer = checked
        group = group_of(chunk)
        items.append(RaftItem(own, question, (chunk.id,), reasoning, answer, group))
    return items
