"""Reads the real votes used by the tests of this folder; knows nothing of the package's readers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from litee.records import Outcome, Pair, VotedPair

DATA = Path(__file__).parents[2] / "../shared/data"


def read_voted(name: str) -> list[VotedPair]:
    path = DATA / "votes" / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"real votes are not here: {path.name}")
    text = gzip.decompress(path.read_bytes()).decode()
    return [_voted(json.loads(line)) for line in text.split("\n") if line]


def _voted(row: dict) -> VotedPair:
    pair = Pair(
        row["pair_id"],
        tuple(row["prompt"]),
        tuple(row["response_a"]),
        tuple(row["response_b"]),
        row["model_a"],
        row["model_b"],
        row["source"],
    )
    winners = tuple(Outcome(winner) for _, winner in row["votes"])
    n = len(winners)
    shares = tuple(sum(w.class_index == k for w in winners) / n for k in range(3))
    return VotedPair(pair, shares, n, winners, tuple(name for name, _ in row["votes"]))


def prompt_groups(voted: list[VotedPair]) -> list[int]:
    """One group per first user turn."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(v.pair.prompt[0], len(numbers)) for v in voted]
