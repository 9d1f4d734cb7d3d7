"""Requests that mean harm, sent straight into the voting page's ASGI application.

Three sources: schemathesis on the OpenAPI document (valid and invalid values), a list of known
attacks in every field, and random damage to requests that are valid.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import warnings
import zlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import unquote, urlsplit

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings

from litee.errors import ResourceError
from litee.serve.campaign import Campaign
from litee.serve.hardening import Hardened
from litee.serve.links import Links

STRINGS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{7*7}}{% raw %}",
    "' OR 1=1; DROP TABLE vote; --",
    "\x00\x01\x7f\u2028\ufffe",
    "\ud800",
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "A" * 5000,
    "\u202eevil",
    "${jndi:ldap://x}",
    "%n%s%d",
    "\r\nSet-Cookie: a=b",
    "-1",
    "1e999",
    "NaN",
    "",
]
PATHS = [
    "/static/../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/etc/passwd",
    "/static//etc/passwd",
    "/static/page.css/../../x",
    "/owner/export/../../votes.db",
    "/owner/export/..%5c..%5cvotes.db.key",
    "/votes.db",
    "/votes.db.key",
    "/.git/config",
    "/openapi.json",
    "/docs",
    "/join/",
    "/join/p0-",
    "/owner/join/o-" + "A" * 32,
    "//evil.example/",
    "/\\evil.example",
    "/%00",
    "/" + "a/" * 2000,
]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW", "get"]


#: Files that look like pairs and votes, some of them wrong.
_ROWS = [
    json.dumps({"prompt": text, "response_a": text, "response_b": "y", **more}).encode()
    for text in STRINGS
    for more in ({}, {"winner": "a", "annotator": text}, {"winner": text, "id": text})
]


class Echo:
    """Live systems that answer with what hurts; what they are called is a secret."""

    def __init__(self, *names: str) -> None:
        self.names = names

    async def stream(self, name: str, prompt: str) -> AsyncGenerator[str, None]:
        """The question, and more that looks like markup."""
        if "DROP" in prompt:
            raise ResourceError(f"{name} is out of memory")
        for text in (prompt, *STRINGS[:4], "\x00"):
            yield text


@dataclass(frozen=True)
class Shot:
    """One request as ASGI sees it."""

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    owner: bool = False  # sent with the owner's own session: may see everything


@dataclass
class Outcome:
    """What came of all shots."""

    inputs: int = 0
    errors: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


class Attacker:
    """Somebody with a link of their own, and wishes beyond it.

    Args:
        campaign: with at least two people; the first is the attacker.
        links: to make the attacker's session.
        secrets: texts that no voter may see.
    """

    def __init__(self, campaign: Campaign, links: Links, secrets: list[str], number: int) -> None:
        self.campaign, self.links, self.secrets = campaign, links, secrets
        self.rng = random.Random(number)
        people = list(campaign.desk.people.values())
        self.token = links.person_token(people[0])
        self.other = links.person_token(people[1])
        self.form = links.form_token(self.token)
        self.owner_form = links.form_token(links.owner_token())
        self.own = campaign.act_now(people[0].number).sheets[0].ballot
        self.foreign = campaign.act_now(people[1].number).sheets[0].ballot

    # -- sessions --------------------------------------------------------------------------------

    def cookies(self) -> list[str]:
        """Cookie headers: the own session, forged ones, and nonsense."""
        name = f"litee_voter_{self.links.campaign}"
        owner = f"litee_owner_{self.links.campaign}"
        forged = self.token[:-1] + ("A" if self.token[-1] != "A" else "B")
        return [
            *[f"{name}={self.token}"] * 24,
            f"{name}={forged}",
            f"{owner}={self.token}",
            f"{owner}=o-{self.token[3:]}",
            f"{name}=p99999999-{self.token[3:]}",
            f"{name}=" + "x" * 4000,
            f"{name}={self.token}; {name}={forged}",
            "=;;=;\x00",
            "",
        ]

    def headers(self, kind: bytes = b"application/json") -> tuple[tuple[bytes, bytes], ...]:
        """Headers of a session that may be the attacker's own."""
        draw = self.rng.random()
        form = self.form if draw < 0.8 else self.rng.choice([*STRINGS, self.form[:-1]])
        found = [
            (b"host", b"127.0.0.1:8787" if draw < 0.95 else b"evil.example"),
            (b"cookie", self.rng.choice(self.cookies()).encode("latin-1", "replace")),
            (b"x-litee-form", form.encode("utf-8", "replace").replace(b"\n", b" ")),
            (b"content-type", kind),
        ]
        if draw > 0.9:
            found.append((b"origin", b"https://evil.example"))
        if 0.85 < draw < 0.87:
            found.append(
                (b"content-length", self.rng.choice([b"-1", b"1e9", b"\xb2", b"99999999"]))
            )
        return tuple(found)

    def owner_headers(self, kind: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """Headers of the owner's own session, whose files and forms may be odd as well."""
        cookie = f"litee_owner_{self.links.campaign}={self.links.owner_token()}".encode()
        return ((b"host", b"localhost"), (b"cookie", cookie), (b"content-type", kind))

    # -- shots -----------------------------------------------------------------------------------

    def known(self) -> Iterator[Shot]:
        """Endless known attacks."""
        makers = (
            self._votes,
            self._votes,
            self._live,
            self._form,
            self._path,
            self._raw,
            self._import,
        )
        while True:
            yield self.rng.choice(makers)()

    def _act(self) -> dict[str, object]:
        rng = self.rng
        act: dict[str, object] = {
            "ballot": rng.choice([self.own, self.own, self.foreign]),
            "revision": rng.choice([1, 2, 3]),
            "act": rng.choice(["vote", "vote", "undo", "skip"]),
            "comment": rng.choice(STRINGS),
            "seconds": 1.0,
        }
        if act["act"] == "vote":
            act["choice"] = rng.choice(["left", "right", "tie", "both_bad"])
        odd: dict[str, list[object]] = {
            "ballot": [*STRINGS, 1, None],
            "revision": [0, -1, 10**30, 1.5, "1", None, True, 1000],
            "act": [*STRINGS, None],
            "choice": [*STRINGS, None, []],
            "comment": ["x" * 2000, "x" * 2001, 5, None, "\U0001f600" * 1000],
            "seconds": [-1, 1e308, "x", None, True],
            "left": [{"tags": STRINGS[:3]}, {"stars": 9}, {"grade": "fail"}, [], None],
            "right": [{"stars": 5, "grade": "pass"}, {"tags": ["a"] * 21}, {"x": 1}],
            "turns": [["left"], ["x"] * 200, [None] * 100, None, {}],
            rng.choice(STRINGS): [rng.choice(STRINGS)],
        }
        for name in rng.sample(sorted(odd), rng.choice([0, 0, 1, 1, 2, 5])):
            act[name] = rng.choice(odd[name])
        for name in rng.sample(sorted(act), rng.choice([0, 0, 0, 1])):
            del act[name]
        return act

    def _votes(self) -> Shot:
        rng = self.rng
        acts: object = [self._act() for _ in range(rng.choice([0, 1, 1, 1, 2, 25]))]
        body = json.dumps({"acts": acts} if rng.random() < 0.95 else acts).encode()
        return Shot("POST", "/api/votes", headers=self.headers(), body=self._damaged(body))

    def _live(self) -> Shot:
        rng = self.rng
        prompt = rng.choice([*STRINGS, "x" * 4000, "x" * 4001, 7, None, [], {"a": 1}])
        body = rng.choice([{"prompt": prompt}, {"prompt": prompt, "system": "x"}, {}, [prompt]])
        return Shot(
            "POST",
            "/api/live",
            headers=self.headers(),
            body=self._damaged(json.dumps(body).encode()),
        )

    def _damaged(self, body: bytes) -> bytes:
        rng = self.rng
        draw = rng.random()
        if draw < 0.85:
            return body
        if draw < 0.87:
            return b"[" * 20_000 + b"]" * 20_000
        if draw < 0.89:
            return b'{"acts": [' + b"9" * 70_000 + b"]}"
        cut = bytearray(body)
        for _ in range(rng.randrange(1, 6)):
            cut[rng.randrange(len(cut))] = rng.randrange(256)
        return bytes(cut)

    def _form(self) -> Shot:
        rng = self.rng
        names = [
            "form_token",
            "ballot",
            "revision",
            "choice",
            "act",
            "left-tags",
            "turn-0",
            "names",
        ]
        pairs = [
            (
                name,
                self.form if name == "form_token" and rng.random() < 0.8 else rng.choice(STRINGS),
            )
            for name in rng.choices(names, k=rng.choice([1, 4, 8, 300]))
        ]
        body = "&".join(f"{k}={v}" for k, v in pairs).encode("utf-8", "replace")
        path = rng.choice(["/vote", "/vote", "/owner/people", "/owner/people/0", "/owner/people/x"])
        kind = b"application/x-www-form-urlencoded"
        if path.startswith("/owner") and rng.random() < 0.5:
            body = body.replace(self.form.encode(), self.owner_form.encode())
            return Shot("POST", path, headers=self.owner_headers(kind), body=body, owner=True)
        return Shot("POST", path, headers=self.headers(kind), body=body)

    def _path(self) -> Shot:
        path = self.rng.choice([*PATHS, *("/join/" + text for text in STRINGS)])
        query = self.rng.choice(STRINGS).encode("utf-8", "replace")
        method = self.rng.choice(METHODS) if self.rng.random() < 0.3 else "GET"
        return Shot(method, path, query, self.headers())

    def _raw(self) -> Shot:
        rng = self.rng
        path = rng.choice(["/", "/vote", "/api/tray", "/api/votes", "/owner", "/owner/panel"])
        kinds = [
            b"",
            b"\xff",
            b"multipart/form-data",
            b"multipart/form-data; boundary=x",
            b"text/xml",
        ]
        body = rng.randbytes(rng.choice([0, 10, 1000, 70_000]))
        return Shot(rng.choice(METHODS), path, headers=self.headers(rng.choice(kinds)), body=body)

    def _import(self) -> Shot:
        name = self.rng.choice(["x.jsonl", "../../x.db", "x.parquet", "x.csv", "\x00", "x.gz", ""])
        content = self.rng.choice(
            [
                b"",
                b"{}",
                b"PAR1" + bytes(50),
                b"SQLite format 3\x00" + bytes(99),
                packed_zeros(),
                *_ROWS,
            ]
        )
        as_owner = self.rng.random() < 0.5
        form = self.owner_form if as_owner else self.form
        body = io.BytesIO()
        for part, value in (("form_token", form.encode()), ("file", content)):
            extra = f'; filename="{name}"' if part == "file" else ""
            head = f'--x\r\nContent-Disposition: form-data; name="{part}"{extra}\r\n\r\n'
            body.write(head.encode() + value + b"\r\n")
        body.write(b"--x--\r\n")
        kind = b"multipart/form-data; boundary=x"
        headers = self.owner_headers(kind) if as_owner else self.headers(kind)
        return Shot("POST", "/owner/import", b"", headers, body.getvalue(), as_owner)

    def from_schema(self, routes: FastAPI, examples: int) -> Iterator[Shot]:
        """Values that fit the OpenAPI document, and values that just do not."""
        for found in schemathesis.openapi.from_dict(routes.openapi()).get_all_operations():
            operation = found.ok()
            for mode in schemathesis.GenerationMode:
                any_text = operation.label.endswith(("{token}", "{name}"))
                if any_text and mode.value == "negative":
                    continue  # nothing is invalid there
                yield from self._cases(operation, mode, examples)

    def _cases(self, operation, mode, examples: int) -> list[Shot]:
        shots: list[Shot] = []

        @seed(self.rng.randrange(2**32))
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @given(operation.as_strategy(generation_mode=mode))
        def collect(case) -> None:
            shots.append(self._shot(case.as_transport_kwargs(base_url="http://127.0.0.1")))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                collect()
            except Exception as error:
                if type(error).__name__ != "Unsatisfiable":
                    raise
        return shots

    def _shot(self, request: dict) -> Shot:
        parts = urlsplit(request["url"])
        if "json" in request:
            try:
                body = json.dumps(request["json"]).encode()
            except (TypeError, ValueError):
                body = repr(request["json"]).encode("utf-8", "replace")
        else:
            data = request.get("data") or b""
            body = data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")
        query = str(request.get("params") or parts.query).encode("utf-8", "replace")
        path = unquote(parts.path, errors="replace")
        return Shot(request["method"], path, query, self.headers(), body)


@cache
def packed_zeros() -> bytes:
    """20 MB of zeros, gzipped to 20 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(bytes(20_000_000)) + packer.flush()


async def fire(app: Hardened, shot: Shot) -> tuple[int, bytes]:
    """Send one request; its status, and headers and body together."""
    sent: list[dict] = []
    given_length = any(name == b"content-length" for name, _ in shot.headers)
    length = () if given_length else ((b"content-length", str(len(shot.body)).encode()),)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": shot.method,
        "scheme": "http",
        "path": shot.path,
        "raw_path": shot.path.encode("utf-8", "replace"),
        "query_string": shot.query,
        "root_path": "",
        "headers": [*shot.headers, *length],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8787),
    }
    bodies = [{"type": "http.request", "body": shot.body, "more_body": False}]

    async def receive() -> dict:
        return bodies.pop() if bodies else {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head = sent[0]
    raw = b"".join(b"%s: %s\n" % pair for pair in head["headers"])
    return head["status"], raw + b"".join(m.get("body", b"") for m in sent[1:])


def attack(app: Hardened, shots: Iterator[Shot], secrets: list[str], count: int) -> Outcome:
    """Fire shots one after the other and look at what comes back."""
    outcome = Outcome()

    async def go() -> None:
        for shot in shots:
            try:
                status, answer = await fire(app, shot)
            except Exception as error:  # noqa: BLE001  that is what is looked for
                status, answer = 500, b""
                outcome.errors.append(f"{shot.method} {shot.path[:60]}: {error!r}"[:300])
            outcome.inputs += 1
            outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
            if status >= 500:
                outcome.errors.append(
                    f"{status} {shot.method} {shot.path[:60]} {shot.body[:200]!r}"
                )
            for secret in () if shot.owner else secrets:
                if secret.encode() in answer:
                    outcome.leaks.append(f"{secret} in {shot.method} {shot.path[:60]}")
            if outcome.inputs >= count:
                return

    asyncio.run(go())
    return outcome
