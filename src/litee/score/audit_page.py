"""The audit's page: what a judge prefers beyond people, as one HTML file.

Knows nothing of how the figures were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from litee.records import Score
from litee.rundir import write_text
from litee.score.biases import POSITION, Audit
from litee.score.figures import whiskers
from litee.score.page import by_name, inline, render

#: Fewer pairs than this say little on a trait.
_FEW = 30


@dataclass(frozen=True, slots=True)
class AuditPage:
    """What the page shows.

    Attributes:
        audit: the figures.
        judge: its name.
        command: that made it.
        inputs: file → sha256.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    audit: Audit
    judge: str
    command: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0


def write_audit_page(page: AuditPage, path: Path) -> None:
    """Write the page atomically."""
    write_text(path, render_audit(page))


def render_audit(page: AuditPage) -> str:
    """The page as HTML text."""
    found = page.audit
    measured = [b for b in found.biases if b.difference.value is not None]
    plot = whiskers(
        "biases",
        {b.trait: b.difference for b in measured},
        label="picked more often than by people, share of pairs",
        main="",
        line=(0.0, "as people"),
        percent=True,
    )
    return render(
        "audit.html",
        title=f"What does {page.judge} prefer?",
        headline=headline(found, page.judge),
        cautions=cautions(found),
        a=found,
        measured=measured,
        absent=[b.trait for b in found.biases if b.difference.value is None],
        settled={b.trait for b in measured if settled(b.difference)},
        plots=inline([plot]),
        inputs=by_name(page.inputs),
        command=page.command,
        resamples=page.resamples,
        seed=page.seed,
    )


def settled(difference: Score) -> bool:
    """Whether the interval of a difference leaves out 0.

    >>> settled(Score(0.1, 0.02, 0.2)), settled(Score(0.1, -0.02, 0.2)), settled(Score(0.1))
    (True, False, False)
    """
    low, high = difference.low, difference.high
    return low is not None and high is not None and (low > 0 or high < 0)


def headline(found: Audit, judge: str) -> str:
    """The biases beyond the error in a sentence, the largest first, and the flips."""
    biases = [b for b in found.biases if settled(b.difference)]
    if found.flip_rate.value is None:  # one order tells position from quality by chance alone
        biases = [b for b in biases if b.trait != POSITION]
    biases.sort(key=lambda b: -abs(b.difference.value or 0.0))
    flips = found.flip_rate.value
    turned = "" if flips is None else f" {100 * flips:.0f} % of its verdicts change with the order."
    if not biases:
        return f"No preference of {judge} differs from people's by more than the error.{turned}"
    parts: dict[str, list[str]] = {"more": [], "less": []}
    for bias in biases:
        points = 100 * (bias.difference.value or 0.0)
        parts["more" if points > 0 else "less"].append(f"{bias.trait} ({points:+.1f} points)")
    said = [f"{how} often than people: {', '.join(p)}" for how, p in parts.items() if p]
    return f"{judge} picks, {'; '.join(said)}.{turned}"


def cautions(found: Audit) -> tuple[str, ...]:
    """What a reader has to know before believing the figures."""
    said: list[str] = []
    if found.prompts < _FEW:
        said.append(f"Only {found.prompts} prompts: the intervals are too narrow.")
    if found.unscored:
        share = 100 * found.unscored / found.pairs
        said.append(f"{found.unscored:,} pairs ({share:.0f} %) have no verdict and are left out.")
    if found.flip_rate.value is None:
        said.append(
            f"Verdicts are there in one order only, so “{POSITION}” holds whatever else sets first "
            "answers apart; a judge made by litee does not see the order. Give --swapped."
        )
    few = [b.trait for b in found.biases if 0 < b.pairs < _FEW]
    if few:
        said.append(f"Fewer than {_FEW} pairs differ in: {', '.join(few)}.")
    return tuple(said)
