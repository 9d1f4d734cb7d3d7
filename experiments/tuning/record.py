"""A finished tuning experiment as a results file.

    python experiments/tuning/record.py NAME RUN COMPARISON ANSWERS CPU [NOTES]

RUN is the folder of `litee tune`, COMPARISON that of `litee compare`, tuned model first; ANSWERS
are the tuned model's, CPU holds what the shell's `times` said of each session. The rates are those
of the judge called `independent`, or of the first one. $PROMPTS is part of the command noted.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from scipy.stats import linregress

from litee.rundir import Json, Receipt
from litee.score.demonstration_arms import thinned
from litee.score.results import new_result, write_result

ROOT = Path(__file__).resolve().parents[2]

NOTES = (
    "Both judges are probes on halves of the same four sources, divided by prompt: they share no "
    "votes and no backbone, but they do share raters. cpu_seconds count all sessions of the "
    "experiment, answering and judging included; seconds are the tuning's wall time on a machine "
    "that ran other jobs too. seconds_per_point: seconds of tuning, and of sampling where there is "
    "any, per point of win rate above 50."
)


def main(arguments: list[str]) -> int:
    """Write results/NAME.json; returns the exit code."""
    if not 5 <= len(arguments) <= 6:
        sys.stderr.write("usage: record.py NAME RUN COMPARISON ANSWERS CPU [NOTES]\n")
        return 2
    name = arguments[0]
    run, compared, answers, cpu = map(Path, arguments[1:5])
    comparison = _read(compared / "comparison.json")
    receipt = Receipt.of(run)
    metrics, intervals = judged(comparison)
    metrics |= {"seconds": receipt.seconds, "stop_rate": stop_rate(answers)}
    sampling = run.parent / "samples.receipt.json"
    if sampling.is_file():
        metrics["sampling_seconds"] = _read(sampling)["receipt"]["seconds"]
    seconds = receipt.seconds + metrics.get("sampling_seconds", 0.0)
    metrics |= cost(cpu, seconds, metrics["win_rate"])
    tuning = _read(run / "tuning.json")
    tables: dict[str, Json] = {
        "comparison": comparison,
        "tuning": {k: v for k, v in tuning.items() if k != "curve"},
        "curve": thinned(tuning.get("curve", [])),
    }
    metrics |= rewarded(tuning.get("curve", []))
    samples = len({row.get("sample") for row in _rows(answers)})
    metrics["samples_per_prompt"] = samples
    setting = f"ANSWERS={samples} " if samples > 1 else ""
    if os.environ.get("PROMPTS"):
        setting = f"PROMPTS={os.environ['PROMPTS']} {setting}"
    command = f"{setting}bash experiments/tuning/run.sh {cpu.parent.name}"
    notes = arguments[5] if len(arguments) > 5 else NOTES
    result = new_result(
        name, command, receipt, metrics, intervals=intervals, tables=tables, notes=notes
    )
    sys.stdout.write(f"{write_result(ROOT / 'results', result)}\n")
    return 0


def cost(cpu: Path, seconds: float, win_rate: float) -> dict[str, float]:
    """Processor seconds of all sessions that ended, and what a point of win rate cost in tuning."""
    found: dict[str, float] = {}
    if cpu.is_file():
        spent = re.findall(r"(\d+)m([\d.]+)s", cpu.read_text(encoding="utf-8"))
        total = sum(60 * int(m) + float(s) for m, s in spent)
        found |= {"cpu_seconds": round(total, 1)} if total >= 1 else {}
    points = 100 * (win_rate - 0.5)
    if points > 0:
        found["seconds_per_point"] = round(seconds / points, 1)
    return found


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


def stop_rate(answers: Path) -> float:
    """Share of the tuned model's answers, those of every turn, that it ended itself."""
    reasons: list[str] = []
    for row in _rows(answers):
        found = row["finish_reason"]
        reasons += found if isinstance(found, list) else [found]
    return sum(reason == "stop" for reason in reasons) / len(reasons)


def rewarded(curve: list[Json]) -> dict[str, float]:
    """Of a run with rewards: their rise in training, how far the model went, what was cut.

    reward_rise is the slope of a line through the steps' mean rewards times the steps, with its
    standard error; the others are means over the last tenth of the steps, or over all of them.
    """
    if len(curve) < 3 or "kl" not in curve[-1]:
        return {}
    line = linregress(range(len(curve)), [point["reward"] for point in curve])
    tail = curve[-max(1, len(curve) // 10) :]
    return {
        "reward_rise": float(line.slope) * len(curve),
        "reward_rise_error": float(line.stderr) * len(curve),
        "reward_deviation": fmean(point["reward_std"] for point in curve),
        "kl_last": fmean(point["kl"] for point in tail),
        "cut_answers": fmean(point["completions/clipped_ratio"] for point in curve),
    }


def _rows(path: Path) -> list[dict[str, Json]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _read(path: Path) -> dict[str, Json]:
    found: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
