"""`python -m benchmarks.gpu`: LoRA training and prediction on a GPU, beside a plain PEFT loop.

Every row is written to runs/gpu/<row>.json when it is measured, so that a run that was stopped
goes on; the last step joins them in results/engine_gpu.json. Without a GPU it says so and exits
with 5; `--tiny --device cpu` runs all of it on tiny shapes, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu_shapes import (
    FULL,
    SHAPES,
    SMALL,
    Sizes,
    config_of,
    decoder_of,
    layer_weights,
    random_forest,
    sequences,
)
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from litee.config import FitSettings
from litee.encode.forest import Forest, Pack, pack_leaves
from litee.errors import LiteeError
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.device import choose_device, device_name, peak_gpu_mb
from litee.finetune.nf4 import use_nf4
from litee.finetune.rates import PeakMemory
from litee.finetune.trunk import Trunk, lay_out, pooled
from litee.rundir import Json, Receipt, peak_rss_mb, versions, write_json
from litee.score.results import new_result, write_result

REPOSITORY = Path(__file__).resolve().parents[1]

NOTE = (
    "Random weights and tokens. Tokens are those that each way runs: the engine runs shared "
    "prompts and answers once. Speed-ups are in pairs per second; each figure is that of the "
    "worst shape."
)
TRIED = "Random weights, random tokens; tiny shapes, to try the script."

#: Dense bfloat16 products of an H200 SXM per second, as its maker states.
PEAK = 989e12

#: A LoRA step multiplies every weight twice per token forward, and twice for the gradient of its
#: input; frozen weights need no gradient of their own.
STEP_FLOPS, PASS_FLOPS = 4, 2


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        shape: name in `SHAPES`.
        way: plain or engine.
        work: train or predict.
        weights: bfloat16 or nf4.
        twice: with gradient checkpointing.
        branches: adapters side by side.
        layers: topmost layers that are adapted, 0 for all.
    """

    shape: str
    way: str
    work: str
    weights: str = "bfloat16"
    twice: bool = False
    branches: int = 1
    layers: int = 0

    @property
    def name(self) -> str:
        """Of the row and its file."""
        parts = [self.shape, self.way, self.work, self.weights]
        parts += ["twice"] if self.twice else []
        parts += [f"{self.branches}-branches"] if self.layers else []
        return "_".join(parts)


def cases(*, nf4: bool) -> list[Case]:
    """All rows, the most important ones first."""
    found = []
    for shape in SHAPES:
        for work in ("train", "predict"):
            found += [Case(shape, "engine", work), Case(shape, "plain", work)]
        found.append(Case(shape, "engine", "train", twice=True))
        if nf4:
            found += [Case(shape, "engine", work, weights="nf4") for work in ("train", "predict")]
        for work in ("train", "predict"):
            found += [Case(shape, "engine", work, branches=n, layers=4) for n in (1, 5)]
    return found


