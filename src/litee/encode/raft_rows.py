"""Items to rows: oracle and distractors, shuffled, with a reasoning answer.

Knows nothing of files, and of search only that it ranks chunks for a question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from litee.collect.near import normalise
from litee.encode.raft_format import completion_text, prompt_text, quotes_in
from litee.encode.raft_items import RaftItem
from litee.encode.raft_settings import RaftSettings
from litee.encode.raft_split import holders
from litee.encode.retrieval import Retriever, SearchSettings
from litee.records import Chunk

#: What a row without the oracle says when it must not answer.
DECLINE = "The documents do not say."

_SEARCHED = 40


@dataclass(frozen=True, slots=True)
class RaftRow:
    """One row of training or test data.

    Attributes:
        id: of its item.
        question: what is asked.
        documents: (chunk id, text) in the order shown.
        oracles: ids of the chunks that answer; all are shown when `oracle_shown`.
        oracle_shown: whether the documents hold the oracles.
        reasoning: with quotes verbatim in the documents, "" for none.
        answer: the final answer.
        group: what splits keep together.
        gold: sentences of the oracles that answer, shown or not.
    """

    id: str
    question: str
    documents: tuple[tuple[str, str], ...]
    oracles: tuple[str, ...]
    oracle_shown: bool
    reasoning: str
    answer: str
    group: str
    gold: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        return prompt_text([text for _, text in self.documents], self.question)

    @property
    def completion(self) -> str:
        """What the model should say."""
        return completion_text(self.reasoning, self.answer)

    def __post_init__(self) -> None:
        shown = [text for _, text in self.documents]
        for quote in quotes_in(self.reasoning):
            if not any(quote in text for text in shown):
                raise ValueError(f"row {self.id}: quote {quote!r} is in no document")


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes rows of one part.

    Attributes:
        chunks: by id, all of them, for the oracles.
        retriever: over the chunks that may be distractors.
        settings: of the build.
        method: how hard distractors are looked up.
    """

    chunks: Mapping[str, Chunk]
    retriever: Retriever
    settings: RaftSettings
    method: str = "bm25"

    def train(self, item: RaftItem, shown: bool) -> RaftRow:
        """A row with its oracles (`shown`), or with one more distractor for each of them."""
        rng = self._rng(item, 0)
        if shown:
            documents = [*self._oracles(item), *self._distractors(item, rng)]
            return self._row(item, documents, rng)
        extra = self.settings.distractors + len(item.oracles)
        documents = self._distractors(item, rng, extra)
        if self.settings.without_oracle == "decline":
            return self._row(item, documents, rng, reasoning="", answer=DECLINE)
        return self._row(item, documents, rng, reasoning="")

    def test(self, item: RaftItem, distractors: int) -> RaftRow:
        """A row with its oracles and a given number of distractors; more of them add to fewer."""
        rng = self._rng(item, 1)
        pool = self._distractors(item, rng, max(distractors, *self._counts()))
        order = rng.permutation(len(pool))[:distractors]
        documents = [*self._oracles(item), *(pool[int(i)] for i in order)]
        return self._row(item, documents, self._rng(item, 2))

    def retrieved(self, item: RaftItem, retriever: Retriever, settings: SearchSettings) -> RaftRow:
        """A row with what search finds, best first; without a reasoning."""
        found = [hit.chunk for hit in retriever.search(item.looked_up, settings)]
        return self._row(item, found, None, reasoning="")

    def closed(self, item: RaftItem) -> RaftRow:
        """A row without documents."""
        return self._row(item, [], None, reasoning="")

    def _counts(self) -> tuple[int, ...]:
        return (0, *self.settings.test_distractors)

    def _rng(self, item: RaftItem, purpose: int) -> np.random.Generator:
        """Random numbers of one item, whatever else is built."""
        own = list(item.id.encode())
        return np.random.default_rng([self.settings.seed, purpose, *own])

    def _oracles(self, item: RaftItem) -> list[Chunk]:
        return [self.chunks[own] for own in item.oracles]

    def _distractors(
        self, item: RaftItem, rng: np.random.Generator, count: int | None = None
    ) -> list[Chunk]:
        """Distinct chunks that do not answer; fewer than `count` when there are no more."""
        count = self.settings.distractors if count is None else count
        if not count:
            return []
        kind = self.settings.distractor_kind
        hard = {"hard": count, "random": 0, "mixed": (count + 1) // 2}[kind]
        taken = {normalise(chunk.text) for chunk in self._oracles(item)}
        found: list[Chunk] = []
        if hard:
            search = SearchSettings.model_validate({"method": self.method, "k": _SEARCHED})
            ranked = [hit.chunk for hit in self.retriever.search(item.looked_up, search)]
            found = self._fresh(ranked, hard, taken, item)
        places = rng.permutation(len(self.retriever.chunks))
        pool = (self.retriever.chunks[int(place)] for place in places)
        return found + self._fresh(pool, count - len(found), taken, item)

    def _fresh(
        self, pool: Iterable[Chunk], count: int, taken: set[str], item: RaftItem
    ) -> list[Chunk]:
        """The first `count` chunks that say neither an oracle's text or quote nor the answer."""
        found: list[Chunk] = []
        answer = normalise(item.answer)
        gold = {*item.oracles, *item.gold}
        quotes = quotes_in(item.reasoning)
        for chunk in pool:
            if len(found) == count:
                break
            said = normalise(chunk.text)
            if chunk.id in gold or any(said == t or t in said for t in taken):
                continue
            if (answer and answer in said) or list(holders([chunk.text], quotes)):
                continue
            taken.add(said)
            found.append(chunk)
        return found

    def _row(
        self,
        item: RaftItem,
        documents: Sequence[Chunk],
        rng: np.random.Generator | None,
        *,
        reasoning: str | None = None,
        answer: str | None = None,
    ) -> RaftRow:
        order = range(len(documents)) if rng is None else rng.permutation(len(documents))
        shown = tuple((documents[int(i)].id, documents[int(i)].titled) for i in order)
        return RaftRow(
            item.id,
            item.question,
            shown,
            item.oracles,
            set(item.oracles) <= {own for own, _ in shown},
            item.reasoning if reasoning is None else reasoning,
            item.answer if answer is None else answer,
            item.group,
            tuple(quotes_in(item.reasoning)),
        )


def oracle_choice(count: int, share: float, seed: int) -> list[bool]:
    """Which of `count` rows show their oracles: exactly round(share × count) of them, at random.

    >>> sum(oracle_choice(10, 0.8, seed=0))
    8
    """
    shown = np.zeros(count, dtype=bool)
    shown[: round(share * count)] = True
    return [bool(x) for x in np.random.default_rng([seed, 7]).permutation(shown)]
