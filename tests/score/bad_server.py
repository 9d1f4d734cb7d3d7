"""A chat endpoint on this machine that misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BODIES = {"no json": b"<html>gateway</html>", "other json": b'["nothing", "of", "use"]'}
_MESSAGES = {
    "refusal": ({"content": None, "refusal": "I cannot help with that."},),
    "filtered": ({"content": ""}, "content_filter"),
    "no content": ({"content": None},),
    "number": ({"content": 3},),
    "huge body": ({"content": "x" * 1_000_000},),
}


class ChatServer(ThreadingHTTPServer):
    """Behaves as `plan(request body, times asked)` says: a behaviour's name or a reply's text.

    Attributes:
        seen: bodies of all requests.
        keys: Authorization headers.
        most: requests under way at once, at most.
    """

    daemon_threads = True

    def __init__(self, plan) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = plan
        self.seen: list[dict] = []
        self.keys: list[str | None] = []
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address) -> None:
        """Clients that give up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def log_message(self, *args) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with server.lock:
            server.seen.append(body)
            server.keys.append(self.headers.get("Authorization"))
            server.asked[text] += 1
            times = server.asked[text]
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            self.act(server.plan(body, times))
        finally:
            with server.lock:
                server.now -= 1

    def act(self, what: str) -> None:
        if what.startswith("status "):
            status, _, after = what.removeprefix("status ").partition(" after ")
            self.answer(b'{"error": "no"}', int(status), after)
        elif what in _BODIES:
            self.answer(_BODIES[what])
        elif what in _MESSAGES:
            self.chat(*_MESSAGES[what])
        elif what in {"hang", "drip", "hang up", "half"}:
            getattr(self, what.replace(" ", "_"))()
        else:
            if what == "slow":
                time.sleep(0.05)
                what = '{"verdict": "yes"}'
            self.chat(
                {"content": what}, "length" if what.startswith('{"reasons": "and') else "stop"
            )

    def hang(self) -> None:
        self.server.stopping.wait(20)

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.stopping.wait(0.05):
            self.wfile.write(b" ")

    def hang_up(self) -> None:
        self.connection.close()

    def half(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices"')
        self.close_connection = True

    def chat(self, message: dict, ended: str = "stop") -> None:
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        body = {"choices": [{"message": message, "finish_reason": ended}], "usage": usage}
        self.answer(json.dumps(body).encode())

    def answer(self, raw: bytes, status: int = 200, after: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if after:
            self.send_header("Retry-After", after)
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def chat_server(plan) -> Iterator[ChatServer]:
    """A running server; `plan` gets the request's body and how often its text was asked."""
    server = ChatServer(plan)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
