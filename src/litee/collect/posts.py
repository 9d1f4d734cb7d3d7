"""Posts of a community with their comments: the record, its file, the settings.

Authors are never part of a record. Knows nothing of where posts come from and of what they are
used for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from litee.collect.gathering import Tally
from litee.collect.zst import json_lines
from litee.config import Settings
from litee.rundir import atomic_writer

NO_POST = "row that is no post"


class PostsSettings(Settings):
    """Settings of `litee data posts`; the defaults are the travel paper's (arXiv 2408.03562)."""

    listings: tuple[Literal["hot", "top", "new"], ...] = Field(
        ("hot", "top"), min_length=1, description="Listings of a subreddit that are read."
    )
    limit: int = Field(100, ge=1, le=1000, description="Posts per subreddit and listing.")
    time_filter: Literal["hour", "day", "week", "month", "year", "all"] = Field(
        "year", description="Span of the top listing."
    )
    pause: float = Field(2.0, ge=0, description="Seconds between two requests.")
    retries: int = Field(
        5, ge=0, description="How often a failed request is sent again, with growing waits."
    )
    language: str = Field("en", description="Language that a title must have; empty: any.")
    min_upvote_ratio: float = Field(
        0.8, ge=0, le=1, description="Lowest share of up-votes among a post's votes."
    )
    most_comments: int = Field(20, ge=1, description="Comments kept of a post, the first ones.")
    min_similarity: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Lowest cosine of question and first comment; none: not asked.",
    )
    seed: int = Field(0, ge=0, description="Seed of the sides of preference pairs.")


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment: its text and its score (up-votes less down-votes)."""

    id: str
    text: str
    score: int = 0


@dataclass(frozen=True, slots=True)
class Post:
    """A post with its comments in the order in which readers see them.

    Attributes:
        id: the community's.
        subreddit: or another name of the community.
        title: one line.
        text: the body, often "".
        created: seconds since 1970, UTC.
        url: of the post.
        upvote_ratio: share of up-votes, None when unknown.
        score: up-votes less down-votes.
        flair: a category, "" for none.
        comments: without their authors.
    """

    id: str
    subreddit: str
    title: str
    text: str = ""
    created: float = 0.0
    url: str = ""
    upvote_ratio: float | None = None
    score: int = 0
    flair: str = ""
    comments: tuple[Comment, ...] = ()

    @property
    def question(self) -> str:
        r"""Title and body.

        >>> Post("1", "travel", "Lisbon?", "Two days.").question
        'Lisbon?\n\nTwo days.'
        """
        return "\n\n".join(part for part in (self.title.strip(), self.text.strip()) if part)


def post_line(post: Post) -> str:
    """A post as one line of JSON."""
    return json.dumps(asdict(post), ensure_ascii=False) + "\n"


def write_posts(path: Path, posts: Iterable[Post]) -> int:
    """Write posts as JSON lines; returns their number."""
    count = 0
    with atomic_writer(path) as handle:
        for post in posts:
            handle.write(post_line(post))
            count += 1
    return count


def read_posts(path: Path, dropped: Tally) -> Iterator[Post]:
    """Posts that `write_posts` wrote; other rows are counted.

    Raises:
        InputError: the file is missing or damaged.
    """
    for number, row in json_lines(path, dropped):
        try:
            yield parse_post(row)
        except (KeyError, TypeError, ValueError):
            dropped.add(NO_POST, f"{path}, row {number}")


def parse_post(row: Mapping[str, object]) -> Post:
    """A post from its JSON form.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    cells = dict(row)
    comments = cells.pop("comments", ())
    if not isinstance(comments, list | tuple):
        raise TypeError("comments is no list")
    known = tuple(Comment(**comment) for comment in comments)
    post = Post(**{**cells, "comments": known})  # type: ignore[arg-type]
    texts = (post.id, post.subreddit, post.title, post.text, *(c.text for c in known))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is no string")
    return post
