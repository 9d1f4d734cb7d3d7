"""The published figures of five real vote sets come out of the summary."""

from pathlib import Path

import pytest

from litee.collect.folds import check_folds, check_leak, make_folds
from litee.collect.inspect import inspect_votes
from litee.collect.pairs import gather
from litee.collect.votes import load_votes

DATA = Path(__file__).parents[2] / "../shared/data/votes"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent"),
]

# votes, pairs, prompts, annotators, a, b, tie, entropy, agreement, vote pairs, decisive, longer
FIGURES = {
    "mt_bench_human": (3355, 2396, 160, 65, 1293, 1282, 780, 1.0743, 0.646, 1199, 0.823, 0.680),
    "llmfao": (8931, 2139, 13, 124, 2911, 2549, 3471, 1.0906, 0.532, 15112, 0.701, 0.410),
    "guanaco_vicuna80": (6864, 2496, 78, 4, 3127, 2948, 789, 0.9698, 0.516, 6552, 0.633, 0.730),
    "pandalm": (2997, 999, 170, 3, 1255, 1416, 326, 0.9601, 0.920, 2997, 0.947, 0.668),
    "lfqa_experts": (260, 140, 140, 1, 140, 120, 0, 0.6902, 0.781, 160, 0.781, 0.692),
}
# median and maximum characters of an answer; pairs with identical and with empty answers
LENGTHS = {
    "mt_bench_human": (869, 8733, 18, 10),
    "llmfao": (870, 1926, 0, 289),
    "guanaco_vicuna80": (1521, 3945, 0, 0),
    "pandalm": (118, 1498, 0, 54),
    "lfqa_experts": (422, 4384, 0, 0),
}


def read(name):
    return load_votes([DATA / f"{name}.jsonl.gz"])


@pytest.mark.parametrize("name", FIGURES)
def test_table_of_the_data_description(name):
    summary = inspect_votes(read(name))
    votes, pairs, prompts, people, a, b, tie, entropy, agree, vote_pairs, decisive, longer = (
        FIGURES[name]
    )
    assert (summary.votes, summary.pairs, summary.prompts) == (votes, pairs, prompts)
    assert summary.annotators == people
    assert summary.outcomes == {"a": a, "b": b, "tie": tie, "both_bad": 0}
    assert summary.prior_entropy == pytest.approx(entropy, abs=5e-5)
    assert summary.agreement.score.value == pytest.approx(agree, abs=5.1e-4)
    assert summary.agreement.vote_pairs == vote_pairs
    assert summary.agreement_decisive.score.value == pytest.approx(decisive, abs=5.1e-4)
    assert summary.longer_wins.value == pytest.approx(longer, abs=5.1e-4)
    median, longest, identical, empty = LENGTHS[name]
    assert summary.answer_length.median == pytest.approx(median, abs=0.51)
    assert summary.answer_length.max == longest
    assert (summary.identical_answers, summary.empty_answers) == (identical, empty)
    assert summary.dropped.total == 0


def test_training_files_make_balanced_leak_proof_folds():
    names = [name for name in FIGURES if name != "mt_bench_human"]
    votes = load_votes([DATA / f"{name}.jsonl.gz" for name in names])
    assert len(votes.votes) == 19_052
    pairs = gather(votes.votes)
    folds = make_folds(pairs)
    check_folds(pairs, folds)
    sizes = [folds.folds.count(fold) for fold in range(5)]
    assert max(sizes) / min(sizes) < 1.2
    assert len(set(folds.groups)) == 400  # 401 prompts, two of which share a long answer


def test_the_test_source_shares_nothing_with_the_training_files():
    names = [name for name in FIGURES if name != "mt_bench_human"]
    train = gather(load_votes([DATA / f"{name}.jsonl.gz" for name in names]).votes)
    check_leak(train, gather(read("mt_bench_human").votes))
