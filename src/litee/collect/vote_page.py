"""Reads the SQLite database of the voting page, and turns its rows into drafts.

One row per ballot that was acted on. What is no vote on its own (hidden repeats, attention checks,
skipped pairs, votes taken back, people the owner excluded) is left out and counted by reason.
Knows nothing of how the page writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from litee.collect.cells import (
    ATTENTION_CHECK,
    EXCLUDED_VOTER,
    HIDDEN_REPEAT,
    SKIPPED,
    TAKEN_BACK,
    Ballot,
    Draft,
    Row,
    UnusableError,
    label_cell,
    name_cell,
)
from litee.collect.layouts import LABELS, Layout, source_of
from litee.errors import InputError

#: Columns by which the rows are recognised.
COLUMNS = ("ballot", "purpose", "act", "prompt", "response_a", "response_b", "winner")

_QUERY = """
SELECT vote.seq AS seq, ballot.id AS ballot, ballot.purpose AS purpose, vote.kind AS act,
       pair.id AS pair_id, pair.prompt AS prompt, pair.response_a AS response_a,
       pair.response_b AS response_b, vote.winner AS winner, pair.model_a AS model_a,
       pair.model_b AS model_b, pair.source AS source, person.name AS annotator,
       person.excluded AS excluded, vote.details AS details
FROM vote
JOIN (SELECT ballot, MAX(revision) AS revision FROM vote GROUP BY ballot) AS last
  ON last.ballot = vote.ballot AND last.revision = vote.revision
JOIN ballot ON ballot.id = vote.ballot
JOIN pair ON pair.number = ballot.pair
JOIN person ON person.number = ballot.person
ORDER BY vote.seq
"""
_JSON = ("prompt", "response_a", "response_b", "details")
_NEVER = {"repeat": HIDDEN_REPEAT, "check": ATTENTION_CHECK}
_ACTS = {"undo": TAKEN_BACK, "skip": SKIPPED}


def database_rows(path: Path) -> Iterator[Row]:
    """What became of each ballot, in the order of the last acts.

    Raises:
        InputError: no SQLite file, or not one of the voting page.
    """
    fix = "name a file that `litee vote` wrote"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            for row in database.execute(_QUERY):
                cells: dict[str, object] = dict(row)
                cells.update({name: json.loads(row[name]) for name in _JSON})
                yield Row(str(path), row["seq"], cells)
    except (sqlite3.Error, ValueError, TypeError) as error:
        problem = f"no database of the voting page: {error}"
        raise InputError(problem, place=str(path), fix=fix) from error


def vote_page() -> Layout:
    """Rows of the voting page's database."""
    return Layout("vote-page", COLUMNS[:-1], ("winner",), LABELS, _parse)


def _parse(row: Row) -> Draft:
    reason = _why_not(row.cells)
    if reason:
        raise UnusableError(reason)
    cells = row.cells
    prompt, first, second = (
        tuple(map(str, _list(cells[name]))) for name in ("prompt", "response_a", "response_b")
    )
    details = cells.get("details")
    reason = reason_text(details if isinstance(details, dict) else {})
    ballot = Ballot(label_cell(row, "winner"), name_cell(row, "annotator"), reason=reason)
    return Draft(
        prompt,
        first,
        second,
        (ballot,),
        id=name_cell(row, "ballot"),
        pair_id=name_cell(row, "pair_id"),
        model_a=name_cell(row, "model_a"),
        model_b=name_cell(row, "model_b"),
        source=source_of(row),
    )


def _why_not(cells: Mapping[str, object]) -> str:
    if cells.get("excluded"):
        return EXCLUDED_VOTER
    return _NEVER.get(str(cells["purpose"])) or _ACTS.get(str(cells["act"]), "")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def reason_text(details: Mapping[str, object]) -> str:
    """What a person noted beside the vote, as one line.

    >>> reason_text({"a": {"tags": ["too long"], "stars": 2}, "comment": "B is right"})
    'a: too long, 2/5; B is right'
    """
    parts = []
    for letter in ("a", "b"):
        notes = details.get(letter)
        if isinstance(notes, dict):
            words = [*map(str, _list(notes.get("tags")))]
            words += [str(notes["grade"])] if "grade" in notes else []
            words += [f"{notes['stars']}/5"] if "stars" in notes else []
            parts.append(f"{letter}: {', '.join(words)}")
    turns = _list(details.get("turns"))
    if turns:
        parts.append("turns: " + ", ".join("-" if turn is None else str(turn) for turn in turns))
    if details.get("comment"):
        parts.append(str(details["comment"]))
    return "; ".join(parts)
