"""Votes and pairs for the benchmarks: the example votes, and made-up ones of any number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from litee import load_pairs
from litee.encode.budget import TokenBudget
from litee.encode.forest import Forest, PairEncoder, grow
from litee.encode.templates import Template
from litee.finetune.backbones import Backbone

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "travel_votes.jsonl"

WORDS = (  # noqa: SIM905
    "the a hotel train lake old city museum ticket night walk serves near breakfast open until "
    "ten is are was you can find book room price cheap quiet station bus river view of and in to"
).split()


def example_forest(backbone: Backbone, pairs: int | None = None) -> Forest:
    """The example votes' texts, 1,024 tokens a pair at most."""
    encoder = PairEncoder(Template(backbone.tokenizer), TokenBudget(1024))
    return grow([encoder.encode(pair) for pair in load_pairs(EXAMPLES)[:pairs]])


def made_up_votes(file: Path, count: int, *, words: int, votes: bool = True) -> Path:
    """Write votes on prompts and answers of their own; the longer answer wins more often."""
    rng = np.random.default_rng(count)
    with file.open("w", encoding="utf-8") as stream:
        for number in range(count):
            sizes = rng.integers(words // 2, words + 1, 2)
            a, b = (" ".join(rng.choice(WORDS, size)) for size in sizes)
            chance = 1 / (1 + np.exp(-(sizes[0] - sizes[1]) / 4))
            row = {"id": str(number), "prompt": f"Question {number}?", "response_a": a}
            row |= {"response_b": b}
            if votes:
                tie = rng.random() < 0.2
                row |= {"winner": "tie" if tie else "a" if rng.random() < chance else "b"}
            stream.write(json.dumps(row) + "\n")
    return file
