"""The voting page under load, under SIGKILL and under attack, as a server of its own process.

    python benchmarks/voting.py load --out results/serve.json
    python benchmarks/voting.py load --postgres --out results/serve.json
    python benchmarks/voting.py kill --out results/serve.json
    python benchmarks/voting.py hostile --out results/serve.json

Each run adds its metrics to the file. `load`: people vote at once, each through a session of their
own, with a pause between votes; one vote in twenty is sent twice, as after a lost answer. `kill`:
the server is killed while people vote and started again, many times. Afterwards every vote that was
acknowledged must be in the database, once, as it was cast. `hostile`: tests/hostile_requests.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from litee.records import Pair
from litee.serve.ballots import Person
from litee.serve.campaign import Campaign
from litee.serve.hardening import Rate
from litee.serve.links import Links
from litee.serve.snapshot import Snapshot, take_snapshot
from litee.serve.tables import open_engine, reading
from litee.serve.vote_app import voting_app, voting_routes
from litee.serve.vote_settings import VoteSettings
from serve_results import merge

KEY = "ab" * 32
SECRETS = ["zebra-7b", "yak-13b", "newt-3b", "made-up", '"p0"', '"p1"']


def made_up_pairs(count: int) -> list[Pair]:
    """Pairs of about the length of real ones."""
    names = ["zebra-7b", "yak-13b", "newt-3b"]
    words = "the answer depends on a few things that are worth a closer look and "
    return [
        Pair(
            f"p{k}",
            (f"Question number {k}?",),
            (f"**{k}** " + words * 8,),
            (f"- {k}\n- " + words * 12,),
            names[k % 3],
            names[(k + 1) % 3],
            "made-up",
        )
        for k in range(count)
    ]


@dataclass
class Voters:
    """What happened, as the people saw it."""

    latencies: list[float] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)  # ballot → side
    sent: dict[str, str] = field(default_factory=dict)
    again: int = 0
    refused: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Site:
    """Where the campaign is and how to get in."""

    url: str
    links: Links
    people: list[Person]


def start(database: str, folder: Path, port: int, people: int, per_person: int) -> subprocess.Popen:
    """`litee vote` on the port, with nothing in its environment changed."""
    command = [str(Path(sys.executable).with_name("litee")), "vote", "--db", database]
    command += ["--key", str(folder / "key"), "--port", str(port), "--no-browser"]
    command += ["--config", str(folder / "settings.yaml")]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


class Line:
    """A connection as a browser keeps it: HTTP by hand, for voters that cost the machine little."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)
        head = {"host": f"{self.host}:{port}", "content-type": "application/json", **headers}
        self.head = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: dict) -> dict:
        """Send and read the answer.

        Raises:
            OSError: the connection broke, or the answer is no success.
        """
        try:
            return await asyncio.wait_for(self._post(path, json.dumps(body).encode()), 60)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            self.close()
            raise OSError(str(error)) from error

    async def _post(self, path: str, body: bytes) -> dict:
        if self.writer is None or self.reader is None:
            found = await asyncio.open_connection(self.host, self.port)
            self.reader, self.writer = found
        start = f"POST {path} HTTP/1.1\r\n{self.head}content-length: {len(body)}\r\n\r\n"
        self.writer.write(start.encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        answer = await self.reader.readexactly(length)
        status = int(head.split()[1])
        if status != 200:
            raise OSError(f"status {status}")
        return json.loads(answer)

    def close(self) -> None:
        """Hang up; the next request connects again."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def wait_for(url: str, server: subprocess.Popen) -> None:
    host, port = url.removeprefix("http://").split(":")
    for _ in range(2400):
        if server.poll() is not None:
            raise RuntimeError(f"the server stopped: {server.stderr.read()}")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError("the server does not answer")


async def vote(site: Site, person: Person, wanted: int, pause: float, seen: Voters) -> None:
    """One person's session; lasts until `wanted` votes are acknowledged or there is no more."""
    rng = random.Random(person.number)
    token = site.links.person_token(person)
    cookie = f"litee_voter_{site.links.campaign}={token}"
    line = Line(site.url, {"x-litee-form": site.links.form_token(token), "cookie": cookie})
    done = 0
    try:
        await asyncio.sleep(rng.uniform(0, pause))
        sheets = await _post(line, [], None)
        while done < wanted and sheets:
            sheet = sheets[0]
            side = seen.sent.setdefault(sheet["ballot"], rng.choice(["left", "right", "tie"]))
            act = {"ballot": sheet["ballot"], "revision": 1, "choice": side, "comment": "kept"}
            for _ in range(2 if rng.random() < 0.05 else 1):
                sheets = await _post(line, [act], seen)
            done += 1
            await asyncio.sleep(rng.expovariate(1 / pause) if pause else 0)
    finally:
        line.close()


async def _post(line: Line, acts: list[dict], seen: Voters | None) -> list[dict]:
    """Send acts until they are acknowledged, as the page's script does; the sheets that follow."""
    while True:
        begun = time.perf_counter()
        try:
            answer = await line.post("/api/votes", {"acts": acts})
        except OSError:
            if seen is not None:
                seen.failed += 1
            await asyncio.sleep(0.05)
            continue
        if seen is not None:
            seen.latencies.append(time.perf_counter() - begun)
            for act, ack in zip(acts, answer["acks"], strict=True):
                if ack["status"] in {"saved", "again"}:
                    seen.acknowledged[ack["ballot"]] = act["choice"]
                seen.again += ack["status"] == "again"
                seen.refused += ack["status"] in {"conflict", "refused"}
        return list(answer["sheets"])


def compare(snapshot: Snapshot, seen: Voters) -> dict[str, int]:
    """Votes lost, doubled and changed, by what people saw acknowledged."""
    stored: dict[str, list[str]] = {}
    ballots = {ballot.id: ballot for ballot in snapshot.ballots}
    for act in snapshot.acts:
        swapped = ballots[act.ballot].swapped
        side = {"a": "right" if swapped else "left", "b": "left" if swapped else "right"}
        stored.setdefault(act.ballot, []).append(side.get(act.winner.value, act.winner.value))
    persons = [(b.person, b.pair, b.purpose) for b in snapshot.ballots]
    return {
        "votes_acknowledged": len(seen.acknowledged),
        "votes_stored": len(snapshot.acts),
        "votes_lost": sum(name not in stored for name in seen.acknowledged),
        "votes_doubled": sum(len(sides) > 1 for sides in stored.values())
        + len(persons)
        - len(set(persons)),
        "votes_changed": sum(
            name in stored and stored[name][0] != side for name, side in seen.acknowledged.items()
        ),
    }


def prepare(folder: Path, database: str, people: int, pairs: int, per_pair: int) -> Site:
    """A campaign with people and pairs, ready to be served."""
    (folder / "key").write_text(KEY + "\n")
    (folder / "key").chmod(0o600)
    (folder / "settings.yaml").write_text(f"people_per_pair: {per_pair}\nchoice: balanced\n")
    campaign = Campaign(database, VoteSettings(people_per_pair=per_pair))
    campaign.add_pairs(made_up_pairs(pairs))
    found = [campaign.person(f"voter {k}") for k in range(people)]
    campaign.close()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return Site(f"http://127.0.0.1:{port}", Links(bytes.fromhex(KEY)), found)


@contextmanager
def where(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The database: a file in the folder, or a PostgreSQL cluster of its own."""
    if not options.postgres:
        yield str(folder / "votes.db")
        return
    from postgres_cluster import cluster

    with cluster() as url:
        yield url


def read(database: str) -> Snapshot:
    engine = open_engine(database)
    try:
        return take_snapshot(reading(engine))
    finally:
        engine.dispose()


def load(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Many people at once."""
    with where(options, folder) as database:
        per_pair = 4
        pairs = options.people * options.votes // per_pair + options.people
        site = prepare(folder, database, options.people, pairs, per_pair)
        port = int(site.url.rsplit(":", 1)[1])
        seen = Voters()
        server = start(database, folder, port, options.people, options.votes)
        try:
            seconds = asyncio.run(_load(options, site, server, seen))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        found = compare(read(database), seen)
    milliseconds = np.array(seen.latencies) * 1000
    prefix = "postgres_" if options.postgres else ""
    metrics: dict[str, float] = {f"{prefix}{name}": value for name, value in found.items()}
    metrics[f"{prefix}voters"] = options.people
    metrics[f"{prefix}p50_ms"] = round(float(np.percentile(milliseconds, 50)), 1)
    metrics[f"{prefix}p95_ms"] = round(float(np.percentile(milliseconds, 95)), 1)
    metrics[f"{prefix}p99_ms"] = round(float(np.percentile(milliseconds, 99)), 1)
    metrics[f"{prefix}votes_per_second"] = round(len(seen.acknowledged) / seconds, 1)
    metrics[f"{prefix}sent_twice"] = seen.again
    metrics[f"{prefix}pause_seconds"] = options.pause
    return metrics


async def _load(
    options: argparse.Namespace, site: Site, server: subprocess.Popen, seen: Voters
) -> float:
    await wait_for(site.url, server)
    begun = time.perf_counter()
    await asyncio.gather(*(vote(site, p, options.votes, options.pause, seen) for p in site.people))
    return time.perf_counter() - begun


def kill(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """SIGKILL again and again while people vote."""
    with where(options, folder) as database:
        site = prepare(folder, database, 20, 40_000, 1)
        port = int(site.url.rsplit(":", 1)[1])
        seen = Voters()
        kills = asyncio.run(_kill(options, site, database, folder, port, seen))
        found = compare(read(database), seen)
    prefix = "postgres_" if options.postgres else ""
    return {
        f"{prefix}kills": kills,
        **{f"{prefix}kill_{name}": value for name, value in found.items()},
        f"{prefix}kill_requests_failed": seen.failed,
    }


async def _kill(
    options: argparse.Namespace, site: Site, database: str, folder: Path, port: int, seen: Voters
) -> int:
    rng = random.Random(0)
    voters = [asyncio.create_task(vote(site, p, 10**6, 0.02, seen)) for p in site.people]
    kills = 0
    while kills < options.kills:
        before = len(seen.acknowledged)
        server = start(database, folder, port, 0, 0)
        await wait_for(site.url, server)
        while len(seen.acknowledged) == before:
            await asyncio.sleep(0.005)
        await asyncio.sleep(rng.uniform(0, 0.3))
        server.kill()
        server.wait()
        kills += 1
        print(f"kill {kills}: {len(seen.acknowledged)} votes acknowledged", flush=True)
    for task in voters:
        task.cancel()
    await asyncio.gather(*voters, return_exceptions=True)
    return kills


def hostile(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Hostile requests, in this process."""
    from hostile_requests import Attacker, Echo, attack

    campaign = Campaign(str(folder / "votes.db"), VoteSettings(people_per_pair=2))
    campaign.add_pairs(made_up_pairs(50))
    for name in ("Mallory", "Ana"):
        campaign.person(name)
    links = Links(bytes.fromhex(KEY))
    systems = Echo(*SECRETS[:3])
    app = voting_app(campaign, links, Rate(10**9, 10**9), systems)
    attacker = Attacker(campaign, links, SECRETS, number=0)
    shots = chain(
        attacker.from_schema(voting_routes(campaign, links, systems=systems), 100), attacker.known()
    )
    outcome = attack(app, shots, SECRETS, options.inputs)
    ana = next(p for p in campaign.desk.people.values() if p.name == "Ana")
    foreign = sum(ballot.act is not None for ballot in campaign.ballots_of(ana.number))
    campaign.close()
    for line in [*outcome.errors[:5], *outcome.leaks[:5]]:
        print(line)
    print({k: outcome.statuses[k] for k in sorted(outcome.statuses)})
    return {
        "hostile_inputs": outcome.inputs,
        "server_errors": len(outcome.errors),
        "leaks": len(outcome.leaks),
        "foreign_votes_changed": foreign,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["load", "kill", "hostile"])
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--votes", type=int, default=100, help="per person")
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between votes")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/serve.json"))
    options = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="litee-voting-") as folder:
        made = {"load": load, "kill": kill, "hostile": hostile}[options.what]
        metrics = made(options, Path(folder))
    for name, value in metrics.items():
        print(f"{name}: {value}")
    merge(options.out, time.perf_counter() - begun, metrics)


if __name__ == "__main__":
    main()
