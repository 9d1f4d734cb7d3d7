"""Training, validation and test part of RAFT items, without leaks between them.

Whole groups (entities or documents) go to one part. An item of an earlier part is dropped when a
later part has its dialogue, or when what answers it says a sentence that answers a test question.
Knows nothing of rows and distractors.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from litee.collect.documents_chunks import sentence_spans
from litee.collect.gathering import Tally
from litee.collect.near import normalise
from litee.encode.raft_format import ANSWER, quotes_in
from litee.encode.raft_items import RaftItem, group_of
from litee.errors import LeakError
from litee.records import Chunk

PARTS = ("train", "validation", "test")
SAME_DIALOGUE = "dialogue that lies in a later part too"
OTHER_PART = "answered by a document of another part"
#: Shorter sentences say too little to be searched for inside others.
_WORDS = 4
_ENDS = " .!?…\"'"
_MARKS = re.compile(r"</?DOCUMENT>|##(?:begin|end)_quote##|<ANSWER>:|[\n{}\[\]]")

GOLD_TEXT = "holds what answers a question of a later part"


@dataclass(frozen=True, slots=True)
class Split:
    """Items by part, and the part of every group.

    Attributes:
        items: part → items.
        parts: group → part; groups without items are not here.
        gold: part → normalised sentences that answer its items, and those of later parts: no text
            of the part before may hold them.
    """

    items: Mapping[str, tuple[RaftItem, ...]]
    parts: Mapping[str, str]
    gold: Mapping[str, frozenset[str]]

    def barred(self, part: str) -> frozenset[str]:
        """Sentences that must not stand in rows of a part: those that answer later parts."""
        later = PARTS[PARTS.index(part) + 1 :]
        return frozenset().union(*(self.gold[p] for p in later))


def split_items(
    items: Sequence[RaftItem],
    chunks: Mapping[str, Chunk],
    shares: tuple[float, float],
    *,
    seed: int,
    dropped: Tally,
) -> Split:
    """Split items by group; what would leak is dropped and counted.

    Args:
        items: in any order; their order is kept.
        chunks: by id, all oracles among them.
        shares: of validation and test, in items.
        seed: of the order in which groups are dealt.
        dropped: gets the counts.
    """
    parts = _deal(items, shares, seed)
    dialogues: set[str] = set()
    gold: dict[str, frozenset[str]] = {}
    kept: dict[str, tuple[RaftItem, ...]] = {}
    barred: set[str] = set()
    for part in reversed(PARTS):
        own = []
        mine = [item for item in items if parts[item.group] == part]
        holding = holders([_said(item, chunks) for item in mine], barred)
        for place, item in enumerate(mine):
            reason = GOLD_TEXT if place in holding else ""
            reason = _leak(item, part, parts, chunks, dialogues) or reason
            if reason:
                dropped.add(reason, item.id)
            else:
                own.append(item)
        kept[part] = tuple(own)
        gold[part] = frozenset(gold_sentences(own))
        barred |= gold[part]
        dialogues |= {item.dialogue for item in own if item.dialogue}
    return Split(kept, parts, gold)


def _deal(items: Sequence[RaftItem], shares: tuple[float, float], seed: int) -> dict[str, str]:
    """Groups in random order: to the test until its share is reached, then to validation."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, 0) + 1
    names = sorted(sizes)
    wanted = {"test": shares[1] * len(items), "validation": shares[0] * len(items)}
    parts: dict[str, str] = {}
    for place in np.random.default_rng(seed).permutation(len(names)):
        name = names[int(place)]
        part = next((p for p, left in wanted.items() if left > 0), "train")
        if part != "train":
            wanted[part] -= sizes[name]
        parts[name] = part
    return parts


def _leak(
    item: RaftItem,
    part: str,
    parts: Mapping[str, str],
    chunks: Mapping[str, Chunk],
    dialogues: Collection[str],
) -> str:
    if item.dialogue and item.dialogue in dialogues:
        return SAME_DIALOGUE
    other = any(parts.get(group_of(chunks[own]), part) != part for own in item.oracles)
    return OTHER_PART if other else ""


def _said(item: RaftItem, chunks: Mapping[str, Chunk]) -> str:
    """All that a row with the oracles of an item would say, but for the distractors."""
    shown = [chunks[own].titled for own in item.oracles]
    return "\n".join([*shown, item.question, item.reasoning, f"{ANSWER} {item.answer}"])


def gold_sentences(items: Iterable[RaftItem]) -> set[str]:
    """The quotes of items, normalised: what a person read to answer."""
    return {normalise(q) for item in items for q in quotes_in(item.reasoning) if q.strip()}


def usable_chunks(chunks: Sequence[Chunk], part: str, split: Split) -> list[Chunk]:
    """Chunks that rows of a part may show: none of a later part, none that holds its answers."""
    later = PARTS[PARTS.index(part) + 1 :]
    own = [chunk for chunk in chunks if split.parts.get(group_of(chunk)) not in later]
    holding = holders([chunk.titled for chunk in own], split.barred(part))
    return [chunk for place, chunk in enumerate(own) if place not in holding]


def holders(texts: Sequence[str], sentences: Iterable[str]) -> dict[int, str]:
    """Place of every text that holds one of the sentences → the sentence; in normalised form.

    A sentence of four words or more is held when it stands anywhere in a text; a shorter one
    (`Yes.`, `Free parking`) when it is a whole sentence, quote or answer there.

    >>> holders(["Cats purr.", "We say all dogs  bark loudly."], ["all dogs bark loudly", "purr"])
    {1: 'all dogs bark loudly'}
    >>> holders(["Parking? Free.", "Free parking."], ["free"])
    {0: 'free'}
    """
    wanted = {plain: s for s in sentences if (plain := normalise(s).strip(_ENDS))}
    long = {plain: s for plain, s in wanted.items() if len(plain.split()) >= _WORDS}
    # white space is collapsed by normalising, so no sentence reaches over a line's end
    lines = [normalise(text) for text in texts]
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    joined = "\n".join(lines)
    found: dict[int, str] = {}
    for plain, sentence in long.items():
        at = joined.find(plain)
        while at >= 0:
            place = bisect_right(starts, at) - 1
            found.setdefault(place, sentence)
            at = joined.find(plain, starts[place + 1])
    short = wanted.keys() - long.keys()
    for place, text in enumerate(texts if short else ()):
        if held := short & _pieces(text):
            found.setdefault(place, wanted[min(held)])
    return found


def _pieces(text: str) -> set[str]:
    """Whole sentences of a text, also without the name before them, normalised."""
    found: set[str] = set()
    for part in _MARKS.split(text):
        for start, end in sentence_spans(part):
            sentence = normalise(part[start:end])
            found |= {sentence.strip(_ENDS), sentence.rpartition(": ")[2].strip(_ENDS)}
    return found


def check_leaks(texts: Mapping[str, str], gold: Iterable[str], where: str) -> None:
    """Refuse rows that hold a sentence that answers a test question.

    Args:
        texts: row id → everything the row says.
        gold: sentences, in any form.
        where: what the rows are, for the message.

    Raises:
        LeakError: a row holds one.

    >>> check_leaks({"1": "Dogs are welcome."}, ["Cats are not."], "train")
    """
    for place, sentence in holders(list(texts.values()), gold).items():
        fix = "split again by entity, or leave the row out"
        problem = f"holds the answer to a test question: {sentence[:80]!r}"
        raise LeakError(problem, place=f"{where}, row {list(texts)[place]}", fix=fix)
