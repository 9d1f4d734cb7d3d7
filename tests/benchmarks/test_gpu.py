"""The GPU benchmark from end to end, on tiny shapes and a CPU."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from benchmarks.gpu_shapes import SHAPES, SMALL, config_of, decoder_of, layer_weights, random_forest

from benchmarks import gpu
from litee.score.results import read_result


def test_without_a_gpu_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--rows", str(tmp_path), "--out", str(tmp_path)]) == 5
    assert "device = 'cuda'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_cpu_writes_no_result():
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--tiny", "--device", "cpu"])
    assert stopped.value.code == 2


def test_all_of_it_on_tiny_shapes(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "SHAPES", {"llama-1b": SHAPES["llama-1b"]})
    nf4 = [] if importlib.util.find_spec("bitsandbytes") else ["--no-nf4"]
    rows, out = tmp_path / "rows", tmp_path / "out"
    given = ["--tiny", "--device", "cpu", "--rows", str(rows), "--out", str(out), *nf4]
    assert gpu.main(given) == 0
    result = read_result(out / "engine_gpu.json")
    assert not result.missing_metrics
    assert {"train_speedup_plain", "ensemble5_predict_ratio"} <= set(result.metrics)
    found = {row["name"]: row for row in result.tables["rows"]}
    assert len(found) == 9 + 2 * (not nf4)
    engine, plain = (found[f"llama-1b_{way}_train_bfloat16"] for way in ("engine", "plain"))
    assert engine["tokens"] < plain["tokens"] and engine["pairs"] == plain["pairs"] == 9
    expected = 4 * engine["layer_weights"] * engine["tokens"] / engine["seconds"] / gpu.PEAK
    assert engine["flops_share"] == pytest.approx(expected, rel=1e-3)

    marked = json.loads((rows / "llama-1b_plain_train_bfloat16.json").read_text()) | {"tokens": 7}
    (rows / "llama-1b_plain_train_bfloat16.json").write_text(json.dumps(marked))
    assert gpu.main(given) == 0  # goes on from the rows that are there
    again = read_result(out / "engine_gpu.json").tables["rows"]
    assert 7 in {row["tokens"] for row in again}


def test_weights_are_counted_by_hand():
    decoder = decoder_of(config_of("llama-1b", tiny=True), torch.bfloat16)
    attention = 64 * 64 * 2 + 64 * 32 * 2
    assert layer_weights(decoder) == 3 * (attention + 3 * 64 * 128)


def test_sizes_are_those_of_models_of_half_a_billion_and_more():
    for shape in SHAPES:
        with torch.device("meta"):
            decoder = decoder_of(config_of(shape, tiny=False), torch.bfloat16)
        assert layer_weights(decoder) >= 0.5e9, shape


def test_texts_share_prompts_and_answers():
    forest = random_forest(SMALL, 200)
    assert len(forest.prefixes) == 3 and len(forest.leaves) == 9 and len(forest.left) == 9
    assert forest.tokens < forest.plain_tokens / 2
