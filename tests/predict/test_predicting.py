"""Predictions of a file: the same bytes after any stop, within time and within memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_judge import PAIRS, write_judge

from litee.errors import ConfigError, ResourceError
from litee.finetune import rates
from litee.finetune.deadline import Deadline
from litee.predict import predicting
from litee.predict.familiar import Familiar
from litee.predict.judge import CHUNK_PAIRS, Judge
from litee.predict.predicting import Layout, Limits, choose_chunk, predict_file

LAYOUT = Layout(lambda p: f"{p.pair_id},{p.probabilities[0]:.6f}", "id,p_a")
MANY = tuple(replace(pair, id=f"{k}-{pair.id}") for k in range(5) for pair in PAIRS)


@pytest.fixture(scope="module")
def judge(tiny, tmp_path_factory):
    members = ("statistics", "probe")
    written = write_judge(
        tmp_path_factory.mktemp("judge"), tiny("llama"), members=members, weights=[0.4, 0.6]
    )
    return Judge.from_pretrained(written.folder)


@pytest.fixture
def source(tmp_path):
    """Stands for the file of pairs; only its hash is taken."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("pairs", encoding="utf-8")
    return file


@pytest.fixture
def chunks_of_4(monkeypatch):
    monkeypatch.setattr(predicting, "CHUNK_PAIRS", 4)


def run(judge, source, out, *, pairs=MANY, limits=Limits()):  # noqa: B008
    return predict_file(
        judge, lambda: pairs, out, source=source, count=len(pairs), layout=LAYOUT, limits=limits
    )


def stop_after(monkeypatch, chunks, error):
    """The judge dies at its chunk number `chunks` (from 0). Returns the sizes of those done."""
    done = []
    predict = Judge.predict

    def dying(self, pairs):
        if len(done) == chunks:
            raise error
        done.append(len(pairs))
        return predict(self, pairs)

    monkeypatch.setattr(Judge, "predict", dying)
    return done


def test_what_is_written_is_what_the_judge_says(judge, source, tmp_path, chunks_of_4):
    out = tmp_path / "p.csv"
    found = run(judge, source, out)
    assert (found.done, found.cut) == (25, 5)  # the fourth pair of five is longer than the budget
    lines = out.read_text(encoding="utf-8").splitlines()
    said = [LAYOUT.line(p) for k in range(0, 25, 4) for p in judge.predict(MANY[k : k + 4])]
    assert lines == ["id,p_a", *said]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "pairs.jsonl"]


def test_two_processes_do_not_write_one_file(judge, source, tmp_path):
    out = tmp_path / "p.csv"
    other = predicting.PartFile(out, header="", made_of={})
    with other.held(), pytest.raises(ConfigError, match="another process is writing") as error:
        run(judge, source, out)
    assert error.value.place == str(out) and not out.exists()
    assert run(judge, source, out).done == 25  # the other one has let go


