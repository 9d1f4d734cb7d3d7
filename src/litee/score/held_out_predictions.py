"""What finished judges say of held-out pairs, asked once: a study that goes on finds it again.

Knows nothing of votes, arms and budgets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litee.predict.judge import Judge
from litee.records import Pair
from litee.rundir import Json, sha256_file, sha256_json, write_json

Floats = npt.NDArray[np.float64]

#: In a judge's folder: what it was asked, and its probabilities.
HELD_OUT = "held_out.json"


def held_out_probabilities(judge: Path, pairs: Sequence[Pair]) -> Floats:
    """What a judge says of these pairs: kept in its folder, else asked now and kept.

    Args:
        judge: folder of a finished judge.
        pairs: that it has not learnt from.

    Returns:
        (pairs, 3): P(A), P(B), P(tie). Another judge in the folder, or other pairs, and it is
        asked again; so it is where the file is damaged.

    Raises:
        ModelError: the judge is damaged.
    """
    asked: dict[str, Json] = {
        "judge": sha256_file(judge / "judge.json"),
        "pairs": sha256_json([json.dumps(asdict(pair)) for pair in pairs]),
    }
    file = judge / HELD_OUT
    kept = _kept(file, asked)
    if kept is not None and kept.shape == (len(pairs), 3):
        return kept
    found = Judge.from_pretrained(judge).predict(pairs)
    rows: list[Json] = [list(p.probabilities) for p in found]
    write_json(file, asked | {"probabilities": rows})
    return np.array(rows, dtype=np.float64)


def _kept(file: Path, asked: dict[str, Json]) -> Floats | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = np.array(content.pop("probabilities"), dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if content == asked else None
