"""A leaderboard of systems from votes or verdicts, with intervals and a style-controlled version.

Knows nothing of files or of how verdicts came about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from litee.errors import ConfigError, InputError
from litee.records import Score, VotedPair
from litee.rundir import Json
from litee.score.ceiling import vote_counts
from litee.score.enough import Needed, needed
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats
from litee.score.strengths import MODELS, Model, fit_strengths
from litee.score.style import STYLE_TERMS, StyledStrengths, fit_styled, style_differences

#: Log strength → Elo points (a factor of 10 in the odds is 400 points), around 1000.
ELO = 400 / np.log(10)
CENTRE = 1000.0

_BLOCK = 6_000_000


@dataclass(frozen=True, slots=True)
class Bouts:
    """What happened between systems.

    Attributes:
        names: of the s systems.
        systems: (m, 2) numbers of the systems of A and B.
        counts: (m, 3) weight of a, b, tie: votes, or a judge's verdict.
        groups: (m,) prompt group.
        terms: (m, 4) style differences, not standardised.
        without_name: pairs left out because a system has no name.
        against_itself: pairs left out because both answers are by one system.
    """

    names: tuple[str, ...]
    systems: NDArray[np.int_]
    counts: Floats
    groups: NDArray[np.int_]
    terms: Floats
    without_name: int = 0
    against_itself: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """One system's place.

    Attributes:
        name: of the system.
        votes: votes (or verdicts) it took part in.
        elo: strength in Elo points around 1000.
        win_rate: share of its votes it won, ties half.
        best_rank: 1 + number of systems that are better beyond doubt (interval of the difference
            above 0).
        worst_rank: number of systems − number that are worse beyond doubt.
        styled: strength at equal style, without a value when not asked for.
        warning: why its strength has no finite estimate; empty otherwise.
    """

    name: str
    votes: float
    elo: Score
    win_rate: Score
    best_rank: int
    worst_rank: int
    styled: Score
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A leaderboard.

    Attributes:
        model: how ties were treated.
        standings: best first.
        tie: the model's tie parameter.
        style: term → coefficient with interval; empty without style control.
        neighbours: (upper, lower, difference in Elo, what settles it).
        votes: in all.
        pairs: in all.
        prompts: prompt groups, the unit of the bootstrap.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        without_name: pairs left out because a system has no name.
        against_itself: pairs left out because both answers are by one system.
    """

    model: str
    standings: tuple[Standing, ...]
    tie: float
    style: tuple[tuple[str, Score], ...]
    neighbours: tuple[tuple[str, str, Score, Needed], ...]
    votes: float
    pairs: int
    prompts: int
    seed: int
    resamples: int
    without_name: int
    against_itself: int

    def to_json(self) -> dict[str, Json]:
        """The leaderboard as plain JSON."""
        return {
            "model": self.model,
            "tie": self.tie,
            "votes": self.votes,
            "pairs": self.pairs,
            "prompts": self.prompts,
            "seed": self.seed,
            "resamples": self.resamples,
            "left_out": {
                "a system has no name": self.without_name,
                "both answers are by one system": self.against_itself,
            },
            "standings": [
                {
                    "system": s.name,
                    "votes": s.votes,
                    "elo": _json(s.elo),
                    "win_rate": _json(s.win_rate),
                    "best_rank": s.best_rank,
                    "worst_rank": s.worst_rank,
                    "elo_at_equal_style": _json(s.styled),
                    "warning": s.warning,
                }
                for s in self.standings
            ],
            "style": {name: _json(score) for name, score in self.style},
            "neighbours": [
                {"upper": a, "lower": b, "difference": _json(d), "needed": n.in_words()}
                for a, b, d, n in self.neighbours
            ],
        }


def _json(score: Score) -> dict[str, Json]:
    if score.value is None:
        return {"value": None, "reason": score.reason}
    return {"value": score.value, "low": score.low, "high": score.high}


