"""What the pages have in common: the skeleton, the styles, how numbers are shown.

A page is complete in itself: styles and plots are inline, nothing is requested from anywhere, and
every string from outside is escaped. Knows nothing of what a page shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from litee.records import Score
from litee.score.figures import Plot
from litee.score.table import percent_cell, score_cell


def render(template: str, **values: object) -> str:
    """A template of this folder as HTML text.

    Args:
        template: file name; it extends `skeleton.html`, which needs `title`, `headline` and
            `cautions`.
        values: what the template names.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("litee", "score"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: dict[str, Callable[[Score], str]] = {
        "score": score_cell,
        "whole": lambda s: score_cell(s, digits=0),
        "whole_signed": lambda s: score_cell(s, digits=0, sign="+"),
        "percent": percent_cell,
        "percent_short": lambda s: percent_cell(s, interval=False),
        "in_percent": in_percent,
        "signed": lambda s: score_cell(s, sign="+"),
        "signed_percent": lambda s: percent_cell(s, sign="+"),
    }
    environment.filters |= {name: _or_dash(function) for name, function in shown.items()}
    environment.filters["count"] = "{:,.0f}".format
    environment.filters["breaks"] = breaks
    return environment


def _or_dash(shown: Callable[[Score], str]) -> Callable[[Score], str]:
    """A template filter: the number, or a dash with the reason as its title."""

    def filtered(score: Score) -> str:
        if score.value is not None:
            return shown(score)
        return Markup('<span class="none" title="{}">—</span>').format(score.reason)

    return filtered


def breaks(name: str) -> Markup:
    """A name that may go on in the next line after `_` and `.`.

    >>> breaks("a_b<")
    Markup('a_<wbr>b&lt;')
    """
    parts = re.split(r"(?<=[_.])(?=.)", name)
    return Markup("<wbr>").join(parts)


def in_percent(score: Score) -> str:
    """A share for running text.

    >>> in_percent(Score(0.58, 0.561, 0.599)), in_percent(Score(0.5))
    ('58.0 % [56.1, 59.9]', '50.0 %')
    """
    value, bracket, ends = percent_cell(score).partition(" [")
    return f"{value} %{bracket}{ends}"


def inline(plots: Iterable[Plot | None]) -> dict[str, Markup]:
    """Name of the plot → its SVG, for the plots there are."""
    return {plot.name: Markup(plot.svg()) for plot in plots if plot is not None}


def by_name(inputs: Mapping[str, str]) -> dict[str, str]:
    """File name without its folder → digest.

    >>> by_name({"data/votes.csv": "ab12"})
    {'votes.csv': 'ab12'}
    """
    return {Path(file).name: digest for file, digest in inputs.items()}
