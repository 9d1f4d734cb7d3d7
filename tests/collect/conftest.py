"""Small writers for votes files, shared by the tests of `collect`."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows (dicts → JSON lines) or text or bytes to a file of the given name."""

    def writer(content, name: str = "votes.jsonl") -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return writer


@pytest.fixture
def row() -> Callable[..., dict[str, object]]:
    """A canonical row with some cells changed; a value of ... removes the cell."""

    def maker(**changes: object) -> dict[str, object]:
        cells: dict[str, object] = {
            "prompt": "What is new?",
            "response_a": "Much.",
            "response_b": "Little.",
            "winner": "a",
        }
        cells.update(changes)
        return {name: value for name, value in cells.items() if value is not ...}

    return maker
