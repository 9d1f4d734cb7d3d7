"""Made-up demonstrations on a few topics, with known repeats, for the tests of `curate`."""

from __future__ import annotations

import json
import random
from pathlib import Path

TOPICS = {
    "bread": "flour yeast dough oven crust knead loaf bake salt starter".split(),  # noqa: SIM905
    "stars": "orbit comet galaxy lens planet dust nebula moon telescope light".split(),  # noqa: SIM905
    "boats": "sail rudder harbour anchor tide mast keel rope wind deck".split(),  # noqa: SIM905
}

Row = dict[str, object]


def row(name: str, prompt: str, answer: str, **more: object) -> Row:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": messages, **more}


def made_up(count: int, seed: int = 0) -> list[Row]:
    """Rows that take turns over the topics; the source is the topic's name."""
    rng = random.Random(seed)
    rows = []
    for k in range(count):
        topic = list(TOPICS)[k % len(TOPICS)]
        words = TOPICS[topic]
        prompt = f"What of {' '.join(rng.choices(words, k=7))} number {k * 7919 % 1000}?"
        answer = f"{' '.join(rng.choices(words, k=30 + k % 40))} {k * 7907 % 1000}.".capitalize()
        rows.append(row(f"{topic}{k}", prompt, answer, source=topic))
    return rows


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
