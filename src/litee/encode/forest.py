"""The pair tree grown to a forest: every prompt once, every distinct answer to it once.

Two answers to a prompt are branches over one encoding of the prompt; in real vote files the same
answer also stands in many pairs (9 systems on a question make 36 pairs but 9 answers), so
branches are shared between pairs as well. Positions restart after the prompt in every branch:
each branch has exactly the states it would have as a plain sequence of its own.
Knows nothing of models; imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litee.config import Encoder
from litee.encode.budget import TokenBudget, keep_ends, share_out
from litee.encode.templates import Template
from litee.encode.verdicts import QUESTION, SHOTS, Shot
from litee.errors import ConfigError
from litee.records import Pair

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of one pair.

    Attributes:
        prefix: what both branches share, at least one token.
        left: the branch of A (tree) or of the order A, B (joint); its last token is pooled.
        right: the branch of B, or of the order B, A.
        cut: tokens that did not fit, of the prompt, A and B.
        characters: of the answers as they were written; 0 where branches hold both.
    """

    prefix: Ids
    left: Ids
    right: Ids
    cut: tuple[int, int, int]
    characters: tuple[int, int] = (0, 0)


class PairEncoder:
    """Turns pairs into token ids within a budget.

    Args:
        template: literals and tokenizer.
        budget: tokens per pair.
        encoder: `tree`, answers apart; `joint`, one sequence (prompt, A, B) per order, as in
            LoRA-LiteE (arXiv 2411.09947); `verdict`, such a sequence with a question at its end.
        shots: solved examples before the question of a verdict, at most `len(SHOTS)`.
        max_positions: longest sequence the backbone takes; a single branch with its prefix must
            fit.

    Raises:
        ConfigError: when budget and template do not fit `max_positions`.
    """

    def __init__(
        self,
        template: Template,
        budget: TokenBudget,
        *,
        encoder: Encoder = "tree",
        shots: int = 0,
        max_positions: int | None = None,
    ) -> None:
        self.template = template
        self.budget = budget
        self.encoder = encoder
        self._texts: dict[str, list[int]] = {}
        self.max_positions = max_positions
        self._labels = [template.encode_text(f"\n\nResponse {x}:\n") for x in ("A", "B")]
        self._between = template.encode_text("\n\n")
        asks = encoder == "verdict"
        self._shots = shots if asks else 0
        self._question = template.encode_text(QUESTION) if asks else []
        self._examples = self._solved(SHOTS[: self._shots])
        overhead = self._overhead(1)
        if max_positions is not None and budget.max_tokens + overhead > max_positions:
            raise ConfigError(
                f"max_tokens = {budget.max_tokens} and {overhead} template tokens do not fit the "
                f"backbone's {max_positions} positions",
                fix=f"use --max-tokens {max(8, max_positions - overhead)} or less",
            )

    def _overhead(self, turns: int) -> int:
        """Tokens that are not text in the longest branch of a pair, its prefix included."""
        if self.encoder != "tree":
            before, after = self._around()
            joints = 3 * (turns - 1) * len(self._between)
            return len(before) + len(after) + joints + sum(map(len, self._labels))
        pieces = self.template.pieces(turns)
        return sum(map(len, pieces.before_user + pieces.before_answer)) + len(pieces.end)

    def _allowed(self, lengths: tuple[int, int, int], turns: int) -> tuple[int, int, int]:
        """The budget, or less where many turns' template tokens fill the positions."""
        total = self.budget.max_tokens
        if self.max_positions is not None:
            total = min(total, max(0, self.max_positions - self._overhead(turns)))
        kept = share_out(lengths, self.budget.shares, total)
        return kept[0], kept[1], kept[2]

    def encode(self, pair: Pair) -> EncodedPair:
        """Token ids of a pair; nothing is dropped without being counted in `cut`.

        For texts of more than 40 characters per token of the budget, the count is an estimate.
        """
        turns = [self._text(t) for t in pair.prompt]
        left = [self._text(t) for t in pair.response_a]
        right = [self._text(t) for t in pair.response_b]
        lengths = (_total(turns), _total(left), _total(right))
        allowed = self._allowed(lengths, len(turns))
        turns, left, right = (
            _cut(text, n) for text, n in zip((turns, left, right), allowed, strict=True)
        )
        hidden = self.budget.shares[0] == 0  # as asked for, not cut
        cut = (
            0 if hidden else lengths[0] - _total(turns) + self._unread(pair.prompt),
            lengths[1] - _total(left) + self._unread(pair.response_a),
            lengths[2] - _total(right) + self._unread(pair.response_b),
        )
        if self.encoder != "tree":
            return EncodedPair(*self._joint(turns, left, right), cut)
        return EncodedPair(
            self._prefix(turns),
            self._branch(turns, left),
            self._branch(turns, right),
            cut,
            (sum(map(len, pair.response_a)), sum(map(len, pair.response_b))),
        )

    def _text(self, text: str) -> list[int]:
        shortened = self._shorten(text)
        ids = self._texts.get(shortened)
        if ids is None:
            if len(self._texts) > 50_000:
                self._texts.clear()
            ids = self._texts[shortened] = self.template.encode_text(shortened)
        return ids

    def _shorten(self, text: str) -> str:
        """The ends of a text far beyond the budget: encoding a million characters takes seconds."""
        limit = 40 * self.budget.max_tokens
        return text if len(text) <= limit else text[: limit // 2] + text[-(limit // 2) :]

    def _unread(self, texts: Sequence[str]) -> int:
        """Tokens in the middle of texts that were shortened, at the rate of their ends."""
        total = 0
        for text in texts:
            shortened = self._shorten(text)
            if len(shortened) < len(text):
                per_character = len(self._text(text)) / len(shortened)
                total += round((len(text) - len(shortened)) * per_character)
        return total

    def _prefix(self, turns: list[list[int]]) -> Ids:
        pieces = self.template.pieces(len(turns))
        return (*pieces.before_user[0], *turns[0], *pieces.before_answer[0])

    def _branch(self, turns: list[list[int]], answers: list[list[int]]) -> Ids:
        pieces = self.template.pieces(len(turns))
        ids: list[int] = []
        for k, answer in enumerate(answers):
            if k:
                ids += [*pieces.before_user[k], *turns[k], *pieces.before_answer[k]]
            ids += answer
        return (*ids, *pieces.end)

    def _joint(
        self, turns: list[list[int]], left: list[list[int]], right: list[list[int]]
    ) -> tuple[Ids, Ids, Ids]:
        before, after = self._around()
        first, second = self._labels
        between = self._between
        prefix = (*before, *_joined(turns, between))

        def order(one: list[list[int]], two: list[list[int]]) -> Ids:
            ids = [*first, *_joined(one, between), *second, *_joined(two, between)]
            return (*ids, *after)

        return prefix, order(left, right), order(right, left)

    def _around(self) -> tuple[Ids, Ids]:
        """What stands before the prompt and behind the second answer of a joint sequence."""
        pieces = self.template.pieces(self._shots + 1)
        before = (*self._examples, *pieces.before_user[-1])
        return before, (*self._question, *pieces.before_answer[-1])

    def _solved(self, shots: Sequence[Shot]) -> Ids:
        """Solved examples as turns of a conversation that goes on."""
        pieces = self.template.pieces(len(shots) + 1)
        ids: list[int] = []
        for k, shot in enumerate(shots):
            texts = (shot.prompt, shot.response_a, shot.response_b)
            prompt, one, two = map(self.template.encode_text, texts)
            ids += [*pieces.before_user[k], *prompt, *self._labels[0], *one, *self._labels[1], *two]
            ids += [*self._question, *pieces.before_answer[k]]
            ids += self.template.encode_text(shot.verdict)
        return tuple(ids)


def _joined(turns: list[list[int]], between: list[int]) -> list[int]:
    ids: list[int] = []
    for k, turn in enumerate(turns):
        ids += [*(between if k else []), *turn]
    return ids


def _total(turns: list[list[int]]) -> int:
    return sum(map(len, turns))


def _cut(turns: list[list[int]], allowed: int) -> list[list[int]]:
    """Keep `allowed` tokens over all turns: short turns whole, long ones their two ends."""
    if _total(turns) <= allowed:
        return turns
    kept = share_out([len(t) for t in turns], [1.0] * len(turns), allowed)
    return [keep_ends(turn, n) for turn, n in zip(turns, kept, strict=True)]


@dataclass(frozen=True, slots=True)
class Forest:
    """Distinct prefixes and their distinct branches over a set of pairs.

    Attributes:
        prefixes: distinct prefixes, in order of first use.
        leaves: distinct (prefix number, branch ids), in order of first use.
        left: (pairs,) leaf of each pair's first branch.
        right: (pairs,) leaf of its second branch.
        cut: (pairs, 3) tokens cut from prompt, A and B.
        characters: (leaves,) of each answer as it was written; 0 where a branch holds both.
    """

    prefixes: tuple[Ids, ...]
    leaves: tuple[tuple[int, Ids], ...]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    cut: npt.NDArray[np.int64]
    characters: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Tokens when every prefix and every leaf is run once."""
        return sum(map(len, self.prefixes)) + sum(len(ids) for _, ids in self.leaves)

    @property
    def plain_tokens(self) -> int:
        """Tokens of two separate sequences (prefix and branch) per pair, without padding."""
        size = np.array([len(ids) + len(self.prefixes[p]) for p, ids in self.leaves])
        return int(size[self.left].sum() + size[self.right].sum())


def grow(encoded: Sequence[EncodedPair]) -> Forest:
    """Share prefixes and branches between pairs; answers that were cut to the same stay apart.

    >>> pairs = [EncodedPair((1,), (2,), (3,), (0, 0, 0)), EncodedPair((1,), (3,), (4,), (0, 0, 0))]
    >>> forest = grow(pairs)
    >>> forest.leaves, forest.left.tolist(), forest.right.tolist()
    (((0, (2,)), (0, (3,)), (0, (4,))), [0, 1], [1, 2])
    """
    prefixes: dict[Ids, int] = {}
    leaves: dict[tuple[int, Ids, int], int] = {}
    ends: list[tuple[int, int]] = []
    for pair in encoded:
        prefix = prefixes.setdefault(pair.prefix, len(prefixes))
        written = zip((pair.left, pair.right), pair.characters, strict=True)
        both = [leaves.setdefault((prefix, ids, size), len(leaves)) for ids, size in written]
        ends.append((both[0], both[1]))
    index = np.array(ends, dtype=np.int64).reshape(-1, 2)
    cut = np.array([p.cut for p in encoded], dtype=np.int64).reshape(-1, 3)
    characters = np.array([size for _, _, size in leaves], dtype=np.int64)
    branches = tuple((prefix, ids) for prefix, ids, _ in leaves)
    return Forest(tuple(prefixes), branches, index[:, 0], index[:, 1], cut, characters)


@dataclass(frozen=True, slots=True)
class Pack:
    """Part of a forest that goes through the model in one pass, without padding.

    Attributes:
        groups: (prefix number, its leaf numbers) of every tree in the pack.
        tokens: prefix and branch tokens in all.
    """

    groups: tuple[tuple[int, Ids], ...]
    tokens: int


def pack_leaves(forest: Forest, leaves: Sequence[int], max_tokens: int) -> list[Pack]:
    """Cut a set of leaves into packs of about `max_tokens`, trees kept together where they fit.

    Args:
        forest: where the leaves grow.
        leaves: distinct leaf numbers; trees follow each other in order of first appearance.
        max_tokens: upper bound of a pack, exceeded only by a single leaf longer than it.

    Returns:
        Packs that hold every leaf exactly once; a prefix is repeated in each pack that needs it.

    >>> pair = EncodedPair((1, 1), (2,), (3, 3), (0, 0, 0))
    >>> [p.tokens for p in pack_leaves(grow([pair]), [0, 1], 4)]
    [3, 4]
    """
    trees: dict[int, list[int]] = {}
    for leaf in leaves:
        trees.setdefault(forest.leaves[leaf][0], []).append(leaf)
    packs: list[Pack] = []
    groups: list[tuple[int, Ids]] = []
    size = 0
    for prefix, members in trees.items():
        root = len(forest.prefixes[prefix])
        held: list[int] = []
        for leaf in members:
            length = len(forest.leaves[leaf][1])
            needed = length + (0 if held else root)
            if size and size + needed > max_tokens:
                if held:
                    groups.append((prefix, tuple(held)))
                packs.append(Pack(tuple(groups), size))
                groups, size, held = [], 0, []
                needed = length + root
            held.append(leaf)
            size += needed
        groups.append((prefix, tuple(held)))
    if groups:
        packs.append(Pack(tuple(groups), size))
    return packs
