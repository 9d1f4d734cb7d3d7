"""Leak-proof splits: prompt groups, balanced folds, and the check that nothing lies on both sides.

A prompt's first user turn decides its group, so both turns of a question, reversed pairs and
repeated contents stay together. Knows nothing of files and models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from litee.collect.near import near_pairs, normalise
from litee.errors import ConfigError, InputError, LeakError
from litee.records import Folds, Pair, VotedPair

#: An answer this short, in normalised characters, may occur anywhere by chance.
SHORT_ANSWER = 40
#: An answer given to more prompts than this is canned (a refusal, a greeting): it ties no prompts.
CANNED = 5
_EXAMPLES = 3

Item: TypeAlias = Pair | VotedPair


def group_prompts(
    pairs: Sequence[Item], *, threshold: float = 0.8, seed: int = 0, by_answer: bool = False
) -> tuple[int, ...]:
    """The prompt group of each pair, numbered in order of first appearance.

    Two pairs share a group when their normalised first user turns are equal or have a Jaccard
    similarity of at least `threshold` on character 5-grams, also by way of a third prompt.

    Args:
        pairs: pairs or voted pairs.
        threshold: in (0, 1].
        seed: of the hash functions.
        by_answer: also join prompts that share an answer of more than 40 characters, unless it
            is given to more than five groups.

    >>> group_prompts([Pair("1", ("Hi  there",), ("x",), ("y",)),
    ...                Pair("2", ("hi there", "and?"), ("x", "z"), ("y", "w"))])
    (0, 0)

    Raises:
        ConfigError: `threshold` is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        problem = f"the similarity threshold must be in (0, 1], got {threshold}"
        raise ConfigError(problem, fix="use 0.8 unless you know better")
    prompts, of_pair = _distinct_prompts(pairs)
    links = _Links(len(prompts))

    def apart(i: int, j: int) -> bool:
        return links.root(i) != links.root(j)

    for i, j in near_pairs(prompts, threshold=threshold, seed=seed, wanted=apart):
        links.join(i, j)
    if by_answer:
        _join_by_answer(pairs, of_pair, links)
    number: dict[int, int] = {}
    return tuple(number.setdefault(links.root(prompt), len(number)) for prompt in of_pair)


class _Links:
    """Union-find with path halving; the smaller root wins."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, item: int) -> int:
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self.root(i), self.root(j)))
        self._parent[high] = low


def _pair(item: Item) -> Pair:
    return item.pair if isinstance(item, VotedPair) else item


def _distinct_prompts(pairs: Sequence[Item]) -> tuple[list[str], list[int]]:
    """Distinct normalised first turns, and each pair's position among them."""
    position: dict[str, int] = {}
    raw: dict[str, int] = {}
    of_pair: list[int] = []
    for item in pairs:
        first = _pair(item).prompt[0]
        if first not in raw:
            raw[first] = position.setdefault(normalise(first), len(position))
        of_pair.append(raw[first])
    return list(position), of_pair


def _long_answers(pair: Pair) -> Iterator[tuple[bytes, str]]:
    """Fingerprint and text of each normalised answer of more than 40 characters."""
    for answer in pair.response_a + pair.response_b:
        if len(answer) > SHORT_ANSWER:
            text = normalise(answer)
            if len(text) > SHORT_ANSWER:
                yield blake2b(text.encode(), digest_size=16).digest(), text


def _join_by_answer(pairs: Sequence[Item], of_pair: Sequence[int], links: _Links) -> None:
    """Join the groups that share a long answer which is not canned."""
    groups_of: dict[bytes, set[int]] = {}
    for item, prompt in zip(pairs, of_pair, strict=True):
        root = links.root(prompt)
        for key, _ in _long_answers(_pair(item)):
            groups = groups_of.setdefault(key, set())
            if len(groups) <= CANNED:
                groups.add(root)
    for groups in groups_of.values():
        if 1 < len(groups) <= CANNED:
            first, *others = sorted(groups)
            for other in others:
                links.join(first, other)


