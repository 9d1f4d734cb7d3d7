"""Reddit dumps in Pushshift's format (JSON lines, usually .zst) to demonstrations and prompts.

A submission with its best comment gives a demonstration (r/WritingPrompts in LIMA); submissions
alone give prompts (r/AskReddit in LIMA, for testing only). Memory grows with `per_site`, not with
the dump. Knows nothing of Reddit's API.
"""

from __future__ import annotations

import heapq
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from litee.collect.cells import mend
from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.lima_filters import LOW_SCORE, NOT_ALONE, length_fault, stands_alone
from litee.collect.reading import Reading
from litee.collect.stack_exchange import CROWDED
from litee.errors import InputError
from litee.records import Demonstration, Message

DELETED = "deleted or removed"
ADULT = "marked as for adults only"
MODERATOR = "post of a moderator or a bot"
NO_FIELDS = "neither a submission nor a comment"
NO_COMMENT = "submission without a usable comment"
NESTED = "comment on a comment"
NOT_BEST = "not the submission's best comment"

_GONE = frozenset({"", "[deleted]", "[removed]"})
_TAG = re.compile(r"^\s*[\[({][A-Za-z /]{2,20}[\])}]\s*[:\-–]?\s*")
#: Marks of posts that are no prompts: off topic, replies to a prompt, theme threads.
_OTHER_TAGS = re.compile(r"^\s*[\[({]\s*(?:OT|PI|MODPOST|Meta|IP|MP)\b", re.IGNORECASE)
OTHER_TAG = "tagged as something else than a prompt"


@dataclass(slots=True)
class _Submission:
    """A held submission and its best comment so far."""

    id: str
    subreddit: str
    prompt: str
    score: float
    answer: str = ""
    answer_score: float = float("-inf")


@dataclass(slots=True)
class _Held:
    """The best-scored submissions per subreddit."""

    limit: int
    by_id: dict[str, _Submission] = field(default_factory=dict)
    heaps: dict[str, list[tuple[float, str]]] = field(default_factory=dict)

    def add(self, item: _Submission) -> str:
        """Hold a submission; the id of the one that had to go, "" when none had."""
        heap = self.heaps.setdefault(item.subreddit, [])
        if item.id in self.by_id:
            return item.id
        self.by_id[item.id] = item
        heapq.heappush(heap, (item.score, item.id))
        if len(heap) <= self.limit:
            return ""
        _, out = heapq.heappop(heap)
        del self.by_id[out]
        return out


