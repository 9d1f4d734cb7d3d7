"""The agreement page: one HTML file, and the table for the terminal.

Knows nothing of how the figures were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from litee.records import Dropped, Score
from litee.rundir import write_text
from litee.score.agreement_study import AgreementStudy, BesideRater, MetricAgreement
from litee.score.beside_raters import RATER
from litee.score.figures import Plot, whiskers
from litee.score.page import by_name, in_percent, inline, render
from litee.score.table import percent_cell, score_cell

Columns = tuple[tuple[str, str, bool], ...]

#: A metric that ties more often than this says little where it decides.
MOSTLY_TIES = 0.9

#: The main table: figure, heading, whether it is a share.
MAIN: Columns = (
    ("decisive_accuracy", "Decisive, %", True),
    ("pairwise_accuracy", "Three-way, %", True),
    ("length_balanced", "Length-balanced, %", True),
    ("spearman_item", "Spearman, items", False),
    ("spearman_system", "Spearman, systems", False),
)

#: The same with votes, where people are compared with a metric that decides.
MAIN_VOTES: Columns = (
    ("decisive_accuracy", "Decisive, %", True),
    ("both_decisive_accuracy", "Both decisive, %", True),
    *MAIN[1:3],
    MAIN[4],
)

#: Headings of the main table in the terminal.
_SHORT = {
    "decisive_accuracy": "decisive %",
    "both_decisive_accuracy": "both dec.",
    "pairwise_accuracy": "three-way",
    "length_balanced": "balanced",
    "spearman_item": "ρ item",
    "spearman_system": "ρ system",
}

#: The full tables.
GROUPS: tuple[tuple[str, Columns], ...] = (
    (
        "Pair by pair",
        (
            ("pairwise_accuracy", "Three-way, %", True),
            ("decisive_accuracy", "Decisive, %", True),
            ("both_decisive_accuracy", "Both decisive, %", True),
            ("tie_discounted", "Tie-discounted, %", True),
            ("tie_rate", "Ties called, %", True),
        ),
    ),
    (
        "Chance-corrected and length-controlled",
        (
            ("kappa", "Cohen's kappa", False),
            ("kappa_weighted", "Weighted kappa", False),
            ("alpha", "Alpha, nominal", False),
            ("alpha_interval", "Alpha, interval", False),
            ("length_balanced", "Length-balanced, %", True),
        ),
    ),
    (
        "Item level",
        (
            ("spearman_item", "Spearman", False),
            ("kendall_item", "Kendall's tau-b", False),
            ("pearson_item", "Pearson", False),
            ("spearman_item_length", "Spearman given length", False),
            ("pearson_item_length", "Pearson given length", False),
        ),
    ),
    (
        "Prompt and system level",
        (
            ("spearman_prompt", "Spearman, prompts", False),
            ("kendall_prompt", "Tau-b, prompts", False),
            ("spearman_system", "Spearman, systems", False),
            ("kendall_system", "Tau-b, systems", False),
            ("pearson_system", "Pearson, systems", False),
        ),
    ),
)

#: Most metrics in a plot, and in a table before the rest is folded away.
PLOTTED = 20

_SHARES = {key for _, columns in GROUPS for key, _, share in columns if share}
_HEADINGS = {key: name.removesuffix(", %") for key, name, _ in (*MAIN, *MAIN_VOTES)}
_IN_WORDS = {"spearman_item": "Spearman correlation over the answers"}


@dataclass(frozen=True, slots=True)
class PageInput:
    """What the page shows.

    Attributes:
        study: the figures.
        command: that made it.
        inputs: file → sha256.
        dropped: rows left out.
        notes: further cautions for the reader.
    """

    study: AgreementStudy
    command: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    dropped: Dropped = field(default_factory=Dropped)
    notes: tuple[str, ...] = ()


def write_page(page: PageInput, path: Path) -> None:
    """Write the page atomically."""
    write_text(path, render_page(page))


def render_page(page: PageInput) -> str:
    """The page as HTML text."""
    study = page.study
    ranked = sum(m.score(study.primary).value is not None for m in study.metrics)
    near = study.comparisons[: max(0, min(ranked, PLOTTED) - 1)]
    return render(
        "agreement.html",
        title=study.title,
        s=study,
        headline=headline(study),
        cautions=(*cautions(study), *page.notes),
        main=_main(study),
        people=_people(study),
        people_known=[key for key, x in _people(study).items() if x.value is not None],
        groups=[
            (name, shown) for name, columns in GROUPS if (shown := _with_values(columns, study))
        ],
        plots=inline(plots(study)),
        shown=min(PLOTTED, len(study.metrics)),
        near=near,
        far=study.comparisons[len(near) :],
        primary_heading=_HEADINGS.get(study.primary, study.primary),
        primary_share=study.primary in _SHARES,
        has_cost=any(m.seconds_per_1000 is not None for m in study.metrics),
        has_price=any(m.price_per_1000 is not None for m in study.metrics),
        inputs=by_name(page.inputs),
        dropped=page.dropped.counts,
        unscored=[
            (m.name, reason, number) for m in study.metrics for reason, number in m.unscored.items()
        ],
        command=page.command,
    )


def _main(study: AgreementStudy) -> Columns:
    """Columns of the main table."""
    columns = _with_values(MAIN if study.kind == "ratings" else MAIN_VOTES, study)
    if len(study.systems) == study.answers:  # one answer each: the items are the systems
        return tuple(column for column in columns if column[0] != "spearman_system")
    return columns


def _people(study: AgreementStudy) -> Mapping[str, Score]:
    """People's figures for tables; with votes, theirs are decisive on both sides or not at all."""
    if study.kind == "ratings":
        return study.people
    both = Score(None, reason="people are compared where both votes decide")
    return {**study.people, "decisive_accuracy": both} if study.people else {}


