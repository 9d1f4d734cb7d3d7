"""What a judge prefers beyond what people prefer: position, length, format, refusal, itself.

For every trait, pairs are taken in which exactly one answer has it (or has more of it). How often
the judge picks that answer is compared with how often people do, on the same pairs and votes. So a
judge that likes long answers as much as people do shows no bias. Knows nothing of how the judge
works or of files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from litee.records import Pair, Score, VotedPair
from litee.rundir import Json
from litee.score.ceiling import vote_counts
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Floats, Rows, swap_flips
from litee.score.pairwise import Verdicts
from litee.score.style import STYLE_TERMS, style_differences

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am)? (?:sorry|unable|not able)|i (?:can(?:no|')t|won't|will not) "
    r"(?:help|assist|provide|answer|comply|do)|as an ai\b)",
    re.IGNORECASE,
)

#: Characters from the start in which a refusal is looked for.
_OPENING = 200

#: The trait that hangs on the order alone.
POSITION = "shown first"

_NO_PAIRS = "no decisive votes on pairs that differ in this"


@dataclass(frozen=True, slots=True)
class Bias:
    """One trait.

    Attributes:
        trait: what the preferred answer has.
        pairs: pairs that differ in it and have a decisive vote.
        judge: share of them in which the judge picks the answer with (more of) the trait.
        people: the same share for people.
        difference: judge − people, paired; above 0 the judge likes it more than people do.
    """

    trait: str
    pairs: int
    judge: Score
    people: Score
    difference: Score

    def to_json(self) -> dict[str, Json]:
        """Flat JSON."""
        return {
            "trait": self.trait,
            "pairs": self.pairs,
            "judge": self.judge.value,
            "people": self.people.value,
            "difference": self.difference.value,
            "low": self.difference.low,
            "high": self.difference.high,
            "reason": self.difference.reason,
        }


@dataclass(frozen=True, slots=True)
class Audit:
    """All traits of one judge.

    Attributes:
        biases: by trait.
        flip_rate: share of pairs whose verdict changes with the order of the answers; without a
            value when verdicts in one order only were given.
        unscored: pairs without a verdict.
        pairs: all pairs.
        prompts: groups of prompts among them.
    """

    biases: tuple[Bias, ...]
    flip_rate: Score
    unscored: int
    pairs: int
    prompts: int

    def to_json(self) -> dict[str, Json]:
        """Plain JSON."""
        return {
            "biases": [bias.to_json() for bias in self.biases],
            "flip_rate": self.flip_rate.value,
            "flip_rate_low": self.flip_rate.low,
            "flip_rate_high": self.flip_rate.high,
            "unscored": self.unscored,
            "pairs": self.pairs,
            "prompts": self.prompts,
        }


def refuses(answer: str) -> bool:
    """Whether an answer opens with a refusal, by its wording in English.

    >>> refuses("I'm sorry, but I can't help with that."), refuses("Sure, here it is.")
    (True, False)
    """
    return bool(_REFUSAL.search(answer[:_OPENING].replace("’", "'")))


def audit(
    voted: Sequence[VotedPair],
    groups: Sequence[int],
    p: Floats,
    *,
    first: Floats | None = None,
    swapped: Floats | None = None,
    own: str = "",
    seed: int = 0,
    resamples: int = 1000,
) -> Audit:
    """Compare a judge's preferences with people's.

    Args:
        voted: the m pairs.
        groups: (m,) prompt groups.
        p: (m, 3) probabilities or hard verdicts, NaN rows for pairs without one.
        first: (m, 3) verdicts with answer A shown first, where p joins both orders; p if None.
        swapped: (m, 3) the same with the answers exchanged, as given (column 0 is the answer then
            shown first). With it position is measured over both orders, where people, to whom
            position is nothing, are at one half.
        own: name of the judge's own model among the systems, for self-preference.
        seed: of the bootstrap over prompts.
        resamples: of the bootstrap.
    """
    verdicts = Verdicts.from_probabilities(p)
    counts = vote_counts(voted)[:, :2] * verdicts.scored[:, None]
    bootstrap = GroupBootstrap(groups, seed=seed, resamples=resamples)
    biases = [
        _bias(trait, side, counts, verdicts.forced, bootstrap)
        for trait, side in _traits([v.pair for v in voted], own).items()
    ]
    flips = Score(None, reason="no verdicts on exchanged answers were given")
    if swapped is not None:
        with_a_first = p if first is None else first
        biases[0] = _position(vote_counts(voted)[:, :2], with_a_first, swapped, bootstrap)
        flips = _flips(with_a_first, swapped, bootstrap)
    unscored = int((~verdicts.scored).sum())
    return Audit(tuple(biases), flips, unscored, len(voted), len(set(groups)))


def _position(counts: Floats, first: Floats, swapped: Floats, bootstrap: GroupBootstrap) -> Bias:
    """How often the answer that stands first is picked, over both orders."""
    one, two = Verdicts.from_probabilities(first), Verdicts.from_probabilities(swapped)
    weight = counts.sum(axis=1) * (one.scored & two.scored)
    judge = (one.forced[:, 0] + two.forced[:, 0]) / 2
    return _compared(POSITION, weight, np.where(weight > 0, judge, 0.5), weight / 2, bootstrap)


def _flips(first: Floats, swapped: Floats, bootstrap: GroupBootstrap) -> Score:
    both = np.asarray(np.isfinite(first + swapped).all(axis=1), dtype=bool)
    third = np.full_like(first, 1 / 3)
    one, two = (np.where(both[:, None], p, third) for p in (first, swapped))
    rows = Rows(
        swap_flips(one, two) * both, both.astype(float), "no pair was judged in both orders"
    )
    return bootstrap.resample({"flips": rows}).score("flips")


def _traits(pairs: Sequence[Pair], own: str) -> dict[str, Floats]:
    """Trait → (m,) 1 where A has it or has more of it, −1 where B, 0 where they are equal."""
    found = {POSITION: np.ones(len(pairs))}
    style = np.sign(style_differences(pairs))
    names = {"length": "longer", "lists": "more list items", "bold": "more bold",
             "headers": "more headers"}  # fmt: skip
    found |= {names[term]: style[:, k] for k, term in enumerate(STYLE_TERMS)}
    refusal = [(refuses("\n".join(p.response_a)), refuses("\n".join(p.response_b))) for p in pairs]
    found["refusal"] = np.array([float(a) - float(b) for a, b in refusal])
    if own:
        named = [(p.model_a == own, p.model_b == own) for p in pairs]
        found["the judge's own"] = np.array([float(a) - float(b) for a, b in named])
    return found


def _bias(
    trait: str, side: Floats, counts: Floats, forced: Floats, bootstrap: GroupBootstrap
) -> Bias:
    differs = side != 0
    weight = counts.sum(axis=1) * differs
    with_trait = np.where(side > 0, 0, 1)
    row = np.arange(len(side))
    return _compared(
        trait, weight, forced[row, with_trait], counts[row, with_trait] * differs, bootstrap
    )


def _compared(
    trait: str, weight: Floats, picked: Floats, people: Floats, bootstrap: GroupBootstrap
) -> Bias:
    """Judge and people on the same votes: (m,) votes, the judge's share, people's votes."""
    judge = picked * weight
    rows = {
        "judge": Rows(judge, weight, _NO_PAIRS),
        "people": Rows(people, weight, _NO_PAIRS),
        "difference": Rows(judge - people, weight, _NO_PAIRS),
    }
    found = bootstrap.resample(rows)
    return Bias(
        trait,
        int((weight > 0).sum()),
        found.score("judge"),
        found.score("people"),
        found.score("difference"),
    )