class Bench:
    """Runs one row after the other.

    Args:
        device: where.
        tiny: tiny shapes, to try the script.
    """

    def __init__(self, device: torch.device, *, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.sizes: Sizes = SMALL if tiny else FULL

    def measure(self, case: Case) -> dict[str, Json]:
        """The row: tokens and pairs per second, share of the peak, memory."""
        torch.manual_seed(0)
        decoder = decoder_of(config_of(case.shape, tiny=self.tiny), torch.bfloat16)
        weights = layer_weights(decoder)
        if case.weights == "nf4":
            use_nf4(decoder)
        with PeakMemory(self.device) as peak:
            decoder.to(self.device)
            forest = random_forest(self.sizes, decoder.config.vocab_size)
            run = self._plain if case.way == "plain" else self._engine
            work, tokens, pairs = run(case, decoder, forest)
            seconds = self._timed(work)
        middle = statistics.median(seconds)
        flops = STEP_FLOPS if case.work == "train" else PASS_FLOPS
        return {
            "shape": case.shape,
            "way": case.way,
            "work": case.work,
            "weights": case.weights,
            "checkpointing": case.twice,
            "branches": case.branches,
            "adapted_layers": case.layers or len(decoder.layers),
            "layer_weights": weights,
            "tokens": tokens,
            "pairs": pairs,
            "seconds": round(middle, 6),
            "slowest": round(max(seconds), 6),
            "tokens_per_second": round(tokens / middle, 1),
            "pairs_per_second": round(pairs / middle, 2),
            "flops_share": flops * weights * tokens / middle / PEAK,
            "peak_gb": round(peak.bytes / 1e9, 4),
        }

    def _timed(self, work: Callable[[], None]) -> list[float]:
        """Seconds of each round over all texts; two rounds before them compile and warm up."""
        found = []
        for number in range(2 + self.sizes.repeats):
            started = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            if number >= 2:
                found.append(time.perf_counter() - started)
        return found

    def _engine(
        self, case: Case, decoder: PreTrainedModel, forest: Forest
    ) -> tuple[Callable[[], None], int, int]:
        trunk = Trunk(decoder)
        start = trunk.depth - min(case.layers, trunk.depth - 1) if case.layers else 0
        settings = FitSettings(lora_r=16, gradient_checkpointing=case.twice)
        names = [f"b{k}" for k in range(case.branches)]
        parameters: list[Tensor] = []
        adapters = Adapters(trunk, start=start, settings=settings, backbone=case.shape)
        for seed, name in enumerate(names):
            parameters += adapters.add(name, seed=seed).values()
        optimiser = torch.optim.AdamW(parameters, lr=1e-4)
        packs = pack_leaves(forest, range(len(forest.leaves)), self.sizes.pack)
        learning = case.work == "train"

        def one(pack: Pack, seed: int) -> None:
            trees = lay_out(forest, pack, self.device)
            with torch.no_grad():
                below = trunk.run(trees, depths=[start])[start]
            copies = lay_out(forest, Pack(pack.groups * len(names), 0), self.device)
            segments = [Segment(n, pack.tokens, seed if learning else None) for n in names]
            with adapters.together(segments):
                top = trunk.run(
                    copies, start=start, states=below.repeat(len(names), 1), depths=[trunk.depth]
                )[trunk.depth]
            rows = pooled(top, copies)
            if learning:
                rows.square().mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)

        def work() -> None:
            with torch.inference_mode(not learning):
                for number, pack in enumerate(packs):
                    one(pack, number)

        return work, sum(pack.tokens for pack in packs), len(forest.left)

    def _plain(
        self, case: Case, decoder: PreTrainedModel, forest: Forest
    ) -> tuple[Callable[[], None], int, int]:
        """PEFT as its documentation has it: padded batches of plain sequences, A and B apart."""
        learning = case.work == "train"
        linear = {n.rsplit(".", 1)[-1] for n, p in decoder.named_modules() if _linear(p)}
        config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, target_modules=sorted(linear))
        with warnings.catch_warnings():  # PEFT reads an attribute that transformers renamed
            warnings.simplefilter("ignore", FutureWarning)
            model = get_peft_model(decoder, config).train(learning)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-4)
        pairs = sequences(forest)
        plain = [ids for pair in pairs for ids in pair]
        batches = [_padded(b, self.device) for b in _batches(plain, self.sizes.batch)]

        def work() -> None:
            with torch.inference_mode(not learning):
                for ids, mask in batches:
                    top = model(input_ids=ids, attention_mask=mask).last_hidden_state
                    last = top[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]
                    if learning:
                        last.float().square().mean().backward()
                        optimiser.step()
                        optimiser.zero_grad(set_to_none=True)

        return work, sum(map(len, plain)), len(pairs)


def _linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)


def _batches(plain: Sequence[tuple[int, ...]], most: int) -> list[list[tuple[int, ...]]]:
    """Sequences in the order of their pairs, as many as fit padded."""
    found: list[list[tuple[int, ...]]] = []
    for ids in plain:
        batch = found[-1] if found else []
        longest = max(map(len, [*batch, ids]))
        if found and longest * (len(batch) + 1) <= most:
            batch.append(ids)
        else:
            found.append([ids])
    return found


