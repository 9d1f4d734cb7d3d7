"""The layouts of plain votes tables: canonical, pair-votes, evalica, and columns named by the user.

Each turns one row into a draft. Knows nothing of file types, and of the Arena and TRL layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from litee.collect.cells import (
    Ballot,
    Draft,
    Row,
    json_list,
    label_cell,
    name_cell,
    turns_of,
    weight_cell,
    wrong_cell,
)
from litee.errors import ConfigError, InputError
from litee.records import Outcome

#: Labels understood wherever a layout does not fix its own.
LABELS: Mapping[str, Outcome] = {
    "a": Outcome.A,
    "b": Outcome.B,
    "tie": Outcome.TIE,
    "both_bad": Outcome.BOTH_BAD,
    "model_a": Outcome.A,
    "model_b": Outcome.B,
    "tie (bothbad)": Outcome.BOTH_BAD,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of one format are read.

    Attributes:
        name: as given to `format`.
        needs: columns without which no pair can be read.
        winner: columns that hold the votes; needed unless only pairs are read.
        labels: the format's words for the outcomes.
        parse: row → draft.
        fix: what to do when columns are missing.
    """

    name: str
    needs: tuple[str, ...]
    winner: tuple[str, ...]
    labels: Mapping[str, Outcome]
    parse: Callable[[Row], Draft]
    fix: str = "name the format with --format, or the columns with --columns"


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Which column of a user's file holds what.

    A name left as None means the canonical name, used when the file has it.

    Attributes:
        prompt: column of the user's text (text or list of turns).
        response_a: column of the first answer.
        response_b: column of the second answer.
        winner: column of the vote.
        labels: the file's word → `a`, `b`, `tie` or `both_bad`; empty means the canonical words.

    >>> ColumnNames(prompt="question", labels={"1": "a", "2": "b", "0": "tie"}).of("winner")
    'winner'
    """

    prompt: str | None = None
    response_a: str | None = None
    response_b: str | None = None
    winner: str | None = None
    id: str | None = None
    pair_id: str | None = None
    model_a: str | None = None
    model_b: str | None = None
    annotator: str | None = None
    source: str | None = None
    weight: str | None = None
    reason: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The file's name for a canonical column."""
        given: str | None = getattr(self, name)
        return name if given is None else given

    def named(self) -> tuple[str, ...]:
        """The columns the user named, which therefore must exist."""
        names = (getattr(self, f.name) for f in fields(self) if f.name != "labels")
        return tuple(name for name in names if name is not None)


def canonical() -> Layout:
    """Rows with the canonical names: prompt, response_a, response_b, winner and optional others."""
    return _by_columns("canonical", ColumnNames(), LABELS)


def by_columns(columns: ColumnNames) -> Layout:
    """Rows of any table, by the names of its columns.

    Raises:
        ConfigError: a label is mapped to something that is no outcome.
    """
    labels = dict(LABELS)
    if columns.labels:
        try:
            labels = {word: Outcome(ours) for word, ours in columns.labels.items()}
        except ValueError as error:
            fix = "map each label to a, b, tie or both_bad, e.g. --labels 1=a,2=b,0=tie"
            raise ConfigError(f"labels: {error}", fix=fix) from error
    return _by_columns("columns", columns, labels)


def _by_columns(name: str, columns: ColumnNames, labels: Mapping[str, Outcome]) -> Layout:
    needs = tuple(columns.of(n) for n in ("prompt", "response_a", "response_b"))
    winner = (columns.of("winner"),)
    optional = tuple(n for n in columns.named() if n not in needs + winner)

    def parse(row: Row) -> Draft:
        return _draft(row, columns)

    return Layout(name, needs + optional, winner, labels, parse)


def _draft(row: Row, columns: ColumnNames) -> Draft:
    prompt, response_a, response_b = _three_texts(
        row, (columns.of("prompt"), columns.of("response_a"), columns.of("response_b"))
    )
    ballot = Ballot(
        label_cell(row, columns.of("winner")),
        name_cell(row, columns.of("annotator")),
        weight_cell(row, columns.of("weight")),
        name_cell(row, columns.of("reason")),
    )
    return Draft(
        prompt,
        response_a,
        response_b,
        (ballot,),
        id=name_cell(row, columns.of("id")),
        pair_id=name_cell(row, columns.of("pair_id")),
        model_a=name_cell(row, columns.of("model_a")),
        model_b=name_cell(row, columns.of("model_b")),
        source=source_of(row, columns.of("source")),
    )


def source_of(row: Row, column: str = "source") -> str | None:
    """The row's source, or None when the file has no such column."""
    return name_cell(row, column) if column in row.cells else None


def _three_texts(
    row: Row, columns: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Prompt and answers as turns.

    Text cells are turns only when all three hold a JSON list of texts: an answer that happens to
    be a JSON list stays one text.
    """
    values: list[object] = [row.cells.get(column) for column in columns]
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) == 3:
        lists = [json_list(text) for text in texts]
        if None not in lists:
            values = list(lists)
    prompt, response_a, response_b = (
        turns_of(row, name, value)
        for name, value in zip(("prompt", "response_a", "response_b"), values, strict=True)
    )
    return prompt, response_a, response_b


def pair_votes() -> Layout:
    """Rows of one pair with a list of `[annotator, label]` votes."""
    needs = ("pair_id", "prompt", "response_a", "response_b")
    return Layout("pair-votes", needs, ("votes",), LABELS, _pair_votes)


def _pair_votes(row: Row) -> Draft:
    votes = row.cells.get("votes")
    if votes is None:
        votes = []
    if not isinstance(votes, Sequence) or isinstance(votes, str):
        raise wrong_cell(row, "votes", votes, "a list of [annotator, label] pairs")
    ballots = tuple(_ballot(row, vote) for vote in votes)
    prompt, response_a, response_b = _three_texts(row, ("prompt", "response_a", "response_b"))
    return Draft(
        prompt,
        response_a,
        response_b,
        ballots,
        pair_id=name_cell(row, "pair_id"),
        model_a=name_cell(row, "model_a"),
        model_b=name_cell(row, "model_b"),
        source=source_of(row),
    )


def _ballot(row: Row, vote: object) -> Ballot:
    if not isinstance(vote, Sequence) or isinstance(vote, str) or len(vote) != 2:
        raise wrong_cell(row, "votes", vote, "a list of [annotator, label] pairs")
    cells = Row(row.file, row.number, {"annotator": vote[0], "label": vote[1]})
    return Ballot(label_cell(cells, "label"), name_cell(cells, "annotator"))


_EVALICA_TEXTS = (("response_left", "response_right"), ("response_a", "response_b"))


def evalica(columns: Sequence[str]) -> Layout:
    """Rows with the systems in `left` and `right`; the texts must be there as well.

    Raises:
        InputError: only the systems' names are there.
    """
    labels = {"left": Outcome.A, "right": Outcome.B, "tie": Outcome.TIE}
    for left, right in _EVALICA_TEXTS:
        if {"prompt", left, right} <= set(columns):
            names = ColumnNames(response_a=left, response_b=right, model_a="left", model_b="right")
            layout = _by_columns("evalica", names, labels)
            return Layout("evalica", layout.needs, layout.winner, labels, layout.parse)
    raise InputError(
        f"the texts are missing: 'left' and 'right' name systems only (columns: "
        f"{', '.join(columns)})",
        fix="add the columns prompt, response_left and response_right with the texts; "
        "a judge reads answers, names alone can only be ranked",
    )
