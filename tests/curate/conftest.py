"""Files of made-up demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_demonstrations import Row, write_rows


@pytest.fixture
def demos(tmp_path: Path) -> Callable[[list[Row]], Path]:
    return lambda rows: write_rows(tmp_path / "demos.jsonl", rows)
