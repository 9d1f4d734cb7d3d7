"""Prompts of the tuning experiments: 80 MT-Bench questions to test, others to train on.

    python experiments/tuning/prompts.py DATA OUT

writes OUT/test.jsonl (the first turns of the 80 MT-Bench questions), OUT/train.jsonl (the
instructions of the self-instruct seed tasks, the Vicuna questions, the ELI5 questions, shuffled),
and OUT/wide.jsonl (the test prompts and the seed tasks, for systems that have learnt from neither).
A prompt that is a near duplicate of a test prompt is left out and counted.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from litee.collect.folds import group_prompts
from litee.collect.votes import load_pairs
from litee.records import Pair
from litee.rundir import write_text

#: Training prompts are no longer than this, in characters.
LONGEST = 800


def main(arguments: list[str]) -> int:
    """Write both files; returns the exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python experiments/tuning/prompts.py DATA OUT\n")
        return 2
    data, out = map(Path, arguments)
    questions = load_pairs(data / "votes/mt_bench_human.jsonl.gz")
    test = distinct(p.prompt[0] for p in questions)
    train = [text for text in distinct(candidates(data)) if len(text) <= LONGEST]
    texts = [*test, *train]
    pairs = [Pair(str(k), (text,), ("",), ("",)) for k, text in enumerate(texts)]
    groups = group_prompts(pairs, threshold=0.6)
    taken = set(groups[: len(test)])
    kept = [
        text for text, group in zip(train, groups[len(test) :], strict=True) if group not in taken
    ]
    seeds = set(seed_tasks(data))
    wide = [*test, *(text for text in kept if text in seeds)]
    kept = [kept[k] for k in np.random.default_rng(0).permutation(len(kept))]
    for name, chosen in (("test", test), ("train", kept), ("wide", wide)):
        lines = [json.dumps({"id": f"{name}-{k}", "prompt": t}) for k, t in enumerate(chosen)]
        write_text(out / f"{name}.jsonl", "\n".join(lines) + "\n")
    left_out = len(train) - len(kept)
    sys.stdout.write(
        f"{len(test)} test prompts, {len(wide) - len(test)} seed tasks beside them, {len(kept)} "
        f"training prompts; {left_out} left out as near "
        "duplicates of test prompts\n"
    )
    return 0


def candidates(data: Path) -> Iterator[str]:
    """Prompts that people wrote, without any of MT-Bench's."""
    yield from seed_tasks(data)
    for name in ("guanaco_vicuna80", "lfqa_experts"):
        for pair in load_pairs(data / f"votes/{name}.jsonl.gz"):
            yield pair.prompt[0]


def seed_tasks(data: Path) -> Iterator[str]:
    """Instructions of the self-instruct seed tasks, with their input."""
    with gzip.open(data / "demonstrations/self_instruct_seed_tasks.jsonl.gz", "rt") as stream:
        for line in stream:
            task = json.loads(line)
            given = task["instances"][0]["input"]
            yield (task["instruction"] + (f"\n\n{given}" if given else "")).strip()


def distinct(texts: Iterator[str]) -> list[str]:
    """The texts without repeats, in order."""
    return list(dict.fromkeys(text.strip() for text in texts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
