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

from litee.collect.near import Links, near_links, normalise
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
    links = Links(len(prompts))
    for i, j in near_links(prompts, threshold=threshold, seed=seed):
        links.join(i, j)
    if by_answer:
        _join_by_answer(pairs, of_pair, links)
    number: dict[int, int] = {}
    return tuple(number.setdefault(links.root(prompt), len(number)) for prompt in of_pair)


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


def _join_by_answer(pairs: Sequence[Item], of_pair: Sequence[int], links: Links) -> None:
    """Join the groups that share a long answer which is not canned."""
    roots = [links.root(prompt) for prompt in of_pair]
    for groups in _shared_answers(pairs, roots, roots).values():
        first, *others = sorted(groups)
        for other in others:
            links.join(first, other)


def _shared_answers(
    pairs: Sequence[Item], sides: Sequence[int], prompts: Sequence[int]
) -> dict[bytes, set[int]]:
    """Fingerprint → prompts of the long answers that lie on several sides and are not canned.

    Two passes, so that only shared answers need more memory than one number.
    """
    several = -1
    side_of: dict[bytes, int] = {}
    for item, side in zip(pairs, sides, strict=True):
        for key, _ in _long_answers(_pair(item)):
            if side_of.setdefault(key, side) != side:
                side_of[key] = several
    shared: dict[bytes, set[int]] = {k: set() for k, side in side_of.items() if side == several}
    for item, prompt in zip(pairs, prompts, strict=True) if shared else ():
        for key, _ in _long_answers(_pair(item)):
            if key in shared:
                shared[key].add(prompt)
    return {key: found for key, found in shared.items() if len(found) <= CANNED}


def make_folds(
    pairs: Sequence[VotedPair], *, count: int = 5, seed: int = 0, threshold: float = 0.8
) -> Folds:
    """Folds that keep prompt groups whole and balance size, sources and outcomes.

    Groups are those of `group_prompts` with `by_answer`. They are dealt out from large to small,
    each to the fold where it adds least to the weighted sum of squared shares over: pairs (weight
    2 per source), pairs per source (1), vote shares per source and outcome (1/3 each). Derived
    here: the sum is smallest when all folds are alike, and unlike scikit-learn's
    StratifiedGroupKFold it also balances the sources.

    Args:
        pairs: what to split; each counts once, however many votes it has.
        count: number of folds, at least 2.
        seed: of the order among groups of equal size.
        threshold: see `group_prompts`.

    Raises:
        InputError: fewer groups than folds.
        ConfigError: `count` below 2.
    """
    if count < 2:
        raise ConfigError(f"at least 2 folds are needed, got {count}", fix="use --folds 5")
    groups = group_prompts(pairs, threshold=threshold, by_answer=True)
    number = max(groups, default=-1) + 1
    if number < count:
        raise InputError(
            f"{number} prompt group{'' if number == 1 else 's'} cannot fill {count} folds "
            f"({len(pairs)} pairs)",
            fix="collect votes on more different prompts"
            + (f", or use at most {number} folds" if number >= 2 else ""),
        )
    fold_of = _deal(_group_loads(pairs, groups, number), np.full(count, 1 / count), seed)
    return Folds(groups, tuple(int(fold_of[group]) for group in groups), count)


def source_folds(pairs: Sequence[VotedPair], *, threshold: float = 0.8) -> Folds:
    """One fold per source: how well does a judge do on votes unlike those it learnt from?

    A prompt group that lies in two sources goes with the one it was first seen in.

    Args:
        pairs: what to split, from at least two sources.
        threshold: see `group_prompts`.

    Raises:
        InputError: all pairs have the same source, or all prompts of one lie in earlier ones.
    """
    groups = group_prompts(pairs, threshold=threshold, by_answer=True)
    sources = list(dict.fromkeys(v.pair.source for v in pairs))
    if len(sources) < 2:
        raise InputError(
            f"all {len(pairs)} pairs come from one source",
            fix="use --fold-by prompt, or add votes of another source",
        )
    of_group: dict[int, int] = {}
    for group, voted in zip(groups, pairs, strict=True):
        of_group.setdefault(group, sources.index(voted.pair.source))
    for number in set(range(len(sources))) - set(of_group.values()):
        raise InputError(
            f"every prompt of source {sources[number]!r} is also one of an earlier source, so no "
            "pair is left for its fold",
            fix="leave that source out, give both the same name, or use --fold-by prompt",
        )
    return Folds(groups, tuple(of_group[group] for group in groups), len(sources))


