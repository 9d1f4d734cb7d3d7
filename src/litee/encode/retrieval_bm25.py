"""Ranking by words: BM25 through bm25s, over words that are folded in case.

Knows nothing of chunks, embeddings and folders beyond its own files.
"""

from __future__ import annotations

import importlib
import logging
import re
import unicodedata
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words that are compared: runs of letters and digits, NFKC, case folded.

    >>> words("Wi-Fi at A and B's?")
    ['wi', 'fi', 'at', 'a', 'and', 'b', 's']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _library() -> Any:  # noqa: ANN401 - bm25s is optional and has no types
    library = importlib.import_module("bm25s")
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return library


class Bm25:
    """Scores of Robertson's BM25 in Lucene's form (k1 = 1.5, b = 0.75).

    Word weights are formed while indexing (Lù 2024, arXiv 2407.03618), so a query adds up one
    column per word.
    """

    def __init__(self, model: Any, size: int) -> None:  # noqa: ANN401
        self._model = model
        self.size = size

    @classmethod
    def build(cls, texts: Iterable[str]) -> Bm25:
        """Index texts; they are read once and not kept.

        Raises:
            ValueError: there is no text, or none has a word.
        """
        vocabulary: dict[str, int] = {}
        documents: list[array[int]] = []
        for text in texts:
            ids = (vocabulary.setdefault(word, len(vocabulary)) for word in words(text))
            documents.append(array("i", ids))
        if not vocabulary:
            raise ValueError("no text has a word")
        model = _library().BM25()
        model.index((documents, vocabulary), show_progress=False)
        return cls(model, len(documents))

    def best(self, query: str, size: int) -> list[tuple[int, float]]:
        """Places and scores of the best texts that share a word with the query, best first."""
        scores = self.scores(query)
        size = min(size, int(np.count_nonzero(scores > 0)))
        if not size:
            return []
        least = np.partition(scores, len(scores) - size)[len(scores) - size]
        places = np.flatnonzero(scores >= max(least, np.finfo(np.float32).tiny))
        places = places[np.argsort(-scores[places], kind="stable")][:size]
        return [(int(i), float(scores[i])) for i in places]

    def scores(self, query: str) -> NDArray[np.float32]:
        """(texts,) scores, 0 where no word is shared."""
        known = [word for word in words(query) if word in self._model.vocab_dict]
        if not known:
            return np.zeros(self.size, dtype=np.float32)
        found: NDArray[np.float32] = self._model.get_scores(known)
        return found

    def save(self, folder: Path) -> None:
        """Write NumPy and JSON files into a folder that exists."""
        self._model.save(str(folder), show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> Bm25:
        """Open what `save` wrote; the large files stay on disk until they are used."""
        model = _library().BM25.load(str(folder), mmap=True, allow_pickle=False)
        return cls(model, int(model.scores["num_docs"]))
