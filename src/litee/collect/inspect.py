"""What a set of votes looks like: counts, balance, lengths, repeats, agreement.

Knows nothing of judges; the figure is drawn elsewhere (`figure`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from litee.collect.folds import group_prompts
from litee.collect.pairs import gather
from litee.records import Dropped, Outcome, Pair, Score, Triple, Vote, VotedPair, VoteSet
from litee.rundir import Json

_TOO_FEW = "no decisive vote"
_NO_REPEATS = "no pair has two votes"
_NO_DECISIVE_REPEATS = "no pair has two decisive votes"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 95th percentile and maximum of a count."""

    median: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two votes on one pair agree.

    Attributes:
        score: share of vote pairs that agree, in [0, 1], without an interval, or the reason for
            having none.
        vote_pairs: number of pairs of votes behind it.
    """

    score: Score
    vote_pairs: int


@dataclass(frozen=True, slots=True)
class VoteSummary:
    """The figures of `litee data inspect`.

    Attributes:
        votes: number of votes.
        pairs: number of different pairs.
        prompts: different prompts (all user turns).
        prompt_groups: groups of equal and near first user turns.
        annotators: different named annotators (0 when none is named).
        models: different named authors of answers.
        sources: source → votes.
        outcomes: outcome → votes, in the order a, b, tie, both_bad.
        shares: vote shares of A, B, tie (both_bad counts as tie), unweighted.
        prior_entropy: what a constant prediction of `shares` costs, in nats.
        votes_per_pair: number of votes → pairs.
        turns: number of user turns → pairs.
        prompt_length: characters of all user turns of a pair.
        answer_length: characters of all turns of an answer, both answers of each pair.
        length_bins: answer lengths, rounded down to powers of two → answers.
        largest_group: pairs in the largest prompt group.
        same_content: pairs whose prompt and answers equal those of an earlier pair.
        reversed_pairs: pairs whose prompt and answers occur in the other order as well.
        identical_answers: pairs with two equal answers.
        empty_answers: pairs with an empty turn in an answer.
        longer_wins: share of decisive votes on answers of unequal length won by the longer one.
        agreement: over A, B, tie.
        agreement_decisive: where both votes are decisive.
        dropped: rows not used.
        noticed: odd rows used.
    """

    votes: int
    pairs: int
    prompts: int
    prompt_groups: int
    annotators: int
    models: int
    sources: dict[str, int]
    outcomes: dict[str, int]
    shares: Triple
    prior_entropy: float
    votes_per_pair: dict[int, int]
    turns: dict[int, int]
    prompt_length: Spread
    answer_length: Spread
    length_bins: dict[int, int]
    largest_group: int
    same_content: int
    reversed_pairs: int
    identical_answers: int
    empty_answers: int
    longer_wins: Score
    agreement: Agreement
    agreement_decisive: Agreement
    dropped: Dropped
    noticed: Dropped

    def to_json(self) -> dict[str, Json]:
        """The summary as plain JSON."""
        return asdict(self)


def inspect_votes(vote_set: VoteSet, *, threshold: float = 0.8, seed: int = 0) -> VoteSummary:
    """Summarise votes.

    Args:
        vote_set: at least one vote.
        threshold: similarity from which prompts count as near, see `group_prompts`.
        seed: of the prompts' hash functions.

    Raises:
        ValueError: no votes.
    """
    votes = vote_set.votes
    if not votes:
        raise ValueError("no votes to summarise")
    voted = gather(votes)
    pairs = [item.pair for item in voted]
    shares = _shares(votes)
    groups = Counter(group_prompts(pairs, threshold=threshold, seed=seed))
    answers = [_length(turns) for pair in pairs for turns in (pair.response_a, pair.response_b)]
    same, reverse = _repeats(pairs)
    outcomes = Counter(vote.winner for vote in votes)
    return VoteSummary(
        votes=len(votes),
        pairs=len(pairs),
        prompts=len({pair.prompt for pair in pairs}),
        prompt_groups=len(groups),
        annotators=len({vote.annotator for vote in votes} - {""}),
        models=len({name for pair in pairs for name in (pair.model_a, pair.model_b)} - {""}),
        sources=dict(Counter(vote.pair.source for vote in votes)),
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
        shares=shares,
        prior_entropy=sum(share * math.log(1 / share) for share in shares if share > 0),
        votes_per_pair=_sorted_counts(item.votes for item in voted),
        turns=_sorted_counts(len(pair.prompt) for pair in pairs),
        prompt_length=_spread([_length(pair.prompt) for pair in pairs]),
        answer_length=_spread(answers),
        length_bins=_sorted_counts(_power_of_two(length) for length in answers),
        largest_group=max(groups.values()),
        same_content=same,
        reversed_pairs=reverse,
        identical_answers=sum(pair.response_a == pair.response_b for pair in pairs),
        empty_answers=sum(
            any(not turn.strip() for turn in pair.response_a + pair.response_b) for pair in pairs
        ),
        longer_wins=_longer_wins(votes),
        agreement=_agreement(voted, decisive=False),
        agreement_decisive=_agreement(voted, decisive=True),
        dropped=vote_set.dropped,
        noticed=vote_set.noticed,
    )


def _shares(votes: Sequence[Vote]) -> Triple:
    counts = Counter(vote.winner.class_index for vote in votes)
    a, b, tie = (counts[k] / len(votes) for k in range(3))
    return a, b, tie


def _sorted_counts(values: Iterable[int]) -> dict[int, int]:
    return dict(sorted(Counter(values).items()))


def _length(turns: Sequence[str]) -> int:
    return sum(map(len, turns))


def _power_of_two(length: int) -> int:
    """The largest power of two not above the length; 0 for 0."""
    return 1 << (length.bit_length() - 1) if length else 0


def _spread(values: Sequence[int]) -> Spread:
    median, p95, top = np.percentile(values, [50, 95, 100])
    return Spread(float(median), float(p95), float(top))


def _repeats(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Pairs that repeat an earlier content, and pairs that also occur the other way round."""
    contents = Counter((pair.prompt, pair.response_a, pair.response_b) for pair in pairs)
    same = len(pairs) - len(contents)
    reverse = sum(
        count for (prompt, a, b), count in contents.items() if a != b and (prompt, b, a) in contents
    )
    return same, reverse


def _longer_wins(votes: Sequence[Vote]) -> Score:
    won = total = 0
    for vote in votes:
        longer = _length(vote.pair.response_a) - _length(vote.pair.response_b)
        if vote.winner.class_index == 2 or longer == 0:
            continue
        total += 1
        won += (longer > 0) == (vote.winner is Outcome.A)
    return Score(won / total) if total else Score(None, reason=_TOO_FEW)


def _agreement(voted: Sequence[VotedPair], *, decisive: bool) -> Agreement:
    """Agreeing vote pairs over all vote pairs, every pair of votes on a pair counting once."""
    agree = total = 0
    for item in voted:
        counts = Counter(winner.class_index for winner in item.winners)
        if decisive:
            del counts[2]
        total += math.comb(counts.total(), 2)
        agree += sum(math.comb(count, 2) for count in counts.values())
    if not total:
        return Agreement(Score(None, reason=_NO_DECISIVE_REPEATS if decisive else _NO_REPEATS), 0)
    return Agreement(Score(agree / total), total)
