"""One row of a votes file, its typed cells, and what a row becomes: a draft of a pair with ballots.

Knows nothing of file types (see `rows`) and of the layouts of public data sets (see `layouts`,
`arena`, `trl`): it only turns cells into text, names, weights and turns, and says what is wrong
with one that cannot be turned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litee.errors import InputError

NULL_PROMPT = "null prompt"
NULL_RESPONSE = "null response"
NULL_TURN = "null turn"
NO_USER_TURN = "no user turn"
UNEVEN_TURNS = "turns do not match"
OTHER_USER_TURNS = "user turns differ between A and B"
NOT_TEXT = "message with an image or a file"
OTHER_ROLE = "message of a tool or another role"
NO_WINNER = "no winner"
DUPLICATE = "exact duplicate of an earlier row"
BLANK = "blank line"
HIDDEN_REPEAT = "hidden repeat of a pair (for self-agreement)"
ATTENTION_CHECK = "attention check"
SKIPPED = "skipped by the voter"
TAKEN_BACK = "vote taken back"
EXCLUDED_VOTER = "voter excluded by the owner"

#: Why a row of the voting page's database is no vote; its pair is not lost.
PAGE_REASONS = (HIDDEN_REPEAT, ATTENTION_CHECK, SKIPPED, TAKEN_BACK, EXCLUDED_VOTER)

EMPTY_ANSWER = "empty answer"
EMPTY_PROMPT = "empty prompt"
SAME_ANSWERS = "identical answers"
SAME_BUT_WINNER = "winner given for identical answers"
LONG_ANSWER = "answer over 100,000 characters"
READS_NAN = "answer reads 'nan'"
SURROGATE = "broken character replaced by U+FFFD"
SYSTEM_LEFT_OUT = "system message left out"
JOINED = "neighbouring messages of one role joined"
MARGIN_IGNORED = "margin or label column ignored"
PLAIN_CELL = "plain text where a JSON list was expected"
REPEATED_VOTER = "one annotator votes again on the same pair"

#: Reason → what the user can do about it, shown with `strict`.
FIXES: Mapping[str, str] = {
    NULL_PROMPT: "fill in the prompt or remove the row",
    NULL_RESPONSE: 'fill in the answer (or "" for an empty one) or remove the row',
    NULL_TURN: "fill in the turn, or remove the row",
    NO_USER_TURN: "start the conversation with a user turn or remove the row",
    UNEVEN_TURNS: "give one answer per user turn in both responses",
    OTHER_USER_TURNS: "compare answers to the same user turns, or remove the row",
    NOT_TEXT: "remove the row: only text can be judged",
    OTHER_ROLE: "keep only user and assistant messages, or remove the row",
    NO_WINNER: "fill in the winner or remove the row",
    DUPLICATE: "remove the repeated row",
    BLANK: "remove the blank line",
    **dict.fromkeys(
        PAGE_REASONS,
        "read without --strict: the voting page's database holds more than votes",
    ),
}

Turns = tuple[str, ...]


class UnusableError(Exception):
    """A row that is well-formed but holds no usable pair; it is dropped and counted by reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file.

    Attributes:
        file: the file as the user named it.
        number: its place, counted from 1 (a table's header is row 1).
        cells: column → value as the file type gives it.
    """

    file: str
    number: int
    cells: Mapping[str, object]

    @property
    def place(self) -> str:
        """Where the row is, for a message.

        >>> Row("votes.csv", 17, {}).place
        'votes.csv, row 17'
        """
        return f"{self.file}, row {self.number}"


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote of a draft; the label is still the file's own word, None when there is none."""

    label: str | None
    annotator: str = ""
    weight: float = 1.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a row holds, before ids are checked and votes on one pair are brought together.

    Attributes:
        prompt: user turns.
        response_a: assistant turns; the numbers of turns are not yet checked.
        response_b: likewise.
        ballots: the row's votes; empty when the file has no winners.
        id: the row's own id, "" when it has none.
        pair_id: the pair's id where the layout has one, else "".
        model_a: "" when unknown.
        model_b: likewise.
        source: None when the file does not say.
        notes: oddities already noticed while reading.
    """

    prompt: Turns
    response_a: Turns
    response_b: Turns
    ballots: tuple[Ballot, ...]
    id: str = ""
    pair_id: str = ""
    model_a: str = ""
    model_b: str = ""
    source: str | None = None
    notes: tuple[str, ...] = ()


def shorten(value: object, width: int = 60) -> str:
    """A value's repr, cut to `width` characters for a message.

    >>> shorten("x" * 100, 10)
    "'xxxxxxxx…"
    """
    text = repr(value[: width + 10]) if isinstance(value, str) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def mend(text: str) -> str:
    r"""Join surrogate halves and replace lone ones, so that the text can be written as UTF-8.

    >>> mend("\ud83d\ude00"), mend("a\ud83d")
    ('😀', 'a�')
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_nan(value: object) -> bool:
    """Whether a cell holds the float NaN.

    >>> is_nan(float("nan")), is_nan("nan"), is_nan(None)
    (True, False, False)
    """
    return isinstance(value, float) and math.isnan(value)


def wrong_cell(row: Row, column: str, value: object, wanted: str) -> InputError:
    """The message for a cell of the wrong kind."""
    if is_nan(value):
        fix = "NaN usually means a missing value: fill in the cell or remove the row"
        return InputError(f"column {column!r} holds NaN", place=row.place, fix=fix)
    kind = type(value).__name__
    problem = f"column {column!r} should hold {wanted}, found {kind} {shorten(value)}"
    return InputError(problem, place=row.place, fix=f"write {wanted} into the cell")


def name_cell(row: Row, column: str) -> str:
    """A short name or id; whole numbers become text, nothing becomes "".

    Raises:
        InputError: NaN, or a list, object or fraction.
    """
    value = row.cells.get(column)
    if value is None:
        return ""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise wrong_cell(row, column, value, "a name (text or whole number)")


def label_cell(row: Row, column: str) -> str | None:
    """The file's own word for the winner; None when the cell is null or blank.

    Raises:
        InputError: NaN, or a list or object.
    """
    value = row.cells.get(column)
    if isinstance(value, bool):
        return str(value).lower()
    text = name_cell(row, column).strip()
    return text or None


def weight_cell(row: Row, column: str) -> float:
    """A vote's weight; 1 when the cell is null or blank.

    Raises:
        InputError: not a number, NaN, infinite, zero or negative.
    """
    value = row.cells.get(column)
    if value is None or value == "":
        return 1.0
    try:
        number = isinstance(value, int | float | str) and not isinstance(value, bool)
        weight = float(value) if number else math.nan  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        problem = f"column {column!r}: the weight must be a finite number > 0, found {value!r}"
        raise InputError(problem, place=row.place, fix="write a positive number or leave it empty")
    return weight


def turns_of(row: Row, column: str, value: object) -> Turns:
    """Text or a list of texts as turns.

    Raises:
        UnusableError: the value or one of its turns is null.
        InputError: NaN, or another type.
    """
    null = NULL_PROMPT if column == "prompt" else NULL_RESPONSE
    if value is None:
        raise UnusableError(null)
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise wrong_cell(row, column, value, "text or a list of texts")
    for turn in value:
        if turn is not None and not isinstance(turn, str):
            raise wrong_cell(row, column, turn, "text or a list of texts")
    if not value:
        raise UnusableError(NO_USER_TURN if column == "prompt" else UNEVEN_TURNS)
    if None in value:
        raise UnusableError(null if all(turn is None for turn in value) else NULL_TURN)
    return tuple(str(turn) for turn in value)


def json_list(text: str) -> list[str | None] | None:
    r"""The turns in a cell that holds a JSON list of texts and nulls, or None.

    >>> json_list('["a", null]'), json_list("[1, 2]"), json_list("[1] says so")
    (['a', None], None, None)
    """
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        value = json.loads(stripped, strict=False)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and all(turn is None or isinstance(turn, str) for turn in value):
        return value
    return None
