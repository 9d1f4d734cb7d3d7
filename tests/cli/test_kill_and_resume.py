"""A killed fit goes on to the same bytes; what was interrupted or changed is said.

Most kills are `os._exit` in a forked child at a named point, which runs no clean-up, as SIGKILL
does; two are real signals to a process of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SETTINGS, digests, judge_bytes, litee, vote_rows, write_rows, write_yaml

from litee.finetune import loop
from litee.finetune.adapters import Adapters
from litee.finetune.states import PooledStore, TokenStore
from litee.predict import fit
from litee.rundir import RunDir

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

CHECK_RELOAD = fit._check_reload
KILLED = 9
FAILED = 3


def in_child(work: Callable[[], None]) -> int:
    """Exit code of a forked child: KILLED when it killed itself, 0 when `work` came back."""
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  the child must never return into pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die(*_: object, **__: object) -> None:
    os._exit(KILLED)


def before(owner: object, name: str, call: int) -> Callable[[], None]:
    """Die instead of the `call`-th call of a method."""
    return _patch(owner, name, call, after=False)


def after(owner: object, name: str, call: int) -> Callable[[], None]:
    """Die right after the `call`-th call of a method."""
    return _patch(owner, name, call, after=True)


def _patch(owner: object, name: str, call: int, *, after: bool) -> Callable[[], None]:
    def arm() -> None:
        plain = getattr(owner, name)
        calls = 0

        def counted(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call and not after:
                die()
            result = plain(*args, **kwargs)
            if calls == call:
                die()
            return result

        setattr(owner, name, counted)  # in the child only, which never undoes it

    return arm


def steps_after_save(saves: int, steps: int) -> Callable[[], None]:
    """Die `steps` optimiser steps after a checkpoint."""

    def arm() -> None:
        plain = loop._save
        calls = 0

        def save(*given: object) -> None:
            nonlocal calls
            calls += 1
            plain(*given)
            if calls == saves:
                after(loop, "_round", steps)()

        loop._save = save

    return arm


def at_stage(start: str, end: str = "") -> Callable[[], None]:
    """Die when the work of a stage is done and the stage is not marked yet."""

    def arm() -> None:
        plain = RunDir.finish

        def finish(self: RunDir, stage: str, seconds: float, tokens: int = 0) -> None:
            if stage.startswith(start) and stage.endswith(end):
                die()
            plain(self, stage, seconds, tokens)

        RunDir.finish = finish  # type: ignore[method-assign]

    return arm


def in_reload_check() -> None:
    """Die where the saved judge is handed to a fresh process; `quick` fits leave that out."""
    fit._check_reload = CHECK_RELOAD
    fit.subprocess.run = die  # type: ignore[assignment]


#: In the order in which a fit meets them; each kills the run that the one before left behind.
POINTS = {
    "a statistics member, not marked": at_stage("member-statistics"),
    "one pack into the pooled states": before(PooledStore, "_run", 2),
    "a shard of pooled states just written": after(PooledStore, "_write", 1),
    "the depth search, not marked": at_stage("depth-"),
    "a probe member, not marked": at_stage("member-probe"),
    "token states half computed": before(TokenStore, "_compute", 2),
    "token states written, not marked": after(TokenStore, "_flush", 1),
    "the first checkpoint of the branches": after(loop, "_save", 1),
    "two steps after the first checkpoint": after(loop, "_round", 2),
    "the second checkpoint of the branches": after(loop, "_save", 1),
    "the first branch saved, the second not": after(Adapters, "save", 1),
    "the branches, not marked": at_stage("branch-lora"),
    "a step after the second checkpoint": steps_after_save(2, 1),
    "joint states, not marked": at_stage("states-joint"),
    "the third checkpoint of branches on joint sequences": after(loop, "_save", 3),
    "the branches on joint sequences, not marked": at_stage("branch-joint"),
    "the fresh process that reloads the judge": in_reload_check,
    "the check of the saved judge, not marked": at_stage("reload-check"),
}


@pytest.fixture(scope="module")
def command(votes, backbone, config):
    return ("fit", votes, "--config", config, "--backbone", backbone)


def predict(run: Path, votes: Path, out: Path) -> bytes:
    assert litee("predict", run, votes, "-o", out, "--threads", 1).code == 0
    return out.read_bytes()


def same_judge(run: Path, whole: Path, votes: Path, folder: Path) -> None:
    assert judge_bytes(run) == judge_bytes(whole)
    one = predict(run, votes, folder / "resumed.jsonl")
    assert one == predict(whole, votes, folder / "whole.jsonl")
    assert not list(run.rglob("*.tmp"))
    assert not list(run.rglob("*.checkpoint"))
    assert not list(run.rglob("tokens.bin"))


def test_killed_at_every_stage(command, judge, votes, tmp_path, monkeypatch, quick):
    """One run, killed at 18 points one after the other, against one that was left alone."""
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    for name, arm in POINTS.items():

        def work(arm: Callable[[], None] = arm) -> None:
            arm()
            litee(*command, "--out", run, "--resume")

        assert in_child(work) == KILLED, f"never came to: {name}"
    done = litee(*command, "--out", run, "--resume")
    assert done.code == 0, done.err
    same_judge(run, judge[0], votes, tmp_path)
    missing = set(digests(judge[0])) - set(digests(run))
    # the quick fit writes no reload.json; states that are all on disk run no stage of their own
    assert {name.split("-")[0] for name in missing} <= {"run/reload.json", "stages/states"}


def kind(file: Path) -> str:
    """Its path, the same for all folds and packs."""
    return re.sub(r"(fold|packs/)\d", r"\1", str(file))


def test_killed_in_the_middle_of_writing_every_file(votes, backbone, tmp_path, monkeypatch, quick):
    """Each session dies at the first file of a kind that none died at; half of it stays behind."""
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    changes = {"members": ["statistics", "probe", "lora"], "num_train_epochs": 1}
    config = write_yaml(tmp_path / "c.yaml", SETTINGS | changes)
    command = ("fit", votes, "--config", config, "--backbone", backbone)
    replace = Path.replace
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert litee(*command, "--out", whole).code == 0
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "other-cache"))
    died_at: list[str] = []
    note = tmp_path / "died-at.txt"

    def work() -> None:
        def halve(self: Path, target: Path) -> Path:
            if kind(target) in died_at:
                return replace(self, target)
            note.write_text(kind(target))
            os.truncate(self, self.stat().st_size // 2)
            die()
            raise AssertionError

        Path.replace = halve  # type: ignore[method-assign]
        assert litee(*command, "--out", run, "--resume").code == 0

    while in_child(work) == KILLED:
        died_at.append(note.read_text())
    assert len(set(died_at)) == len(died_at)
    written = {kind(file) for file in run.rglob("*") if file.is_file()}
    assert written <= set(died_at)
    assert any(name.endswith(".checkpoint") for name in died_at)
    same_judge(run, whole, votes, tmp_path)


def start(command: tuple[object, ...], out: Path, cache: Path, *more: str) -> subprocess.Popen[str]:
    program = "from litee.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, command), "--out", str(out), *more],
        env=os.environ | {"LITEE_CACHE": str(cache), "PYTHONHASHSEED": "7"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background of a shell ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 120
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.002)


def end(process: subprocess.Popen[str], sign: signal.Signals) -> tuple[int, str]:
    process.send_signal(sign)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.slow
def test_real_signals(command, judge, votes, tmp_path, monkeypatch, quick):
    """SIGKILL while a branch trains, then Ctrl-C while the next one does."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    found = start(command, run, cache)
    wait_for(lambda: any(run.glob("run/lora-*/*.checkpoint")), found)
    code, _ = end(found, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not any(run.glob("stages/branch-lora-*"))

    found = start(command, run, cache, "--resume")
    wait_for(lambda: any(run.glob("stages/branch-lora-*.json")), found)
    code, err = end(found, signal.SIGINT)
    assert code == 130
    assert err.endswith("litee: interrupted; run the same command with --resume to go on\n")
    assert "Traceback" not in err
    assert not (run / "judge.json").exists()

    monkeypatch.setenv("LITEE_CACHE", str(cache))
    assert litee(*command, "--out", run, "--resume").code == 0
    same_judge(run, judge[0], votes, tmp_path)


def test_resuming_a_finished_run_changes_no_byte_of_the_judge(command, judge, quick):
    before = judge_bytes(judge[0])
    done = litee(*command, "--out", judge[0], "--resume")
    assert done.code == 0
    assert judge_bytes(judge[0]) == before
    assert done.out == judge[1].out


def test_a_used_folder_without_resume_is_refused(command, judge):
    done = litee(*command, "--out", judge[0])
    assert done.code == 2
    assert "the folder already holds a run\n  fix: add --resume" in done.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--seed", 5), "settings.seed: 0 → 5"),
        (("--folds", 3), "settings.folds: 2 → 3"),
        (("--learning-rate", 0.5), "settings.learning_rate: 0.001 → 0.5"),
        (("--members", "statistics"), "settings.members: ["),
    ],
)
def test_resuming_with_other_settings_is_refused(command, judge, more, said):
    before = digests(judge[0])
    done = litee(*command, "--out", judge[0], "--resume", *more)
    assert done.code == 2
    assert done.out == ""
    assert f"the run to resume was started with other settings: {said}" in done.err
    assert done.err.count("litee: ") == 1
    assert digests(judge[0]) == before


