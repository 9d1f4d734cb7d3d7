"""A language model's verdict on pairs: A, B or neither, asked in both orders.

Writes one row per pair, which `litee agree`, `litee rank` and `litee audit` read as it is. Knows
nothing of how the model is run and of votes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litee.errors import ConfigError
from litee.records import CLASSES, JudgeVerdict, Outcome, Pair, Triple
from litee.rundir import Json, atomic_writer
from litee.score.llm_judge_engine import CachedJudge
from litee.score.llm_judge_prompts import PAIR_LABELS, pair_questions
from litee.score.score_table import REASONS
from litee.score.scoring import row_writer

#: Pairs that are asked together.
BLOCK = 64

#: Least probability that a logarithm is taken of.
_LEAST = 1e-12

_OUTCOMES = dict(zip(PAIR_LABELS, (Outcome.A, Outcome.B, Outcome.TIE), strict=True))


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """What a model says on one pair.

    Attributes:
        pair_id: of the pair.
        outcome: what both orders say; a tie when they differ; None when one has no verdict.
        orders: the outcome with A first and with B first, None where there is none.
        probabilities: of A better, B better, neither, without the model's taste for a place; see
            `without_place`. None when the model gives none.
        reason: why there is no outcome; empty otherwise.
    """

    pair_id: str
    outcome: Outcome | None
    orders: tuple[Outcome | None, Outcome | None]
    probabilities: Triple | None = None
    reason: str = ""

    @property
    def consistent(self) -> bool | None:
        """Whether both orders say the same; None when one has no verdict."""
        return None if None in self.orders else self.orders[0] == self.orders[1]


def combine(pair_id: str, first: JudgeVerdict, second: JudgeVerdict) -> PairVerdict:
    """Both orders' verdicts as one.

    Args:
        pair_id: of the pair.
        first: on the question with answer A first.
        second: on the one with answer B first, whose labels name positions.

    >>> combine("1", JudgeVerdict("A"), JudgeVerdict("B")).outcome
    <Outcome.A: 'a'>
    >>> combine("1", JudgeVerdict("A"), JudgeVerdict("A")).outcome
    <Outcome.TIE: 'tie'>
    """
    one = None if first.label is None else _OUTCOMES[first.label]
    two = None if second.label is None else _OUTCOMES[second.label].swapped
    if one is None or two is None:
        order, failed = ("A first", first) if one is None else ("B first", second)
        return PairVerdict(pair_id, None, (one, two), reason=f"{order}: {failed.reason}")
    probabilities = None
    if first.probabilities and second.probabilities:
        (a, b, tie), (b2, a2, tie2) = first.probabilities, second.probabilities
        probabilities = without_place((a, b, tie), (a2, b2, tie2))
    return PairVerdict(pair_id, one if one == two else Outcome.TIE, (one, two), probabilities)


def without_place(first: Triple, second: Triple) -> Triple:
    """Both orders' probabilities of A, B, tie as one: their geometric mean, scaled to sum to 1.

    A model whose log odds are those of the answers plus a taste for the place that an answer
    stands in then keeps the former: the taste cancels. This is how Zheng et al. (2024, arXiv
    2309.03882, section 4.1) join the permutations of a question's options. The arithmetic mean
    would leave little more than one half each of whatever a strong taste prefers.

    Args:
        first: P(A better), P(B better), P(neither) with answer A first.
        second: the same with answer B first.

    Odds of 9 for the first place times 2 for answer A:

    >>> a, b, tie = without_place((18 / 19, 1 / 19, 0.0), (2 / 11, 9 / 11, 0.0))
    >>> round(a / b, 6)
    2.0
    """
    logs = [
        (math.log(max(p, _LEAST)) + math.log(max(q, _LEAST))) / 2
        for p, q in zip(first, second, strict=True)
    ]
    a, b, tie = (math.exp(one - max(logs)) for one in logs)
    total = a + b + tie
    return a / total, b / total, tie / total


def judge_pairs(pairs: Sequence[Pair], judge: CachedJudge) -> Iterator[tuple[int, PairVerdict]]:
    """Verdicts with the number of their pair; pairs of one prompt together, not in order.

    A local model then reads a prompt and its first answer once for all comparisons with it.
    """
    order = sorted(range(len(pairs)), key=lambda k: (pairs[k].prompt, pairs[k].response_a))
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        questions = [q for k in block for q in pair_questions(pairs[k])]
        verdicts = judge.ask(questions)
        for place, k in enumerate(block):
            yield k, combine(pairs[k].id, verdicts[2 * place], verdicts[2 * place + 1])


@dataclass(slots=True)
class PairCounts:
    """What a run on pairs came to.

    Attributes:
        pairs: asked about.
        outcomes: outcome → pairs.
        unscored: reason → pairs.
        consistent: pairs with the same verdict in both orders.
        favours_first: pairs where each order prefers the answer that stands first.
        favours_second: likewise, the second.
    """

    pairs: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    unscored: dict[str, int] = field(default_factory=dict)
    consistent: int = 0
    favours_first: int = 0
    favours_second: int = 0

    def add(self, verdict: PairVerdict) -> None:
        """Count a pair."""
        self.pairs += 1
        if verdict.outcome is None:
            self.unscored[verdict.reason] = self.unscored.get(verdict.reason, 0) + 1
            return
        self.outcomes[verdict.outcome.value] += 1
        self.consistent += bool(verdict.consistent)
        self.favours_first += verdict.orders == (Outcome.A, Outcome.B)
        self.favours_second += verdict.orders == (Outcome.B, Outcome.A)

    def to_json(self) -> dict[str, Json]:
        """For the receipt."""
        return {
            "pairs": self.pairs,
            "outcomes": dict(self.outcomes),
            "unscored": dict(self.unscored),
            "consistent": self.consistent,
            "favours_first": self.favours_first,
            "favours_second": self.favours_second,
        }


def write_pair_verdicts(
    pairs: Sequence[Pair], judge: CachedJudge, out: Path, advance: Callable[[int], None]
) -> PairCounts:
    """Write a row per pair, in their order: `pair_id`, `verdict`, probabilities if there are any.

    `orders` has the outcomes with A first and with B first. The file appears only when all is
    done; stored verdicts make a second run go on where the first one stopped.

    Args:
        pairs: to judge.
        judge: that is asked.
        out: `.csv` or `.jsonl`.
        advance: called with the number of finished pairs.

    Raises:
        ConfigError: another ending.
    """
    if out.suffix not in {".csv", ".jsonl"}:
        fix = "name a .csv or .jsonl file"
        raise ConfigError("cannot write this kind of file", place=str(out), fix=fix)
    counts = PairCounts()
    found: dict[int, PairVerdict] = {}
    for number, verdict in judge_pairs(pairs, judge):
        found[number] = verdict
        counts.add(verdict)
        advance(1)
    with_probabilities = any(v.probabilities is not None for v in found.values())
    names = ["p_a", "p_b", "p_tie"] if with_probabilities else []
    header = ["pair_id", "verdict", *names, "orders", REASONS]
    with atomic_writer(out) as stream:
        write = row_writer(stream, header, csv_file=out.suffix == ".csv")
        for number in range(len(pairs)):
            write(_row(found[number], names))
    return counts


def _row(verdict: PairVerdict, names: Sequence[str]) -> dict[str, object]:
    values = verdict.probabilities or (None,) * len(CLASSES)
    rounded = [None if p is None else round(p, 6) for p in values]
    reasons = dict.fromkeys(["verdict", *names], verdict.reason) if verdict.reason else {}
    return {
        "pair_id": verdict.pair_id,
        "verdict": None if verdict.outcome is None else verdict.outcome.value,
        **dict(zip(names, rounded, strict=False)),
        "orders": "/".join("-" if o is None else o.value for o in verdict.orders),
        REASONS: json.dumps(reasons, ensure_ascii=False) if reasons else "",
    }
