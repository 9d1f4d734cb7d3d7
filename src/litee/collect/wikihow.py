"""wikiHow tables to demonstrations: how-to title → article, as LIMA chose them.

Reads the public tables: one row per method (`headline, title, text`) or per step (`overview,
headline, text, sectionLabel, title`), with a `category` column where there is one. Knows nothing
of other sources. Source: Zhou et al. (2023), "LIMA", section 2.1: a category first, then an
article in it, so that small categories are seen as often as large ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litee.collect.cells import Row, mend
from litee.collect.lima_filters import length_fault
from litee.collect.reading import Reading
from litee.collect.rows import open_table
from litee.errors import InputError
from litee.records import Demonstration, Message

NO_TITLE = "row without a title"
NO_TEXT = "row without a text"
SAME_METHOD = "further method of the same title"
UNKNOWN = "no category"
LICENSE = "CC BY-NC-SA 3.0"

#: Tables number the methods of one title at its last word: `How to Cook Rice2`.
_NUMBER = re.compile(r"(?<=[^\s\d])\d{1,2}$")
_OPENING = re.compile(r"\A(\W*)this (?:wikihow )?(?:article|guide)\b", re.IGNORECASE)
_UNSEEN = re.compile(r"\[\[?(?:image|file)[^\]]*\]?\]|<ref\b.*?</ref>|https?://\S+", re.I | re.S)
_BLANKS = re.compile(r"\n{3,}")


@dataclass(slots=True)
class _Article:
    """The parts of one article in file order."""

    title: str
    category: str
    overview: str = ""
    steps: list[tuple[str, str, str]] = field(default_factory=list)


def rewrite_opening(text: str) -> str:
    """Let an answer speak of itself: "This article …" becomes "The following answer …".

    >>> rewrite_opening("This article explains how to whistle.")
    'The following answer explains how to whistle.'
    """
    return _OPENING.sub(r"\1The following answer", text)


def read_wikihow(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Articles, sampled: a category with even chances, then an article in it.

    Raises:
        InputError: a file is broken or lacks the columns `title` and `text`.
    """
    pools: dict[str, list[Demonstration]] = {}
    for path in paths:
        for number, article in enumerate(_articles(path, reading), start=1):
            reading.read += 1
            text = _body(article)
            fault = length_fault(text, reading.settings.min_chars, len(text))
            if fault:
                reading.removed.add(fault, f"{path}, article {number}")
                continue
            messages = (Message("user", article.title), Message("assistant", text))
            pools.setdefault(article.category, []).append(
                Demonstration(
                    f"wikihow/{path.name.split('.')[0]}/{number}",
                    messages,
                    source="wikihow",
                    license=LICENSE,
                    topic="" if article.category == UNKNOWN else article.category,
                )
            )
    for pool in pools.values():
        reading.random.shuffle(pool)
    count = reading.settings.n or sum(map(len, pools.values()))
    # an infinite temperature gives every category the same weight
    yield from reading.sample(pools, count, float("inf"))


def _articles(path: Path, reading: Reading) -> Iterator[_Article]:
    """Rows brought together while their title stays the same."""
    table = open_table(path)
    names = {name.strip().lower(): name for name in table.columns}
    missing = [name for name in ("title", "text") if name not in names]
    if missing:
        problem = f"missing column {', '.join(missing)} (found: {', '.join(table.columns)})"
        fix = "give a wikiHow table with the columns title and text"
        raise InputError(problem, place=str(path), fix=fix)
    open_article: _Article | None = None
    seen: set[str] = set()
    for row in table.rows:
        if not row.cells:
            continue
        title = _NUMBER.sub("", _cell(row, names, "title")).strip()
        text, headline = _cell(row, names, "text"), _cell(row, names, "headline")
        if not title or not text:
            reading.read += 1
            reading.removed.add(NO_TEXT if title else NO_TITLE, row.place)
            continue
        if open_article is None or open_article.title != title:
            if open_article is not None:
                yield open_article
            if title in seen:
                reading.read += 1
                reading.removed.add(SAME_METHOD, row.place)
                open_article = None
                continue
            seen.add(title)
            open_article = _Article(title, _cell(row, names, "category") or UNKNOWN)
            open_article.overview = _cell(row, names, "overview")
        elif "sectionlabel" not in names:  # one row per method: the first is the answer
            reading.read += 1
            reading.removed.add(SAME_METHOD, row.place)
            continue
        open_article.steps.append((_cell(row, names, "sectionlabel"), headline, text))
    if open_article is not None:
        yield open_article


def _cell(row: Row, names: dict[str, str], name: str) -> str:
    value = row.cells.get(names.get(name, ""))
    return mend(value).strip() if isinstance(value, str) else ""


def _body(article: _Article) -> str:
    """The article as Markdown: overview, sections, numbered steps."""
    parts = [article.overview] if article.overview else []
    if len(article.steps) == 1:
        parts.append(article.steps[0][2])
    else:
        section, number = None, 0
        for label, headline, text in article.steps:
            if label != section:
                section, number = label, 0
                parts += [f"## {label}"] if label else []
            number += 1
            step = " ".join(part.strip(" ,\n") for part in (headline, text) if part.strip(" ,\n"))
            parts.append(f"{number}. {step}")
    text = _UNSEEN.sub("", "\n\n".join(parts))
    return rewrite_opening(_BLANKS.sub("\n\n", text).strip())