def test_resuming_with_another_number_of_threads_is_allowed(command, judge, quick):
    assert litee(*command, "--out", judge[0], "--resume", "--threads", 2).code == 0


def test_resuming_with_changed_votes_is_refused(judge, backbone, config, tmp_path):
    votes = write_rows(tmp_path / "votes.jsonl", vote_rows()[1:])
    command = ("fit", votes, "--config", config, "--backbone", backbone)
    done = litee(*command, "--out", judge[0], "--resume")
    assert done.code == 2
    assert "inputs.votes.jsonl: '" in done.err


def test_resuming_with_votes_of_another_name_is_refused(judge, backbone, config, tmp_path):
    votes = write_rows(tmp_path / "renamed.jsonl", vote_rows())
    command = ("fit", votes, "--config", config, "--backbone", backbone)
    done = litee(*command, "--out", judge[0], "--resume")
    assert done.code == 2
    assert "inputs.renamed.jsonl: None → " in done.err


def test_interrupted_in_this_process_says_how_to_go_on(command, tmp_path, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("litee.collect.votes.load_votes", interrupt)
    done = litee(*command, "--out", tmp_path / "run")
    assert (done.code, done.out) == (130, "")
    assert done.err == "litee: interrupted; run the same command with --resume to go on\n"
    done = litee("data", "inspect", command[1])
    assert (done.code, done.err) == (130, "litee: interrupted\n")
