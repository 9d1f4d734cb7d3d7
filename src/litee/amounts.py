"""Durations and sizes as people write them. Knows nothing of what they bound."""

from __future__ import annotations

import re
from collections.abc import Mapping

from litee.errors import ConfigError

_TIMES = {"s": 1, "m": 60, "h": 3600}
_SIZES = {"MB": 10**6, "GB": 10**9}


def seconds_of(text: str, *, option: str = "--budget") -> float:
    """A duration such as 90s, 20m or 1.5h in seconds.

    Raises:
        ConfigError: anything else, or less than a second.

    >>> seconds_of("1.5h"), seconds_of("90")
    (5400.0, 90.0)
    """
    return _amount(text, _TIMES, option, "90s, 20m or 2h")


def bytes_of(text: str, *, option: str = "--max-memory") -> int:
    """A size such as 500MB or 8GB in bytes.

    Raises:
        ConfigError: anything else, or less than a byte.

    >>> bytes_of("1.5GB")
    1500000000
    """
    return int(_amount(text, _SIZES, option, "500MB or 8GB"))


def _amount(text: str, units: Mapping[str, int], option: str, examples: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = next((u for u in units if found and found[2].lower() == u.lower()), None)
    if found is not None and not found[2]:
        unit = next(iter(units))
    if found is None or unit is None or float(found[1]) * units[unit] < 1:
        raise ConfigError(f"{option} = {text!r} is no amount", fix=f"write it like {examples}")
    return float(found[1]) * units[unit]