def _with_values(columns: Columns, study: AgreementStudy) -> Columns:
    """Columns that have a value in at least one row."""
    rows = [m.scores for m in study.metrics]
    return tuple(
        column
        for column in columns
        if any(column[0] in row and row[column[0]].value is not None for row in rows)
    )


def headline(study: AgreementStudy) -> str:
    """The result in a sentence or two."""
    if not study.metrics:
        return "No metric was compared."
    best, figure = study.metrics[0], study.primary
    score = best.score(figure)
    if score.value is None:
        return "No metric could be compared: " + score.reason + "."
    whom = "people" if study.kind == "votes" else "the ratings"
    if figure != "decisive_accuracy":
        what = _IN_WORDS.get(figure, figure)
        return f"{best.name} agrees best with {whom}: {what} {score.value:.2f}."
    text = (
        f"{best.name} agrees best with {whom}: it picks the preferred answer in "
        f"{in_percent(score)} of the pairs that {whom} decide{'d' if whom == 'people' else ''}"
    )
    return f"{text}; chance is 50 %.{_both_decide(study, best)}{_beside(study, best.name)}"


def _both_decide(study: AgreementStudy, best: MetricAgreement) -> str:
    """How the best metric and people do where neither side says tie, as a sentence."""
    figure = "both_decisive_accuracy"
    people, metric = study.people.get(figure), best.score(figure)
    if study.kind != "votes" or people is None or people.value is None or metric.value is None:
        return ""
    return (
        f" Where it also decides, it agrees with a vote in {in_percent(metric)}; two people who "
        f"both decide agree in {in_percent(people)}."
    )


def _beside(study: AgreementStudy, name: str) -> str:
    """How the best metric and one rater do against the other raters, as a sentence."""
    rows = {row.name: row.decisive for row in study.beside}
    if name not in rows or rows[name].value is None or rows[RATER].value is None:
        return ""
    return (
        f" Against the mean of all raters but one, it gets {in_percent(rows[name])} and the "
        f"rater left out {in_percent(rows[RATER])}."
    )


def cautions(study: AgreementStudy) -> tuple[str, ...]:
    """What a reader has to know before believing the figures."""
    found: list[str] = []
    if not study.pairs:
        found.append("Every prompt has one answer, so nothing can be compared pair by pair.")
    if study.prompts < 30:
        found.append(
            f"Only {study.prompts} prompts: the intervals are too narrow, and other prompts may "
            "give another order."
        )
    if 0 < len(study.systems) < 8:
        found.append(f"Only {len(study.systems)} systems: correlations at system level say little.")
    often = max(range(3), key=lambda k: study.outcome_shares[k])
    if study.pairs and study.outcome_shares[often] > 0.4:
        verdict = ("A", "B", "tie")[often]
        if study.kind == "ratings" and verdict != "tie":
            verdict = "A (or B)"  # derived pairs stand in both orders
        found.append(
            f"Always saying {verdict} would agree in {100 * study.outcome_shares[often]:.1f} % of "
            "cases: compare the three-way figures with that, not with one third."
        )
    ties, firm = study.people.get("tie_rate"), study.people.get("both_decisive_accuracy")
    if study.kind == "ratings" and ties and firm and (ties.value or 0) > 0.3 and firm.value:
        found.append(
            f"A single rater gives equal ratings in {100 * (ties.value or 0):.0f} % of the pairs "
            'and then gets half a point, so people look weak under "decisive". Where they do '
            f"decide, they agree in {100 * firm.value:.0f} %."
        )
    found += _unreliable(study)
    for m in study.metrics:
        rows = m.scored + sum(m.unscored.values())
        if m.unscored and m.scored < 0.95 * rows:
            share = 100 * m.scored / rows
            found.append(f"{m.name} has scored only {share:.0f} % of the rows.")
        tied = m.scores["tie_rate"].value if "tie_rate" in m.scores else None
        if tied is not None and MOSTLY_TIES < tied < 1:
            found.append(
                f"{m.name} calls a tie in {100 * tied:.1f} % of the pairs: its agreement where "
                "both decide rests on the few others."
            )
    return tuple(found)


