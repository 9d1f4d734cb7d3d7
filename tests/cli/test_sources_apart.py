"""A head per source of votes: what is kept, and that their probabilities are averaged."""

from __future__ import annotations

import numpy as np
import pytest
from commands import SETTINGS, judge_bytes, litee, vote_rows, write_rows, write_yaml

from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.errors import ModelError
from litee.finetune.branch import load_head
from litee.finetune.probe import predict_head
from litee.finetune.statistics import statistics_states
from litee.predict.artifact import load_judge_file
from litee.predict.judge import Judge

MEMBERS = ["statistics", "probe", "joint"]


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    """Votes of a source that likes length, and of one that does not."""
    rows = vote_rows(8, 3, seed=1, source="school")
    rest = vote_rows(8, 3, seed=2, source="college")
    for row in rest:
        row["response_a"], row["response_b"] = row["response_b"], row["response_a"]
    return write_rows(tmp_path_factory.mktemp("sources") / "votes.jsonl", rows + rest)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, two_sources, backbone):
    """A judge, checked in a fresh process."""
    folder = tmp_path_factory.mktemp("apart")
    settings = SETTINGS | {"members": MEMBERS, "sources": "apart", "depth": [2, 4]}
    more = ("--config", write_yaml(folder / "apart.yaml", settings), "--backbone", backbone)
    return folder / "judge", litee("fit", two_sources, "--out", folder / "judge", *more), more


def pairs_of(votes):
    return [voted.pair for voted in gather(load_votes([str(votes)]).votes)]


def test_every_member_has_a_head_per_source(fitted):
    out, done, _ = fitted
    assert done.code == 0, done.err
    file = load_judge_file(out)
    assert {m.name.split("-")[0] for m in file.members} == set(MEMBERS)
    for member in file.members:
        assert member.sources == ("college", "school")
        for number in range(2):
            assert (out / "members" / member.name / f"source{number}/head.safetensors").is_file()
        assert not (out / "members" / member.name / "head.safetensors").exists()


def test_a_member_says_the_mean_of_its_heads(fitted, two_sources):
    out, _, _ = fitted
    pairs = pairs_of(two_sources)
    found = Judge.from_pretrained(out).member_outputs(pairs)["statistics"].probabilities
    heads = [
        load_head("davidson", out / "members" / "statistics" / f"source{k}" / "head.safetensors")
        for k in range(2)
    ]
    college, school = (predict_head(head, statistics_states(pairs)) for head in heads)
    np.testing.assert_allclose(found, (college + school) / 2, atol=1e-6)
    assert (college[:, 0] - college[:, 1]) @ (school[:, 0] - school[:, 1]) < 0  # they disagree


def test_exchanged_answers_and_rewards(fitted, two_sources):
    judge = Judge.from_pretrained(fitted[0])
    pairs = pairs_of(two_sources)[:6]
    there, back = judge.predict(pairs), judge.predict([pair.swapped() for pair in pairs])
    for one, two in zip(there, back, strict=True):
        a, b, tie = two.probabilities
        assert one.probabilities == pytest.approx((b, a, tie), abs=1e-6)
        assert one.reward_a == pytest.approx(two.reward_b, abs=1e-5)


def test_a_killed_fit_ends_in_the_same_bytes(fitted, two_sources, tmp_path, quick):
    _, _, more = fitted
    out = tmp_path / "judge"
    assert litee("fit", two_sources, "--out", out, *more).code == 0
    for file in (*out.glob("stages/member-probe*"), *out.glob("members/probe*/source1/*")):
        file.unlink()
    assert litee("fit", two_sources, "--out", out, *more, "--resume").code == 0
    assert judge_bytes(out) == judge_bytes(fitted[0])


def test_a_head_that_is_missing_is_named(fitted, two_sources, tmp_path):
    import shutil

    broken = shutil.copytree(fitted[0], tmp_path / "judge")
    (broken / "members" / "statistics" / "source1" / "head.safetensors").unlink()
    with pytest.raises(ModelError, match="source1"):
        Judge.from_pretrained(broken)


def test_export_says_why_it_cannot(fitted, tmp_path):
    done = litee("export-reward", fitted[0], "--out", tmp_path / "reward")
    assert done.code and "a head per source of votes" in done.err
