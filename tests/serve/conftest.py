"""Campaigns on SQLite, small and with everything that chance decides switched off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litee.records import Pair


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
def campaign(tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Open campaigns by settings; all are closed at the end."""
    from litee.serve.campaign import Campaign
    from litee.serve.vote_settings import VoteSettings

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
    from litee.serve.ballots import ActIn

    def do(campaign, person, choice="left", **changes):
        tray = asyncio.run(campaign.tray(person.number))
        sheet = tray.sheets[0]
        values = {"ballot": sheet.ballot, "revision": sheet.revision + 1, "choice": choice}
        sent = ActIn.model_validate({**values, **changes})
        return asyncio.run(campaign.act(person.number, [sent])), sheet, sent

    return do
