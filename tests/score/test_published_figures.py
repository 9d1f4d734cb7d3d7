"""Figures others have published or measured on the real votes, reproduced."""

import gzip
import json

import numpy as np
import pytest
from votes_on_disk import DATA, prompt_groups, read_voted

from litee.score.ceiling import agreement
from litee.score.evaluation import evaluate
from litee.score.floors import floor_systems, longer_answer
from litee.score.intervals import GroupBootstrap
from litee.score.outcomes import Truth, metric_rows

pytestmark = pytest.mark.real_data
TRAINING = ("llmfao", "guanaco_vicuna80", "pandalm", "lfqa_experts")


def gpt4_verdicts(voted):
    """(n, 3) GPT-4's verdicts; a verdict that flipped with the order is a tie."""
    path = DATA / "judge_verdicts" / "mt_bench_gpt4_pair.jsonl.gz"
    if not path.exists():
        pytest.skip(f"judge verdicts are not here: {path.name}")
    given = {}
    for line in gzip.decompress(path.read_bytes()).decode().split("\n"):
        if not line:
            continue
        row = json.loads(line)
        key = (str(row["question_id"]), str(row["turn"]))
        given[(*key, row["model_a"], row["model_b"])] = row["winner"]
    chosen = []
    for item in voted:
        question, turn = item.pair.id.removeprefix("mt_bench_human:mtb-").split("-")[:2]
        models = item.pair.model_a, item.pair.model_b
        straight = given.get((question, turn, *models))
        winner = straight or given[(question, turn, *models[::-1])]
        k = {"model_a": 0, "model_b": 1}.get(winner, 2)
        chosen.append(k if straight or k == 2 else 1 - k)
    return np.eye(3)[chosen]


def test_gpt4_against_mt_bench_votes():
    voted = read_voted("mt_bench_human")
    rows = metric_rows(gpt4_verdicts(voted), Truth.of(voted))
    assert rows["accuracy"].value() == pytest.approx(0.662, abs=0.0005)
    assert rows["accuracy_both_decisive"].value() == pytest.approx(0.856, abs=0.0005)
    assert rows["accuracy_both_decisive"].denominator.sum() == pytest.approx(2129)


@pytest.mark.parametrize(
    ("name", "three_way", "vote_pairs", "decisive"),
    [
        ("mt_bench_human", 0.646, 1199, 0.823),
        ("llmfao", 0.532, 15112, 0.701),
        ("guanaco_vicuna80", 0.516, 6552, 0.633),
        ("pandalm", 0.920, 2997, 0.947),
        ("lfqa_experts", 0.781, 160, 0.781),
    ],
)
def test_human_agreement(name, three_way, vote_pairs, decisive):
    voted = read_voted(name)
    found = agreement(voted, GroupBootstrap(prompt_groups(voted), seed=0, resamples=100))
    assert found.vote_pairs == vote_pairs
    assert found.three_way.value == pytest.approx(three_way, abs=0.0005)
    assert found.decisive.value == pytest.approx(decisive, abs=0.0007)


@pytest.mark.parametrize(
    ("name", "decisive", "entropy"),
    [
        ("mt_bench_human", 0.680, 1.0743),
        ("llmfao", 0.410, 1.0906),
        ("guanaco_vicuna80", 0.730, 0.9698),
        ("pandalm", 0.668, 0.9601),
        ("lfqa_experts", 0.692, 0.6902),
    ],
)
def test_longer_answer_and_prior_entropy(name, decisive, entropy):
    voted = read_voted(name)
    truth = Truth.of(voted)
    rows = metric_rows(longer_answer([v.pair for v in voted]), truth)
    assert rows["accuracy_decisive"].value() == pytest.approx(decisive, abs=0.003)
    own = truth.votes @ truth.shares / truth.votes.sum()
    constant = metric_rows(np.tile(own, (len(voted), 1)), truth)
    assert constant["log_loss"].value() == pytest.approx(entropy, abs=0.00006)


def test_floors_on_mt_bench():
    training = [v for name in TRAINING for v in read_voted(name)]
    voted = read_voted("mt_bench_human")
    systems = floor_systems(training, [v.pair for v in voted])
    systems["gpt-4"] = gpt4_verdicts(voted)
    groups = [int(v.pair.id.split("-")[1]) for v in voted]
    found = evaluate(systems, voted, groups, main="gpt-4", seed=0)
    assert found.groups == 80
    longest = found.score("longer answer", "accuracy")
    assert longest.value == pytest.approx(0.521, abs=0.0005)
    assert longest.low < 0.50 < 0.54 < longest.high
    gap = next(d for d in found.differences if d.other == "longer answer").metrics["accuracy"]
    assert gap.value == pytest.approx(0.662 - 0.521, abs=0.001) and gap.low > 0.08
    assert found.score("prior", "log_loss").value == pytest.approx(1.0745, abs=0.001)