def bouts_of(
    voted: Sequence[VotedPair], groups: Sequence[int], verdicts: Floats | None = None
) -> Bouts:
    """Votes, or a judge's verdicts on the same pairs, as bouts.

    Args:
        voted: pairs with the names of their systems.
        groups: (m,) prompt groups.
        verdicts: (m, 3) credit of a, b, tie per pair instead of the votes; NaN rows are left out.

    Raises:
        InputError: fewer than two systems are left.
    """
    counts = vote_counts(voted) if verdicts is None else verdicts
    named = [bool(v.pair.model_a and v.pair.model_b) for v in voted]
    other = [v.pair.model_a != v.pair.model_b for v in voted]
    keep = np.array(named) & np.array(other) & np.isfinite(counts).all(axis=1)
    keep &= counts.sum(axis=1) > 0
    kept = [v.pair for v, k in zip(voted, keep, strict=True) if k]
    names, index = np.unique([n for p in kept for n in (p.model_a, p.model_b)], return_inverse=True)
    if len(names) < 2:
        raise InputError(
            "a ranking needs pairs of at least two named systems",
            fix="give the votes file columns model_a and model_b",
        )
    return Bouts(
        tuple(map(str, names)),
        index.reshape(-1, 2),
        counts[keep],
        np.asarray(groups, dtype=int)[keep],
        style_differences(kept),
        without_name=named.count(False),
        against_itself=sum(n and not o for n, o in zip(named, other, strict=True)),
    )


def rank(
    bouts: Bouts,
    *,
    model: Model = "bradley-terry",
    style: bool = False,
    seed: int = 0,
    resamples: int = 1000,
) -> Ranking:
    """Strengths, win rates and ranks with 95 % intervals over prompt groups.

    Args:
        bouts: what happened.
        model: how ties are treated (`litee.score.strengths`).
        style: also fit strengths at equal style (Bradley–Terry, ties half).
        seed: of the bootstrap.
        resamples: of the bootstrap; the style-controlled fit uses a tenth of them.

    Raises:
        ConfigError: unknown model.
    """
    if model not in MODELS:
        raise ConfigError(f"unknown model {model!r}", fix=f"use one of: {', '.join(MODELS)}")
    s = len(bouts.names)
    pairs, cells = _cells(bouts)
    bootstrap = GroupBootstrap(bouts.groups, seed=seed, resamples=resamples)
    full = fit_strengths(cells.sum(axis=0)[None], pairs, s, model)
    theta = full.theta[0] * ELO + CENTRE
    draws = np.empty((0, s))
    rates = [_win_rates(cells.sum(axis=0)[None], pairs, s)]
    if bootstrap.count > 1:
        blocks = list(_resampled(cells, bootstrap))
        fits = [fit_strengths(block, pairs, s, model, start=full).theta for block in blocks]
        draws = np.concatenate(fits) * ELO + CENTRE
        rates += [_win_rates(block, pairs, s) for block in blocks]
    rate = np.concatenate(rates)
    styled, coefficients = _styled(bouts, bootstrap, seed, resamples) if style else (None, ())
    order = np.argsort(-theta, kind="stable")
    warnings = _unbounded(cells.sum(axis=0), pairs, bouts.names)
    no_style = Score(None, reason="style was not controlled")
    standings = tuple(
        Standing(
            name=bouts.names[k],
            votes=float(bouts.counts.sum(axis=1)[(bouts.systems == k).any(axis=1)].sum()),
            elo=_score(theta[k], draws[:, k]),
            win_rate=_score(rate[0, k], rate[1:, k]),
            best_rank=1 + _beyond_doubt(draws, k, above=True),
            worst_rank=s - _beyond_doubt(draws, k, above=False),
            styled=no_style if styled is None else styled[k],
            warning=warnings[k],
        )
        for k in order.tolist()
    )
    total = float(bouts.counts.sum())
    return Ranking(
        model=model,
        standings=standings,
        tie=float(full.tie[0]),
        style=coefficients,
        neighbours=_neighbours(bouts.names, order, theta, draws, (bootstrap.count, total)),
        votes=total,
        pairs=len(bouts.counts),
        prompts=bootstrap.count,
        seed=seed,
        resamples=resamples,
        without_name=bouts.without_name,
        against_itself=bouts.against_itself,
    )


def _cells(bouts: Bouts) -> tuple[NDArray[np.int_], Floats]:
    """(p, 2) unordered pairs of systems, and (groups, p, 3) outcomes between them per prompt."""
    first, second = bouts.systems.min(axis=1), bouts.systems.max(axis=1)
    turned = bouts.systems[:, 0] > bouts.systems[:, 1]
    counts = np.where(turned[:, None], bouts.counts[:, [1, 0, 2]], bouts.counts)
    code = first * len(bouts.names) + second
    codes, pair = np.unique(code, return_inverse=True)
    groups = np.unique(bouts.groups, return_inverse=True)[1]
    cells = np.zeros((groups.max() + 1, len(codes), 3))
    np.add.at(cells, (groups, pair), counts)
    return np.column_stack(np.divmod(codes, len(bouts.names))), cells


