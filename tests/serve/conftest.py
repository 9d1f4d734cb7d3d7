"""Campaigns on SQLite, small and with everything that chance decides switched off.

With LITEE_NO_SKIPS=1 in the environment (as in .ci/run) a skipped test of this folder fails.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from litee.records import Pair
from litee.serve.ballots import ActIn
from litee.serve.campaign import Campaign
from litee.serve.hardening import Rate
from litee.serve.links import Links
from litee.serve.live import Systems
from litee.serve.vote_app import voting_app
from litee.serve.vote_server import listen
from litee.serve.vote_settings import VoteSettings


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("LITEE_NO_SKIPS") == "1":
        report.outcome = "failed"
        report.longrepr = f"LITEE_NO_SKIPS=1, but skipped: {report.longrepr}"
    return report


def make_pairs(count: int, systems: tuple[str, ...] = ("zebra-7b", "yak-13b")) -> list[Pair]:
    """Pairs whose answers tell nothing about who wrote them."""
    return [
        Pair(
            f"p{k}",
            (f"Question {k}?",),
            (f"First answer to {k}.",),
            (f"Second answer to {k}.",),
            systems[k % len(systems)],
            systems[(k + 1) % len(systems)],
            "made-up",
        )
        for k in range(count)
    ]


@pytest.fixture
def pairs() -> Callable[..., list[Pair]]:
    return make_pairs


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Callable[..., Campaign]]:
    """Open campaigns by settings; all are closed at the end."""
    opened = []

    def make(count: int = 6, *, where: str = "", **settings: object) -> Campaign:
        calm = {"repeats": 0.0, "checks": 0.0, "ahead": 1, **settings}
        found = Campaign(where or str(tmp_path / "votes.db"), VoteSettings.model_validate(calm))
        opened.append(found)
        found.add_pairs(make_pairs(count))
        return found

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def act() -> Callable[..., object]:
    """Do something with the first sheet of a person's tray, at the revision that is due."""

    def do(campaign, person, choice="left", **changes):
        tray = campaign.act_now(person.number)
        sheet = tray.sheets[0]
        values = {"ballot": sheet.ballot, "revision": sheet.revision + 1, "choice": choice}
        sent = ActIn.model_validate({**values, **changes})
        return campaign.act_now(person.number, [sent]), sheet, sent

    return do


@dataclass
class Served:
    """A campaign on a free port, with the links of its people."""

    campaign: Campaign
    links: Links
    url: str

    def link(self, name: str) -> str:
        return f"{self.url}/join/{self.links.person_token(self.campaign.person(name))}"

    @property
    def owner(self) -> str:
        return f"{self.url}/owner/join/{self.links.owner_token()}"


@contextmanager
def serving(campaign: Campaign, systems: Systems | None = None) -> Iterator[Served]:
    """Serve a campaign from a thread until the block ends."""
    links = Links(b"a key for tests only")
    sock = listen("127.0.0.1", 0)
    app = voting_app(campaign, links, Rate(per_second=10_000, burst=10_000), systems)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield Served(campaign, links, f"http://127.0.0.1:{sock.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@pytest.fixture
def served(campaign) -> Iterator[Callable[..., Served]]:
    """Open campaigns by settings, each on a port of its own."""
    with ExitStack() as stack:

        def make(count: int = 6, *, systems: Systems | None = None, **settings: object) -> Served:
            return stack.enter_context(serving(campaign(count, **settings), systems))

        yield make
