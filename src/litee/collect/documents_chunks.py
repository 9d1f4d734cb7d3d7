"""Documents to chunks: whole sentences up to a size, with exact offsets and some overlap.

Knows nothing of files, search or models.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from pydantic import Field

from litee.config import Settings
from litee.records import Chunk, Document

#: Ends of sentences and paragraphs.
_ENDS = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n\s*\n\s*")


class ChunkSettings(Settings):
    """How documents are cut."""

    chunk_characters: int = Field(
        1000, ge=20, description="Most characters of a chunk; sentences are kept whole if they fit."
    )
    chunk_overlap: int = Field(
        0, ge=0, description="Most characters of whole sentences that a chunk repeats."
    )


def cut_documents(documents: Iterable[Document], settings: ChunkSettings) -> Iterator[Chunk]:
    """The chunks of all documents, in order. A document of one chunk gives the chunk its id.

    >>> document = Document("d", "One is. Two is. Three is.")
    >>> [c.text for c in cut_documents([document], ChunkSettings(chunk_characters=20))]
    ['One is. Two is.', 'Three is.']
    """
    for document in documents:
        spans = list(_spans(document.text, settings.chunk_characters, settings.chunk_overlap))
        for number, (start, end) in enumerate(spans):
            own = document.id if len(spans) == 1 else f"{document.id}#{number}"
            text = document.text[start:end]
            yield Chunk(own, document.id, text, start, end, document.source, document.title)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Offsets of the sentences, without the white space around them.

    >>> text = "It rained. We left!  Why?"
    >>> [text[a:b] for a, b in sentence_spans(text)]
    ['It rained.', 'We left!', 'Why?']
    """
    edges = [0, *(match.end() for match in _ENDS.finditer(text)), len(text)]
    trimmed = (_trim(text, a, b) for a, b in itertools.pairwise(edges))
    return [(a, b) for a, b in trimmed if a < b]


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return start, max(start, start + len(part.strip()))


def _spans(text: str, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    pieces = [p for span in sentence_spans(text) for p in _pieces(text, *span, size)]
    first = 0
    while first < len(pieces):
        last = first
        while last + 1 < len(pieces) and pieces[last + 1][1] - pieces[first][0] <= size:
            last += 1
        yield pieces[first][0], pieces[last][1]
        if last + 1 == len(pieces):
            return
        # go back over whole sentences, but always past the first one and far enough that the
        # next chunk brings something new
        again = last + 1
        while (
            again - 1 > first
            and pieces[last][1] - pieces[again - 1][0] <= overlap
            and pieces[last + 1][1] - pieces[again - 1][0] <= size
        ):
            again -= 1
        first = again


def _pieces(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """A sentence, cut at white space where it is longer than `size`, else anywhere."""
    while end - start > size:
        space = max(
            text.rfind(" ", start + 1, start + size), text.rfind("\n", start + 1, start + size)
        )
        cut = space if space > start else start + size
        yield _trim(text, start, cut)
        start = _trim(text, cut, end)[0]
    if start < end:
        yield start, end
