"""Five branches against one: training and predicting, everything from loading on."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from benchmarks.engine.texts import EXAMPLES

from litee import load_pairs
from litee.config import FitSettings
from litee.encode.forest import grow
from litee.finetune.adapters import Adapters
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.branch import Branch, Examples, Lesson, save_head, train_together
from litee.finetune.branch_member import PASS_TOKENS
from litee.finetune.device import choose_dtype, use_threads
from litee.finetune.heads import make_head
from litee.finetune.states import TokenStore
from litee.predict.artifact import BackboneEntry, JudgeFile, MemberEntry, save_judge_file
from litee.predict.backbone_fit import pair_encoder_of
from litee.predict.calibration import Calibration
from litee.predict.ensemble import Ensemble
from litee.predict.judge import Judge
from litee.rundir import Json

DEPTH, LAYERS, PAIRS, ROUNDS, MANY = 20, 1, 130, 3, 5
BACKBONE = "smollm2-135m-instruct"
SETTINGS = FitSettings(num_train_epochs=1, lora_layers=LAYERS, depth=DEPTH)


def train(count: int, folder: Path) -> float:
    """Seconds to load, run the frozen layers and train `count` branches of one epoch each."""
    started = time.perf_counter()
    dtype = getattr(torch, choose_dtype("auto"))
    backbone = load_backbone(find_backbone(BACKBONE), depth=DEPTH, dtype=dtype)
    encoder = pair_encoder_of(backbone, SETTINGS, "tree")
    pairs = load_pairs(EXAMPLES)[:PAIRS]
    forest = grow([encoder.encode(pair) for pair in pairs])
    start = DEPTH - LAYERS
    store = TokenStore(
        backbone.trunk, forest, depth=start, folder=folder / "tokens", cache_bytes=10**10
    )
    store.fill(title="frozen layers")
    adapters = Adapters(backbone.trunk, start=start, settings=SETTINGS, backbone=BACKBONE)
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], len(pairs))
    size = max(1, PASS_TOKENS // SETTINGS.batch_tokens)
    for first in range(0, count, size):
        numbers = range(first, min(count, first + size))
        branches, lessons = [], []
        for number in numbers:
            adapters.add(f"fold{number}", seed=number)
            head = make_head("davidson", 2 * backbone.trunk.hidden_size)
            torch.nn.init.normal_(head.reward_weight, std=0.02)
            branches.append(
                Branch(adapters, f"fold{number}", head=head, store=store, pooling="last+mean")
            )
            rest = np.flatnonzero(np.arange(len(pairs)) % MANY != number)
            stop, own = rest[: len(rest) // 8], rest[len(rest) // 8 :]
            lessons.append(
                Lesson(
                    Examples(own, shares[own], np.ones(len(own))),
                    Examples(stop, shares[stop], np.ones(len(stop))),
                    number,
                )
            )
        train_together(
            branches, lessons, settings=SETTINGS, checkpoint=folder / f"{first}.c", title="branches"
        )
        for branch in branches:
            adapters.save(branch.name, folder / "members" / "lora" / branch.name)
            file = folder / "members" / "lora" / branch.name / "head.safetensors"
            save_head(branch.head, file)
    seconds = time.perf_counter() - started
    store.remove()
    _describe(folder, count, encoder.template.id)
    return seconds


def _describe(folder: Path, count: int, template: str) -> None:
    found = find_backbone(BACKBONE)
    entry = BackboneEntry(
        name=BACKBONE,
        sha256=found.sha256,
        dtype=choose_dtype("auto"),
        exit_depth=DEPTH,
        template=template,
        max_tokens=SETTINGS.max_tokens,
        prompt_share=SETTINGS.prompt_share,
    )
    member = MemberEntry(
        name="lora",
        kind="lora",
        encoder="tree",
        backbone=BACKBONE,
        pooling="last+mean",
        start_depth=DEPTH - LAYERS,
        branches=tuple(f"fold{k}" for k in range(count)),
    )
    ensemble = Ensemble(
        members=("lora",),
        weights=(1.0,),
        pool="linear",
        exponent=1.0,
        calibration=Calibration(name="none", scale=1.0, tie_scale=1.0, tie_bias=0.0),
    )
    judge = JudgeFile(backbones=(entry,), members=(member,), ensemble=ensemble)
    save_judge_file(judge, folder)


def measure(folder: Path) -> Json:
    """Seconds of one and of five, in turns; each prediction is of all example pairs."""
    threads = use_threads(0)
    trained: dict[int, list[float]] = {1: [], MANY: []}
    predicted: dict[int, list[float]] = {1: [], MANY: []}
    pairs = load_pairs(EXAMPLES)[:PAIRS]
    for _ in range(ROUNDS):
        judges = {}
        for count in (1, MANY):
            own = Path(tempfile.mkdtemp(dir=folder))
            trained[count].append(train(count, own))
            judges[count] = (own, Judge.from_pretrained(own))
        for count, (own, judge) in judges.items():
            started = time.perf_counter()
            judge.predict(pairs)
            predicted[count].append(time.perf_counter() - started)
            shutil.rmtree(own)
        print(json.dumps({"trained": trained, "predicted": predicted}), flush=True)
    return {
        "threads": threads,
        "depth": DEPTH,
        "lora_layers": LAYERS,
        "pairs": PAIRS,
        "train_seconds": {str(k): v for k, v in trained.items()},
        "predict_seconds": {str(k): v for k, v in predicted.items()},
        "train_ratio": float(np.median(np.divide(trained[MANY], trained[1]))),
        "predict_ratio": float(np.median(np.divide(predicted[MANY], predicted[1]))),
    }
