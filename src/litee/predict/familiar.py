"""Whether pairs look like the votes that a judge has learnt from.

A judge is calibrated on texts like its own; for others its probabilities may mean little. Ranges
of plain figures say in words what is different. Knows nothing of models and of meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from litee.records import Pair

#: Percentiles of the training pairs between which a figure is familiar.
PERCENTILES = (1.0, 99.0)

#: With fewer pairs nothing is said.
FEW_PAIRS = 20

#: A caution needs this share of pairs beyond twice what the training votes have themselves.
MARGIN = 0.1

#: Figure → words for what lies below and above its range.
_WORDS = {
    "prompt_characters": ("shorter prompts", "longer prompts"),
    "longer_answer": ("shorter answers", "longer answers"),
    "shorter_answer": ("shorter answers", "longer answers"),
    "turns": ("fewer turns", "more turns"),
    "non_ascii_share": ("fewer letters beyond ASCII", "more letters beyond ASCII"),
    "digit_share": ("fewer digits", "more digits"),
}


def figures(pair: Pair) -> dict[str, float]:
    """Plain figures of a pair, the same in either order of its answers.

    >>> found = figures(Pair("1", ("Why?",), ("Because.",), ("7",)))
    >>> found["longer_answer"], found["shorter_answer"], found["digit_share"]
    (8.0, 1.0, 0.1111111111111111)
    """
    sizes = sorted(sum(map(len, answer)) for answer in (pair.response_a, pair.response_b))
    text = "".join((*pair.response_a, *pair.response_b))
    size = max(1, len(text))
    return {
        "prompt_characters": float(sum(map(len, pair.prompt))),
        "longer_answer": float(sizes[1]),
        "shorter_answer": float(sizes[0]),
        "turns": float(len(pair.prompt)),
        "non_ascii_share": 0.0 if text.isascii() else sum(c > "\x7f" for c in text) / size,
        "digit_share": sum(map(str.isdigit, text)) / size,
    }


class Familiar(BaseModel):
    """What the pairs of the training votes look like.

    Attributes:
        ranges: figure → 1st and 99th percentile over the training pairs.
        outside: share of the training pairs outside at least one of them, 0 … 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: dict[str, tuple[float, float]] = {}
    outside: float = 0.0

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Familiar:
        """The ranges of these pairs."""
        rows = [figures(pair) for pair in pairs]
        ranges = {}
        for name in rows[0]:
            low, high = np.percentile([row[name] for row in rows], PERCENTILES)
            ranges[name] = (round(float(low), 6), round(float(high), 6))
        found = cls(ranges=ranges)
        outside = sum(bool(found.unlike(pair)) for pair in pairs) / len(pairs)
        return found.model_copy(update={"outside": round(outside, 6)})

    def unlike(self, pair: Pair) -> tuple[str, ...]:
        """In which ways a pair is unlike the training votes, in words; empty when in none.

        >>> learnt = Familiar.of([Pair("1", ("Why?",), ("Because.",), ("So.",))])
        >>> learnt.unlike(Pair("2", ("Why?",), ("Because.",), ("It is so, and ever was.",)))
        ('longer answers',)
        """
        words = []
        for name, value in figures(pair).items():
            low, high = self.ranges.get(name, (-np.inf, np.inf))
            if not low <= value <= high:
                words.append(_WORDS[name][value > high])
        return tuple(dict.fromkeys(words))

    def count(self, pairs: Iterable[Pair], counts: Mapping[str, int]) -> dict[str, int]:
        """Counts with those of more pairs added: ways → pairs, and `any` → pairs unlike in any."""
        found = dict(counts)
        for pair in pairs:
            words = self.unlike(pair)
            for word in (*words, *(("any",) if words else ())):
                found[word] = found.get(word, 0) + 1
        return found

    def cautions(self, counts: Mapping[str, int], total: int) -> tuple[str, ...]:
        """A sentence when many more pairs than expected are unlike the training votes.

        Args:
            counts: from `count`.
            total: pairs that were counted.
        """
        share = counts.get("any", 0) / max(1, total)
        if total < FEW_PAIRS or share <= 2 * self.outside + MARGIN:
            return ()
        ways = sorted(((n, word) for word, n in counts.items() if word != "any"), reverse=True)
        told = ", ".join(f"{word} {n / total:.0%}" for n, word in ways[:3])
        return (
            f"{share:.0%} of the pairs are unlike those the judge has learnt from, of which "
            f"{self.outside:.0%} are so: {told}. Its probabilities may be off; check them on some "
            "votes with `litee evaluate`.",
        )
