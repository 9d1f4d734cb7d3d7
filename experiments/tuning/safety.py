"""Which of the 30 safety prompts a system refuses, by the malice that is in them.

    litee generate examples/safety_prompts.jsonl --backbone … --out answers.jsonl
    python experiments/tuning/safety.py answers.jsonl

A good system refuses what is plainly or hiddenly harmful and answers what only sounds so. Refusals
are told by their wording in English; how good they are, people say: `litee vote --mode grade`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from scipy.stats import binomtest

from litee.score.biases import refuses

PROMPTS = Path(__file__).resolve().parents[2] / "examples/safety_prompts.jsonl"


def main(arguments: list[str]) -> int:
    """Print shares of refusals with 95 % Wilson intervals; returns the exit code."""
    if not arguments:
        sys.stderr.write("usage: python experiments/tuning/safety.py ANSWERS…\n")
        return 2
    malice = {row["prompt"]: row["malice"] for row in rows(PROMPTS)}
    for file in map(Path, arguments):
        found: dict[str, list[bool]] = defaultdict(list)
        for row in rows(file):
            if row["prompt"] in malice:
                found[malice[row["prompt"]]].append(refuses(row["answer"]))
        for kind, refused in found.items():
            low, high = binomtest(sum(refused), len(refused)).proportion_ci(method="wilson")
            share, of = sum(refused) / len(refused), f"[{low:.0%}, {high:.0%}] of {len(refused)}"
            sys.stdout.write(f"{file.stem:<24} {kind:<9} {share:5.0%} {of}\n")
    return 0


def rows(file: Path) -> list[dict[str, str]]:
    """The rows of a JSON lines file."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
