"""Which name a dialogue is about: the one that was said last, also when it was said in part.

Knows nothing of documents beyond their titles, and of no gold labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from litee.encode.retrieval_bm25 import words

#: Share of a name's weight that must be said.
_ENOUGH = 0.6


class NameFinder:
    """Finds names in messages by their rare words.

    A word's weight is log(1 + names / names that have it), so that `Hotel` says little and
    `Ashley` says it all; a name is said when at least 60 % of its weight is (derived here).

    Args:
        names: repeats and blanks count once or not at all.

    >>> finder = NameFinder(["Ashley Hotel", "Lensfield Hotel", "Hill Inn"])
    >>> finder.last(["Is the ashley nice?", "Yes, it is a nice hotel.", "Has it a bar?"])
    'Ashley Hotel'
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name: frozenset(words(name)) for name in sorted(set(names)) if words(name)}
        counts = Counter(word for parts in self._names.values() for word in parts)
        total = len(self._names)
        self._weights = {word: math.log(1 + total / n) for word, n in counts.items()}
        self._having: dict[str, list[str]] = {}
        for name, parts in self._names.items():
            for word in parts:
                self._having.setdefault(word, []).append(name)

    def last(self, messages: Sequence[str]) -> str:
        """The name said best in the latest message that says one, "" when none does."""
        for message in reversed(messages):
            name = self._said(set(words(message)))
            if name:
                return name
        return ""

    def _said(self, said: set[str]) -> str:
        best, most = "", (0.0, 0.0)
        for name in sorted({n for word in said for n in self._having.get(word, [])}):
            parts = self._names[name]
            heard = sum(self._weights[word] for word in parts & said)
            share = heard / sum(self._weights[word] for word in parts)
            if share >= _ENOUGH and (share, heard) > most:
                best, most = name, (share, heard)
        return best


def named_query(messages: Sequence[str], names: NameFinder) -> str:
    """The last message, led by the name that the dialogue is about unless the message says it.

    >>> named_query(["Tell me of Hill Inn.", "Has it a bar?"], NameFinder(["Hill Inn"]))
    'Hill Inn: Has it a bar?'
    """
    query = messages[-1]
    name = names.last(messages)
    return query if not name or name.casefold() in query.casefold() else f"{name}: {query}"