def read_reddit(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Submissions with their best direct comment, sampled over subreddits.

    Args:
        paths: dumps of submissions and of comments, in any order.
        reading: settings and counts.

    Raises:
        InputError: no dump of submissions, or none of comments.
    """
    submissions, comments = _sorted_paths(paths)
    if not submissions or not comments:
        missing = "comments" if submissions else "submissions"
        fix = "give both, e.g. WritingPrompts_submissions.zst WritingPrompts_comments.zst"
        raise InputError(
            f"no dump of {missing} among the files", place=", ".join(map(str, paths)), fix=fix
        )
    held = _hold_submissions(submissions, reading, alone=False)
    for path in comments:
        for number, row in reading.json_lines(path):
            _comment(row, f"{path}, row {number}", held, reading)
    pools: dict[str, list[Demonstration]] = {}
    for item in _best_first(held):
        if not item.answer:
            reading.removed.add(NO_COMMENT, f"submission {item.id}")
            continue
        messages = (Message("user", item.prompt), Message("assistant", item.answer))
        pools.setdefault(item.subreddit, []).append(
            Demonstration(
                f"reddit/{item.id}",
                messages,
                source=f"reddit/{item.subreddit}",
                topic=item.subreddit,
                score=item.answer_score,
            )
        )
    count = reading.settings.n or sum(map(len, pools.values()))
    yield from reading.sample(pools, count, reading.settings.temperature)


def read_prompts(paths: Sequence[Path], reading: Reading) -> Iterator[tuple[str, str, str]]:
    """Id, subreddit and title of the best-scored submissions whose title stands alone.

    For test prompts: LIMA took 70 from r/AskReddit and tuned on none of them.

    Raises:
        InputError: no dump of submissions.
    """
    submissions, _ = _sorted_paths(paths)
    if not submissions:
        place = ", ".join(map(str, paths))
        raise InputError("no dump of submissions", place=place, fix="give a file of submissions")
    held = _hold_submissions(submissions, reading, alone=True)
    for item in islice(_best_first(held), reading.settings.n or None):
        yield f"reddit/{item.id}", item.subreddit, item.prompt


def _sorted_paths(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Files of submissions and of comments, told apart by their first readable record."""
    found: tuple[list[Path], list[Path]] = ([], [])
    for path in paths:
        quiet = Reading(DemonstrationSettings.model_validate({"salvage": True}))
        first = next((row for _, row in quiet.json_lines(path)), None)
        if first is None:
            lost = sum(quiet.lost.counts.values())
            raise InputError(
                f"holds no readable record ({lost:,} broken)",
                place=str(path),
                fix="give a dump of JSON lines, packed or not",
            )
        if "title" not in first and "body" not in first:
            fix = "give a Pushshift dump: submissions have a title, comments a body"
            raise InputError(f"{NO_FIELDS}: {', '.join(first)[:80]}", place=str(path), fix=fix)
        found["title" not in first].append(path)
    return found


def _best_first(held: _Held) -> Iterator[_Submission]:
    yield from sorted(held.by_id.values(), key=lambda s: (-s.score, s.id))


def _text(row: dict[str, object], name: str) -> str:
    value = row.get(name)
    return html.unescape(mend(value)).strip() if isinstance(value, str) else ""


def _score(row: dict[str, object]) -> float:
    value = row.get("score")
    number = isinstance(value, int | float) and abs(value) < 1e15
    return float(value) if number else 0.0  # type: ignore[arg-type]


def _hold_submissions(paths: Sequence[Path], reading: Reading, *, alone: bool) -> _Held:
    held = _Held(reading.settings.per_site)
    for path in paths:
        for number, row in reading.json_lines(path):
            place = f"{path}, row {number}"
            reading.read += 1
            fault = _submission_fault(row, alone=alone)
            if fault:
                reading.removed.add(fault, place)
                continue
            title = _text(row, "title")
            prompt = title if alone else _TAG.sub("", title)
            body = "" if alone or _text(row, "selftext") in _GONE else _text(row, "selftext")
            item = _Submission(
                str(row["id"]),
                _text(row, "subreddit") or "reddit",
                f"{prompt}\n\n{body}".strip(),
                _score(row),
            )
            out = held.add(item)
            if out:
                reading.removed.add(CROWDED, place)
    return held


def _submission_fault(row: dict[str, object], *, alone: bool) -> str:
    """Why a submission is not used, "" when it is."""
    title = _text(row, "title")
    if not title or not isinstance(row.get("id"), str):
        return NO_FIELDS
    if title in _GONE or _text(row, "selftext") == "[removed]" or not _TAG.sub("", title):
        return DELETED
    if row.get("over_18") is True:
        return ADULT
    if row.get("distinguished") or row.get("stickied") is True:
        return MODERATOR
    if alone:
        return "" if stands_alone(title) else NOT_ALONE
    return OTHER_TAG if _OTHER_TAGS.match(title) else ""


def _comment(row: dict[str, object], place: str, held: _Held, reading: Reading) -> None:
    """Let a comment compete for its submission's answer."""
    link, body = row.get("link_id"), _text(row, "body")
    if not isinstance(link, str):
        reading.lost.add(NO_FIELDS, place)
        return
    item = held.by_id.get(link.removeprefix("t3_"))
    if item is None:  # a comment on a submission that is not held
        return
    reading.read += 1
    fault = _comment_fault(row, body, reading)
    if fault:
        reading.removed.add(fault, place)
        return
    score = _score(row)
    if item.answer:
        reading.removed.add(NOT_BEST, place)
    if score > item.answer_score:
        item.answer, item.answer_score = body, score


def _comment_fault(row: dict[str, object], body: str, reading: Reading) -> str:
    settings = reading.settings
    if body in _GONE:
        return DELETED
    if row.get("parent_id") != row.get("link_id"):
        return NESTED
    if row.get("distinguished") or row.get("stickied") is True:
        return MODERATOR
    if _score(row) < settings.min_score:
        return LOW_SCORE
    return length_fault(body, settings.min_chars, settings.max_chars)
