"""Recall, reciprocal rank and nDCG by hand, against scikit-learn, and with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from litee.score.retrieval import (
    Query,
    evaluate_rankings,
    ndcg_at,
    recall_at,
    reciprocal_rank,
)

GOLD = frozenset("ac")


def test_by_hand():
    assert recall_at("xayc", GOLD, 2) == 0.5
    assert recall_at("xayc", GOLD, 4) == 1.0
    assert reciprocal_rank("xyac", GOLD) == pytest.approx(1 / 3)
    assert reciprocal_rank("xyz", GOLD) == 0.0
    # gains at ranks 2 and 4, best possible at 1 and 2
    expected = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert ndcg_at("xayc", GOLD, 4) == pytest.approx(expected)


@given(
    st.permutations("abcdef"),
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.integers(1, 6),
)
def test_ndcg_is_scikit_learns(ranked, gold, k):
    truth = [[float(own in gold) for own in ranked]]
    scores = [[-float(rank) for rank in range(len(ranked))]]
    assert ndcg_at(ranked, frozenset(gold), k) == pytest.approx(ndcg_score(truth, scores, k=k))


def test_methods_are_compared_on_the_same_resamples():
    queries = [Query(f"q{i}", frozenset([f"d{i}"]), group=f"g{i // 2}") for i in range(40)]
    good = [[f"d{i}", "x"] for i in range(40)]
    bad = [["x", f"d{i}" if i % 4 else "y"] for i in range(40)]
    report = evaluate_rankings(queries, {"bad": bad, "good": good}, cutoffs=(1, 5))
    assert (report.queries, report.groups) == (40, 20)
    score = report.metrics["bad"]["recall_at_5"]
    assert score.value == 0.75
    assert score.low < 0.75 < score.high
    assert report.metrics["good"]["recall_at_1"].value == 1.0
    assert report.metrics["bad"]["mrr"].value == pytest.approx(0.375)
    assert set(report.gains) == {"good"}
    assert report.gains["good"].value == 0.25
    assert report.gains["good"].low > 0


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="gold"):
        Query("q", frozenset())
    with pytest.raises(ValueError, match="needed"):
        evaluate_rankings([], {"m": []})
    queries = [Query("q", frozenset("a"))]
    with pytest.raises(ValueError, match="zip"):
        evaluate_rankings(queries, {"m": []})
    with pytest.raises(ValueError, match="cut-offs"):
        evaluate_rankings(queries, {"m": [["a"]]}, compare_at=3)


def test_a_cross_encoder_gives_one_number_per_text(tmp_path):
    """The scores in batches are the model's own, one text at a time."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from litee.errors import ModelError
    from litee.score.cross_encoder import CrossEncoder
    from tiny_models import byte_tokenizer

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(chat=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id or 1,
    )
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "one")
    tokenizer.save_pretrained(tmp_path / "one")
    texts = ["short", "a much longer text", "mid text"]
    found = CrossEncoder(str(tmp_path / "one")).rerank("query", texts)
    for text, score in zip(texts, found, strict=True):
        tokens = tokenizer(["query"], [text], return_tensors="pt")
        tokens.pop("token_type_ids", None)
        with torch.inference_mode():
            assert score == pytest.approx(model(**tokens).logits.item(), abs=1e-4)
    config.num_labels = 2
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(ModelError, match="one label"):
        CrossEncoder(str(tmp_path / "two"))
    with pytest.raises(ModelError, match="cannot load"):
        CrossEncoder(str(tmp_path / "none"))
