"""Runs the voting page: opens what it needs, takes a port, serves until told to stop.

Knows nothing of the command line.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from litee.errors import InputError, ResourceError
from litee.records import Outcome, Pair
from litee.serve.ballots import Person
from litee.serve.campaign import Campaign
from litee.serve.links import KeyFile
from litee.serve.live import Systems
from litee.serve.vote_app import voting_app
from litee.serve.vote_settings import VoteSettings

#: Tried first when no port is named, then the following ones.
FIRST_PORT = 8787
_TRIES = 50
#: Seconds after which the thread that stores and the one that answers take turns: with Python's
#: default of 5 ms one vote in twenty waits 20 ms longer.
TURN = 0.0005


@dataclass(frozen=True, slots=True)
class Invitation:
    """What to tell the owner once the page is up.

    Attributes:
        address: of the page.
        owner: the owner's link.
        people: everybody's links.
    """

    address: str
    owner: str
    people: tuple[tuple[Person, str], ...]


def key_path(database: str) -> Path:
    """Where the key of a campaign lies unless another place is named: beside the database.

    >>> key_path("runs/votes.db").as_posix(), key_path("postgresql://host/votes").as_posix()
    ('runs/votes.db.key', 'litee-vote.key')
    """
    if "://" in database:
        return Path("litee-vote.key")
    return Path(database + ".key")


def listen(host: str, port: int) -> socket.socket:
    """A socket on the port, or on the first free one from 8787 for 0.

    Raises:
        ResourceError: the address or the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem = ""
    for wanted in [port] if port else range(FIRST_PORT, FIRST_PORT + _TRIES):
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, wanted))
        except OSError as error:
            found.close()
            problem = f"cannot listen on {host}, port {wanted}: {error.strerror}"
        else:
            return found
    raise ResourceError(problem, fix="choose another --port or --host")


def serve_votes(
    database: str,
    settings: VoteSettings,
    *,
    key: Path,
    pairs: Sequence[Pair],
    checks: Sequence[tuple[Pair, Outcome]] = (),
    people: Sequence[str] = (),
    prepare: Callable[[Campaign], None] | None = None,
    systems: Systems | None = None,
    ready: Callable[[Invitation], None],
) -> None:
    """Serve a campaign until Ctrl-C or SIGTERM, which are the usual ways to stop.

    Args:
        database: path or URL.
        settings: of the campaign.
        key: file of the links' key.
        pairs: to add.
        checks: attention checks to add.
        people: names to add.
        prepare: called with the open campaign before it is served.
        systems: that answer people's own questions, if any.
        ready: called with the links when the port is taken.

    Raises:
        InputError: there is nothing to vote on, or what is there cannot be used.
        ResourceError: database, key file or port cannot be had.
    """
    held = KeyFile(key)
    try:
        campaign = Campaign(database, settings)
        try:
            campaign.add_pairs(pairs, checks=checks)
            for name in people:
                campaign.person(name)
            if systems is None and not any(q.kind == "vote" for q in campaign.desk.questions):
                fix = "name a file of pairs: litee vote PAIRS.jsonl"
                raise InputError("there is nothing to vote on", place=database, fix=fix)
            if prepare is not None:
                prepare(campaign)
            _serve(campaign, held, systems, ready)
        finally:
            campaign.close()
    finally:
        held.close()


def _serve(
    campaign: Campaign,
    held: KeyFile,
    systems: Systems | None,
    ready: Callable[[Invitation], None],
) -> None:
    links, settings = held.links(), campaign.settings
    sock = listen(settings.host, settings.port)
    port = sock.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = settings.public_url.rstrip("/") or f"http://{host}:{port}"
    config = uvicorn.Config(
        voting_app(campaign, links, systems=systems),
        log_level="warning",
        access_log=False,  # addresses of links are secrets
        server_header=False,
        timeout_graceful_shutdown=10,
        lifespan="off",
    )
    campaign.note("owner", "started", {"settings": settings.model_dump(mode="json")})
    people = tuple(campaign.desk.people.values())
    ready(
        Invitation(
            address,
            f"{address}/owner/join/{links.owner_token()}",
            tuple((p, f"{address}/join/{links.person_token(p)}") for p in people),
        )
    )
    sys.setswitchinterval(TURN)
    # uvicorn finishes what is under way and then raises the signal again
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[sock])
    except KeyboardInterrupt:
        pass  # the usual way to stop
    finally:
        signal.signal(signal.SIGTERM, before)
        sock.close()
