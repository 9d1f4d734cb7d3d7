"""Preference pairs from a RAFT model's own samples, ranked by what a person answered.

    python experiments/travel/rank.py SAMPLES ROWS OUT

Per question the sample whose final answer shares most words with the person's (token F1) beats the
one that shares least, when they differ by 0.15 at least. Known traps are kept out: a sample without
an answer mark or with an unpaired quote mark takes no part, so that format is no cue, and lengths
differ by a factor of 1.5 at most, so that length is none. Which side wins is drawn at random.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from litee.encode.raft_format import balanced, final_answer, has_final_answer
from litee.rundir import Json, write_text
from litee.score.texts import token_f1

MARGIN, RATIO = 0.15, 1.5


def main(arguments: list[str]) -> int:
    """Write the pairs as votes; returns the exit code."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python experiments/travel/rank.py SAMPLES ROWS OUT\n")
        return 2
    samples, rows, out = map(Path, arguments)
    asked = {row["id"]: row for row in read(rows)}
    written: dict[str, list[str]] = {own: [] for own in asked}
    for row in read(samples):
        answer = row["answer"]
        written[row["id"]].append(answer[-1] if isinstance(answer, list) else answer)
    rng = np.random.default_rng(0)
    votes: list[dict[str, Json]] = []
    why: Counter[str] = Counter()
    for own, texts in written.items():
        pair = best_and_worst(texts, asked[own]["reference"], why)
        if pair is not None:
            swapped = bool(rng.integers(2))
            one, two = reversed(pair) if swapped else pair
            votes.append(
                {
                    "id": own,
                    "prompt": [asked[own]["prompt"]],
                    "response_a": [one],
                    "response_b": [two],
                    "winner": "b" if swapped else "a",
                    "source": "ranked samples",
                }
            )
    write_text(out, "".join(json.dumps(vote, ensure_ascii=False) + "\n" for vote in votes))
    longer = sum(
        (len(v["response_a"][0]) > len(v["response_b"][0])) == (v["winner"] == "a") for v in votes
    )
    sys.stdout.write(
        f"{len(votes)} pairs of {len(asked)} questions; the longer one wins {longer}\n"
    )
    for reason, count in why.items():
        sys.stdout.write(f"  left out {count}: {reason}\n")
    return 0


def best_and_worst(texts: list[str], reference: str, why: Counter[str]) -> tuple[str, str] | None:
    """The samples with the most and the fewest words of the reference, or None."""
    whole = [t for t in dict.fromkeys(texts) if has_final_answer(t) and balanced(t)]
    why["sample without the row's format, or a repeat"] += len(texts) - len(whole)
    found = sorted((token_f1(final_answer(t), reference), t) for t in whole)
    fit = [
        (high[0] - low[0], high[1], low[1])
        for i, low in enumerate(found)
        for high in found[i + 1 :]
        if high[0] - low[0] >= MARGIN
        and max(len(high[1]), len(low[1])) <= RATIO * min(len(high[1]), len(low[1]))
    ]
    if not fit:
        why["question whose samples are too alike, or too unlike in length"] += 1
        return None
    _, better, worse = max(fit)
    return better, worse


def read(file: Path) -> list[dict[str, Json]]:
    """Rows of JSON lines."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
