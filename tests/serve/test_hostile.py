"""Hostile requests end in refusals, never in errors, leaks or foreign votes."""

from __future__ import annotations

import asyncio
from itertools import chain, islice

import pytest

from hostile_requests import Attacker, Echo, Shot, attack, fire, packed_zeros
from litee.collect.votes import load_votes
from litee.errors import InputError
from litee.serve import transfer
from litee.serve.hardening import Rate
from litee.serve.links import Links
from litee.serve.vote_app import voting_app, voting_routes

#: What no voter may see: names, sources and ids of the pairs.
SECRETS = ["zebra-7b", "yak-13b", "made-up", '"p0"', '"p1"']

SYSTEMS = Echo(*SECRETS[:2])


@pytest.fixture
def target(campaign):
    c = campaign(8)
    for name in ("Mallory", "Ana"):
        c.person(name)
    links = Links(b"a key for tests only")
    return c, links, voting_app(c, links, Rate(10**9, 10**9), SYSTEMS)


def test_hostile_requests_meet_no_error_and_no_leak(target):
    c, links, app = target
    attacker = Attacker(c, links, SECRETS, number=1)
    schema = attacker.from_schema(voting_routes(c, links, systems=SYSTEMS), examples=6)
    shots = chain(schema, islice(attacker.known(), 600))
    outcome = attack(app, shots, SECRETS, 2000)
    assert outcome.errors == []
    assert outcome.leaks == []
    assert outcome.inputs > 640
    assert {200, 303, 401, 403, 404, 405, 413, 421, 422} <= set(outcome.statuses)
    ana = next(p for p in c.desk.people.values() if p.name == "Ana")
    assert all(ballot.act is None for ballot in c.ballots_of(ana.number))


def test_a_leak_and_an_error_would_be_seen():

    async def broken(scope, receive, send) -> None:
        if scope["path"] == "/boom":
            raise RuntimeError("boom")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"zebra-7b"})

    outcome = attack(broken, iter([Shot("GET", "/boom"), Shot("GET", "/")]), SECRETS, 10)
    assert len(outcome.errors) == 2
    assert outcome.leaks == ["zebra-7b in GET /"]


def get(app, path: str, token: str, links: Links, *, owner: bool = False, **more: bytes):
    name = f"litee_{'owner' if owner else 'voter'}_{links.campaign}"
    headers = {b"host": b"127.0.0.1:1", b"cookie": f"{name}={token}".encode()}
    headers |= {key.replace("_", "-").encode(): value for key, value in more.items()}
    return asyncio.run(fire(app, Shot("GET", path, headers=tuple(headers.items()))))


def test_forged_and_foreign_tokens_open_nothing(target):
    c, links, app = target
    mallory, ana = c.desk.people.values()
    token = links.person_token(mallory)
    assert get(app, "/api/tray", token, links)[0] == 200
    for forged in (
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        f"p{ana.number}-{token[3:]}",
        Links(b"another key of somebody").person_token(mallory),
        token.upper(),
        "o-" + token[3:],
    ):
        assert get(app, "/api/tray", forged, links)[0] == 401
        assert get(app, "/owner", forged, links, owner=True)[0] == 401
    assert get(app, "/owner", links.owner_token(), links, owner=True)[0] == 200
    c.change_person(mallory.number, new_link=True)
    assert get(app, "/api/tray", token, links)[0] == 401


def test_a_vote_needs_the_form_token_of_its_own_session(target):
    c, links, app = target
    mallory, ana = c.desk.people.values()
    name = f"litee_voter_{links.campaign}".encode()
    body = b'{"acts": []}'
    token = links.person_token(mallory)

    def post(form: str, **more: bytes) -> int:
        headers = (
            (b"host", b"127.0.0.1:1"),
            (b"cookie", name + b"=" + token.encode()),
            (b"content-type", b"application/json"),
            (b"x-litee-form", form.encode()),
            *((key.encode(), value) for key, value in more.items()),
        )
        return asyncio.run(fire(app, Shot("POST", "/api/votes", headers=headers, body=body)))[0]

    assert post(links.form_token(token)) == 200
    assert post(links.form_token(token), origin=b"http://127.0.0.1:1") == 200
    assert post(links.form_token(token), origin=b"https://evil.example") == 403
    assert post(links.form_token(token), origin=b"null") == 403
    assert post(links.form_token(links.person_token(ana))) == 403
    assert post("") == 403


def test_a_session_that_asks_too_often_is_slowed_down(campaign):
    c = campaign(2)
    mallory = c.person("Mallory")
    links = Links(b"a key for tests only")
    app = voting_app(c, links, Rate(per_second=0.001, burst=3))
    token = links.person_token(mallory)
    statuses = [get(app, "/api/tray", token, links)[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_headers_forbid_what_is_not_needed(target):
    _, _, app = target
    for path in ("/", "/static/vote.js", "/no/such/page", "/api/tray"):
        shot = Shot("GET", path, headers=((b"host", b"localhost"),))
        _, answer = asyncio.run(fire(app, shot))
        assert b"default-src 'none'; script-src 'self'" in answer
        assert b"frame-ancestors 'none'" in answer
        assert b"x-content-type-options: nosniff" in answer
        assert b"referrer-policy: same-origin" in answer


def test_a_body_that_grows_past_the_limit_is_cut_off(target):
    _, _, app = target
    sent = []

    async def go() -> None:
        async def receive() -> dict:
            return {"type": "http.request", "body": b"x" * 50_000, "more_body": True}

        async def send(message: dict) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
        scope = {"type": "http", "method": "POST", "path": "/api/votes", "headers": headers}
        scope |= {"query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1"}
        await app(scope, receive, send)

    asyncio.run(go())
    assert sent[0]["status"] == 413


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("x.exe", b"", "ending"),
        ("../../etc/passwd", b"", "ending"),
        ("x.parquet", b"PAR1" + bytes(40), "broken parquet"),
        ("x.db", b"SQLite format 3\x00" + bytes(200), "no database of the voting page"),
        ("x.jsonl", b"\xff\xfe", "not UTF-8"),
        ("x.jsonl.gz", packed_zeros(), "unpacked"),
        ("x.csv", packed_zeros(), "unpacked"),
    ],
)
def test_hostile_files_are_refused_without_a_path(target, name, data, problem):
    c, _, _ = target
    with pytest.raises(InputError, match=problem) as caught:
        transfer.import_file(c, name, data)
    assert "/tmp" not in str(caught.value)


def test_importing_twice_adds_once(target, tmp_path, act):
    c, _, _ = target
    mallory = next(iter(c.desk.people.values()))
    act(c, mallory, "left")
    name, data = transfer.export(c, "jsonl")
    before = load_votes([tmp_path / "votes.db"]).votes
    row = b'{"id":"v9","prompt":"q","response_a":"x","response_b":"y","winner":"tie"}\n'
    first = transfer.import_file(c, name, row)
    assert (first.pairs, first.votes) == (1, 1)
    again = transfer.import_file(c, name, row + row.replace(b"v9", b"v10"))
    assert (again.pairs, again.votes, again.known) == (0, 1, 1)  # v10 is somebody else's
    third = transfer.import_file(c, name, row.replace(b"v9", b"v11"))
    assert (third.votes, third.known) == (1, 0)
    own = transfer.import_file(c, "votes.jsonl", data)
    assert (own.pairs, own.votes, own.known) == (0, 0, 1)
    after = load_votes([tmp_path / "votes.db"]).votes
    assert [v.id for v in before] == [v.id for v in after][: len(before)]
    assert len(after) == len(before) + 3
