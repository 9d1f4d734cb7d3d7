"""Posts through PRAW from a local server that fails in every way."""

from __future__ import annotations

from pathlib import Path

import pytest
from reddit_server import Community, comment, serve, submission

from litee.collect.gathering import Tally
from litee.collect.posts import PostsSettings
from litee.collect.reddit_api import Fetcher, Journal, open_reddit
from litee.errors import ConfigError, InputError

LISTING = "/r/travel/hot"


@pytest.fixture
def community() -> Community:
    posts = [submission(own, f"Where to go in {own}?") for own in ("aa", "bb", "cc")]
    posts[1]["selftext"] = "Two days."
    comments = {
        "aa": [comment("a1", "Go east.", 5, [comment("a2", "No, west.", 2)])],
        "bb": [comment("b1", "Go south.")],
    }
    return Community({"travel": posts, "rome": [submission("dd", "Rome?")]}, comments)


@pytest.fixture
def own_ini(monkeypatch, tmp_path):
    """A praw.ini of the test's own, and no credentials from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("praw.config.Config.CONFIG", None)
    for name in ("praw_client_id", "praw_client_secret", "praw_user_agent", "praw_site"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "config/praw.ini"
    file.parent.mkdir()
    return file


@pytest.fixture
def address(community, own_ini, monkeypatch):
    monkeypatch.setattr("prawcore.sessions.FiniteRetryStrategy.sleep", lambda self: None)
    with serve(community) as url:
        own_ini.write_text(f"[DEFAULT]\nreddit_url={url}\noauth_url={url}\n")
        monkeypatch.setenv("praw_client_id", "id")
        monkeypatch.setenv("praw_client_secret", "secret")
        monkeypatch.setenv("praw_user_agent", "test of litee")
        yield url


def fetch(path: Path, subreddits=("travel",), **settings):
    """Posts, counts and waits of one run."""
    waits: list[float] = []
    dropped = Tally()
    chosen = PostsSettings.model_validate({"listings": ("hot",), "retries": 2, **settings})
    journal = Journal(path / "journal.jsonl")
    journal.read()
    reddit = open_reddit()
    try:
        Fetcher(reddit, chosen, journal, dropped, waits.append).fetch(subreddits, lambda n: None)
    finally:
        reddit._core.close()
    return journal, dropped, waits


def test_posts_come_with_flat_comments_and_no_authors(address, tmp_path):
    journal, dropped, waits = fetch(tmp_path)
    assert list(journal.posts) == ["aa", "bb", "cc"]
    first = journal.posts["aa"]
    assert [(c.text, c.score) for c in first.comments] == [("Go east.", 5), ("No, west.", 2)]
    assert journal.posts["bb"].question == "Where to go in bb?\n\nTwo days."
    assert journal.posts["cc"].comments == ()
    assert (first.subreddit, first.upvote_ratio, first.created) == ("travel", 0.95, 1_700_000_000)
    assert not dropped.counts
    assert waits == [2.0, 2.0, 2.0]
    assert "somebody" not in (tmp_path / "journal.jsonl").read_text()


def test_a_listing_over_several_pages_is_read_to_its_end(address, community, tmp_path):
    community.page = 1
    journal, _, _ = fetch(tmp_path)
    assert list(journal.posts) == ["aa", "bb", "cc"]


def test_a_second_run_asks_for_nothing_twice(address, community, tmp_path):
    fetch(tmp_path)
    before = len(community.requests)
    journal, _, _ = fetch(tmp_path)
    assert list(journal.posts) == ["aa", "bb", "cc"]
    assert journal.done == {"travel/hot"}
    assert len(community.requests) == before


@pytest.mark.parametrize("status", [429, 500, 503, None])
def test_passing_failures_are_waited_out(address, community, tmp_path, status):
    community.failures = {LISTING: [status], "/comments/bb": [status]}
    journal, dropped, waits = fetch(tmp_path)
    assert list(journal.posts) == ["aa", "bb", "cc"]
    assert not dropped.counts
    if status == 429:
        assert waits.count(7.0) == 2  # what Retry-After asked for


def test_a_killed_run_goes_on_after_its_last_post(address, community, tmp_path):
    fetch(tmp_path)
    file = tmp_path / "journal.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][:30])  # killed while it wrote the second post
    community.requests.clear()
    journal, _, _ = fetch(tmp_path)
    assert list(journal.posts) == ["aa", "bb", "cc"]
    assert community.count("/comments/aa") == 0
    assert community.count("/comments/bb") == community.count("/comments/cc") == 1


def test_what_stays_broken_is_counted_and_tried_by_the_next_run(address, community, tmp_path):
    community.failures = {"/comments/bb": [503] * 50}
    journal, dropped, _ = fetch(tmp_path)
    assert list(journal.posts) == ["aa", "cc"]
    assert dropped.counts == {"post: HTTP 503 after 3 tries": 1}
    assert dropped.examples["post: HTTP 503 after 3 tries"] == ("bb",)
    assert journal.done == set()
    community.failures.clear()
    journal, dropped, _ = fetch(tmp_path)
    assert list(journal.posts) == ["aa", "cc", "bb"]
    assert not dropped.counts


def test_a_missing_subreddit_and_a_removed_post_do_not_stop_the_others(
    address, community, tmp_path
):
    community.failures = {"/comments/aa": [404], "/r/closed/hot": [403]}
    journal, dropped, waits = fetch(tmp_path, ("closed", "nowhere", "r/travel", "rome"))
    assert list(journal.posts) == ["bb", "cc", "dd"]
    assert dropped.counts == {"listing: HTTP 403": 1, "listing: HTTP 404": 1, "post: HTTP 404": 1}
    assert journal.done == {"travel/hot", "rome/hot"}
    assert max(waits) == 2.0  # nothing of this is worth another try


def test_wrong_credentials_are_said_at_once(address, community, tmp_path):
    community.failures = {"/api/v1/access_token": [401] * 9}
    with pytest.raises(ConfigError, match="refuses the credentials"):
        fetch(tmp_path)


def test_missing_credentials_name_the_fix(own_ini):
    with pytest.raises(ConfigError) as caught:
        open_reddit()
    assert "praw_client_id" in caught.value.fix
    with pytest.raises(ConfigError, match="no section 'mine'"):
        open_reddit("mine")


def test_a_foreign_journal_is_refused(tmp_path):
    (tmp_path / "j.jsonl").write_text('{"id": "x", "votes": 3}\n')
    with pytest.raises(InputError, match="row 1"):
        Journal(tmp_path / "j.jsonl").read()
