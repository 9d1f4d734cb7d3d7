"""Questions of one's own: two systems stream, nobody learns who they are, the votes count."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import httpx2
import pytest
from pydantic import ValidationError

from litee.collect.votes import load_votes
from litee.errors import ResourceError
from litee.records import Outcome
from litee.serve.ballots import LiveAnswers
from litee.serve.snapshot import take_snapshot
from litee.serve.standing import standing
from litee.serve.vote_settings import LiveSystem, VoteSettings, live_system

NAMES = ("zebra", "yak", "newt")


class Echo:
    """Systems that repeat the question in their own way; `yak` fails or stalls when told to."""

    def __init__(self, *names: str) -> None:
        self.names = names or NAMES
        self.closed: list[str] = []

    async def stream(self, name, prompt):
        try:
            if "fail" in prompt and name == "yak":
                raise ResourceError("yak is out of memory")
            if "crash" in prompt and name == "yak":
                raise IndexError("a bug in yak")
            for word in (self.names.index(name), prompt, "\x00"):
                yield f"{word} "
                await asyncio.sleep(30 if "stall" in prompt else 0)
            if "long" in prompt:
                while True:
                    yield "x" * 1000
        finally:
            self.closed.append(name)


@pytest.fixture
def site(served):
    systems = Echo()
    found = served(0, systems=systems, live_seconds=0.5)
    found.systems = systems
    return found


def client_of(site, name="Ana"):
    person = site.campaign.person(name)
    token = site.links.person_token(person)
    return httpx2.Client(
        base_url=site.url,
        cookies={f"litee_voter_{site.links.campaign}": token},
        headers={"x-litee-form": site.links.form_token(token)},
        timeout=30,
    )


def ask(client, prompt):
    """Status, and the events."""
    with client.stream("POST", "/api/live", json={"prompt": prompt}) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
        return response.status_code, list(map(json.loads, lines))


def test_a_question_becomes_a_ballot_and_a_vote(site, tmp_path):
    with client_of(site) as client:
        status, events = ask(client, "  Why?\n")
        assert status == 200
        assert events[-1] == {"done": True}
        sides = {
            side: "".join(e["text"] for e in events if e.get("side") == side)
            for side in ("left", "right")
        }
        (sheet,) = client.get("/api/tray").json()["sheets"]
        assert "Why?" in sheet["html"]
        act = {"ballot": sheet["ballot"], "revision": 1, "choice": "left"}
        assert client.post("/api/votes", json={"acts": [act]}).json()["sheets"] == []
    (vote,) = load_votes([tmp_path / "votes.db"]).votes
    assert (vote.annotator, vote.pair.prompt, vote.pair.source) == ("Ana", ("Why?",), "live")
    chosen = vote.pair.response_a if vote.winner is Outcome.A else vote.pair.response_b
    name = vote.pair.model_a if vote.winner is Outcome.A else vote.pair.model_b
    assert chosen == (sides["left"],)
    assert chosen == (f"{NAMES.index(name)} Why?  ",)  # and no NUL
    assert not any(n in json.dumps(events) + sheet["html"] for n in NAMES)


def test_systems_meet_equally_often_on_both_sides(site):
    pairs, left = Counter(), Counter()
    for _ in range(60):
        two = site.campaign.desk.live_systems(NAMES)
        pairs[frozenset(two)] += 1
        left[two[0]] += 1
        asyncio.run(
            site.campaign.add_live(
                site.campaign.person("Ana").number, LiveAnswers("q", "x", "y", *two)
            )
        )
    assert set(pairs.values()) == {20}
    assert all(10 <= n <= 30 for n in left.values())
    swaps = Counter(b.swapped for b in site.campaign.desk.ballots.values())
    assert 15 <= swaps[True] <= 45
    choices = VoteSettings(choice="informative")
    site.campaign.desk.settings = choices
    assert len(set(site.campaign.desk.live_systems(["late", *NAMES]))) == 2


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("fail", "did not answer"), ("crash", "did not answer"), ("stall", "took too long")],
)
def test_when_a_system_fails_nothing_is_stored_and_nobody_is_named(served, caplog, prompt, said):
    site = served(0, systems=(systems := Echo("zebra", "yak")), live_seconds=0.4)
    with client_of(site) as client:
        status, events = ask(client, prompt)
        assert status == 200
        assert said in events[-1]["problem"]
        assert not any(name in json.dumps(events) for name in systems.names)
        assert client.get("/api/tray").json()["sheets"] == []
        assert ask(client, "q")[1][-1] == {"done": True}  # the place is free again
    assert len(site.campaign.desk.questions) == 1
    assert Counter(systems.closed) == {"zebra": 2, "yak": 2}
    assert ("yak" in caplog.text) == (prompt != "stall")


def test_one_question_at_a_time_and_no_more_than_wanted(served, tmp_path):
    site = served(0, systems=Echo(), per_person=2)
    with client_of(site) as client:
        for _ in range(2):
            assert ask(client, "q")[1][-1] == {"done": True}
            assert ask(client, "q")[0] == 409  # the last one waits for its vote
            (sheet,) = client.get("/api/tray").json()["sheets"]
            act = {"ballot": sheet["ballot"], "revision": 1, "choice": "tie"}
            client.post("/api/votes", json={"acts": [act]})
        assert ask(client, "q")[0] == 409
        with client_of(site, "Ben") as other:
            site.campaign.settings = VoteSettings(live_at_once=1)
            assert ask(other, "q")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": ""},
        {"prompt": " \n"},
        {"prompt": "x" * 4001},
        {"prompt": "a\x00b"},
        {"prompt": 1},
        {"prompt": "q", "system": "yak"},
    ],
)
def test_odd_questions_are_refused(site, body):
    with client_of(site) as client:
        assert client.post("/api/live", json=body).status_code == 422
        client.headers["x-litee-form"] = "x"
        assert client.post("/api/live", json={"prompt": "q"}).status_code == 403


def test_an_endless_answer_is_cut_off(site):
    with client_of(site) as client:
        events = ask(client, "long")[1]
    assert events[-1] == {"done": True}
    (question,) = site.campaign.desk.questions
    assert [len(a) for a in (*question.pair.response_a, *question.pair.response_b)] == [20_000] * 2
    assert len(site.systems.closed) == 2


def test_the_owner_sees_votes_on_own_questions(site):
    with client_of(site) as client:
        ask(client, "q")
        (sheet,) = client.get("/api/tray").json()["sheets"]
        act = {"ballot": sheet["ballot"], "revision": 1, "choice": "left"}
        client.post("/api/votes", json={"acts": [act]})
    found = standing(take_snapshot(site.campaign.reader), people_per_pair=1)
    assert (found.votes, found.live, found.wanted, found.pairs) == (1, 1, 0, 0)
    page = httpx2.get(site.owner, follow_redirects=True)
    assert "on people’s own questions" in page.text


def test_nobody_else_is_asked_about_a_question(served):
    site = served(1, systems=Echo(), people_per_pair=2)
    ana, ben = (site.campaign.person(name) for name in ("Ana", "Ben"))
    asyncio.run(site.campaign.add_live(ana.number, LiveAnswers("q", "x", "y", "zebra", "yak")))
    assert [s.prompt for s in site.campaign.act_now(ben.number).sheets] == [("Question 0?",)]


@pytest.mark.parametrize(
    "live",
    [["x@http://h/v1"], ["x@http://h", "x@http://g"], ["x", "y"], ["x@ftp://h", "y@http://h"]],
)
def test_systems_are_written_properly(live):
    with pytest.raises(ValidationError):
        VoteSettings(live=live)
    assert live_system("a/b:c@https://h:1/v1/") == LiveSystem("a/b:c", "a/b:c", "https://h:1/v1")
