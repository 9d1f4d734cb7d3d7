"""The rows that the travel comparison uses out of those that `litee raft build` wrote.

    python experiments/travel/subset.py ROWS OUT --train 240 --validation 24 --test 60 --ranked 48

Takes questions at random (seed 0), the same ones from every file: `train.jsonl` and
`train.plain.jsonl` hold the same questions with and without documents, `test.main.jsonl` and
`test.curve.jsonl` the same turns in every condition (`closed/turn-7`). `ranked.jsonl` has further
training questions, whose sampled answers are ranked for DPO, and `ranked.rows.jsonl` their rows.
Rows of more than `--characters` characters are left out, so that none is cut when a model is tuned.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from litee.rundir import Json, write_text

#: Seed of the choice.
SEED = 0

#: Test file → what is shown with its turns: nothing, what search finds, oracles and n distractors.
CONDITIONS = {"main": ("closed", "retrieved"), "curve": ("k0", "k2", "k4", "k8")}


def main() -> int:
    """Write the files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    for name, default in (("train", 240), ("validation", 24), ("test", 60), ("ranked", 48)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--characters", type=int, default=2200)
    options = parser.parse_args()
    counts = {"train": options.train, "validation": options.validation}
    order = {}
    for part, count in counts.items():
        rows = read(options.rows / f"{part}.jsonl")
        short = [own for own, row in rows.items() if length(row) <= options.characters]
        order[part] = shuffled(short)
        say(f"{part}: {len(rows):,} rows, {len(rows) - len(short):,} too long, {count:,} taken")
        for name in (f"{part}.jsonl", f"{part}.plain.jsonl"):
            put(options.out / name, read(options.rows / name), order[part][:count])
    further = order["train"][options.train :][: options.ranked]
    rows = read(options.rows / "train.jsonl")
    asked = {
        own: {"id": own, "prompt": prompt_of(rows[own]), "reference": rows[own]["answer"]}
        for own in further
    }
    put(options.out / "ranked.jsonl", asked, further)
    put(options.out / "ranked.rows.jsonl", rows, further)
    chosen = shuffled(list(read(options.rows / "test.closed.jsonl")))[: options.test]
    for name, conditions in CONDITIONS.items():
        joined = {}
        for condition in conditions:
            rows = read(options.rows / f"test.{condition}.jsonl")
            for own in chosen:
                joined[f"{condition}/{own}"] = rows[own] | {"id": f"{condition}/{own}"}
        put(options.out / f"test.{name}.jsonl", joined, list(joined))
        first = {own: quoted(row) for own, row in joined.items() if row["contexts"]}
        put(options.out / f"first.{name}.jsonl", first, list(first))
    say(f"test: {len(chosen):,} turns, each in {sum(map(len, CONDITIONS.values()))} conditions")
    return 0


def read(file: Path) -> dict[str, dict[str, Json]]:
    """Rows by id, in order."""
    with file.open(encoding="utf-8") as lines:
        return {row["id"]: row for row in map(json.loads, lines)}


def put(file: Path, rows: dict[str, dict[str, Json]], ids: list[str]) -> None:
    """Write the rows of these ids."""
    text = "".join(json.dumps(rows[own], ensure_ascii=False) + "\n" for own in ids)
    write_text(file, text)


def quoted(row: dict[str, Json]) -> dict[str, Json]:
    """The first document shown, as if it were an answer: what copying without reading brings."""
    text = str(row["contexts"][0])
    return {
        "id": row["id"],
        "system": "first",
        "prompt": row["question"],
        "answer": text,
        "reference": row["reference"],
        "contexts": row["contexts"],
        "written": text,
    }


def prompt_of(row: dict[str, Json]) -> str:
    """What the model is asked."""
    return str(row["messages"][0]["content"])


def length(row: dict[str, Json]) -> int:
    """Characters of a row."""
    return sum(len(message["content"]) for message in row["messages"])


def shuffled(ids: list[str]) -> list[str]:
    """The ids in random order, the same one every time."""
    return [ids[int(i)] for i in np.random.default_rng(SEED).permutation(len(ids))]


def say(text: str) -> None:
    """Tell what was done."""
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
