"""A local server that speaks as much of Reddit's API as reading needs, and fails on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


def submission(own: str, title: str, **cells: object) -> dict:
    return {
        "id": own,
        "name": f"t3_{own}",
        "title": title,
        "selftext": "",
        "created_utc": 1_700_000_000.0,
        "url": f"https://example.org/{own}",
        "permalink": f"/r/travel/comments/{own}/x/",
        "upvote_ratio": 0.95,
        "score": 10,
        "ups": 10,
        "subreddit": "travel",
        "author": "somebody",
        "link_flair_text": None,
        "num_comments": 1,
        **cells,
    }


def comment(own: str, body: str, score: int = 1, replies: Sequence[dict] = ()) -> dict:
    below = listing([("t1", reply) for reply in replies]) if replies else ""
    return {
        "id": own,
        "name": f"t1_{own}",
        "body": body,
        "score": score,
        "author": "somebody",
        "link_id": "t3_x",
        "parent_id": "t3_x",
        "replies": below,
        "subreddit": "travel",
    }


def listing(children: Sequence[tuple[str, dict]], after: str | None = None) -> dict:
    things = [{"kind": kind, "data": data} for kind, data in children]
    return {"kind": "Listing", "data": {"children": things, "after": after, "before": None}}


@dataclass
class Community:
    """What the server knows.

    Attributes:
        posts: subreddit → submissions, newest first.
        comments: submission id → comments.
        failures: path → statuses given before it works; None breaks the connection.
        requests: paths in the order they came.
        page: submissions per page.
    """

    posts: Mapping[str, Sequence[dict]]
    comments: Mapping[str, Sequence[dict]]
    failures: dict[str, list[int | None]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    page: int = 100

    def count(self, path: str) -> int:
        return self.requests.count(path)


class _Handler(BaseHTTPRequestHandler):
    community: Community
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        self.community.requests.append(path)
        if not self._fails(path):
            token = {"access_token": "t", "token_type": "bearer", "expires_in": 3600}
            self._send(200, {**token, "scope": "*"})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = parts.path.rstrip("/"), parse_qs(parts.query)
        self.community.requests.append(path)
        if self._fails(path):
            return
        steps = path.strip("/").split("/")
        if steps[0] == "r" and len(steps) == 3 and steps[1] in self.community.posts:
            self._send(200, self._page(self.community.posts[steps[1]], query))
        elif steps[0] == "comments":
            every = [p for posts in self.community.posts.values() for p in posts]
            found = next(p for p in every if p["id"] == steps[1])
            said = [("t1", c) for c in self.community.comments.get(steps[1], ())]
            self._send(200, [listing([("t3", found)]), listing(said)])
        else:
            self._send(404, {"message": "Not Found", "error": 404})

    def _page(self, posts: Sequence[dict], query: Mapping[str, list[str]]) -> dict:
        names = [p["name"] for p in posts]
        start = names.index(query["after"][0]) + 1 if "after" in query else 0
        size = min(self.community.page, int(query.get("limit", ["100"])[0]))
        part = posts[start : start + size]
        more = start + size < len(posts)
        return listing([("t3", p) for p in part], part[-1]["name"] if part and more else None)

    def _fails(self, path: str) -> bool:
        waiting = self.community.failures.get(path.rstrip("/"), [])
        if not waiting:
            return False
        status = waiting.pop(0)
        if status is None:
            self.close_connection = True
            self.connection.close()
        else:
            self._send(status, {"error": status}, {"Retry-After": "7"})
        return True

    def _send(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "x-ratelimit-remaining": "500",
            "x-ratelimit-used": "1",
            "x-ratelimit-reset": "300",
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(community: Community) -> Iterator[str]:
    """The address of a server that runs until the block ends."""
    handler = type("Handler", (_Handler,), {"community": community})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
