"""Votes to voted pairs: all votes on one pair put together.

Knows nothing of files and folds.
"""

from __future__ import annotations

from collections.abc import Sequence

from litee.errors import InputError
from litee.records import Vote, VotedPair


def gather(votes: Sequence[Vote]) -> tuple[VotedPair, ...]:
    """Put the votes on each pair together, pairs in order of first appearance.

    The shares are sums of weights over the classes A, B, tie, divided by their total; `both_bad`
    counts as a tie.

    >>> from litee.records import Outcome, Pair
    >>> pair = Pair("1", ("q",), ("x",), ("y",))
    >>> gather([Vote("v1", pair, Outcome.A), Vote("v2", pair, Outcome.TIE)])[0].shares
    (0.5, 0.0, 0.5)

    Raises:
        InputError: one pair id stands for two contents.
    """
    by_id: dict[str, list[Vote]] = {}
    for vote in votes:
        together = by_id.setdefault(vote.pair.id, [])
        if together and together[0].pair is not vote.pair and together[0].pair != vote.pair:
            problem = f"the pair id {vote.pair.id!r} stands for two contents"
            raise InputError(problem, fix="give every pair its own id")
        together.append(vote)
    return tuple(_voted(together) for together in by_id.values())


def check_learnable(voted: Sequence[VotedPair], folds: int, place: str) -> None:
    """Refuse votes from which no judge can be learnt.

    Args:
        voted: the pairs.
        folds: number of folds wanted; each needs two prompts.
        place: the files, for the message.

    Raises:
        InputError: too few prompts, one outcome only, or the answers of every pair are identical.
    """
    fix = "check that the columns were read as meant: litee data inspect"
    if len({v.pair.prompt[0] for v in voted}) < 2 * folds:
        raise InputError(
            f"{len(voted)} pairs on few prompts cannot be split into {folds} folds",
            place=place,
            fix=f"collect votes on at least {2 * folds} prompts, or lower --folds",
        )
    if all(v.pair.response_a == v.pair.response_b for v in voted):
        problem = "the two answers of every pair are identical; there is nothing to learn"
        raise InputError(problem, place=place, fix=fix)
    if len({k for v in voted for k, share in enumerate(v.shares) if share > 0}) < 2:
        problem = "all votes have the same outcome; there is nothing to learn"
        raise InputError(problem, place=place, fix=fix)


def _voted(votes: Sequence[Vote]) -> VotedPair:
    sums = [0.0, 0.0, 0.0]
    largest = max(vote.weight for vote in votes)
    weights = tuple(vote.weight / largest for vote in votes)  # so that no sum can overflow
    for vote, weight in zip(votes, weights, strict=True):
        sums[vote.winner.class_index] += weight
    total = sum(sums)
    return VotedPair(
        votes[0].pair,
        (sums[0] / total, sums[1] / total, sums[2] / total),
        len(votes),
        tuple(vote.winner for vote in votes),
        tuple(vote.annotator for vote in votes),
        () if min(weights) == 1 else weights,
    )
