"""Looking chunks up for a question: BM25, embeddings, both joined by rank, an optional re-ranker.

Knows nothing of files, and of models only that an encoder turns texts into unit vectors and a
re-ranker scores a text for a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from litee.config import Settings
from litee.encode.retrieval_bm25 import Bm25
from litee.errors import ConfigError
from litee.records import Chunk

Method = Literal["hybrid", "bm25", "embeddings"]
Vectors = NDArray[np.float32]


class SearchSettings(Settings):
    """How chunks are looked up."""

    method: Method = Field("hybrid", description="Ranking by words, by meaning, or both.")
    k: int = Field(5, ge=1, description="Chunks per question.")
    rrf_constant: int = Field(
        10, ge=0, description="Constant of reciprocal rank fusion; higher flattens the ranks."
    )
    candidates: int = Field(
        100, ge=1, description="Chunks of each ranking that are joined or re-ranked."
    )


class Encoder(Protocol):
    """What turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, width) unit vectors."""


class Reranker(Protocol):
    """What scores texts for a question, higher is better."""

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One number per text."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        chunk: what was found.
        rank: from 1.
        score: what it was ranked by: BM25 score, cosine, sum of reciprocal ranks, or the
            re-ranker's number.
        bm25_rank: its rank by words, None when it was not a candidate there.
        embedding_rank: its rank by meaning, likewise.
    """

    chunk: Chunk
    rank: int
    score: float
    bm25_rank: int | None = None
    embedding_rank: int | None = None


@dataclass(frozen=True, slots=True)
class Retriever:
    """Chunks with what is needed to look them up.

    Attributes:
        chunks: what is searched.
        bm25: over the chunks' titled texts.
        vectors: parts of the (chunks, width) matrix of the titled texts, in order; empty when
            there are none.
        encoder: of questions, the one that made the vectors.
        reranker: puts the candidates into their last order.
    """

    chunks: Sequence[Chunk]
    bm25: Bm25
    vectors: Sequence[Vectors] = ()
    encoder: Encoder | None = None
    reranker: Reranker | None = None
    _ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._ids.update(own for chunk in self.chunks for own in (chunk.id, chunk.document))

    def search(self, query: str, settings: SearchSettings) -> list[Hit]:
        """The best chunks, at most `settings.k`, best first; ties go to the earlier chunk.

        Raises:
            ConfigError: the method needs vectors, and there are none.
        """
        by_words: list[tuple[int, float]] = []
        by_meaning: list[tuple[int, float]] = []
        size = max(settings.candidates, settings.k)
        if settings.method != "embeddings":
            by_words = self.bm25.best(query, size)
        if settings.method != "bm25":
            by_meaning = self._nearest(query, size)
        if settings.method == "hybrid":
            rankings = [[i for i, _ in by_words], [i for i, _ in by_meaning]]
            ordered = fuse(rankings, settings.rrf_constant)
        else:
            ordered = by_words or by_meaning
        if self.reranker is not None:
            ordered = self._reranked(query, ordered[:size], self.reranker)
        words = {i: rank for rank, (i, _) in enumerate(by_words, start=1)}
        meaning = {i: rank for rank, (i, _) in enumerate(by_meaning, start=1)}
        return [
            Hit(self.chunks[i], rank, score, words.get(i), meaning.get(i))
            for rank, (i, score) in enumerate(ordered[: settings.k], start=1)
        ]

    def knows(self, own: str) -> bool:
        """Whether a chunk or a document of this id is here."""
        return own in self._ids

    def _nearest(self, query: str, size: int) -> list[tuple[int, float]]:
        if self.encoder is None or not self.vectors:
            raise ConfigError(
                "the index has no embeddings",
                fix="build it without --no-embeddings, or search with --method bm25",
            )
        vector = self.encoder.encode([query])[0]
        cosines = np.concatenate([part @ vector for part in self.vectors])
        return best_first(cosines, size)

    def _reranked(
        self, query: str, ordered: Sequence[tuple[int, float]], reranker: Reranker
    ) -> list[tuple[int, float]]:
        places = [i for i, _ in ordered]
        scores = reranker.rerank(query, [self.chunks[i].titled for i in places])
        order = sorted(range(len(places)), key=lambda n: -scores[n])
        return [(places[n], float(scores[n])) for n in order]


def best_first(scores: NDArray[np.float32], size: int) -> list[tuple[int, float]]:
    """Positions of the highest scores with the scores; equal scores keep their order.

    >>> best_first(np.array([0.1, 0.5, 0.5], dtype=np.float32), 2)
    [(1, 0.5), (2, 0.5)]
    """
    size = min(size, len(scores))
    if not size:
        return []
    least = np.partition(scores, len(scores) - size)[len(scores) - size]
    places = np.flatnonzero(scores >= least)
    places = places[np.argsort(-scores[places], kind="stable")][:size]
    return [(int(i), float(scores[i])) for i in places]


def fuse(rankings: Sequence[Sequence[int]], constant: int) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: a place's score is the sum of 1 / (constant + rank), best first.

    Equal scores keep the order of the first ranking that has the place. Source: Cormack, Clarke
    and Büttcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods", who set the constant to 60.

    >>> [(i, round(score, 3)) for i, score in fuse([[7, 8], [8, 9]], 1)]
    [(8, 0.833), (7, 0.5), (9, 0.333)]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, place in enumerate(ranking, start=1):
            scores[place] = scores.get(place, 0.0) + 1 / (constant + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
