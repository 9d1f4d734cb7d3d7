"""Adds figures to results/serve.json, which several programs write, one after the other."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from litee.rundir import Json, Receipt, cpu_name, peak_rss_mb, sha256_file, versions
from litee.score.results import new_result, read_result, write_result

NOTES = (
    "Measured beside other jobs on the same two cores. load: a server of its own process, 200 "
    "people at once, each on a connection of their own, about a second between votes, one vote in "
    "twenty sent twice; times as the voter's side sees them, with the disk's flush before every "
    "acknowledgement. Active choice: replay of real votes; its votes_ratio is votes that the "
    "informative choice needs over votes that the random one needs for the same rank correlation "
    "with a ranking by other people's votes."
)


def merge(
    out: Path,
    seconds: float,
    metrics: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    tables: Mapping[str, Json] | None = None,
    inputs: Mapping[str, Path] | None = None,
) -> None:
    """Write the file anew with these figures in it; others stay, and so do their commands."""
    old = read_result(out) if out.exists() else None
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    commands = [line for line in (old.command.split("; ") if old else []) if line != command]
    receipt = Receipt()
    if old is not None:
        known = {field.name for field in fields(Receipt)}
        receipt = Receipt(**{k: v for k, v in old.receipt.items() if k in known})
    receipt.stages[command] = round(seconds, 1)
    receipt.seconds = round(sum(receipt.stages.values()), 1)
    receipt.device, receipt.versions = cpu_name(), versions()
    receipt.peak_rss_mb = max(receipt.peak_rss_mb, round(peak_rss_mb(), 1))
    receipt.inputs.update({name: sha256_file(path) for name, path in (inputs or {}).items()})
    result = new_result(
        out.stem,
        "; ".join([*commands, command]),
        receipt,
        {**(old.metrics if old else {}), **metrics},
        intervals={**(old.intervals if old else {}), **(intervals or {})},
        tables={**(old.tables if old else {}), **(tables or {})},
        notes=NOTES,
    )
    write_result(out.parent, result)
