"""Questions and answers that a writer makes: parsed, checked, mended, cached."""

from __future__ import annotations

import pytest

from litee.collect.gathering import Tally
from litee.encode.raft_format import quotes_in
from litee.encode.raft_writing import (
    CachedWriter,
    Written,
    check_answer,
    parse_questions,
    written_items,
)
from litee.errors import InputError
from litee.records import Chunk

TEXT = "The tram runs until midnight. A ticket costs two euros."
CHUNK = Chunk("d#1", "d", TEXT, 0, len(TEXT), title="Lisbon")
GOOD = "It says ##begin_quote##costs two euros##end_quote##.\n<ANSWER>: Two euros."


class Scripted:
    """A writer that answers by what a prompt holds."""

    name = "scripted"

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.prompts: list[str] = []

    def write(self, prompts):
        self.prompts += prompts
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt):
        for part, text in self.answers.items():
            if part in prompt:
                return Written("", "time-out") if text == "fail" else Written(text)
        return Written("What does a ticket cost?\nUntil when does it run?")


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        (GOOD, "costs two euros"),
        ('##begin_quote##"A Ticket  costs two euros"##end_quote## <ANSWER>: Two.', None),
        ("I just know. <ANSWER>: A ticket costs two euros.", "A ticket costs two euros."),
        (
            "##begin_quote##It is cheap##end_quote## <ANSWER>: A ticket costs two euros",
            "A ticket costs two euros.",
        ),
    ],
)
def test_every_accepted_quote_is_verbatim(text, quote):
    reasoning, answer = check_answer(text, CHUNK)
    (found,) = quotes_in(reasoning)
    assert found in TEXT
    assert quote is None or found == quote
    assert answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("No mark.", "no final answer was written"),
        ("Why <ANSWER>:", "no final answer was written"),
        (
            "##begin_quote##It is red##end_quote## <ANSWER>: Red.",
            "quote that is not in its document",
        ),
        ("I guess. <ANSWER>: Red.", "answer without a quote, and no sentence of the document"),
    ],
)
def test_what_the_document_does_not_say_is_refused(text, reason):
    assert str(check_answer(text, CHUNK)).startswith(reason)


def test_questions_are_parsed():
    text = "1) What is it?\n2) what\n* How much <ANSWER>: x?\n(3) Why?\nWhere is it?\n4. Is it?"
    assert parse_questions(text, 2) == ["What is it?", "Where is it?"]


def test_items_are_written_and_drops_counted(tmp_path):
    writer = Scripted(**{"Question: What does": GOOD, "Question: Until": "Midnight."})
    dropped, done = Tally(), []
    cached = CachedWriter(writer, tmp_path / "w.jsonl")
    (item,) = written_items([CHUNK], cached, 5, dropped=dropped, advance=done.append)
    assert (item.id, item.question) == ("d#1/q0", "What does a ticket cost?")
    assert (item.oracles, item.answer, item.group) == (("d#1",), "Two euros.", "d")
    assert dropped.counts == {"no final answer was written": 1}
    assert sum(done) == 3
    assert "Lisbon" in writer.prompts[0]


def test_a_second_run_asks_only_for_what_failed(tmp_path):
    file = tmp_path / "w.jsonl"
    writer = Scripted(**{"Question: What does": GOOD, "Question: Until": "fail"})
    dropped = Tally()
    written_items([CHUNK], CachedWriter(writer, file), 5, dropped=dropped)
    assert dropped.counts == {"writer: time-out": 1}
    with file.open("a") as handle:
        handle.write('{"key": "half')  # killed while writing
    again = Scripted(**{"Question: Until": "Till late. <ANSWER>: The tram runs until midnight."})
    items = written_items([CHUNK], CachedWriter(again, file), 5, dropped=Tally())
    assert len(items) == 2
    assert len(again.prompts) == 1
    other = Scripted()
    other.name = "another"
    written_items([CHUNK], CachedWriter(other, file), 5, dropped=Tally())
    assert len(other.prompts) == 3  # another writer's texts are not taken


def test_a_foreign_cache_is_refused(tmp_path):
    (tmp_path / "w.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(InputError, match="not a cache"):
        CachedWriter(Scripted(), tmp_path / "w.jsonl").write(["x"], lambda n: None)
