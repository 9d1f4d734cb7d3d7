"""Posts as what the other commands read: documents, demonstrations, preference pairs.

Preference pairs follow the travel paper: the order of comments is the people's signal, the first
quarter against the last. Its traps are avoided: sides are drawn at random, and answers of a pair
are of similar length, because a cue like length lets a judge be right for the wrong reason. Knows
nothing of filters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from litee.collect.gathering import Tally
from litee.collect.posts import Comment, Post
from litee.records import Demonstration, Message
from litee.rundir import Json

FEW = "post with fewer than four comments"
UNLIKE_LENGTH = "post whose first and last comments differ too much in length"
SAME = "post whose first and last comments are the same"

#: Largest ratio of the lengths of a pair's answers.
_RATIO = 2.0


def documents(posts: Sequence[Post]) -> Iterator[dict[str, Json]]:
    """A document per post: the question and all comments, apart by blank lines."""
    for post in posts:
        text = "\n\n".join([post.question, *(comment.text.strip() for comment in post.comments)])
        yield {
            "id": f"{post.subreddit}/{post.id}",
            "title": post.title.strip(),
            "text": text,
            "source": post.url,
        }


def demonstrations(posts: Sequence[Post]) -> Iterator[Demonstration]:
    """A question with its first comment, for supervised fine-tuning."""
    for post in posts:
        first = post.comments[0]
        yield Demonstration(
            f"{post.subreddit}/{post.id}",
            (Message("user", post.question), Message("assistant", first.text.strip())),
            source=f"reddit/{post.subreddit}",
            topic=post.subreddit,
            score=float(first.score),
        )


def preferences(posts: Sequence[Post], *, seed: int, dropped: Tally) -> Iterator[dict[str, Json]]:
    """A vote per post: a comment of the first quarter beats one of the last.

    Of the pairs whose lengths differ by a factor of two at most, the one with the nearest
    lengths is taken.

    Args:
        posts: filtered.
        seed: of the sides.
        dropped: gets the posts that give no pair.
    """
    rng = np.random.default_rng(seed)
    for post in posts:
        swapped = bool(rng.integers(2))
        pair = _pair(post.comments, dropped, post.id)
        if pair is None:
            continue
        better, worse = (comment.text.strip() for comment in pair)
        yield {
            "id": f"{post.subreddit}/{post.id}",
            "prompt": [post.question],
            "response_a": [worse if swapped else better],
            "response_b": [better if swapped else worse],
            "winner": "b" if swapped else "a",
            "source": f"reddit/{post.subreddit}",
        }


def _pair(
    comments: Sequence[Comment], dropped: Tally, place: str
) -> tuple[Comment, Comment] | None:
    quarter = len(comments) // 4
    if not quarter:
        dropped.add(FEW, place)
        return None
    found: list[tuple[float, int, int]] = []
    alike = False
    for i, first in enumerate(comments[:quarter]):
        for j, last in enumerate(comments[-quarter:]):
            lengths = sorted((len(first.text.strip()), len(last.text.strip())))
            ratio = lengths[1] / max(1, lengths[0])
            if first.text.strip() == last.text.strip():
                alike = True
            elif ratio <= _RATIO:
                found.append((ratio, i, j))
    if not found:
        dropped.add(SAME if alike else UNLIKE_LENGTH, place)
        return None
    _, i, j = min(found)
    return comments[i], comments[len(comments) - quarter + j]
