"""Looks at RAFT rows of any maker: oracle shown, quotes verbatim, final answers, duplicates.

Reads rows as gorilla's raft.py writes them (question, context.sentences, oracle_context,
cot_answer, instruction) and the project's own. Knows nothing of tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from litee.collect.gathering import Tally
from litee.collect.near import normalise
from litee.collect.zst import json_lines
from litee.encode.raft_format import (
    ANSWER,
    BEGIN,
    find_quote,
    has_final_answer,
    prompt_text,
    quotes_in,
)
from litee.errors import InputError
from litee.records import Demonstration, Dropped, Message
from litee.rundir import Json

NO_RAFT_ROW = "row without question, documents and answer"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row as an auditor sees it.

    Attributes:
        id: of the row.
        question: what is asked.
        documents: texts in the order shown.
        oracle: the text that answers, "" when unknown.
        completion: what the model is to say.
        prompt: what the model is given.
    """

    id: str
    question: str
    documents: tuple[str, ...]
    oracle: str
    completion: str
    prompt: str

    def named(self, source: str) -> Demonstration:
        """The row as something to tune on, with the file's name before its id.

        Raises:
            ValueError: prompt or completion is blank.
        """
        messages = (Message("user", self.prompt), Message("assistant", self.completion))
        return Demonstration(f"{source}/{self.id}", messages, source)


@dataclass(frozen=True, slots=True)
class Audit:
    """Counts over rows.

    Attributes:
        rows: usable rows.
        dropped: unusable ones, by reason.
        oracle_known: rows that name their oracle.
        oracle_shown: of those, rows whose documents hold it.
        oracles: distinct oracles.
        documents: documents per row: lowest, highest.
        answer_marks: rows with `<ANSWER>`.
        final_answer: rows with that mark, or `Final answer:`, and something behind it.
        quote_marks: rows with `##begin_quote##`.
        quoted: rows with at least one quote between both marks.
        quotes: quotes in all rows.
        verbatim: quotes that stand verbatim in a document of their row.
        mendable: further quotes that do so but for case, space, marks or a few words.
        same_question: rows whose question occurred before.
    """

    rows: int
    dropped: Dropped
    oracle_known: int
    oracle_shown: int
    oracles: int
    documents: tuple[int, int]
    answer_marks: int
    final_answer: int
    quote_marks: int
    quoted: int
    quotes: int
    verbatim: int
    mendable: int
    same_question: int

    def to_json(self) -> dict[str, Json]:
        """The counts with shares of the rows."""
        rows = max(1, self.rows)
        return {
            "rows": self.rows,
            "dropped": dict(self.dropped.counts),
            "oracle_shown_share": round(self.oracle_shown / max(1, self.oracle_known), 4),
            "oracle_known": self.oracle_known,
            "oracles": self.oracles,
            "documents": list(self.documents),
            "answer_mark_share": round(self.answer_marks / rows, 4),
            "final_answer_share": round(self.final_answer / rows, 4),
            "quote_mark_share": round(self.quote_marks / rows, 4),
            "quoted_share": round(self.quoted / rows, 4),
            "quotes": self.quotes,
            "quotes_verbatim": self.verbatim,
            "quotes_mendable": self.mendable,
            "same_question": self.same_question,
        }


def read_audit_rows(file: Path) -> tuple[list[AuditRow], Dropped]:
    """The rows of a file.

    Raises:
        InputError: the file is missing, damaged, or has no usable row.
    """
    tally = Tally()
    rows = []
    for number, cells in json_lines(file, tally):
        row = _gorilla(cells, number) if "cot_answer" in cells else _own(cells, number)
        if row is None:
            tally.add(NO_RAFT_ROW, f"{file}, row {number}")
        else:
            rows.append(row)
    if not rows:
        fix = "give rows with question, context, oracle_context and cot_answer, or with messages"
        raise InputError("no RAFT row", place=str(file), fix=fix)
    return rows, tally.frozen()


def audit_rows(rows: Sequence[AuditRow], dropped: Dropped) -> Audit:
    """Count what the rows hold.

    Args:
        rows: at least one.
        dropped: what was left out while reading.
    """
    quotes = [(row, quote) for row in rows for quote in quotes_in(row.completion)]
    exact = [any(quote in text for text in row.documents) for row, quote in quotes]
    loose = [
        find_quote(quote, row.documents) is not None
        for (row, quote), found in zip(quotes, exact, strict=True)
        if not found
    ]
    known = [row for row in rows if row.oracle]
    counts = [len(row.documents) for row in rows]
    return Audit(
        rows=len(rows),
        dropped=dropped,
        oracle_known=len(known),
        oracle_shown=sum(row.oracle in row.documents for row in known),
        oracles=len({row.oracle for row in known}),
        documents=(min(counts), max(counts)),
        answer_marks=sum(ANSWER.rstrip(":") in row.completion for row in rows),
        final_answer=sum(has_final_answer(row.completion) for row in rows),
        quote_marks=sum(BEGIN in row.completion for row in rows),
        quoted=len({id(row) for row, _ in quotes}),
        quotes=len(quotes),
        verbatim=sum(exact),
        mendable=sum(loose),
        same_question=len(rows) - len({normalise(row.question) for row in rows}),
    )


def _gorilla(cells: Mapping[str, object], number: int) -> AuditRow | None:
    question, completion = cells.get("question"), cells.get("cot_answer")
    context, oracle = cells.get("context"), cells.get("oracle_context")
    sentences = context.get("sentences") if isinstance(context, Mapping) else None
    flat = [text for group in _lists(sentences) for text in _lists(group)]
    texts = tuple(text for text in flat if isinstance(text, str))
    if not isinstance(question, str) or not isinstance(completion, str):
        return None
    if not texts or not question.strip() or not completion.strip():
        return None
    given = cells.get("instruction")
    prompt = given if isinstance(given, str) and given.strip() else prompt_text(texts, question)
    own = str(cells.get("id") or number)
    answers = oracle if isinstance(oracle, str) else ""
    return AuditRow(own, question, texts, answers, completion, prompt)


def _own(cells: Mapping[str, object], number: int) -> AuditRow | None:
    messages = cells.get("messages")
    said = [m for m in _lists(messages) if isinstance(m, Mapping)]
    if len(said) < 2 or not isinstance(cells.get("question"), str):
        return None
    prompt, completion = str(said[0].get("content", "")), str(said[-1].get("content", ""))
    texts = tuple(p.partition("</DOCUMENT>")[0] for p in prompt.split("<DOCUMENT>")[1:])
    shown = [str(own) for own in _lists(cells.get("documents"))]
    oracles = [str(own) for own in _lists(cells.get("oracles"))]
    if len(shown) != len(texts) or not oracles:
        return None
    places = [shown.index(own) if own in shown else -1 for own in oracles]
    # an oracle that is not shown has no text here: its id stands for it, and is in no document
    oracle = oracles[0] if -1 in places else texts[places[0]]
    own = str(cells.get("id") or number)
    return AuditRow(own, str(cells["question"]), texts, oracle, completion, prompt)


def _lists(value: object) -> Sequence[object]:
    return cast(Sequence[object], value) if isinstance(value, list) else ()
