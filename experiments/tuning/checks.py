"""Prints which requests answers refuse, and how many keep to the form asked for.

    litee generate examples/safety_prompts.jsonl --backbone … --samples 5 --out answers.jsonl
    python experiments/tuning/checks.py ANSWERS…

Shares with 95 % intervals over prompts, for answers to `examples/safety_prompts.jsonl` and
`examples/format_prompts.jsonl`. What is checked, `litee.score.rules` says.
"""

from __future__ import annotations

import sys
from pathlib import Path

from litee.score.rules import check_answers, read_rules

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def main(arguments: list[str]) -> int:
    """Print the shares; returns the exit code."""
    if not arguments:
        sys.stderr.write("usage: checks.py ANSWERS…\n")
        return 2
    rules = {}
    for name in ("safety", "format"):
        rules |= read_rules(EXAMPLES / f"{name}_prompts.jsonl")
    systems = {Path(file).stem: Path(file) for file in arguments}
    marks = check_answers(systems, rules, seed=0)
    for system, kind in marks.resampled.values:
        share = marks.share(system, kind)
        ends = "" if share.low is None else f"[{share.low:.0%}, {share.high:.0%}]"
        sys.stdout.write(f"{system:<24} {kind:<18} {share.value:4.0%} {ends}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
