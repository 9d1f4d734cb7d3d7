"""A leaderboard of systems from votes or verdicts, with intervals and a style-controlled version.

Knows nothing of files or of how verdicts came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from litee.errors import ConfigError, InputError
from litee.records import Score, VotedPair
from litee.rundir import Json
from litee.score.ceiling import vote_counts
from litee.score.enough import Needed, needed
from litee.score.intervals import GroupBootstrap
from litee.score.meetings import meetings, resampled, unbounded, win_rates
from litee.score.outcomes import Floats
from litee.score.strengths import MODELS, Model, fit_strengths
from litee.score.style import STYLE_TERMS, resample_styled, style_differences

#: Log strength → Elo points (a factor of 10 in the odds is 400 points), around 1000.
ELO = 400 / np.log(10)
CENTRE = 1000.0

_UNBOUNDED = "no chain of wins and losses links it to the others: its strength has no finite value"


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
class Meeting:
    """How two systems did against each other.

    Attributes:
        first: name of one.
        second: name of the other.
        votes: between them.
        share: of them won by the first, ties half.
    """

    first: str
    second: str
    votes: float
    share: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """A leaderboard.

    Attributes:
        model: how ties were treated.
        standings: best first.
        tie: the model's tie parameter.
        style: term → coefficient with interval; empty without style control.
        neighbours: (upper, lower, difference in Elo, what settles it).
        meetings: every two systems that met.
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
    meetings: tuple[Meeting, ...]
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
            "meetings": [
                {"first": m.first, "second": m.second, "votes": m.votes, "share": m.share}
                for m in self.meetings
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
    s, total = len(bouts.names), float(bouts.counts.sum())
    pairs, cells = meetings(bouts.systems, bouts.counts, bouts.groups, s)
    bootstrap = GroupBootstrap(bouts.groups, seed=seed, resamples=resamples)
    outcomes = cells.sum(axis=0)
    tie, theta, draws, rates = _fits(cells, pairs, s, model, bootstrap)
    styled, coefficients = _styled(bouts, seed, resamples) if style else (None, ())
    order = np.argsort(-theta, kind="stable")
    loose = unbounded(outcomes, pairs, s)
    taken_part = _votes_by_system(bouts)
    no_style = Score(None, reason="style was not controlled")
    standings = tuple(
        Standing(
            name=bouts.names[k],
            votes=taken_part[k],
            elo=_score(theta[k], draws[:, k]),
            win_rate=_score(rates[0, k], rates[1:, k]),
            best_rank=1 + _beyond_doubt(draws, k, above=True),
            worst_rank=s - _beyond_doubt(draws, k, above=False),
            styled=no_style if styled is None else styled[k],
            warning=_UNBOUNDED if loose[k] else "",
        )
        for k in order.tolist()
    )
    return Ranking(
        model=model,
        standings=standings,
        tie=tie,
        style=coefficients,
        neighbours=_neighbours(bouts.names, order, theta, draws, (bootstrap.count, total)),
        meetings=_meetings(bouts.names, pairs, outcomes),
        votes=total,
        pairs=len(bouts.counts),
        prompts=bootstrap.count,
        seed=seed,
        resamples=resamples,
        without_name=bouts.without_name,
        against_itself=bouts.against_itself,
    )


def _fits(
    cells: Floats, pairs: NDArray[np.int_], s: int, model: Model, bootstrap: GroupBootstrap
) -> tuple[float, Floats, Floats, Floats]:
    """The tie parameter, (s,) Elo, (c, s) resampled Elo, (1 + c, s) win rates (all votes first)."""
    full = fit_strengths(cells.sum(axis=0)[None], pairs, s, model)
    fits = [np.empty((0, s))]
    rates = [win_rates(cells.sum(axis=0)[None], pairs, s)]
    if bootstrap.count > 1:
        for block in resampled(cells, bootstrap):
            fits.append(fit_strengths(block, pairs, s, model, start=full).theta)
            rates.append(win_rates(block, pairs, s))
    draws, won = np.concatenate(fits) * ELO + CENTRE, np.concatenate(rates)
    draws[np.isnan(won[1:])] = np.nan  # a system that a resample left out has no strength there
    return float(full.tie[0]), full.theta[0] * ELO + CENTRE, draws, won


def _votes_by_system(bouts: Bouts) -> list[float]:
    """Votes each system took part in."""
    total = bouts.counts.sum(axis=1)
    taken_part = [(bouts.systems == k).any(axis=1) for k in range(len(bouts.names))]
    return [float(total[rows].sum()) for rows in taken_part]


def _meetings(
    names: Sequence[str], pairs: NDArray[np.int_], outcomes: Floats
) -> tuple[Meeting, ...]:
    votes = outcomes.sum(axis=1)
    share = (outcomes[:, 0] + outcomes[:, 2] / 2) / votes
    rows = zip(pairs.tolist(), votes.tolist(), share.tolist(), strict=True)
    return tuple(Meeting(names[i], names[j], n, won) for (i, j), n, won in rows)


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
    bouts: Bouts, seed: int, resamples: int
) -> tuple[list[Score], tuple[tuple[str, Score], ...]]:
    """Elo at equal style per system, and the coefficients of the style terms that vary."""
    few = GroupBootstrap(bouts.groups, seed=seed, resamples=max(100, resamples // 10))
    full, draws = resample_styled(
        bouts.counts, bouts.systems, bouts.terms, len(bouts.names), few if few.count > 1 else None
    )
    theta = np.array([d.theta for d in draws]).reshape(-1, len(bouts.names))
    slopes = np.array([d.coefficients for d in draws]).reshape(-1, len(STYLE_TERMS))
    elo = [
        _score(full.theta[k] * ELO + CENTRE, theta[:, k] * ELO + CENTRE)
        for k in range(len(bouts.names))
    ]
    varies = bouts.terms.std(axis=0) > 0
    named = tuple(
        (name, _score(full.coefficients[k], slopes[:, k]))
        for k, name in enumerate(STYLE_TERMS)
        if varies[k]
    )
    return elo, named
