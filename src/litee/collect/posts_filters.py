"""The filter chain of the travel paper, with the number of posts and comments after each step.

Source: the funnel of arXiv 2408.03562: no repeats, English title, up-vote ratio of at least 0.8,
first 20 comments, no post without comments; then question and answer must be alike. Deleted texts
and personal data go too. Knows nothing of where posts come from; the encoder is handed in.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from litee.collect.gathering import Tally
from litee.collect.posts import Comment, Post, PostsSettings
from litee.collect.posts_privacy import scrub

GONE_POST = "deleted or removed post"
GONE_COMMENT = "deleted, removed or empty comment"
MORE_COMMENTS = "comment beyond the first ones"
NO_COMMENT = "post without a usable comment"
OTHER_LANGUAGE = "title in another language"
LOW_RATIO = "up-vote ratio too low"
NO_RATIO = "up-vote ratio unknown"
REPEAT = "post that was read before"
UNLIKE = "question and first comment too unlike"

#: What stands where a text was.
GONE = frozenset({"", "[deleted]", "[removed]", "[ removed by reddit ]"})


class Encoder(Protocol):
    """What turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, width) unit vectors."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a filter left: its name, posts, comments."""

    name: str
    posts: int
    comments: int


def filter_posts(
    posts: Iterable[Post],
    settings: PostsSettings,
    *,
    dropped: Tally,
    encoder: Encoder | None = None,
) -> tuple[list[Post], list[Step]]:
    """Posts that pass all filters, and what each step left.

    Args:
        posts: of an id that occurs twice the last is kept, as the paper does.
        settings: thresholds.
        dropped: gets every removal, by reason.
        encoder: of questions and comments; needed when `min_similarity` is set.

    Raises:
        ValueError: `min_similarity` is set and there is no encoder.
        ModuleNotFoundError: py3langid is not installed (extra `reddit`) and a language is asked.
    """
    if settings.min_similarity is not None and encoder is None:
        raise ValueError("min_similarity needs an encoder")
    found = list(posts)
    steps = [_step("read", found)]
    chain: list[tuple[str, Callable[[list[Post]], list[Post]]]] = [
        ("no repeats", lambda now: _distinct(now, dropped)),
        ("not deleted", lambda now: _present(now, dropped)),
    ]
    if settings.language:
        label = f"title in {settings.language}"
        chain.append((label, lambda now: _language(now, settings.language, dropped)))
    label = f"up-vote ratio ≥ {settings.min_upvote_ratio:g}"
    chain += [
        (label, lambda now: _ratio(now, settings.min_upvote_ratio, dropped)),
        (
            f"first {settings.most_comments} comments, at least one",
            lambda now: _commented(now, settings.most_comments, dropped),
        ),
    ]
    least = settings.min_similarity
    if least is not None and encoder is not None:
        label = f"similarity ≥ {least:g}"
        chain.append((label, lambda now: _alike(now, least, encoder, dropped)))
    for name, work in chain:
        found = work(found)
        steps.append(_step(name, found))
    return found, steps


def scrub_posts(posts: Iterable[Post], removed: Tally) -> list[Post]:
    """The posts without user names, mail addresses and phone numbers; each is counted."""

    def clean(text: str, place: str) -> str:
        text, counts = scrub(text)
        for kind, count in counts.items():
            for _ in range(count):
                removed.add(kind, place)
        return text

    return [
        replace(
            post,
            title=clean(post.title, post.id),
            text=clean(post.text, post.id),
            comments=tuple(replace(c, text=clean(c.text, c.id)) for c in post.comments),
        )
        for post in posts
    ]


def _step(name: str, posts: Sequence[Post]) -> Step:
    return Step(name, len(posts), sum(len(post.comments) for post in posts))


def _gone(text: str) -> bool:
    return text.strip().casefold() in GONE


def _distinct(posts: Sequence[Post], dropped: Tally) -> list[Post]:
    last = {post.id: number for number, post in enumerate(posts)}
    kept = []
    for number, post in enumerate(posts):
        if last[post.id] == number:
            kept.append(post)
        else:
            dropped.add(REPEAT, post.id)
    return kept


def _present(posts: Sequence[Post], dropped: Tally) -> list[Post]:
    """Posts that were not deleted (a post may have no text, but not a removed one)."""
    kept = []
    for post in posts:
        if _gone(post.title) or (post.text.strip() and _gone(post.text)):
            dropped.add(GONE_POST, post.id)
        else:
            kept.append(post)
    return kept


def _language(posts: Sequence[Post], language: str, dropped: Tally) -> list[Post]:
    library = importlib.import_module("py3langid")
    kept = []
    for post in posts:
        if library.classify(post.title)[0] == language:
            kept.append(post)
        else:
            dropped.add(OTHER_LANGUAGE, post.id)
    return kept


def _ratio(posts: Sequence[Post], least: float, dropped: Tally) -> list[Post]:
    kept = []
    for post in posts:
        if post.upvote_ratio is None and least > 0:
            dropped.add(NO_RATIO, post.id)
        elif (post.upvote_ratio or 0.0) < least:
            dropped.add(LOW_RATIO, post.id)
        else:
            kept.append(post)
    return kept


def _commented(posts: Sequence[Post], most: int, dropped: Tally) -> list[Post]:
    kept = []
    for post in posts:
        comments: list[Comment] = []
        for comment in post.comments:
            if _gone(comment.text):
                dropped.add(GONE_COMMENT, comment.id)
            elif len(comments) == most:
                dropped.add(MORE_COMMENTS, comment.id)
            else:
                comments.append(comment)
        if comments:
            kept.append(replace(post, comments=tuple(comments)))
        else:
            dropped.add(NO_COMMENT, post.id)
    return kept


def _alike(posts: Sequence[Post], least: float, encoder: Encoder, dropped: Tally) -> list[Post]:
    if not posts:
        return []
    questions = encoder.encode([post.question for post in posts])
    answers = encoder.encode([post.comments[0].text for post in posts])
    kept = []
    for post, cosine in zip(posts, (questions * answers).sum(axis=1), strict=True):
        if cosine >= least:
            kept.append(post)
        else:
            dropped.add(UNLIKE, post.id)
    return kept
