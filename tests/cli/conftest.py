"""One votes file, one tiny backbone and one fitted judge for all tests of the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import SETTINGS, Done, litee, vote_rows, write_rows, write_yaml


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands set torch's threads; put them back."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def backbone(tiny: Callable[[str], Path]) -> Path:
    return tiny("llama")


@pytest.fixture(scope="session")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("votes") / "votes.jsonl", vote_rows())


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of members, as small as they get."""
    return write_yaml(tmp_path_factory.mktemp("config") / "small.yaml", SETTINGS)


@pytest.fixture(scope="session")
def judge(
    tmp_path_factory: pytest.TempPathFactory, votes: Path, backbone: Path, config: Path
) -> tuple[Path, Done]:
    """A judge with all kinds of members, reloaded in a fresh process, and what fit printed."""
    out = tmp_path_factory.mktemp("fitted") / "judge"
    return out, litee("fit", votes, "--out", out, "--config", config, "--backbone", backbone)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits leave out the check in a fresh process, which takes longer than all the rest."""
    monkeypatch.setattr("litee.predict.fit._check_reload", lambda *_, **__: 0)


@pytest.fixture
def no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans leave out measuring how long a process takes to start, which takes longest of all."""
    monkeypatch.setattr("litee.predict.measure._fresh_process", lambda: 5.0)


@pytest.fixture
def fit(tmp_path: Path, backbone: Path, config: Path) -> Callable[..., Done]:
    """`litee fit` on a file, with small settings and a new --out."""

    def run(votes: Path, *more: object) -> Done:
        base = ("--out", tmp_path / "out", "--config", config, "--backbone", backbone)
        return litee("fit", votes, *base, *more)

    return run
