"""PandaLM's published verdicts by the number of the pair."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from litee.collect.verdicts import load_numbered_verdicts
from litee.errors import InputError
from litee.records import Outcome, Pair

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def pair(name: str) -> Pair:
    return Pair(name, ("ask",), ("one",), ("two",))


def test_labels_by_hand(tmp_path):
    rows = [("1", 0), ("2", 1), ("0", 2), ("Tie", 3), ("garbage", 4), (2, 12)]
    file = tmp_path / "verdicts.json.gz"
    told = [{"idx": idx, "gpt_result": label} for label, idx in rows]
    file.write_bytes(gzip.compress(json.dumps(told).encode()))
    names = ["x:pandalm-0", "x-1", "x-2", "x-3", "x-4", "x-12", "x-5", "no number"]
    found = load_numbered_verdicts(file, [pair(name) for name in names])
    tie = Outcome.TIE
    assert found == (Outcome.A, Outcome.B, tie, tie, None, Outcome.B, None, None)


def test_another_layout_is_told(tmp_path):
    file = tmp_path / "verdicts.json"
    file.write_text(json.dumps([{"idx": 1, "verdict": "a"}]))
    with pytest.raises(InputError, match="gpt_result or pandalm_result"):
        load_numbered_verdicts(file, [pair("x-1")])


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(("judge", "agreed"), [("gpt-3.5-turbo", 0.698), ("pandalm-7b", 0.668)])
def test_agreement_with_the_majority_as_published(judge, agreed):
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes

    voted = gather(load_votes([str(DATA / "votes/pandalm.jsonl.gz")]).votes)
    file = DATA / f"judge_verdicts/pandalm_{judge}.json.gz"
    found = load_numbered_verdicts(file, [v.pair for v in voted])
    hits = [
        verdict is not None and v.shares[verdict.class_index] == max(v.shares)
        for v, verdict in zip(voted, found, strict=True)
    ]
    assert sum(hits) / len(hits) == pytest.approx(agreed, abs=5e-4)
