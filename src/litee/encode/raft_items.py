"""Questions with the documents that answer them: from people's dialogues, or from the documents.

Knows nothing of distractors, splits and models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from litee.collect.documents_chunks import sentence_spans
from litee.collect.documents_knowledge import Entry
from litee.collect.documents_turns import GroundedTurn
from litee.encode.raft_format import reasoning_text
from litee.encode.retrieval_names import NameFinder, named_query
from litee.records import Chunk


@dataclass(frozen=True, slots=True)
class RaftItem:
    """A question, what answers it, and the answer.

    Attributes:
        id: unique within a data set.
        question: what is asked; of a dialogue, its last messages.
        oracles: ids of the chunks that answer it, at least one.
        reasoning: with quotes in their marks, "" for none.
        answer: the final answer.
        group: what a split keeps together: an entity or a document.
        dialogue: items of one dialogue share it; "" for none.
        query: what documents are looked up with, "" for the question.
        gold: ids of all chunks that answer it, where more do than are `oracles`.
    """

    id: str
    question: str
    oracles: tuple[str, ...]
    reasoning: str
    answer: str
    group: str
    dialogue: str = ""
    query: str = ""
    gold: tuple[str, ...] = ()

    @property
    def looked_up(self) -> str:
        """What documents are looked up with."""
        return self.query or self.question


def group_of(chunk: Chunk) -> str:
    """The entity of a knowledge base's chunk (`hotel/7`), else the document.

    >>> group_of(Chunk("hotel/7/faq/0", "hotel/7/faq/0", "Yes.", 0, 4))
    'hotel/7'
    """
    domain, _, rest = chunk.document.partition("/")
    entity, _, rest = rest.partition("/")
    return f"{domain}/{entity}" if rest.startswith(("faq/", "review/")) else chunk.document


def knowledge_chunks(entries: Mapping[str, Entry], source: str = "") -> Iterator[Chunk]:
    """A chunk per FAQ (question and answer) and per sentence of a review.

    The finer cut is the one that DSTC11's labels use: a gold piece is a sentence.
    """
    for entry in entries.values():
        if entry.question and entry.body.strip():
            text = f"{entry.question} {entry.body}"
            yield Chunk(entry.id, entry.id, text, 0, len(text), source, entry.entity)
        elif not entry.question:
            start = 0
            for number, sentence in enumerate(entry.sentences):
                text = sentence.strip()
                first = start + len(sentence) - len(sentence.lstrip())
                if text:
                    own, end = f"{entry.id}#{number}", first + len(text)
                    yield Chunk(own, entry.id, text, first, end, source, entry.entity)
                start += len(sentence) + 1


def human_items(
    turns: Sequence[GroundedTurn], chunks: Mapping[str, Chunk], *, history: int, most: int
) -> Iterator[RaftItem]:
    """Turns that people answered: their answers as they are, their gold sentences as quotes.

    Args:
        turns: with gold documents among the chunks.
        chunks: by id, as `knowledge_chunks` makes them.
        history: last messages that make the question.
        most: oracles per item.
    """
    names = NameFinder(chunk.title for chunk in chunks.values())
    by_text = {(chunk.document, chunk.text): chunk for chunk in chunks.values()}
    for turn in turns:
        oracles: dict[str, str] = {}
        for document, sentence in turn.quotes:
            chunk = chunks.get(document) or by_text.get((document, sentence))
            if chunk is not None and sentence in chunk.text:
                oracles.setdefault(chunk.id, sentence)
        used = dict(list(oracles.items())[:most])
        if not used:
            continue
        yield RaftItem(
            f"turn-{turn.id}",
            _question(turn, history),
            tuple(used),
            reasoning_text(list(used.values())),
            turn.answer,
            group_of(chunks[next(iter(used))]),
            turn.dialogue,
            named_query([message.text for message in turn.messages], names),
            gold=tuple(oracles),
        )


def _question(turn: GroundedTurn, history: int) -> str:
    last = turn.messages[-history:]
    if len(last) == 1:
        return last[0].text
    return "\n".join(f"{m.role.capitalize()}: {m.text}" for m in last)


def extracted_items(chunks: Sequence[Chunk]) -> Iterator[RaftItem]:
    """Items without any model, for chunks that ask and answer (`Dogs? They are welcome.`).

    The question is the chunk's first sentence when it ends in a question mark, led by the title
    unless it names it; quote and answer are the rest. Other chunks give nothing.

    >>> chunk = Chunk("1", "1", "Dogs? They are welcome.", 0, 23, title="Hill Inn")
    >>> [(i.question, i.answer) for i in extracted_items([chunk])]
    [('Hill Inn: Dogs?', 'They are welcome.')]
    """
    for chunk in chunks:
        spans = sentence_spans(chunk.text)
        if len(spans) < 2 or not chunk.text[: spans[0][1]].endswith("?"):
            continue
        question = chunk.text[spans[0][0] : spans[0][1]]
        if chunk.title and chunk.title.casefold() not in question.casefold():
            question = f"{chunk.title}: {question}"
        answer = chunk.text[spans[1][0] : spans[-1][1]]
        reasoning = reasoning_text([answer])
        yield RaftItem(f"{chunk.id}/q0", question, (chunk.id,), reasoning, answer, group_of(chunk))
