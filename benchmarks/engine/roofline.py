"""Useful operations of a frozen pass against the fastest matrix product of the same process."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmarks.engine.texts import example_forest
from torch.profiler import ProfilerActivity, profile

from litee.encode.forest import Forest, Pack, pack_leaves
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.device import choose_dtype
from litee.finetune.parallel import side_by_side
from litee.finetune.states import PACK_TOKENS
from litee.finetune.trunk import PackedTrees, lay_out
from litee.rundir import Json, usable_cores

DEPTH, PACKS, ROUNDS = 20, 4, 7

#: Operations of the profile by what they are.
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product",),
    "element-wise: norms, gates, rotary positions": (
        "aten::mul", "aten::add", "aten::silu", "aten::pow", "aten::mean", "aten::rsqrt",
        "aten::neg", "aten::sum", "aten::gelu",
    ),
    "copies": ("aten::cat", "aten::copy_", "aten::index", "aten::clone"),
}  # fmt: skip


def useful_operations(forest: Forest, pack: Pack, parameters: int, width: int) -> float:
    """2 · parameters per token, and 4 · width per (query, key) pair that attention may see.

    Args:
        forest: the texts.
        pack: what is run; every prefix and branch counts once.
        parameters: of one layer's matrices.
        width: of all heads together.
    """
    seen = 0
    for prefix, leaves in pack.groups:
        root = len(forest.prefixes[prefix])
        seen += root * (root + 1) // 2
        for leaf in leaves:
            own = len(forest.leaves[leaf][1])
            seen += own * root + own * (own + 1) // 2
    return 2.0 * parameters * pack.tokens + 4.0 * width * seen


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of some rounds."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def measure(folder: Path) -> Json:
    """Share of the peak, for one thread and for all cores; and where the time goes."""
    dtype = choose_dtype("auto")
    backbone = load_backbone(
        find_backbone("smollm2-135m-instruct"), depth=DEPTH, dtype=getattr(torch, dtype)
    )
    forest = example_forest(backbone)
    packs = pack_leaves(forest, range(len(forest.leaves)), PACK_TOKENS)[:PACKS]
    trees = [lay_out(forest, pack) for pack in packs]
    layer = backbone.trunk.layers[0]
    parameters = sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    config = backbone.trunk.decoder.config
    width = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    work = DEPTH * sum(useful_operations(forest, p, parameters, width) for p in packs)
    left = torch.randn(PACK_TOKENS, config.hidden_size).to(backbone.trunk.dtype)
    right = torch.randn(config.intermediate_size, config.hidden_size).to(backbone.trunk.dtype)
    product = 2.0 * left.numel() * config.intermediate_size

    def one(tree: PackedTrees) -> None:
        with torch.inference_mode():
            backbone.trunk.run(tree, depths=[DEPTH])

    def passes() -> None:
        list(side_by_side(one, trees, device=backbone.trunk.device))

    found: dict[str, Json] = {
        "dtype": dtype,
        "depth": DEPTH,
        "tokens": sum(p.tokens for p in packs),
    }
    with torch.inference_mode():
        for threads in sorted({1, usable_cores()}):
            torch.set_num_threads(threads)
            passes()
            seconds, products = [], []
            for _ in range(ROUNDS):
                products.append(best(lambda: torch.nn.functional.linear(left, right), 10))
                seconds.append(best(passes, 1))
            peak = product / min(products)
            found[f"threads_{threads}"] = {
                "share": work / min(seconds) / peak,
                "median_share": work / float(np.median(seconds)) / peak,
                "tokens_per_second": sum(p.tokens for p in packs) / min(seconds),
                "peak_gflops": peak / 1e9,
            }
        torch.set_num_threads(1)
        found["profile"] = _profile(passes)
    return found


def _profile(work: Callable[[], object]) -> Json:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        work()
    seconds: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), "rest")
        seconds[kind] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {kind: spent / total for kind, spent in sorted(seconds.items(), key=lambda x: -x[1])}
