"""Folders that studies share: one fills a folder at a time; notes that are damaged."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from litee.errors import ConfigError, InputError
from litee.score.study_store import LOCK, USES, Store, filling, throw_away

HOLD = """
import sys
from pathlib import Path
from litee.score.study_store import filling
with filling(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def places(tmp_path):
    return tmp_path / "shared", tmp_path / "study"


@pytest.fixture
def folder(places):
    return Store(*places).folder("tuned", {"a": 1})


def hold(folder):
    """Another process that fills a folder until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_study_waits_for_the_first(folder, capsys):
    order = []

    def second():
        with filling(folder):
            order.append("second")

    with hold(folder) as process:
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        order.append("first")
        process.communicate()
    waiting.join(10)
    assert order == ["first", "second"]
    said = capsys.readouterr().err
    assert f"process {process.pid} is at work there: waiting" in said


def test_a_dead_process_holds_nothing(folder, capsys):
    with hold(folder) as process:
        process.kill()
    assert str(process.pid) in (folder / LOCK).read_text()
    with filling(folder):
        pass
    assert capsys.readouterr().err == ""


def test_nothing_is_thrown_away_while_another_study_fills_it(places, folder):
    other = Store(*places).folder("chosen", {"b": 2})
    with hold(folder) as process:
        with pytest.raises(ConfigError, match=f"process {process.pid} is at work"):
            throw_away(*places)
        assert folder.is_dir()
        assert other.is_dir()
        process.communicate()
    throw_away(*places)
    assert not folder.exists()
    assert not other.exists()


@pytest.mark.parametrize("content", ['["tuned/', "{}", "[1]"])
def test_damaged_notes_are_named(places, folder, content):
    (places[1] / USES).write_text(content)
    for use in (Store, throw_away):
        with pytest.raises(InputError, match=r"uses\.json: damaged"):
            use(*places)
    assert folder.is_dir()


def test_a_study_does_not_lie_in_the_store(places):
    with pytest.raises(ConfigError, match="for what studies share"):
        Store(places[0], places[0] / ".." / "shared")
