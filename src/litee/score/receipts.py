"""What scoring cost, per metric: written by `litee score`, read by `litee agree`.

Knows nothing of metrics beyond their names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.errors import InputError
from litee.rundir import Json, write_json


@dataclass(frozen=True, slots=True)
class Cost:
    """What one metric cost.

    Attributes:
        rows: rows it was given.
        scored: rows it scored.
        seconds: time spent in it.
    """

    rows: int
    scored: int
    seconds: float

    @property
    def seconds_per_1000(self) -> float:
        """Seconds per 1,000 rows.

        >>> Cost(500, 500, 2.0).seconds_per_1000
        4.0
        """
        return 1000 * self.seconds / max(self.rows, 1)


def write_costs(path: Path, costs: Mapping[str, Cost], extra: Mapping[str, Json]) -> None:
    """Write a receipt: `costs` by metric, and whatever else the caller wants to record."""
    rows: dict[str, Json] = {
        name: {
            "rows": cost.rows,
            "scored": cost.scored,
            "seconds": round(cost.seconds, 4),
            "seconds_per_1000": round(cost.seconds_per_1000, 5),
        }
        for name, cost in costs.items()
    }
    write_json(path, {**extra, "metrics": rows})


def read_costs(paths: Sequence[Path]) -> dict[str, float]:
    """Metric → seconds per 1,000 rows from receipts.

    Raises:
        InputError: a file is no receipt.
    """
    found: dict[str, float] = {}
    for path in paths:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            for name, cost in record["metrics"].items():
                found[name] = float(cost["seconds_per_1000"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            fix = "give the .receipt.json that litee score wrote beside its output"
            raise InputError("is no receipt of litee score", place=str(path), fix=fix) from error
    return found
