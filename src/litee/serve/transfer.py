"""Votes out of a campaign as files, and votes or pairs from files into one.

Files pass through a scratch folder under names made here: nothing that a browser sends becomes a
path. Knows nothing of HTTP.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path

from litee.collect.export import write_votes
from litee.collect.rows import file_kind, open_table
from litee.collect.votes import load_pairs, load_votes
from litee.errors import InputError
from litee.records import Pair, Vote
from litee.rundir import scratch_dir
from litee.serve.ballots import DIGEST_BYTES, IMPORTED
from litee.serve.campaign import MAX_NAME, Campaign
from litee.serve.snapshot import Snapshot, take_snapshot

#: Most that a gzipped upload may grow by; text packs to a fifth or a tenth.
MOST = 30


@dataclass(frozen=True, slots=True)
class Format:
    """A file the owner can take away.

    Attributes:
        name: in the address of the download.
        words: for the owner.
        file: the file's name.
        to: the target of `write_votes`; empty for the full record.
    """

    name: str
    words: str
    file: str
    to: str


FORMATS: tuple[Format, ...] = (
    Format("jsonl", "JSON lines (everything a vote holds)", "votes.jsonl", "canonical"),
    Format("parquet", "Parquet", "votes.parquet", "canonical"),
    Format("csv", "CSV for a spreadsheet", "votes.csv", "canonical"),
    Format("trl", "TRL (chosen, rejected; ties left out)", "trl.jsonl", "trl"),
    Format("arena", "Arena (Chatbot Arena's columns)", "arena.jsonl", "arena"),
    Format("evalica", "Evalica (names and winners only)", "evalica.csv", "evalica"),
    Format("record", "Full record: every act, repeat and check", "record.jsonl", ""),
)


def export(campaign: Campaign, name: str) -> tuple[str, bytes]:
    """A file's name and content.

    Raises:
        InputError: there is no such format, or no vote that fits it.
    """
    wanted = next((f for f in FORMATS if f.name == name), None)
    if wanted is None:
        known = ", ".join(f.name for f in FORMATS)
        raise InputError("there is no such format", fix=f"use one of: {known}")
    snapshot = take_snapshot(campaign.reader)
    if not wanted.to:
        return wanted.file, full_record(snapshot)
    votes = snapshot.votes()
    if not votes:
        raise InputError("there are no votes yet", fix="vote first")
    folder = scratch_dir("litee-export-")
    try:
        path = folder / wanted.file
        write_votes(votes, path, to=wanted.to)
        return wanted.file, path.read_bytes()
    except InputError as error:
        raise InputError(error.problem, fix=error.fix) from error
    finally:
        shutil.rmtree(folder)


def full_record(snapshot: Snapshot) -> bytes:
    """Every act as a JSON line, with the ballot it belongs to: the audit trail of the votes."""
    ballots = {ballot.id: ballot for ballot in snapshot.ballots}
    lines = []
    for act in snapshot.acts:
        ballot = ballots[act.ballot]
        row = asdict(act)
        row["winner"] = None if act.winner is None else act.winner.value
        row["details"] = dict(act.details)
        row["pair_id"] = snapshot.questions[ballot.pair].pair.id
        row["annotator"] = snapshot.people[ballot.person].name
        row["purpose"], row["swapped"], row["shown"] = ballot.purpose, ballot.swapped, ballot.at
        lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in.

    Attributes:
        pairs: new pairs to vote on.
        votes: new votes.
        known: votes that were there already.
    """

    pairs: int
    votes: int
    known: int


def import_file(campaign: Campaign, file_name: str, data: bytes) -> Imported:
    """Add a file's pairs, and its votes where it has any. Importing it again adds nothing.

    Args:
        campaign: to add to.
        file_name: as the browser named it; only its ending is used.
        data: content.

    Raises:
        InputError: the file cannot be read, or a pair has another content than here.
    """
    kind = file_kind(Path(Path(file_name[-100:]).name))
    data = _unpacked(data)
    folder = scratch_dir("litee-import-")
    ending = {"database": "db"}.get(kind, kind)
    path = folder / f"import.{ending}"
    try:
        path.write_bytes(data)
        return _import(campaign, path)
    except InputError as error:
        place = error.place.replace(str(folder) + "/", "")
        problem = f"{place}: {error.problem}" if place else error.problem
        raise InputError(problem, fix=error.fix) from error
    finally:
        shutil.rmtree(folder)


def _unpacked(data: bytes) -> bytes:
    """The content of a gzipped upload; other data as it is.

    Raises:
        InputError: broken, or much larger than what was sent.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    found, rest = b"", data
    while rest.startswith(b"\x1f\x8b"):  # files that were joined have one member each
        unpacker = zlib.decompressobj(31)
        try:
            found += unpacker.decompress(rest, len(data) * MOST + 1 - len(found))
        except zlib.error as error:
            raise InputError(f"broken gzip data: {error}", fix="pack the file again") from error
        if len(found) > len(data) * MOST:
            fix = "unpack the file and send it as it is"
            raise InputError(f"unpacked, the file is over {MOST} times as large", fix=fix)
        if not unpacker.eof:
            raise InputError("broken gzip data: it ends too early", fix="send the file again")
        rest = unpacker.unused_data
    return found


def _import(campaign: Campaign, path: Path) -> Imported:
    columns = set(open_table(path).columns)
    voted = columns & {"winner", "votes", "winner_model_a", "chosen", "act", "annotations"}
    if not voted:
        return Imported(campaign.add_pairs(load_pairs(path)), 0, 0)
    votes = load_votes([path]).votes
    unique: dict[str, Pair] = {vote.pair.id: vote.pair for vote in votes}
    pairs = campaign.add_pairs(list(unique.values()))
    return _import_votes(campaign, votes, pairs)


def _import_votes(campaign: Campaign, votes: Sequence[Vote], pairs: int) -> Imported:
    names = _voters(campaign, votes)
    people = {name: campaign.person(name) for name in sorted(set(names))}
    rows = [
        (people[name], vote, IMPORTED + _digest(vote))
        for name, vote in zip(names, votes, strict=True)
    ]
    new = campaign.import_votes(rows)
    return Imported(pairs, new, len(votes) - new)


def _voters(campaign: Campaign, votes: Sequence[Vote]) -> list[str]:
    """Who cast each vote; one without a name is that of the first `imported n` who has not voted.

    A person votes once on a pair, so votes of nobody in particular need somebody each.
    """
    desk = campaign.desk
    voted: dict[str, set[str]] = defaultdict(set)
    for ballot in desk.ballots.values():
        voted[desk.questions[ballot.pair].pair.id].add(desk.people[ballot.person].name)
    names = []
    for vote in votes:
        name = " ".join(vote.annotator.split())
        if not name:
            known = desk.ballots.get(IMPORTED + _digest(vote))
            taken = voted[vote.pair.id]
            several = (f"imported {number}" for number in count(2))
            name = next(n for n in chain(["imported"], several) if n not in taken)
            if known is not None:
                name = desk.people[known.person].name
            taken.add(name)
        elif len(name) > MAX_NAME:  # cut so that two long names stay two
            name = f"{name[: MAX_NAME - 9]} {blake2b(name.encode(), digest_size=4).hexdigest()}"
        names.append(name)
    return names


def _digest(vote: Vote) -> str:
    text = json.dumps([vote.id, vote.pair.id, vote.annotator], ensure_ascii=False)
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
