"""The leaderboard's page: one HTML file, and the tables for the terminal.

Knows nothing of how strengths are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from litee.records import Score
from litee.rundir import write_text
from litee.score.figures import Plot, whiskers
from litee.score.page import by_name, inline, render
from litee.score.ranking import Meeting, Ranking, Standing
from litee.score.table import percent_cell, score_cell

#: Most systems in a plot, and in the table of one against one.
PLOTTED, CROSSED = 40, 15


@dataclass(frozen=True, slots=True)
class RankingPage:
    """What the page shows.

    Attributes:
        ranking: the figures.
        title: of the page.
        command: that made it.
        inputs: file → sha256.
        judged: whether a judge's verdicts were ranked instead of votes.
    """

    ranking: Ranking
    title: str = "Which system is best?"
    command: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    judged: bool = False

    @property
    def unit(self) -> str:
        """`votes` or `verdicts`."""
        return "verdicts" if self.judged else "votes"


def write_ranking_page(page: RankingPage, path: Path) -> None:
    """Write the page atomically."""
    write_text(path, render_ranking(page))


def render_ranking(page: RankingPage) -> str:
    """The page as HTML text."""
    ranking = page.ranking
    names = [s.name for s in ranking.standings]
    return render(
        "ranking.html",
        title=page.title,
        headline=headline(page),
        cautions=cautions(page),
        r=ranking,
        unit=page.unit,
        judged=page.judged,
        moved=_moved(ranking.standings),
        matrix=_matrix(ranking) if len(names) <= CROSSED else (),
        loose={s.name for s in ranking.standings if s.warning},
        plots=inline(plots(ranking)),
        shown=min(PLOTTED, len(names)),
        most_meetings=len(names) * (len(names) - 1) // 2,
        inputs=by_name(page.inputs),
        command=page.command,
    )


def headline(page: RankingPage) -> str:
    """The result in a sentence or two."""
    ranking = page.ranking
    first = ranking.standings[0]
    text = f"{first.name} comes first among {len(ranking.standings)} systems"
    if first.win_rate.value is not None:
        text += f" and wins {100 * first.win_rate.value:.0f} % of its {page.unit}"
    _, second, _, need = ranking.neighbours[0]
    if first.warning:
        return f"{text}; its strength has no finite value."
    if need.settled:
        return f"{text}; its lead over {second} is settled."
    to_settle = need.in_words() + ("" if need.reason else " to settle it")
    return f"{text}; its lead over {second} is not settled ({to_settle})."


def cautions(page: RankingPage) -> tuple[str, ...]:
    """What a reader has to know before believing the figures."""
    ranking = page.ranking
    found: list[str] = []
    if ranking.prompts < 30:
        found.append(
            f"Only {ranking.prompts} prompts: the intervals are too narrow, and other prompts may "
            "give another order."
        )
    loose = [s.name for s in ranking.standings if s.warning]
    if loose:
        names = ", ".join(loose[:5]) + (", …" if len(loose) > 5 else "")
        found.append(
            f"No finite strength for {names}: no chain of wins and losses links "
            f"{'them' if len(loose) > 1 else 'it'} to the others."
        )
    few = [s.name for s in ranking.standings if s.votes < 30]
    if few:
        names = ", ".join(few[:5]) + (", …" if len(few) > 5 else "")
        found.append(f"Fewer than 30 {page.unit} on {names}.")
    left = ranking.without_name + ranking.against_itself
    if left > 0.05 * (ranking.pairs + left):
        share = 100 * left / (ranking.pairs + left)
        found.append(f"{share:.0f} % of the pairs were left out: see “Data”.")
    if page.judged:
        found.append("These are a judge's verdicts, not votes: its biases are in the order.")
    return tuple(found)


def _moved(standings: Sequence[Standing]) -> dict[str, str]:
    """System → places won or lost at equal style, in words."""
    styled = sorted(standings, key=lambda s: -(s.styled.value or 0.0))
    place = {s.name: k for k, s in enumerate(styled)}
    moves = {s.name: k - place[s.name] for k, s in enumerate(standings)}
    return {name: "" if move == 0 else f"{move:+d}" for name, move in moves.items()}


def _matrix(ranking: Ranking) -> list[tuple[str, list[Meeting | None]]]:
    """Rows of the table of one against one, systems best first."""
    names = [s.name for s in ranking.standings]
    met: dict[tuple[str, str], Meeting] = {}
    for m in ranking.meetings:
        met[m.first, m.second] = m
        met[m.second, m.first] = Meeting(m.second, m.first, m.votes, 1 - m.share)
    return [(a, [met.get((a, b)) for b in names]) for a in names]


def plots(ranking: Ranking) -> Sequence[Plot | None]:
    """Strengths with their intervals, without and with style control."""
    bounded = [s for s in ranking.standings if not s.warning][:PLOTTED]
    best = bounded[0].name if bounded else ""
    found = [
        whiskers("elo", {s.name: s.elo for s in bounded}, label="Elo", main=best),
    ]
    if ranking.style:
        scores = {s.name: s.styled for s in bounded}
        found.append(whiskers("elo-styled", scores, label="Elo at equal style", main=best))
        terms: dict[str, Score] = dict(ranking.style)
        label = "log odds per standard deviation"
        zero = (0.0, "no effect")
        found.append(whiskers("style", terms, label=label, main="", line=zero))
    return found


def ranking_tables(ranking: Ranking, *, unit: str = "votes") -> list[Table]:
    """Leaderboard, what is settled and, where controlled, the style terms, for the terminal."""
    tables = [_leaderboard(ranking, unit), _settled(ranking)]
    if ranking.style:
        terms = _table("Style")
        terms.add_column("term")
        terms.add_column("log odds per standard deviation", justify="right")
        for name, score in ranking.style:
            terms.add_row(name, score_cell(score, sign="+"))
        tables.append(terms)
    return tables


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1), width=80)


def _leaderboard(ranking: Ranking, unit: str) -> Table:
    style = bool(ranking.style)
    table = _table(f"{ranking.votes:,.0f} {unit}, {ranking.prompts:,} prompts, {ranking.model}")
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("system", overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("Elo", *(["styled"] if style else []), "wins %", unit):
        table.add_column(name, justify="right", no_wrap=True)
    for s in ranking.standings:
        ranks = f"{s.best_rank}–{s.worst_rank}" if s.best_rank < s.worst_rank else f"{s.best_rank}"
        styled = [score_cell(s.styled, digits=0, interval=False)] if style else []
        elo = "unbounded" if s.warning else score_cell(s.elo, digits=0)
        rate = percent_cell(s.win_rate, interval=False)
        table.add_row(ranks, escape(s.name), elo, *styled, rate, f"{s.votes:,.0f}")
    return table


def _settled(ranking: Ranking) -> Table:
    table = _table("Settled?")
    table.add_column("neighbours", ratio=1, min_width=24)
    table.add_column("Elo difference", justify="right", no_wrap=True)
    table.add_column("to settle it", justify="right")
    for upper, lower, gap, need in ranking.neighbours:
        cell = score_cell(gap, digits=0, sign="+")
        table.add_row(f"{escape(upper)} > {escape(lower)}", cell, need.in_words())
    return table
