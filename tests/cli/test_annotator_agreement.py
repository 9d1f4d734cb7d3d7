"""Votes that count by their annotators' agreement: what is learnt, judged by and said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import SETTINGS, judge_bytes, litee, vote_rows, write_rows, write_yaml

from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.predict.judge import Judge

STATISTICS = SETTINGS | {"members": ["statistics"], "calibration": "none"}


@pytest.fixture(scope="module")
def disputed(tmp_path_factory):
    """Votes of two who like length, and of one who sees ties everywhere."""
    rows = vote_rows(12, 3)
    good = [row | {"annotator": name, "source": "s"} for name in ("ann", "bob") for row in rows]
    odd = [row | {"annotator": "odd", "source": "s", "winner": "tie"} for row in rows]
    return write_rows(tmp_path_factory.mktemp("disputed") / "votes.jsonl", good + odd)


def fitted(folder, votes, **changes):
    folder.mkdir()
    config = write_yaml(folder / "settings.yaml", STATISTICS | changes)
    done = litee("fit", votes, "--out", folder / "out", "--config", config)
    assert done.code == 0, done.err
    return folder / "out"


def mean_tie(judge, votes) -> float:
    pairs = [voted.pair for voted in gather(load_votes([str(votes)]).votes)]
    return float(np.mean([p.probabilities[2] for p in Judge.from_pretrained(judge).predict(pairs)]))


def floors(judge) -> list[float]:
    """What constant predictions and people lose: it depends on the votes judged by alone."""
    metrics = json.loads((judge / "report.json").read_text())["metrics"]
    names = [name for name in metrics if name.split(".")[0] in {"prior", "length bins", "people"}]
    assert len(names) > 5, sorted(metrics)
    return [metrics[name] for name in names]


def test_members_learn_from_those_who_agree_and_are_judged_by_all(tmp_path, disputed, quick):
    usual = fitted(tmp_path / "usual", disputed)
    equal = fitted(tmp_path / "equal", disputed, annotators="equal")
    weighted = fitted(tmp_path / "weighted", disputed, annotators="agreement")
    assert judge_bytes(equal) == judge_bytes(usual)
    assert floors(weighted) == floors(usual)
    ties = np.mean([row["winner"] == "tie" for row in vote_rows(12, 3)])
    assert mean_tie(usual, disputed) == pytest.approx((2 * ties + 1) / 3, abs=0.08)
    assert mean_tie(weighted, disputed) == pytest.approx(ties, abs=0.08)
    said = "3 annotators, weights from 0.00 to 1.50, 1 of them 0"
    assert said in (weighted / "report.html").read_text()
    assert "agreement with the others" not in (usual / "report.html").read_text()


def test_one_annotator_is_no_crowd(tmp_path, quick):
    alone = write_rows(tmp_path / "votes.jsonl", vote_rows(source="school", annotator="ann"))
    usual = fitted(tmp_path / "usual", alone)
    weighted = fitted(tmp_path / "weighted", alone, annotators="agreement")
    assert judge_bytes(weighted) == judge_bytes(usual)
    assert (
        "Votes of school count alike: no pair has votes" in (weighted / "report.html").read_text()
    )


def test_agreement_is_an_arm_of_a_study(tmp_path, disputed, quick):
    made = {
        "name": "annotators",
        "kind": "ablations",
        "votes": [disputed.name],
        "settings": STATISTICS,
        "arms": {"agreement": {"annotators": "agreement"}},
    }
    file = write_yaml(tmp_path / "annotators.yaml", made)
    places = ("--data", disputed.parent, "--out", tmp_path / "out", "--results", tmp_path)
    done = litee("study", file, *places)
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "annotators.json").read_text())["metrics"]
    assert metrics["agreement.log_loss"] != metrics["base.log_loss"]
    assert mean_tie(tmp_path / "out/agreement", disputed) < mean_tie(
        tmp_path / "out/base", disputed
    )


def test_members_that_learn_nothing_need_no_weights(tmp_path, votes, backbone):
    settings = SETTINGS | {"members": ["verdict"], "annotators": "agreement"}
    config = write_yaml(tmp_path / "settings.yaml", settings)
    more = ("--config", config, "--backbone", backbone)
    litee("fit", votes, "--out", tmp_path / "out", *more).refused(2, "annotators", "add a member")