def _resampled(cells: Floats, bootstrap: GroupBootstrap) -> Iterator[Floats]:
    """Blocks (c, p, 3) of resampled outcomes."""
    flat = cells.reshape(len(cells), -1)
    size = max(1, _BLOCK // max(flat.shape[1], 1))
    for counts in bootstrap.counts():
        for start in range(0, len(counts), size):
            block = counts[start : start + size] @ flat
            yield block.reshape(-1, cells.shape[1], 3)


def _win_rates(outcomes: Floats, pairs: NDArray[np.int_], systems: int) -> Floats:
    """(c, s) share of votes won, ties half; NaN for a system without votes."""
    won, total = np.zeros((2, len(outcomes), systems))
    for side, other in ((0, 1), (1, 0)):
        gained = outcomes[:, :, side] + outcomes[:, :, 2] / 2
        lost = outcomes[:, :, other] + outcomes[:, :, 2] / 2
        for k in range(systems):
            here = pairs[:, side] == k
            won[:, k] += gained[:, here].sum(axis=1)
            total[:, k] += (gained + lost)[:, here].sum(axis=1)
    rates = np.full(won.shape, np.nan)
    np.divide(won, total, out=rates, where=total > 0)
    return rates


def _score(value: float, draws: Floats) -> Score:
    known = draws[np.isfinite(draws)]
    if len(known) < 0.95 * max(len(draws), 1):
        return Score(float(value))
    low, high = np.percentile(known, [2.5, 97.5])
    return Score(float(value), float(low), float(high))


def _beyond_doubt(draws: Floats, k: int, *, above: bool) -> int:
    """Systems that are better (or worse) than system k in 97.5 % of the resamples."""
    if not len(draws):
        return 0
    gap = draws - draws[:, [k]]
    share = ((gap > 1e-6) if above else (gap < -1e-6)).mean(axis=0)
    return int((share >= 0.975).sum())


def _unbounded(outcomes: Floats, pairs: NDArray[np.int_], names: Sequence[str]) -> list[str]:
    """Per system, why the likelihood has no finite maximum for it, else "".

    It has one exactly when every system beat (or tied with) every other through some chain of
    votes (Ford 1957): when the graph of wins is strongly connected.
    """
    won = outcomes[:, 0] + outcomes[:, 2] > 0
    lost = outcomes[:, 1] + outcomes[:, 2] > 0
    edges = np.concatenate([pairs[won], pairs[lost][:, ::-1]])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(names), len(names)))
    count, part = connected_components(graph, directed=True, connection="strong")
    if count == 1:
        return [""] * len(names)
    largest = int(np.bincount(part).argmax())
    reason = "no chain of wins and losses links it to the others: its strength has no finite value"
    return ["" if p == largest else reason for p in part.tolist()]


def _neighbours(
    names: Sequence[str],
    order: NDArray[np.int_],
    theta: Floats,
    draws: Floats,
    size: tuple[int, float],
) -> tuple[tuple[str, str, Score, Needed], ...]:
    found = []
    for a, b in pairwise(order.tolist()):
        gap = _score(theta[a] - theta[b], draws[:, a] - draws[:, b])
        settles = needed(gap, prompts=size[0], votes=round(size[1]))
        found.append((names[a], names[b], gap, settles))
    return tuple(found)


def _styled(
    bouts: Bouts, bootstrap: GroupBootstrap, seed: int, resamples: int
) -> tuple[list[Score], tuple[tuple[str, Score], ...]]:
    """Elo at equal style per system, and the style coefficients."""
    total = bouts.counts.sum(axis=1)
    shares = (bouts.counts[:, 0] + bouts.counts[:, 2] / 2) / total
    spread = bouts.terms.std(axis=0)
    terms = np.divide(bouts.terms, spread, out=np.zeros_like(bouts.terms), where=spread > 0)
    s = len(bouts.names)

    def fit(weights: Floats, start: StyledStrengths | None) -> StyledStrengths:
        keep = weights > 0
        return fit_styled(
            shares[keep], bouts.systems[keep], terms[keep], weights[keep], s, start=start
        )

    full = fit(total, None)
    draws = []
    few = GroupBootstrap(bouts.groups, seed=seed, resamples=max(100, resamples // 10))
    if bootstrap.count > 1:
        for counts in few.counts():
            draws += [fit(total * row[few.index], full) for row in counts]
    theta = np.array([d.theta for d in draws]).reshape(-1, s)
    slopes = np.array([d.coefficients for d in draws]).reshape(-1, len(STYLE_TERMS))
    elo = [_score(full.theta[k] * ELO + CENTRE, theta[:, k] * ELO + CENTRE) for k in range(s)]
    named = tuple(
        (name, _score(full.coefficients[k], slopes[:, k]))
        for k, name in enumerate(STYLE_TERMS)
        if spread[k] > 0
    )
    return elo, named