def make_folds(
    pairs: Sequence[VotedPair], *, count: int = 5, seed: int = 0, threshold: float = 0.8
) -> Folds:
    """Folds that keep prompt groups whole and balance size, sources and outcomes.

    Groups are those of `group_prompts` with `by_answer`. They are dealt out from large to small,
    each to the fold where it adds least to the sum of squared shares over: pairs, pairs per
    source, and vote shares per source and outcome (derived here; the sum is smallest when all
    folds are alike).

    Args:
        pairs: what to split; each counts once, however many votes it has.
        count: number of folds, at least 2.
        seed: of the order among groups of equal size and of the prompts' hash functions.
        threshold: see `group_prompts`.

    Raises:
        InputError: fewer groups than folds.
        ConfigError: `count` below 2.
    """
    if count < 2:
        raise ConfigError(f"at least 2 folds are needed, got {count}", fix="use --folds 5")
    groups = group_prompts(pairs, threshold=threshold, seed=seed, by_answer=True)
    number = max(groups, default=-1) + 1
    if number < count:
        raise InputError(
            f"{number} prompt group{'' if number == 1 else 's'} cannot fill {count} folds "
            f"({len(pairs)} pairs)",
            fix="collect votes on more different prompts"
            + (f", or use at most {number} folds" if number >= 2 else ""),
        )
    fold_of = _deal(_group_loads(pairs, groups, number), count, seed)
    return Folds(groups, tuple(int(fold_of[group]) for group in groups), count)


def _group_loads(
    pairs: Sequence[VotedPair], groups: Sequence[int], number: int
) -> npt.NDArray[np.float64]:
    """Per group: pairs, pairs per source, vote shares per source and outcome.

    Shape (groups, 1 + 4 · sources); each column sums to 1.
    """
    sources = {name: k for k, name in enumerate(dict.fromkeys(p.pair.source for p in pairs))}
    loads = np.zeros((number, 1 + 4 * len(sources)))
    for voted, group in zip(pairs, groups, strict=True):
        start = 1 + 4 * sources[voted.pair.source]
        loads[group, 0] += 1
        loads[group, start] += 1
        loads[group, start + 1 : start + 4] += voted.shares
    totals = loads.sum(axis=0)
    loads /= np.where(totals > 0, totals, 1)
    return loads


def _deal(loads: npt.NDArray[np.float64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each group, dealt from large to small."""
    shuffled = np.random.default_rng(seed).permutation(len(loads))
    order = shuffled[np.argsort(-loads[shuffled, 0], kind="stable")]
    filled = np.zeros((count, loads.shape[1]))
    fold_of = np.zeros(len(loads), dtype=np.int64)
    for group in order:
        fold = int(np.argmin(filled @ loads[group]))
        filled[fold] += loads[group]
        fold_of[group] = fold
    return fold_of


def check_leak(
    train_pairs: Sequence[Item], test_pairs: Sequence[Item], threshold: float = 0.8
) -> None:
    """Refuse a split with the same prompt or the same answer on both sides.

    A prompt leaks when its normalised first user turn is equal or near (Jaccard ≥ `threshold`);
    an answer when it has more than 40 characters, is equal after normalisation, and is not
    canned (given to more than five different prompts).

    Raises:
        LeakError: with up to three examples.
    """
    everything = [*train_pairs, *test_pairs]
    prompts, of_pair = _distinct_prompts(everything)
    of_train, of_test = of_pair[: len(train_pairs)], of_pair[len(train_pairs) :]
    train, test = set(of_train), set(of_test)
    leaks = [f"the prompt {_quote(prompts[k])}" for k in sorted(train & test)]

    def across(i: int, j: int) -> bool:
        return (i in train and j in test) or (i in test and j in train)

    for i, j in near_pairs(prompts, threshold=threshold, wanted=across):
        leaks.append(f"the near prompts {_quote(prompts[i])} and {_quote(prompts[j])}")
    leaks += _leaked_answers(train_pairs, test_pairs, of_pair)
    if leaks:
        more = f", and {len(leaks) - _EXAMPLES} more" if len(leaks) > _EXAMPLES else ""
        raise LeakError(
            f"train and test share {len(leaks)} texts: {'; '.join(leaks[:_EXAMPLES])}{more}",
            fix="split by prompt: litee data split keeps equal and near prompts together",
        )


def _leaked_answers(
    train_pairs: Sequence[Item], test_pairs: Sequence[Item], of_pair: Sequence[int]
) -> list[str]:
    prompts_of: dict[bytes, set[int]] = {}
    for item, prompt in zip(train_pairs, of_pair, strict=False):
        for key, _ in _long_answers(_pair(item)):
            prompts_of.setdefault(key, set()).add(prompt)
    shared: dict[bytes, str] = {}
    for item, prompt in zip(test_pairs, of_pair[len(train_pairs) :], strict=True):
        for key, text in _long_answers(_pair(item)):
            if key in prompts_of:
                prompts_of[key].add(prompt)
                shared[key] = text
    return [
        f"the answer {_quote(text)}"
        for key, text in shared.items()
        if len(prompts_of[key]) <= CANNED
    ]


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