@pytest.mark.parametrize("chunks", [0, 1, 3, 6])
@pytest.mark.parametrize("torn", ["", "1-3,0.12", "half\nlines\n"])
def test_stopped_and_resumed_ends_in_the_same_bytes(
    judge, source, tmp_path, chunks_of_4, monkeypatch, chunks, torn
):
    whole, out = tmp_path / "whole.csv", tmp_path / "p.csv"
    run(judge, source, whole)
    with monkeypatch.context() as patch:
        stop_after(patch, chunks, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(judge, source, out)
    assert not out.exists()
    with (tmp_path / "p.csv.part").open("a", encoding="utf-8") as handle:
        handle.write(torn)  # a kill in the middle of a write
    with monkeypatch.context() as patch:
        sizes = stop_after(patch, 99, KeyboardInterrupt())
        found = run(judge, source, out)
    assert (found.done, found.cut) == (25, 5)  # those of the first run count, too
    assert sum(sizes) == 25 - 4 * chunks
    assert out.read_bytes() == whole.read_bytes()


def test_another_file_of_pairs_begins_anew(judge, source, tmp_path, chunks_of_4, monkeypatch):
    out = tmp_path / "p.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(judge, source, out)
    source.write_text("other pairs", encoding="utf-8")
    sizes = stop_after(monkeypatch, 99, KeyboardInterrupt())
    run(judge, source, out)
    assert sum(sizes) == 25
    assert len(out.read_text(encoding="utf-8").splitlines()) == 26


@pytest.mark.parametrize("note", [b"", b"{}", b"[1", b"[1]", b'{"made_of": {}}', b"\xff"])
def test_a_damaged_note_begins_anew(judge, source, tmp_path, chunks_of_4, note):
    out = tmp_path / "p.csv"
    (tmp_path / "p.csv.part").write_text("id,p_a\nx,1\n", encoding="utf-8")
    (tmp_path / "p.csv.part.json").write_bytes(note)
    assert run(judge, source, out).done == 25
    assert "x,1" not in out.read_text(encoding="utf-8")


def test_a_budget_stops_before_it_is_overrun_and_the_next_run_goes_on(
    judge, source, tmp_path, monkeypatch
):
    now = [0.0]
    predict = Judge.predict

    def slow(self, pairs):
        now[0] += 0.5 * len(pairs)
        return predict(self, pairs)

    monkeypatch.setattr(Judge, "predict", slow)
    monkeypatch.setattr(predicting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(predicting, "Deadline", lambda s: Deadline(s, clock=lambda: now[0]))
    monkeypatch.setattr(predicting, "TRIAL_PAIRS", 2)
    monkeypatch.setattr(predicting, "BUDGET_CHUNKS", 4)
    out = tmp_path / "p.csv"
    with pytest.raises(ResourceError, match=r"after 12 of 25 pairs") as caught:
        run(judge, source, out, limits=Limits(seconds=8.0))  # 1 s of trial, 3 chunks of 2 s
    assert now[0] <= 8.0
    assert caught.value.exit_code == 5
    assert "--budget" in str(caught.value.fix)
    for _ in range(9):
        try:
            run(judge, source, out, limits=Limits(seconds=8.0))
        except ResourceError:
            continue
        break
    whole = tmp_path / "whole.csv"
    monkeypatch.setattr(predicting, "CHUNK_PAIRS", 4)
    run(judge, source, whole)
    assert out.read_bytes() == whole.read_bytes()


def test_chunks_are_as_large_as_memory_allows(judge, monkeypatch):
    assert choose_chunk(judge, MANY[:4], Limits()) == CHUNK_PAIRS
    assert judge.state_numbers == 2 * 30 + 2 * 2 * 32  # text statistics; last and mean state
    each = judge.state_numbers * 4 * predicting.HELD
    monkeypatch.setattr(predicting, "resident_bytes", lambda: 1_000_000)
    limit = 1_000_000 + 100 * each + each // 2
    monkeypatch.setattr(rates, "_status", lambda name: 0)  # the trial itself takes nothing
    assert choose_chunk(judge, MANY[:4], Limits(bytes=limit)) == 100
    with pytest.raises(ResourceError, match="--max-memory is 1 MB"):
        choose_chunk(judge, MANY[:4], Limits(bytes=1_000_000))


def test_the_note_says_what_a_part_is_of(judge, source, tmp_path, chunks_of_4, monkeypatch):
    stop_after(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(judge, source, tmp_path / "p.csv")
    note = json.loads((tmp_path / "p.csv.part.json").read_text(encoding="utf-8"))
    assert note["progress"] == {"chunk": 4, "done": 4, "cut": 1, "unlike": {}}
    assert set(note["made_of"]) == {"pairs", "judge", "suffix"}


def test_pairs_unlike_the_training_votes_are_counted_over_a_stop(
    judge, source, tmp_path, chunks_of_4, monkeypatch
):
    learnt = judge.file.model_copy(update={"familiar": Familiar.of(PAIRS[:1])})
    monkeypatch.setattr(judge, "file", learnt)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(judge, source, tmp_path / "p.csv")
    found = run(judge, source, tmp_path / "p.csv")
    assert found.unlike["any"] == 20  # all but the first of five
    assert found.unlike == learnt.familiar.count(MANY, {})
    (said,) = learnt.familiar.cautions(found.unlike, found.done)
    assert said.startswith("80% of the pairs are unlike")
