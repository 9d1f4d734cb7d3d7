"""Quality columns from files: an id and named numbers per row.

Written by a judge, by another grader, or by hand; this module knows nothing of how.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.instructions import records
from litee.collect.reading import Reading
from litee.errors import InputError

Named = dict[str, float]


def read_scores(paths: Sequence[Path]) -> dict[str, Named]:
    """Id → its numbers, over all files; cells that are no numbers are left out.

    Raises:
        InputError: a file is broken, has no column `id`, or gives an id two values of one name.
    """
    found: dict[str, Named] = {}
    for path in paths:
        for place, cells in records(path, Reading(DemonstrationSettings())):
            if "id" not in cells:
                problem = f"no column 'id' (found: {', '.join(cells)})"
                fix = "write the demonstration's id and its scores into each row"
                raise InputError(problem, place=place, fix=fix)
            named = found.setdefault(str(cells["id"]), {})
            for name, number in _numbers(cells).items():
                if named.setdefault(name, number) != number:
                    problem = f"{name} of id {cells['id']!r} was {named[name]:g}, here {number:g}"
                    raise InputError(problem, place=place, fix="keep one of the two rows")
    return found


def _numbers(cells: Mapping[str, object]) -> Named:
    found: Named = {}
    for name, value in cells.items():
        if name == "id" or isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        try:
            number = float(value)
        except (ValueError, OverflowError):
            continue
        if math.isfinite(number):
            found[name] = number
    return found