def _unreliable(study: AgreementStudy) -> list[str]:
    """What follows when raters hardly agree."""
    raters = study.reliability
    if raters is None or (raters.of_mean or 0) >= 0.5:
        return []
    if raters.of_mean is None:
        return [
            f"Two raters do not agree at all (mean correlation {raters.mean_correlation:.2f}): "
            "single answers cannot be judged here. One rater is then no ceiling either: a metric "
            "can agree with the raters' mean better than they do with each other."
        ]
    return [
        f"The raters hardly agree (reliability of their mean {raters.of_mean:.2f}): item-level "
        "figures have a low ceiling, and one rater is easily beaten."
    ]


def plots(study: AgreementStudy) -> Sequence[Plot | None]:
    """Intervals of the main figures, the first `PLOTTED` metrics."""
    names = [m.name for m in study.metrics[:PLOTTED]]
    best = names[0] if names else ""
    found: list[Plot | None] = []
    shown = {key for key, _, _ in _main(study)}
    for figure, label in (
        ("decisive_accuracy", "decisive pairs won (chance 50 %)"),
        ("both_decisive_accuracy", "agreement where both decide"),
        ("pairwise_accuracy", "three-way agreement"),
        ("spearman_item", "Spearman correlation, items"),
        ("spearman_system", "Spearman correlation, systems"),
    ):
        if figure not in shown:
            continue
        people = _people(study).get(figure)
        line = None
        if study.kind == "votes" and people is not None and people.value is not None:
            line = (people.value, "people with each other")
        scores = {m.name: m.score(figure) for m in study.metrics[:PLOTTED]}
        found.append(
            whiskers(
                figure.replace("_", "-"),
                scores,
                label=label,
                main=best,
                quiet=[n for n in names if n == "length"],
                line=line,
                percent=figure in _SHARES,
            )
        )
    if study.beside:
        rater, *others = study.beside
        found.append(
            whiskers(
                "beside",
                {row.name: row.decisive for row in others[:PLOTTED]},
                label="decisive pairs won, by the other raters",
                main=best,
                quiet=[n for n in names if n == "length"],
                line=None if rater.decisive.value is None else (rater.decisive.value, RATER),
                percent=True,
            )
        )
    return found


def agreement_table(study: AgreementStudy) -> Table:
    """The main figures for the terminal, 80 columns wide; columns without any value are left out.

    The figure by which metrics are ordered has its interval.
    """
    what = "ratings" if study.kind == "ratings" else "votes"
    title = f"{study.votes:,} {what}, {study.pairs:,} pairs, {study.prompts:,} prompts"
    table = Table(title=title, box=box.SIMPLE_HEAD, width=80, padding=0, title_justify="left")
    table.add_column("metric", overflow="ellipsis", no_wrap=True, ratio=1)
    columns = _main(study)
    for key, _, _ in columns:
        table.add_column(_SHORT[key], justify="right", no_wrap=True)
    for m in study.metrics:
        table.add_row(escape(m.name), *_row(m.scores, columns, study.primary))
    table.add_section()
    missing = Score(None, reason="not computed")
    rows: list[tuple[str, Mapping[str, Score], str]] = [("a random verdict", study.chance, "dim")]
    if study.kind == "votes":
        rows.append(("people with each other", _people(study), ""))
    for row in (study.beside[0], _beside_row(study)) if study.beside else ():
        known = {
            "decisive_accuracy": row.decisive,
            "pairwise_accuracy": row.three_way,
            "spearman_item": row.spearman,
        }
        rows.append((f"{row.name} ¹", {key: known.get(key, missing) for key in _SHORT}, ""))
        table.caption = "¹ against the mean of the other raters"
    for label, scores, style in rows:
        if any(score.value is not None for score in scores.values()):
            table.add_row(escape(label), *_row(scores, columns, study.primary), style=style)
    return table


def _beside_row(study: AgreementStudy) -> BesideRater:
    """The best metric's row beside the raters'."""
    return next(row for row in study.beside if row.name == study.metrics[0].name)


def _row(scores: Mapping[str, Score], columns: Columns, primary: str) -> list[str]:
    missing = Score(None, reason="not computed")
    cells = []
    for figure, _, share in columns:
        score, wide = scores.get(figure, missing), figure == primary
        if share:
            cells.append(percent_cell(score, interval=wide))
        else:
            cells.append(score_cell(score, digits=2, interval=wide))
    return cells
