"""The split of votes, the job file, the record and its arithmetic; no peer is installed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers.children import run_child
from benchmarks.peers.environments import CONSTRAINTS, RECIPES, REPOSITORY, torch_requirement
from benchmarks.peers.job import Clock, Job, Row, read_rows
from benchmarks.peers.records import (
    Cost,
    Epoch,
    PeerRun,
    Quality,
    doubts_of,
    from_json,
    judge,
    to_json,
)
from benchmarks.peers.run import Effort, run_peer
from benchmarks.peers.votes import SplitSettings, choose, make_split
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from litee.collect.folds import group_prompts
from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.errors import ConfigError, InputError, ModelError
from litee.records import Outcome, Pair, VotedPair

_TOPICS = ("rivers", "tax law", "sourdough", "violins", "orbits", "chess", "whales", "sonnets")


def _voted(number: int, prompt: str, votes: int = 3) -> VotedPair:
    pair = Pair(f"p{number}", (prompt,), (f"first answer {number}",), (f"second {number}",))
    winners = (Outcome.A, Outcome.B, Outcome.TIE)[:votes]
    shares = tuple(float(o in winners) / votes for o in (Outcome.A, Outcome.B, Outcome.TIE))
    names = tuple(f"r{k}" for k in range(votes))
    return VotedPair(pair, shares, votes, winners, names)


def _pool(pairs_of_prompt: int = 5) -> list[VotedPair]:
    prompts = [topic for topic in _TOPICS for _ in range(pairs_of_prompt)]
    return [_voted(n, f"Tell me everything about {p}") for n, p in enumerate(prompts)]


def _settings(**changes: object) -> SplitSettings:
    given_values = {"files": (), "train": 20, "votes_per_pair": 2, "valid": 8, **changes}
    return SplitSettings(**given_values)


@given(st.integers(0, 50))
def test_prompts_lie_on_one_side_and_sizes_are_as_asked(seed: int) -> None:
    pool = _pool()
    train, valid, left_out = choose(pool, [10] * len(pool), _settings(seed=seed))
    assert (len(train), len(valid)) == (10, 8)
    groups = group_prompts([v.pair for v in pool])
    assert not {groups[r] for r in train} & {groups[r] for r in valid}
    assert len(train) + len(valid) + left_out.total() == len(pool)


def test_left_out_pairs_are_counted_by_reason() -> None:
    pool = _pool()
    empty = Pair("empty", ("Tell me everything about rivers",), (" ",), ("",))
    pool.append(VotedPair(empty, (0.0, 0.0, 1.0), 1, (Outcome.TIE,), ("r",)))
    counts = [10] * len(pool)
    counts[0] = 241
    train, valid, left_out = choose(pool, counts, _settings(per_prompt=4, train=12))
    assert left_out["more than 240 tokens"] == 1
    assert left_out["no answer"] == 1
    assert left_out["enough pairs of its prompt"] == 7  # one of each prompt but the one above
    assert 0 not in train + valid
    assert len(pool) - 1 not in train + valid


def test_a_pair_with_too_few_votes_does_not_train() -> None:
    pool = [*_pool(), *(_voted(100 + k, f"Explain item {k} at length", 1) for k in range(9))]
    train, _, left_out = choose(pool, [10] * len(pool), _settings(valid=2, train=40))
    assert all(pool[r].votes >= 2 for r in train)
    assert left_out["too few votes"] > 0


def test_answers_of_validation_are_not_trained_on() -> None:
    pool = _pool()
    twins = [
        VotedPair(
            Pair(f"t{k}", (f"Tell me everything about {topic}",), ("Yes",), ("no ",)),
            (1.0, 0.0, 0.0),
            2,
            (Outcome.A, Outcome.A),
            ("r", "s"),
        )
        for k, topic in enumerate(_TOPICS)
    ]
    pool += twins
    train, valid, left_out = choose(pool, [10] * len(pool), _settings(valid=12, train=20))
    sides = [{pool[r].pair.id[0] == "t" for r in side} for side in (train, valid)]
    assert not (True in sides[0] and True in sides[1])
    assert left_out["answers occur in validation"] > 0


def test_too_small_a_pool_is_said() -> None:
    with pytest.raises(InputError, match="only 0 training and 5 validation pairs fit"):
        choose(_pool()[:5], [10] * 5, _settings(valid=5))


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for n, voted in enumerate(_pool()):
        cast = [[f"r{k}", "ab"[int(rng.integers(2))]] for k in range(3)]
        texts = {
            "prompt": list(voted.pair.prompt),
            "response_a": list(voted.pair.response_a),
            "response_b": list(voted.pair.response_b),
        }
        lines.append(json.dumps({"pair_id": f"x:{n}", "source": "x", **texts, "votes": cast}))
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_split_is_written_once_and_read_by_litee_and_workers(tiny, votes, tmp_path) -> None:
    settings = _settings(files=(str(votes),), backbone=str(tiny("llama")))
    split = make_split(settings, tmp_path / "split")
    written = split.train.stat().st_mtime_ns
    assert make_split(settings, tmp_path / "split") == split
    assert split.train.stat().st_mtime_ns == written

    rows = read_rows(split.train)
    assert tuple(r.id for r in rows) == split.train_ids
    vote_set = load_votes([split.train])
    assert len(vote_set.votes) == split.train_votes == 20
    assert [v.pair.id for v in gather(vote_set.votes)] == [r.id for r in rows]
    assert {v.votes for v in gather(load_votes([split.valid]).votes)} == {3}
    other = _settings(files=settings.files, backbone=settings.backbone, seed=1)
    changed = make_split(other, tmp_path / "other")
    assert changed.sha256 != split.sha256


def test_votes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="21 votes cannot be 2 per pair"):
        make_split(_settings(train=21))


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = Job("train", "t", "v", "b", str(tmp_path), 12.5, 288, threads=1)
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job
    assert job.max_length == 288 + 128


def test_a_row_has_its_most_frequent_vote(tmp_path: Path) -> None:
    texts = {"prompt": ["q"], "response_a": ["x"], "response_b": ["y"]}
    cast = [["1", "tie"], ["2", "b"], ["3", "b"]]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"pair_id": "1", **texts, "votes": cast}) + "\n")
    assert read_rows(path) == [Row("1", ("q",), ("x",), ("y",), "b")]
    assert read_rows(path)[0].winner_first == (("y",), ("x",))


def test_the_job_module_needs_the_standard_library_alone() -> None:
    code = (
        "import sys; import benchmarks.peers.job; "
        "print([m for m in ('numpy', 'torch', 'litee', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_clock_gives_every_second_to_one_phase() -> None:
    import time

    clock = Clock(time.time() - 5)
    clock.switch("train")
    clock.switch("validate")
    clock.switch("train")
    clock.switch("end")
    assert set(clock.phases) == {"load", "train", "validate"}
    assert 5 <= clock.phases["load"] < 6
    assert sum(clock.phases.values()) < 6


def test_quality_of_three_way_probabilities_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet((1, 1, 1), size=40)
    label = rng.integers(0, 3, size=40)
    names = [str(k) for k in range(40)]
    shares = {n: tuple(np.eye(3)[k]) for n, k in zip(names, label, strict=True)}
    quality = judge(dict(zip(names, p.tolist(), strict=True)), shares, 0.2)
    assert quality.log_loss == pytest.approx(log_loss(label, p, labels=[0, 1, 2]))
    decisive = label < 2
    first = p[decisive, 0] / p[decisive, :2].sum(axis=1)
    assert quality.decisive_log_loss == pytest.approx(log_loss(label[decisive] == 0, first))
    right = (first > 0.5) == (label[decisive] == 0)
    assert quality.decisive_accuracy == pytest.approx(right.mean())
    assert quality.log_loss_constant_tie is None


def test_quality_of_a_binary_judge_by_hand() -> None:
    quality = judge({"1": (0.8,), "2": (0.5,)}, {"1": (0.5, 0.0, 0.5), "2": (0.0, 1.0, 0.0)}, 0.25)
    assert quality.log_loss is None
    assert quality.decisive_log_loss == pytest.approx((-0.5 * math.log(0.8) - math.log(0.5)) / 1.5)
    assert quality.decisive_accuracy == pytest.approx((0.5 * 1 + 1 * 0.5) / 1.5)
    by_hand = (-0.5 * math.log(0.6) - 0.5 * math.log(0.25) - math.log(0.375)) / 2
    assert quality.log_loss_constant_tie == pytest.approx(by_hand)


def test_predictions_on_other_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="different pairs"):
        judge({"1": (1.0, 0.0, 0.0)}, {"2": (1.0, 0.0, 0.0)}, 0.1)
    with pytest.raises(ValueError, match="not finite"):
        judge({"1": (math.nan, 0.0, 0.0)}, {"1": (1.0, 0.0, 0.0)}, 0.1)


def _quality(log_loss_value: float) -> Quality:
    return Quality(log_loss_value, None, 0.6, 0.7)


def test_a_run_that_did_not_learn_is_doubted() -> None:
    prior = _quality(1.0)
    rising = [Epoch(1, 8, 20.0, 10.0, 1.0, _quality(0.9))]
    assert doubts_of([1.0] * 4 + [1.1] * 4, rising, prior) == (
        "training loss went from 1.0000 to 1.1000",
    )
    assert doubts_of([1.0] * 4 + [0.9] * 4, rising, prior) == ()


def test_the_record_survives_its_file_and_knows_when_a_loss_was_reached() -> None:
    cost = Cost(12.0, 20.0, {"load": 2.0, "train": 8.0}, 900.0, (0.1, 2.0))
    run = PeerRun(
        peer="pairjudge",
        version="0.3.0",
        versions={"torch": "2.13.0"},
        split_sha256="0" * 64,
        train_votes=20,
        train_pairs=10,
        valid_pairs=8,
        max_tokens=288,
        settings={"threads": 2.0},
        training=cost,
        trainable=100,
        tokens=4000,
        tokens_padded=5000,
        epochs=(
            Epoch(1, 2, 6.0, 4.0, 1.1, _quality(0.95)),
            Epoch(2, 4, 10.0, 8.0, 0.9, _quality(0.9)),
        ),
        prediction=cost,
        pairs_per_second=4.0,
        predicted=_quality(0.89),
        prior=_quality(1.0),
    )
    assert from_json(to_json(run)) == run
    assert run.tokens_per_second == 500
    assert [run.seconds_to(x) for x in (0.95, 0.92, 0.5)] == [6.0, 10.0, None]


def test_a_child_is_measured_and_its_failure_is_said(tmp_path: Path) -> None:
    code = "import time; x = bytearray(60_000_000); time.sleep(0.3)"
    child = run_child([sys.executable, "-c", code], tmp_path / "log", threads=1, cwd=REPOSITORY)
    assert 60 < child.cost.peak_rss_mb < 200
    assert child.cost.wall_seconds >= 0.3
    with pytest.raises(ModelError, match="exit code 3"):
        run_child([sys.executable, "-c", "exit(3)"], tmp_path / "log", threads=1, cwd=REPOSITORY)


def test_every_peer_has_a_worker() -> None:
    for peer in RECIPES:
        assert (REPOSITORY / "benchmarks" / "peers" / f"worker_{peer}.py").is_file()
    assert torch_requirement(CONSTRAINTS.read_text(encoding="utf-8")).startswith("torch==2")


def test_a_finished_run_is_given_back_and_another_config_is_not(tiny, votes, tmp_path) -> None:
    settings = _settings(files=(str(votes),), backbone=str(tiny("llama")))
    split = make_split(settings, tmp_path / "split")
    cost, quality = Cost(1.0, 1.0, {}, 1.0, (0.0, 0.0)), _quality(0.9)
    effort = Effort(litee_config=tmp_path / "litee.yaml")
    effort.litee_config.write_text("folds: 2\n", encoding="utf-8")
    settings_of_run = {k: float(v) for k, v in asdict(Effort()).items() if v is not None}
    run = PeerRun(
        peer="litee",
        version="0",
        versions={},
        split_sha256=split.sha256,
        train_votes=20,
        train_pairs=10,
        valid_pairs=8,
        max_tokens=240,
        settings=settings_of_run,
        training=cost,
        trainable=0,
        tokens=0,
        tokens_padded=0,
        epochs=(Epoch(0, 0, 1.0, 1.0, None, quality),),
        prediction=cost,
        pairs_per_second=1.0,
        predicted=quality,
        prior=quality,
        config="folds: 2\n",
    )
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text(to_json(run), encoding="utf-8")
    assert run_peer("litee", split, effort, out) == run
    effort.litee_config.write_text("no_such_setting: 2\n", encoding="utf-8")
    with pytest.raises(ModelError, match="no_such_setting"):
        run_peer("litee", split, effort, out)
