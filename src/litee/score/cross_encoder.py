"""A re-ranker: a model that reads question and text together and gives one number.

Knows nothing of indexes and of how candidates were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from litee.errors import ModelError

_MAX_TOKENS = 512
_BATCH = 32


class CrossEncoder:
    """Scores of texts for a question, higher is better (Nogueira and Cho 2019, arXiv 1901.04085).

    Args:
        name: folder or hub name of a sequence classifier with one label, e.g.
            `cross-encoder/ms-marco-MiniLM-L-6-v2`.

    Raises:
        ModelError: it cannot be loaded, or it has several labels.
    """

    def __init__(self, name: str) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            fix = "name a folder with config.json, safetensors and a tokenizer"
            raise ModelError(f"cannot load the re-ranker: {error}", place=name, fix=fix) from error
        if self._model.config.num_labels != 1:
            problem = f"a re-ranker has one label, this has {self._model.config.num_labels}"
            raise ModelError(problem, place=name, fix="name a cross-encoder for ranking")

    @torch.inference_mode()
    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """One number per text."""
        scores: list[float] = []
        for start in range(0, len(texts), _BATCH):
            part = list(texts[start : start + _BATCH])
            tokens = self._tokenizer(
                [query] * len(part),
                part,
                padding=True,
                truncation="only_second",
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            scores += self._model(**tokens).logits[:, 0].float().tolist()
        return scores
