"""How many tokens the prompt and the two answers may have, and which ones are kept.

Knows nothing of tokenizers and templates: it works on lengths and on lists of token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from litee.errors import ConfigError

Token = TypeVar("Token")


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Tokens shared by prompt, answer A and answer B; template tokens are not counted.

    Attributes:
        max_tokens: text tokens of one pair, at least 8.
        shares: fractions for prompt, A and B; sum 1, equal for A and B so that exchanging the
            answers exchanges what is kept. A prompt with 0 is hidden, whatever is left over.

    Raises:
        ConfigError: when a value is out of range.
    """

    max_tokens: int = 1024
    shares: tuple[float, float, float] = (0.2, 0.4, 0.4)

    def __post_init__(self) -> None:
        if self.max_tokens < 8:
            raise ConfigError(
                f"max_tokens = {self.max_tokens} is too small",
                fix="use 8 or more; 1024 is the default",
            )
        positive = self.shares[0] >= 0 and min(self.shares[1:]) > 0
        if not (positive and abs(sum(self.shares) - 1) <= 1e-6):  # NaN fails too
            raise ConfigError(
                f"budget shares {self.shares} must be positive (0 hides the prompt) and sum to 1",
                fix="for example 0.2, 0.4, 0.4",
            )
        if self.shares[1] != self.shares[2]:
            raise ConfigError(
                f"the answers' shares differ: {self.shares}",
                fix="give A and B the same share, or the order of the answers would matter",
            )

    def allot(self, lengths: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens to keep of each text; what one text leaves unused is handed to the others.

        Args:
            lengths: tokens of the prompt, A and B.

        Returns:
            Three numbers, each at most its length, with sum at most `max_tokens`.

        >>> TokenBudget(100).allot((50, 10, 90))
        (30, 10, 60)
        >>> TokenBudget(100).allot((5, 90, 90))
        (5, 47, 47)
        >>> TokenBudget(100, (0.0, 0.5, 0.5)).allot((50, 10, 20))
        (0, 10, 20)
        """
        kept = share_out(lengths, self.shares, self.max_tokens)
        return kept[0], kept[1], kept[2]


def share_out(lengths: Sequence[int], shares: Sequence[float], total: int) -> list[int]:
    """Divide `total` by shares, never above a length, handing unused amounts on (derived here).

    Repeats: give every open text its share of what is left; texts that need less take what they
    need and close. Ends after at most as many rounds as there are texts. Fractions are rounded
    down, so equal texts always get equal amounts. A text whose share is 0 gets nothing.

    >>> share_out([3, 50, 50], [1, 1, 1], 43)
    [3, 20, 20]
    """
    kept = [0] * len(lengths)
    open_texts = {i for i, share in enumerate(shares) if share > 0}
    left = total
    while open_texts:
        weight = sum(shares[i] for i in open_texts)
        quota = {i: int(left * shares[i] / weight + 1e-9) for i in open_texts}
        satisfied = [i for i in open_texts if lengths[i] <= quota[i]]
        if not satisfied:
            for i in open_texts:
                kept[i] = quota[i]
            break
        for i in satisfied:
            kept[i] = lengths[i]
            left -= lengths[i]
            open_texts.remove(i)
    return kept


def keep_ends(tokens: Sequence[Token], count: int) -> list[Token]:
    """The first and last tokens, `count` in all; the odd one goes to the head.

    >>> keep_ends([1, 2, 3, 4, 5], 3)
    [1, 2, 5]
    >>> keep_ends([1, 2], 5)
    [1, 2]
    """
    if len(tokens) <= count:
        return list(tokens)
    tail = count // 2
    head = count - tail
    return [*tokens[:head], *(tokens[-tail:] if tail else [])]
