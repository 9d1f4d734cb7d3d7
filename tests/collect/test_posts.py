"""Dumps to posts, the filter chain with its counts, personal data, and what posts become."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litee.collect.gathering import Tally
from litee.collect.posts import Comment, Post, PostsSettings, read_posts, write_posts
from litee.collect.posts_dump import read_dumps
from litee.collect.posts_export import demonstrations, documents, preferences
from litee.collect.posts_filters import filter_posts, scrub_posts
from litee.collect.posts_privacy import scrub
from litee.errors import InputError

ENGLISH = "What is the best time of the year to visit Lisbon?"
GERMAN = "Wann ist die beste Zeit, um nach Lissabon zu reisen?"


def post(own: str, title: str = ENGLISH, *texts: str, ratio: float | None = 0.9, text: str = ""):
    comments = tuple(Comment(f"{own}{k}", said, 9 - k) for k, said in enumerate(texts))
    return Post(own, "travel", title, text, upvote_ratio=ratio, comments=comments)


class Lengths:
    """An encoder whose vectors turn with the number of words: unlike lengths, unlike texts."""

    def encode(self, texts):
        angles = np.array([len(text.split()) for text in texts]) / 20
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_every_step_of_the_chain_is_counted():
    posts = [
        post("a", ENGLISH, "In May."),
        post("b", GERMAN, "Im Mai."),
        post("c", ENGLISH, "In June.", ratio=0.79),
        post("d", ENGLISH, "In July.", ratio=0.8),
        post("e", ENGLISH, "[removed]", " ", "[deleted]"),
        post("f", ENGLISH, "In May.", text="[removed]"),
        post("g", ENGLISH, "1", "2", "3", "4"),
        post("h", ENGLISH, "In May.", ratio=None),
        post("a", ENGLISH, "In May!", "Or June."),
    ]
    dropped = Tally()
    kept, steps = filter_posts(posts, PostsSettings(most_comments=3), dropped=dropped)
    assert [p.id for p in kept] == ["d", "g", "a"]
    assert [c.text for c in kept[2].comments] == ["In May!", "Or June."]  # the last one stays
    assert [(s.posts, s.comments) for s in steps] == [
        (9, 15),
        (8, 14),
        (7, 13),
        (6, 12),
        (4, 10),
        (3, 6),
    ]
    assert dropped.counts == {
        "post that was read before": 1,
        "deleted or removed post": 1,
        "title in another language": 1,
        "up-vote ratio too low": 1,
        "up-vote ratio unknown": 1,
        "deleted, removed or empty comment": 3,
        "post without a usable comment": 1,
        "comment beyond the first ones": 1,
    }


def test_similarity_has_a_threshold():
    near, far = post("a", ENGLISH, "one " * 10), post("b", ENGLISH, "one " * 40)
    settings = PostsSettings(min_similarity=0.9)
    dropped = Tally()
    kept, steps = filter_posts([near, far], settings, dropped=dropped, encoder=Lengths())
    assert [p.id for p in kept] == ["a"]
    assert steps[-1].name == "similarity ≥ 0.9"
    assert dropped.counts == {"question and first comment too unlike": 1}
    with pytest.raises(ValueError, match="needs an encoder"):
        filter_posts([near], settings, dropped=Tally())


def test_personal_data_goes_and_is_counted():
    one = post("a", "Ask /u/Some_One", "mail x.y@home.co.uk", "or https://reddit.com/user/them")
    removed = Tally()
    (clean,) = scrub_posts([one], removed)
    assert clean.title == "Ask [user]"
    assert [c.text for c in clean.comments] == ["mail [mail]", "or [user]"]
    assert removed.counts == {"user name": 2, "mail address": 1}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("u/ab-cd, u/x", "[user], u/x"),  # names have two letters or more
        ("call 415-555-0100 or (415) 555-0100", "call [phone] or [phone]"),
        ("+351 21 123 4567.", "[phone]."),
        ("thanks @traveller_1!", "thanks [user]!"),
        ("r/travel and w/u/ok", "r/travel and w/u/ok"),
        ("from 2019-05-20 to 2020", "from 2019-05-20 to 2020"),
        ("flight 123 456 at 10.30 for 1 200 EUR", "flight 123 456 at 10.30 for 1 200 EUR"),
        ("50.0870 14.4208", "50.0870 14.4208"),
    ],
)
def test_forms_of_personal_data(text, clean):
    assert scrub(text)[0] == clean


@given(st.text(alphabet="u/@ab.-+ 0123456789()_", max_size=60))
def test_scrubbing_twice_changes_nothing_more(text):
    once, _ = scrub(text)
    again, counts = scrub(once)
    assert (again, counts) == (once, {})
    assert not re.search(r"\b[\w.+-]+@\w+\.\w+", once)


def dump(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_dumps_are_joined_best_comments_first(tmp_path):
    submissions = dump(
        tmp_path / "s.jsonl",
        [
            {"id": "a", "title": "A &amp; B?", "subreddit": "travel", "created_utc": "1700000000"},
            {"id": "b", "title": "C?", "subreddit": "travel", "upvote_ratio": 0.7, "score": 3},
            {"note": "neither"},
        ],
    )
    comments = dump(
        tmp_path / "c.jsonl",
        [
            {"id": "1", "body": "low", "link_id": "t3_a", "parent_id": "t3_a", "score": 1},
            {"id": "2", "body": "high", "link_id": "t3_a", "parent_id": "t3_a", "score": 8},
            {"id": "3", "body": "[deleted]", "link_id": "t3_a", "parent_id": "t3_a", "score": 90},
            {"id": "4", "body": "reply", "link_id": "t3_a", "parent_id": "t1_2", "score": 7},
            {"id": "5", "body": "lost", "link_id": "t3_z", "parent_id": "t3_z", "score": 7},
            {"id": "6", "body": "also low", "link_id": "t3_a", "parent_id": "t3_a", "score": 1},
        ],
    )
    dropped = Tally()
    found = read_dumps([comments, submissions], 2, dropped)
    assert [(p.id, p.title, p.upvote_ratio, p.created) for p in found] == [
        ("a", "A & B?", None, 1.7e9),
        ("b", "C?", 0.7, 0.0),
    ]
    assert [c.text for c in found[0].comments] == ["high", "low"]  # of equals the earlier one
    assert dropped.counts == {
        "row that is neither post nor comment": 1,
        "deleted, removed or empty comment": 1,
        "comment on a comment": 1,
        "comment on a post that is not in the dump": 1,
        "comment beyond the first ones": 1,
    }
    with pytest.raises(InputError, match="no submission"):
        read_dumps([comments], 2, Tally())


def test_posts_survive_their_file(tmp_path):
    posts = [post("a", ENGLISH, "In May.", text="Two days."), post("b")]
    assert write_posts(tmp_path / "p.jsonl", posts) == 2
    with (tmp_path / "p.jsonl").open("a") as handle:
        handle.write('{"id": 3}\n{broken\n')
    dropped = Tally()
    assert list(read_posts(tmp_path / "p.jsonl", dropped)) == posts
    assert dropped.counts == {"row that is no post": 1, "broken JSON": 1}


def test_posts_become_documents_and_demonstrations():
    one = post("a", "Lisbon?", "In May.", "In June.", text="Two days.")
    (document,) = documents([one])
    assert document["text"] == "Lisbon?\n\nTwo days.\n\nIn May.\n\nIn June."
    (shown,) = demonstrations([one])
    assert (shown.prompt, shown.answer, shown.score) == ("Lisbon?\n\nTwo days.", "In May.", 9.0)


def test_pairs_are_first_against_last_quarter_of_similar_length():
    texts = ["x" * 40, "y" * 10, *["m"] * 4, "z" * 11, "w" * 100]
    found = list(preferences([post("a", "Q?", *texts)], seed=0, dropped=Tally()))
    (pair,) = found
    better, worse = pair["response_a"][0], pair["response_b"][0]
    if pair["winner"] == "b":
        better, worse = worse, better
    assert (better, worse) == ("y" * 10, "z" * 11)


def test_sides_are_drawn_and_posts_without_a_pair_counted():
    good = [post(f"p{k}", "Q?", "first", "b", "c", "last1") for k in range(40)]
    bad = [
        post("few", "Q?", "a", "b", "c"),
        post("long", "Q?", "a", "b", "c", "d" * 9),
        post("same", "Q?", "a", "b", "c", "a"),
    ]
    dropped = Tally()
    found = list(preferences([*bad, *good], seed=1, dropped=dropped))
    winners = [pair["winner"] for pair in found]
    assert len(found) == 40
    assert 8 < winners.count("a") < 32
    assert set(dropped.counts.values()) == {1}
    assert len(dropped.counts) == 3
    assert list(preferences([*bad, *good], seed=1, dropped=Tally())) == found
