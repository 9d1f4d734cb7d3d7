"""Posts from Reddit through PRAW, politely and resumably.

Credentials come from the environment (`praw_client_id`, `praw_client_secret`, `praw_user_agent`) or
from praw.ini, never from arguments. Every post is written to a journal as soon as it is whole;
a later run goes on after the last one. Knows nothing of filters.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from configparser import NoSectionError
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from litee.collect.gathering import Tally
from litee.collect.posts import Comment, Post, PostsSettings, parse_post, post_line
from litee.errors import ConfigError, InputError

_FIX = (
    "make a script application at reddit.com/prefs/apps and set praw_client_id, "
    "praw_client_secret and praw_user_agent, or write them into praw.ini"
)
#: Longest wait between two tries, seconds.
_LONGEST = 120.0

T = TypeVar("T")


@dataclass(slots=True)
class Journal:
    """What was fetched so far: a line per post, a line per finished listing.

    Attributes:
        file: JSON lines; a half-written last line is cut off.
        posts: by id, in the order in which they came.
        done: finished listings, as `travel/hot`.
    """

    file: Path
    posts: dict[str, Post] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    def read(self) -> None:
        """Take up what an earlier run wrote.

        Raises:
            InputError: the file holds something else.
        """
        if not self.file.is_file():
            return
        raw = self.file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            self.file.write_bytes(whole)
        for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                if "done" in row:
                    self.done.add(row["done"])
                else:
                    post = parse_post(row)
                    self.posts[post.id] = post
            except (ValueError, TypeError, KeyError) as error:
                place = f"{self.file}, row {number}"
                fix = "remove the file; its posts are then fetched again"
                raise InputError("not a journal of posts", place=place, fix=fix) from error

    def add(self, post: Post) -> None:
        """Keep a post."""
        self.posts[post.id] = post
        self._append(post_line(post))

    def finish(self, listing: str) -> None:
        """Keep that a listing was read to its end."""
        self.done.add(listing)
        self._append(json.dumps({"done": listing}) + "\n")

    def _append(self, line: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())


def open_reddit(site: str = "") -> Any:  # noqa: ANN401 - PRAW is optional
    """A read-only client.

    Args:
        site: section of praw.ini, "" for its default.

    Raises:
        ConfigError: there are no credentials, or praw.ini lacks the section.
        ModuleNotFoundError: PRAW is not installed (extra `reddit`).
    """
    praw = importlib.import_module("praw")
    exceptions = importlib.import_module("praw.exceptions")
    try:
        reddit = praw.Reddit(site or None, check_for_updates=False)
    except (exceptions.MissingRequiredAttributeException, KeyError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"no Reddit credentials: {problem}", fix=_FIX) from error
    except NoSectionError as error:
        raise ConfigError(f"praw.ini has no section {site!r}", fix=_FIX) from error
    reddit.read_only = True
    return reddit


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Reads listings and comments, waiting between requests and after failures.

    Attributes:
        reddit: a PRAW client.
        settings: listings, limits, pauses.
        journal: what was fetched.
        dropped: gets what could not be fetched, by reason.
        sleep: waits.
    """

    reddit: Any
    settings: PostsSettings
    journal: Journal
    dropped: Tally
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, subreddits: Sequence[str], advance: Callable[[int], None]) -> None:
        """Read all listings of all subreddits that are not finished yet.

        What cannot be fetched after all tries is counted, its listing stays unfinished, and the
        others go on.

        Args:
            subreddits: names, with or without `r/`.
            advance: is told of every listing.

        Raises:
            ConfigError: Reddit refuses the credentials.
        """
        for name in subreddits:
            for listing in self.settings.listings:
                own = f"{name.removeprefix('/').removeprefix('r/')}/{listing}"
                if own not in self.journal.done and self._listing(own):
                    self.journal.finish(own)
                advance(1)

    def _listing(self, own: str) -> bool:
        """Whether every post of a listing is in the journal now."""
        name, _, listing = own.partition("/")
        try:
            found = self._tried(lambda: list(self._submissions(name, listing)))
        except _FailedError as failed:
            self.dropped.add(f"listing: {failed}", own)
            return False
        whole = True
        for submission in found:
            if submission.id in self.journal.posts:
                continue
            self.sleep(self.settings.pause)
            try:
                self.journal.add(self._tried(partial(_post, submission)))
            except _FailedError as failed:
                self.dropped.add(f"post: {failed}", submission.id)
                whole = whole and failed.final
        return whole

    def _submissions(self, name: str, listing: str) -> Iterator[Any]:
        subreddit = self.reddit.subreddit(name)
        if listing == "top":
            return iter(
                subreddit.top(time_filter=self.settings.time_filter, limit=self.settings.limit)
            )
        return iter(getattr(subreddit, listing)(limit=self.settings.limit))

    def _tried(self, work: Callable[[], T]) -> T:
        """The result of `work`, tried again after 429, 5xx and broken connections."""
        core = importlib.import_module("prawcore.exceptions")
        for attempt in range(self.settings.retries + 1):
            try:
                return work()
            except (core.OAuthException, core.InvalidToken) as error:
                raise ConfigError(f"Reddit refuses the credentials: {error}", fix=_FIX) from error
            except core.ResponseException as error:
                status = error.response.status_code
                if status == 401:
                    problem = "Reddit refuses the credentials: HTTP 401"
                    raise ConfigError(problem, fix=_FIX) from error
                if status != 429 and status < 500:
                    raise _FailedError(f"HTTP {status}", final=True) from error
                reason = f"HTTP {status}"
                wait = _retry_after(error.response.headers.get("retry-after"))
            except (core.RequestException, core.BadJSON) as error:
                reason, wait = _cause(error), None
            if attempt < self.settings.retries:
                backoff = 2.0**attempt * random.uniform(0.5, 1.0)
                self.sleep(min(_LONGEST, max(wait or 0.0, backoff)))
        raise _FailedError(f"{reason} after {self.settings.retries + 1} tries", final=False)


class _FailedError(Exception):
    """A request that brought nothing; `final` when another run would bring nothing either."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


def _retry_after(value: str | None) -> float | None:
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None


def _cause(error: Exception) -> str:
    """What went wrong below PRAW, without addresses."""
    inner = getattr(error, "original_exception", error)
    return f"network failure ({type(inner).__name__})"


def _post(submission: Any) -> Post:  # noqa: ANN401
    """The fields of a submission with its comments as a flat list; authors are not read."""
    submission.comments.replace_more(limit=0)
    comments = tuple(
        Comment(str(c.id), str(c.body), int(c.score)) for c in submission.comments.list()
    )
    return Post(
        id=str(submission.id),
        subreddit=str(submission.subreddit),
        title=str(submission.title),
        text=str(submission.selftext or ""),
        created=float(submission.created_utc),
        url=str(submission.url),
        upvote_ratio=float(submission.upvote_ratio),
        score=int(submission.score),
        flair=str(submission.link_flair_text or ""),
        comments=comments,
    )
