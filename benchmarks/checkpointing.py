"""`python -m benchmarks.checkpointing`: what `gradient_checkpointing` saves and costs on a CPU.

LoRA steps on one pack of the example votes through the lowest layers of SmolLM2-135M, with and
without, in turns. Processor seconds are counted, which other jobs on the machine change least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from benchmarks.engine.texts import example_forest

from litee.config import FitSettings
from litee.encode.forest import pack_leaves
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.rates import PeakMemory, give_back_memory
from litee.finetune.trunk import lay_out, pooled


def main() -> None:
    """Print peaks and seconds, with and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(find_backbone("smollm2-135m-instruct"), depth=given.layers)
    trunk = backbone.trunk
    forest = example_forest(backbone)
    pack = pack_leaves(forest, range(len(forest.leaves)), given.tokens)[0]
    trees = lay_out(forest, pack)
    states = trunk.embed(trees.ids).detach()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    peaks: dict[bool, list[int]] = {False: [], True: []}
    for number in range(given.steps + 1):  # the first of each warms up
        for twice in (False, True):
            settings = FitSettings(gradient_checkpointing=twice)
            adapters = Adapters(trunk, start=0, settings=settings, backbone="smollm2")
            adapters.add("one", seed=0)
            give_back_memory()
            started = time.process_time()
            with PeakMemory() as peak:
                with adapters.together([Segment("one", pack.tokens, 0)]):
                    top = trunk.run(trees, states=states, depths=[trunk.depth])[trunk.depth]
                pooled(top, trees).square().mean().backward()  # type: ignore[no-untyped-call]
            del top
            if number:
                seconds[twice].append(time.process_time() - started)
                peaks[twice].append(peak.bytes)
            adapters.remove()
    for twice, name in ((False, "once"), (True, "twice")):
        found = {
            "computed": name,
            "tokens": pack.tokens,
            "layers": given.layers,
            "peak_mb": round(statistics.median(peaks[twice]) / 1e6, 1),
            "cpu_seconds": round(statistics.median(seconds[twice]), 3),
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