def hold_out(
    pairs: Sequence[VotedPair], *, share: float = 0.2, seed: int = 0, threshold: float = 0.8
) -> Folds:
    """One split that keeps prompt groups whole: fold 0 is for training, fold 1 for testing.

    Dealt as in `make_folds`, with shares relative to each side's size.

    Args:
        pairs: what to split.
        share: wanted share of pairs in the test set, in (0, 1); groups are whole, so with few
            groups the real share may differ.
        seed: see `make_folds`.
        threshold: see `group_prompts`.

    Raises:
        InputError: fewer than two groups.
        ConfigError: `share` is not in (0, 1).
    """
    if not 0 < share < 1:
        problem = f"the test share must lie between 0 and 1, got {share}"
        raise ConfigError(problem, fix="use e.g. --test 0.2")
    groups = group_prompts(pairs, threshold=threshold, by_answer=True)
    number = max(groups, default=-1) + 1
    if number < 2:
        fix = "collect votes on more different prompts"
        raise InputError("all votes are on one prompt: there is nothing to test on", fix=fix)
    sides = _deal(_group_loads(pairs, groups, number), np.array([1 - share, share]), seed)
    return Folds(groups, tuple(int(sides[group]) for group in groups), 2)


def _group_loads(
    pairs: Sequence[VotedPair], groups: Sequence[int], number: int
) -> npt.NDArray[np.float64]:
    """Per group: pairs, pairs per source, vote shares per source and outcome.

    Shape (groups, 1 + 4 · sources); each column sums to the root of its weight.
    """
    sources = {name: k for k, name in enumerate(dict.fromkeys(p.pair.source for p in pairs))}
    loads = np.zeros((number, 1 + 4 * len(sources)))
    for voted, group in zip(pairs, groups, strict=True):
        start = 1 + 4 * sources[voted.pair.source]
        loads[group, 0] += 1
        loads[group, start] += 1
        loads[group, start + 1 : start + 4] += voted.shares
    totals = loads.sum(axis=0)
    weights = np.array([2 * len(sources), *(1, 1 / 3, 1 / 3, 1 / 3) * len(sources)])
    loads *= np.sqrt(weights) / np.where(totals > 0, totals, 1)
    return loads


def _deal(
    loads: npt.NDArray[np.float64], targets: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """The side of each group, dealt from large to small; `targets` are the sides' shares."""
    shuffled = np.random.default_rng(seed).permutation(len(loads))
    order = shuffled[np.argsort(-loads[shuffled, 0], kind="stable")]
    filled = np.zeros((len(targets), loads.shape[1]))
    side_of = np.zeros(len(loads), dtype=np.int64)
    for group in order:
        side = int(np.argmin(filled @ loads[group] / targets))
        filled[side] += loads[group]
        side_of[group] = side
    return side_of


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
    sides = [0] * len(train_pairs) + [1] * len(test_pairs)
    _refuse(_leaks([*train_pairs, *test_pairs], sides, threshold), "train and test")


def check_folds(pairs: Sequence[Item], folds: Folds, threshold: float = 0.8) -> None:
    """`check_leak` for all folds at once: nothing may lie in two of them.

    Raises:
        LeakError: with up to three examples.
    """
    _refuse(_leaks(pairs, folds.folds, threshold), "two folds")


def _leaks(items: Sequence[Item], sides: Sequence[int], threshold: float) -> list[str]:
    """What lies on several sides, in words."""
    prompts, of_item = _distinct_prompts(items)
    sides_of: list[set[int]] = [set() for _ in prompts]
    for prompt, side in zip(of_item, sides, strict=True):
        sides_of[prompt].add(side)
    leaks = [
        f"the prompt {_quote(prompt)}"
        for prompt, found in zip(prompts, sides_of, strict=True)
        if len(found) > 1
    ]
    for i, j in near_links(prompts, threshold=threshold):
        if len(sides_of[i] | sides_of[j]) > 1:
            leaks.append(f"the near prompts {_quote(prompts[i])} and {_quote(prompts[j])}")
    shared = _shared_answers(items, sides, of_item)
    texts = {
        key: text
        for item in (items if shared else ())
        for key, text in _long_answers(_pair(item))
        if key in shared
    }
    return leaks + [f"the answer {_quote(text)}" for text in texts.values()]


def _refuse(leaks: Sequence[str], where: str) -> None:
    if leaks:
        more = f"; and {len(leaks) - _EXAMPLES} more" if len(leaks) > _EXAMPLES else ""
        texts = "1 text" if len(leaks) == 1 else f"{len(leaks)} texts"
        raise LeakError(
            f"{where} share {texts}: {'; '.join(leaks[:_EXAMPLES])}{more}",
            fix="split by prompt: litee data split keeps equal and near prompts together",
        )


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