def _padded(batch: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, own in enumerate(batch):
        ids[row, : len(own)] = torch.tensor(own)
        mask[row, : len(own)] = 1
    return ids.to(device), mask.to(device)


def join(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The figures that are claimed, each the worst over the shapes."""
    main = [r for r in _rows(rows, "engine", "train") if not r["checkpointing"]]
    least = min(main, key=lambda r: r["flops_share"])
    found = {
        "lora_useful_flops_fraction": least["flops_share"],
        "tokens_per_second": least["tokens_per_second"],
        "peak_gpu_mb": max(r["peak_gb"] for r in main) * 1000,
    }
    for work in ("train", "predict"):
        ratios, memory, five = [], [], []
        for shape in SHAPES:
            engine = rows.get(Case(shape, "engine", work).name)
            plain = rows.get(Case(shape, "plain", work).name)
            if engine and plain:
                ratios.append(engine["pairs_per_second"] / plain["pairs_per_second"])
                memory.append(engine["peak_gb"] / max(plain["peak_gb"], 1e-9))
            one, many = (
                rows.get(Case(shape, "engine", work, branches=n, layers=4).name) for n in (1, 5)
            )
            if one and many:
                five.append(many["seconds"] / one["seconds"])
        for name, values, worst in (
            (f"{work}_speedup_plain", ratios, min),
            (f"{work}_peak_ratio_plain", memory, max),
            (f"ensemble5_{work}_ratio", five, max),
        ):
            if values:
                found[name] = worst(values)
    return found


def _rows(rows: dict[str, dict[str, Any]], way: str, work: str) -> list[dict[str, Any]]:
    kinds = (r for r in rows.values() if (r["way"], r["work"]) == (way, work))
    return [r for r in kinds if r["weights"] == "bfloat16" and r["branches"] == 1 and _whole(r)]


def _whole(row: dict[str, Any]) -> bool:
    """All layers are adapted."""
    return "layers" not in row["name"] and "branches" not in row["name"]


def measure_all(bench: Bench, folder: Path, *, nf4: bool) -> dict[str, dict[str, Any]]:
    """All rows, those measured before from the folder; a row without room says so."""
    rows = {}
    for case in cases(nf4=nf4):
        file = folder / f"{case.name}.json"
        if not file.exists():
            try:
                row = bench.measure(case)
            except torch.OutOfMemoryError as error:
                row = {"failed": str(error).splitlines()[0]}
            write_json(file, {"name": case.name, **row})
        row = json.loads(file.read_text(encoding="utf-8"))
        shown = row.get("failed") or f"{row['tokens_per_second']:,.0f} tokens/s"
        print(f"{case.name}: {shown}", flush=True)
        if "failed" not in row:
            rows[case.name] = row
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, and join; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    parser.add_argument("--no-nf4", action="store_true", help="leave out 4-bit weights")
    parser.add_argument("--rows", type=Path, default=REPOSITORY / "runs" / "gpu")
    parser.add_argument("--out", type=Path, default=None, help="folder of engine_gpu.json")
    given = parser.parse_args(arguments)
    if given.device == "cpu" and (not given.tiny or given.out is None):
        parser.error("on a CPU: --tiny --out FOLDER, which is no result")
    try:
        device = choose_device(given.device)
        started = time.perf_counter()
        rows = measure_all(Bench(device, tiny=given.tiny), given.rows, nf4=not given.no_nf4)
    except LiteeError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return error.exit_code
    receipt = Receipt(
        seconds=round(time.perf_counter() - started, 1),
        tokens=sum(int(row["tokens"]) for row in rows.values()),
        peak_rss_mb=round(peak_rss_mb(), 1),
        peak_gpu_mb=peak_gpu_mb(device),
        device=device_name(device),
        threads=torch.get_num_threads(),
        versions=versions(),
    )
    note = TRIED if given.tiny else NOTE
    result = new_result(
        "engine_gpu",
        "bash benchmarks/gpu.sh",
        receipt,
        join(rows),
        tables={"rows": list(rows.values())},
        notes=note,
    )
    print(write_result(given.out or REPOSITORY / "results", result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
