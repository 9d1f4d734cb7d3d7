"""Posts out of Reddit dumps in Pushshift's format: submissions and comments, JSON lines, packed.

Submissions are held in memory, of each only its best comments. Knows nothing of filters and of
Reddit's API.
"""

from __future__ import annotations

import heapq
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from litee.collect.gathering import Tally
from litee.collect.posts import Comment, Post
from litee.collect.posts_filters import GONE, GONE_COMMENT, MORE_COMMENTS
from litee.collect.zst import json_lines
from litee.errors import InputError

NO_PARENT = "comment on a post that is not in the dump"
REPLY = "comment on a comment"
NEITHER = "row that is neither post nor comment"


@dataclass(slots=True)
class _Held:
    """A submission and its best direct comments: a heap of (score, order, comment)."""

    post: Post
    best: list[tuple[int, int, Comment]] = field(default_factory=list)


def read_dumps(paths: Sequence[Path], most: int, dropped: Tally) -> list[Post]:
    """Posts with their direct comments, the best-scored first.

    Args:
        paths: dumps of submissions and of comments, in any order.
        most: comments held per post.
        dropped: gets what was left out.

    Raises:
        InputError: a file is missing or damaged, or there is no submission.
    """
    held: dict[str, _Held] = {}
    later: list[Path] = []
    for path in paths:
        if _holds_comments(path):
            later.append(path)
            continue
        for number, row in json_lines(path, dropped):
            post = _post(row)
            if post is None:
                dropped.add(NEITHER, f"{path}, row {number}")
            else:
                held[post.id] = _Held(post)
    if not held:
        fix = "give the dump of submissions too, e.g. travel_submissions.zst travel_comments.zst"
        raise InputError("no submission in the dumps", place=", ".join(map(str, paths)), fix=fix)
    for path in later:
        for number, row in json_lines(path, dropped):
            _comment(row, f"{path}, row {number}", held, most, dropped)
    return [
        replace(one.post, comments=tuple(c for _, _, c in sorted(one.best, key=_order)))
        for one in held.values()
    ]


def _order(entry: tuple[int, int, Comment]) -> tuple[int, int]:
    return (-entry[0], -entry[1])


def _holds_comments(path: Path) -> bool:
    for _, row in json_lines(path, Tally()):
        return "body" in row and "title" not in row
    return False


def _text(value: object) -> str:
    return html.unescape(value) if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _seconds(value: object) -> float:
    """Seconds since 1970, which some dumps hold as text; 0 when they are unusable."""
    text = f"{value}"
    return float(text) if re.fullmatch(r"\d{1,12}(\.\d+)?", text) else 0.0


def _post(row: Mapping[str, object]) -> Post | None:
    own, title = row.get("id"), row.get("title")
    if not isinstance(own, str) or not isinstance(title, str):
        return None
    ratio = row.get("upvote_ratio")
    return Post(
        id=own,
        subreddit=_text(row.get("subreddit")),
        title=_text(title),
        text=_text(row.get("selftext")),
        created=_seconds(row.get("created_utc")),
        url=_text(row.get("permalink") or row.get("url")),
        upvote_ratio=float(ratio) if isinstance(ratio, int | float) else None,
        score=_whole(row.get("score")),
        flair=_text(row.get("link_flair_text")),
    )


def _comment(
    row: Mapping[str, object], place: str, held: Mapping[str, _Held], most: int, dropped: Tally
) -> None:
    body, link, parent = row.get("body"), row.get("link_id"), row.get("parent_id")
    if not isinstance(body, str) or not isinstance(link, str):
        dropped.add(NEITHER, place)
        return
    one = held.get(link.removeprefix("t3_"))
    if one is None:
        dropped.add(NO_PARENT, place)
    elif isinstance(parent, str) and parent != link:
        dropped.add(REPLY, place)
    elif body.strip() in GONE:
        # they would take the places of good comments
        dropped.add(GONE_COMMENT, place)
    else:
        score = _whole(row.get("score"))
        number = -int(place.rpartition(" ")[2])
        entry = (score, number, Comment(str(row.get("id")), _text(body), score))
        if len(one.best) < most:
            heapq.heappush(one.best, entry)
        else:
            dropped.add(MORE_COMMENTS, heapq.heappushpop(one.best, entry)[2].id)
