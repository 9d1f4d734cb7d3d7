"""The calibration behind a plan: texts encoded, some packs timed, a process started.

It takes some seconds per backbone, half a minute at most where loading is quick. Knows nothing of
budgets.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from litee.config import ENCODER_MEMBERS, Encoder, FitSettings
from litee.encode.forest import Forest, grow, pack_leaves
from litee.finetune.backbones import Backbone, find_backbone, load_backbone
from litee.finetune.branch_member import pass_tokens
from litee.finetune.device import check_trainable, choose_device, choose_dtype, use_threads
from litee.finetune.heap import give_back_memory
from litee.finetune.parallel import passes_at_once
from litee.finetune.rates import (
    PeakMemory,
    forget_peak,
    held_bytes,
    measure_rates,
    probe_fits,
    probe_seconds,
)
from litee.finetune.states import PooledStore, pack_tokens
from litee.finetune.statistics import statistics_states
from litee.predict.backbone_fit import pair_encoder_of
from litee.predict.depths import sample_pairs
from litee.predict.plan import Machine, Measured, Tokens
from litee.records import Folds, Pair

#: Rounds of packs that are timed, spread evenly over the texts.
TIMED_ROUNDS = 4

#: Layers of a timed pass that are not adapted.
TIMED_LAYERS = 4


def calibrate(
    pairs: Sequence[Pair], folds: Folds, settings: FitSettings
) -> tuple[Machine, tuple[Measured, ...]]:
    """Measure what the plan of these settings needs.

    Args:
        pairs: all pairs of the votes.
        folds: their split.
        settings: what is asked for.

    Raises:
        ModelError: a backbone cannot be used.
    """
    started = time.monotonic()
    threads = use_threads(settings.threads)
    device = choose_device(settings.device, settings.dtype)
    check_trainable(settings.dtype, device)
    few = list(pairs[:: max(1, len(pairs) // 200)])
    at = time.monotonic()
    data = statistics_states(few)
    reading = (time.monotonic() - at) * len(pairs) / len(few)
    fits = probe_fits(folds.count, len(settings.ridge))
    statistics = reading + fits * probe_seconds(len(pairs), data.states.shape[1])
    base = held_bytes(device)
    names = settings.backbones if set(settings.members) - {"statistics"} else ()
    measured = tuple(_backbone(name, pairs, settings, device) for name in names)
    fresh = _fresh_process()
    give_back_memory()
    forget_peak()
    machine = Machine(
        base_bytes=base,
        fresh=fresh,
        statistics=statistics,
        calibration=time.monotonic() - started,
        threads=threads,
    )
    return machine, measured


def _backbone(
    name: str, pairs: Sequence[Pair], settings: FitSettings, device: torch.device
) -> Measured:
    folder = find_backbone(name)
    before, at = held_bytes(device), time.monotonic()
    depth = settings.lora_layers + TIMED_LAYERS
    with PeakMemory(device) as loading:
        backbone = load_backbone(
            folder,
            dtype=getattr(torch, choose_dtype(settings.dtype, device)),
            depth=_loaded_depth(name, settings, depth),
            device=device,
            nf4=settings.dtype == "nf4",
        )
    load = time.monotonic() - at
    give_back_memory()
    taken = max(0, held_bytes(device) - before)
    layers = backbone.layers
    backbone.trunk.cut(min(depth, backbone.trunk.depth))
    found = []
    for kind in ENCODER_MEMBERS:
        if settings.encodes(kind):
            found.append(_tokens(backbone, kind, pairs, settings))
    forest = found[0][1]
    packs = pack_leaves(forest, range(len(forest.leaves)), pack_tokens(device))
    timed = TIMED_ROUNDS * passes_at_once()
    chosen = [packs[k] for k in np.linspace(0, len(packs) - 1, timed).astype(int)]
    rates = measure_rates(
        backbone,
        forest,
        chosen,
        settings,
        model_bytes=taken,
        load_bytes=loading.bytes,
        train=settings.tuned,
    )
    width = backbone.trunk.hidden_size * len(settings.pooling.split("+"))
    return Measured(
        name=name,
        layers=layers,
        hidden=backbone.trunk.hidden_size,
        load=load,
        rates=rates,
        probe=probe_seconds(len(pairs), width),
        tokens=tuple(tokens for tokens, _ in found),
        pass_tokens=pass_tokens(device),
        on_gpu=device.type == "cuda",
    )


def _loaded_depth(name: str, settings: FitSettings, timed: int) -> int | None:
    """As many layers as the fit itself will load, and enough to be timed."""
    asked = settings.depths_of(name)
    if asked is None:
        return None
    return max(asked[-1], settings.lora_layers + 1, min(asked[-1], timed))


def _tokens(
    backbone: Backbone, kind: Encoder, pairs: Sequence[Pair], settings: FitSettings
) -> tuple[Tokens, Forest]:
    encoder = pair_encoder_of(backbone, settings, kind)
    encoded = [encoder.encode(pair) for pair in pairs]
    forest = grow(encoded)
    sample = grow([encoded[k] for k in sample_pairs(len(pairs), settings)])
    kept = 0
    asked = settings.depths_of(backbone.folder.name)
    if asked is not None and settings.dtype != "int8":
        kept = PooledStore(backbone, asked).kept_tokens(forest)
    tokens = Tokens(
        encoder=kind,
        pairs=len(pairs),
        run=forest.tokens,
        kept=min(kept, forest.tokens),
        sample=sample.tokens,
        leaves=len(forest.leaves),
    )
    return tokens, forest


def _fresh_process() -> float:
    """Seconds until a new process has imported what predicts."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import litee.predict.judge"], check=True)
    return time.monotonic() - started
