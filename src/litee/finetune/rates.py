"""How fast this machine runs a backbone, measured in seconds: what a plan is made of.

Knows nothing of votes, folds and budgets.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from litee.config import FitSettings
from litee.encode.forest import Forest, Pack, pack_leaves
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.backbones import Backbone
from litee.finetune.heap import give_back_memory
from litee.finetune.parallel import passes_at_once, side_by_side
from litee.finetune.probe import PairStates, fit_probe
from litee.finetune.trunk import lay_out, pooled

#: Steps of a probe's fit, each with hardly more than one evaluation of the loss, with whitening and
#: without: means over two large votes files and all four together, and over two small ones; two
#: backbones, four ridges.
WHITENED_STEPS, PLAIN_STEPS = 18, 40

#: What a further ridge takes in the same fit, beside the first.
NEXT_RIDGE = 0.5


#: Every shape of batch leaves compiled kernels and holes in the heap behind: a long training holds
#: about this many times the memory of its first few steps.
RETAINED = 1.7


@dataclass(frozen=True, slots=True)
class Rates:
    """What a backbone costs here.

    Attributes:
        frozen: seconds per token and layer of a frozen pass.
        trained: seconds per token and layer of a LoRA step, forward and backward.
        spread: largest relative deviation of a timed pass from their median, 0 or more.
        model_bytes: memory that the loaded backbone holds.
        load_bytes: memory that loading takes at its peak.
        frozen_bytes: memory that a frozen pass took on top of it.
        step_bytes: memory that a LoRA step takes on top of it, whatever its tokens.
        trained_bytes: memory that a LoRA step takes besides, per token and layer.
    """

    frozen: float
    trained: float
    spread: float
    model_bytes: int
    load_bytes: int
    frozen_bytes: int
    step_bytes: float
    trained_bytes: float


def measure_rates(
    backbone: Backbone,
    forest: Forest,
    packs: Sequence[Pack],
    settings: FitSettings,
    *,
    model_bytes: int,
    load_bytes: int,
    train: bool,
) -> Rates:
    """Time some packs of the texts themselves on a few layers.

    Args:
        backbone: loaded with at least one layer more than `settings.lora_layers`; adapters are
            added and taken off again.
        forest: the texts.
        packs: of the forest, as they will be run; three to five times `passes_at_once` are enough.
        settings: for the LoRA layers.
        model_bytes: memory that the loaded backbone holds.
        load_bytes: memory that loading took at its peak.
        train: whether LoRA steps are timed, too.
    """
    trunk = backbone.trunk
    depth = trunk.depth

    def frozen(pack: Pack) -> None:
        trees = lay_out(forest, pack, trunk.device)
        with torch.inference_mode():
            pooled(trunk.run(trees, depths=[depth])[depth], trees)

    def at_once(some: Sequence[Pack]) -> float:
        started = time.perf_counter()
        list(side_by_side(frozen, some, device=trunk.device))
        _settle(trunk.device)
        return (time.perf_counter() - started) / (sum(p.tokens for p in some) * depth)

    count = passes_at_once()
    with PeakMemory(trunk.device) as peak:
        frozen(packs[0])
        rounds = [packs[k : k + count] for k in range(0, len(packs), count)]
        seconds = np.array([at_once(some) for some in rounds if len(some) == count])
    typical = float(np.median(seconds))
    trained, step_bytes, trained_bytes = 0.0, 0.0, 0.0
    if train:
        trained, step_bytes, trained_bytes = _train(backbone, forest, packs, settings)
    return Rates(
        frozen=typical,
        trained=trained,
        spread=float(np.abs(seconds / typical - 1).max()),
        model_bytes=model_bytes,
        load_bytes=load_bytes,
        frozen_bytes=peak.bytes,
        step_bytes=step_bytes,
        trained_bytes=trained_bytes,
    )


def _train(
    backbone: Backbone, forest: Forest, packs: Sequence[Pack], settings: FitSettings
) -> tuple[float, float, float]:
    """Of a step: seconds per token and layer, fixed bytes, bytes per token and layer."""
    trunk, layers = backbone.trunk, settings.lora_layers
    start = trunk.depth - layers
    before = held_bytes(trunk.device)
    settings = settings.model_copy(update={"gradient_checkpointing": False})
    adapters = Adapters(trunk, start=start, settings=settings, backbone=backbone.folder.name)
    adapters.add("timed", seed=0)

    def step(pack: Pack) -> None:
        trees = lay_out(forest, pack, trunk.device)
        states = trunk.embed(trees.ids).detach()
        with adapters.together([Segment("timed", pack.tokens, 0)]):
            top = trunk.run(trees, start=start, states=states, depths=[trunk.depth])[trunk.depth]
        pooled(top, trees).square().mean().backward()  # type: ignore[no-untyped-call]

    largest = max(packs, key=lambda pack: pack.tokens)
    held = [leaf for _, leaves in largest.groups for leaf in leaves]
    small = pack_leaves(forest, held, largest.tokens // 4)[0]
    peaks, kept = [], 0
    for pack in (small, largest):  # what does not grow with the tokens shows in both
        with PeakMemory(trunk.device) as peak:
            step(pack)
        peaks.append(peak.bytes)
        give_back_memory()
        kept = kept or max(
            0, held_bytes(trunk.device) - before
        )  # kernels, adapters: of the first step
    seconds = [_timed(step, pack, trunk.device) / (pack.tokens * layers) for pack in packs]
    adapters.remove()
    each = max(0.0, (peaks[1] - peaks[0]) / max(1, largest.tokens - small.tokens))
    fixed = kept + max(0.0, peaks[1] - each * largest.tokens)
    return float(np.median(seconds)), fixed, each * RETAINED / layers


def _timed(work: Callable[[Pack], None], pack: Pack, device: torch.device) -> float:
    started = time.perf_counter()
    work(pack)
    _settle(device)
    return time.perf_counter() - started


def probe_seconds(pairs: int, width: int) -> float:
    """Seconds of one probe's fit on `pairs` pairs with states of `width` numbers."""
    rng = np.random.default_rng(0)
    few = min(pairs, max(2000, width + 1))
    states = rng.normal(size=(2 * few, width)).astype(np.float32)
    data = PairStates(states, np.arange(few), np.arange(few, 2 * few))
    shares = rng.dirichlet([1, 1, 1], size=few)
    seconds = []
    for steps in (1, 6):
        started = time.perf_counter()
        fit_probe(data, shares, np.ones(few), ridge=500.0, steps=steps)
        seconds.append(time.perf_counter() - started)
    first, more = seconds[0], max(0.0, seconds[1] - seconds[0]) / 5
    steps = WHITENED_STEPS if few > width else PLAIN_STEPS
    return (first + (steps - 1) * more) * pairs / few


