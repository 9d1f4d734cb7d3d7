"""A finished tuning experiment as a results file.

    python experiments/tuning/record.py NAME RUN COMPARISON [NOTES]

RUN is the folder of `litee tune`, COMPARISON that of `litee compare`, tuned model first. The win
rates are those of the judge called `independent`, or of the first one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from litee.rundir import Json, Receipt
from litee.score.results import new_result, write_result

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Write results/NAME.json; returns the exit code."""
    if not 3 <= len(arguments) <= 4:
        sys.stderr.write("usage: record.py NAME RUN COMPARISON [NOTES]\n")
        return 2
    name, run, compared = arguments[0], Path(arguments[1]), Path(arguments[2])
    comparison = _read(compared / "comparison.json")
    receipt = Receipt(**_read(run / "receipt.json"))
    metrics, intervals = judged(comparison)
    metrics |= {"seconds": receipt.seconds, "stop_rate": stop_rate(compared)}
    tuning = _read(run / "tuning.json")
    tables: dict[str, Json] = {
        "comparison": comparison,
        "tuning": {k: v for k, v in tuning.items() if k != "curve"},
        "curve": thinned(tuning.get("curve", [])),
    }
    command = f"bash experiments/tuning/run.sh {run.name}"
    notes = arguments[3] if len(arguments) > 3 else ""
    result = new_result(
        name, command, receipt, metrics, intervals=intervals, tables=tables, notes=notes
    )
    sys.stdout.write(f"{write_result(ROOT / 'results', result)}\n")
    return 0


def judged(
    comparison: Mapping[str, Json],
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Metrics and intervals: the main judge's plainly, all others' under their names."""
    judges = {one["judge"]: one for one in comparison["judges"]}
    main_judge = judges.get("independent", next(iter(judges.values())))
    metrics: dict[str, float] = {"prompts": comparison["prompts"]}
    intervals: dict[str, tuple[float, float]] = {}
    for judge, one in judges.items():
        prefix = "" if one is main_judge else f"{judge}."
        for figure, shown in (
            ("win_rate", "win_rate"),
            ("length_controlled", "win_rate_length_controlled"),
        ):
            if one[figure] is None:
                continue
            metrics[prefix + shown] = one[figure]
            ends = (one[f"{figure}_low"], one[f"{figure}_high"])
            if None not in ends:
                intervals[prefix + shown] = ends
    low, high = intervals["win_rate"]
    return metrics | {"win_rate_low": low, "win_rate_high": high}, intervals


def stop_rate(compared: Path) -> float:
    """Share of the tuned model's answers that it ended itself."""
    answers = [json.loads(line) for line in (compared / "tuned.jsonl").open(encoding="utf-8")]
    return sum(a["finish_reason"] == "stop" for a in answers) / len(answers)


def thinned(curve: list[Json], count: int = 60) -> list[Json]:
    """At most `count` points of a curve, the last one among them."""
    step = max(1, -(-len(curve) // count))
    return curve[::-1][::step][::-1]


def _read(path: Path) -> dict[str, Json]:
    found: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