def probe_fits(folds: int, ridges: int) -> float:
    """How many fits of one ridge a member on frozen states takes, the choice of its ridge included.

    >>> probe_fits(5, 1), probe_fits(5, 4)
    (6.0, 31.0)
    """
    chosen = max(2, folds * (folds - 1) / 2) * (1 + NEXT_RIDGE * (ridges - 1))
    return (chosen if ridges > 1 else 0.0) + folds + 1


def probe_bytes(pairs: int, width: int) -> int:
    """Memory of one probe's fit: states, features and their gradients in float64."""
    return pairs * width * 8 * 9


def _settle(device: torch.device) -> None:
    """Wait for what a GPU still has to do, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Largest memory within the block above that at its start, in `bytes`.

    Of a GPU it is what tensors held. On a CPU it is resident memory: on Linux the kernel's
    high-water mark is reset; where there is none, it stays 0.

    Args:
        device: whose memory; the CPU's for None.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.bytes = 0
        self._device = device or torch.device("cpu")

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            forget_peak()
        self._before = held_bytes(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        on_gpu = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._device) if on_gpu else _status("VmHWM")
        self.bytes = max(0, peak - self._before)


def held_bytes(device: torch.device) -> int:
    """Memory held now: resident memory of this process, or that of its tensors on a GPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()


def forget_peak() -> None:
    """Let the largest resident memory of this process count from now on (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident_bytes() -> int:
    """Resident memory of this process now; 0 where the system does not say."""
    return _status("VmRSS")


def _status(name: str) -> int:
    file = Path("/proc/self/status")
    if not file.exists():
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
