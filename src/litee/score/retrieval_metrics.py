"""Ragas' retrieval metrics by the ragas library: faithfulness, relevancy, precision, recall.

Es et al. 2023, arXiv 2309.15217. The library's prompts and formulas, with our writers and a local
sentence encoder in place of its clients, so that no key is needed, replies are kept, and whatever
goes wrong is a row without score. The library's usage tracking is switched off. Knows nothing of
files and people.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

os.environ["RAGAS_DO_NOT_TRACK"] = "true"  # before its import: it would report its use

from pydantic import BaseModel, ValidationError
from ragas.embeddings.base import BaseRagasEmbedding
from ragas.llms.base import InstructorBaseRagasLLM
from ragas.metrics.collections import (
    AnswerCorrectness,
    AnswerRelevancy,
    ContextPrecision,
    ContextRecall,
    Faithfulness,
)

from litee.records import Score
from litee.score.answers import Answer
from litee.score.endpoint_judge import INVALID_JSON
from litee.score.neural import SentenceEncoder
from litee.score.retrieval_writers import StoredWriter
from litee.score.texts import NO_PROMPT, why_not

#: Why a row has no score.
NO_CONTEXTS, NOTHING_FOUND = "no contexts", "the model found nothing to compare"
NO_VALUE = "ragas gives no value"

Model = TypeVar("Model", bound=BaseModel)

_BLOCK = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)


#: Fields of ragas' replies that may not be empty.
_MUST_HOLD = ("statements", "classifications", "question")


class _NoReply(Exception):
    """A reply that cannot be used; the row has no score."""


class RagasWriter(InstructorBaseRagasLLM):
    """A writer as ragas' language model.

    An empty list or question is refused: ragas would take it for a perfect match (correctness) or
    for 0 (relevancy).

    Args:
        writer: that is asked.
    """

    def __init__(self, writer: StoredWriter) -> None:
        self.writer = writer

    def generate(self, prompt: str, response_model: type[Model]) -> Model:
        """A reply as the given model, asked for in this thread."""
        return asyncio.run(self.agenerate(prompt, response_model))

    async def agenerate(self, prompt: str, response_model: type[Model]) -> Model:
        """A reply as the given model."""
        schema = response_model.model_json_schema()
        text = self.writer.stored(prompt, schema)
        if text is None:
            reply = await asyncio.to_thread(
                self.writer.writer.write, prompt, schema, _checker(response_model)
            )
            self.writer.keep(prompt, schema, reply)
            if reply.text is None:
                raise _NoReply(reply.reason)
            text = reply.text
        found = response_model.model_validate_json(_json_of(text))
        if any(getattr(found, name, None) in ([], "") for name in _MUST_HOLD):
            raise _NoReply(NOTHING_FOUND)
        return found


def _checker(response_model: type[BaseModel]) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            response_model.model_validate_json(_json_of(text))
        except ValidationError:
            return INVALID_JSON
        return ""

    return check


def _json_of(text: str) -> str:
    """A reply without the code block that may stand around it."""
    block = _BLOCK.match(text.strip())
    return block[1] if block else text.strip()


class RagasEncoder(BaseRagasEmbedding):
    """A local sentence encoder as ragas' embeddings.

    Args:
        encoder: of the texts.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def embed_text(self, text: str, **options: object) -> list[float]:
        """Unit vector of a text."""
        found: list[float] = self.encoder.encode([text])[0].tolist()
        return found

    async def aembed_text(self, text: str, **options: object) -> list[float]:
        """Unit vector of a text."""
        return self.embed_text(text)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a metric needs, and how it is asked.

    Attributes:
        answer: whether it looks at the answer.
        reference: whether it needs a golden answer.
        contexts: whether it needs retrieved passages.
        encoder: whether it needs a sentence encoder.
    """

    answer: bool = False
    reference: bool = False
    contexts: bool = False
    encoder: bool = False

    def why_not(self, answer: Answer) -> str:
        """Why an answer cannot be scored, "" when it can."""
        if not answer.prompt.strip():
            return NO_PROMPT
        looked_at = answer if self.answer else Answer({}, answer.prompt, "-", answer.reference)
        reason = why_not(looked_at, reference=self.reference, filled=self.answer)
        if reason:
            return reason
        return NO_CONTEXTS if self.contexts and not any(c.strip() for c in answer.contexts) else ""

    def fields(self, answer: Answer) -> dict[str, object]:
        """The arguments of ragas' `ascore`."""
        found: dict[str, object] = {"user_input": answer.prompt}
        if self.answer:
            found["response"] = answer.answer
        if self.reference:
            found["reference"] = answer.reference
        if self.contexts:
            found["retrieved_contexts"] = [c for c in answer.contexts if c.strip()]
        return found


_KINDS: Mapping[str, tuple[Callable[..., Any], _Kind]] = {
    "faithfulness": (Faithfulness, _Kind(answer=True, contexts=True)),
    "answer_relevancy": (AnswerRelevancy, _Kind(answer=True, encoder=True)),
    "context_precision": (ContextPrecision, _Kind(reference=True, contexts=True)),
    "context_recall": (ContextRecall, _Kind(reference=True, contexts=True)),
    "answer_correctness": (AnswerCorrectness, _Kind(answer=True, reference=True, encoder=True)),
}


class Retrieval:
    """Ragas' metrics, several rows at once.

    Args:
        columns: some of the names in `litee.score.metric_names.RETRIEVAL_COLUMNS`.
        writer: the language model.
        encoder: makes the sentence encoder, called only when a metric needs one.
    """

    def __init__(
        self, columns: Sequence[str], writer: StoredWriter, encoder: Callable[[], SentenceEncoder]
    ) -> None:
        self.columns = tuple(columns)
        self.writer = writer
        llm = RagasWriter(writer)
        needed = any(_KINDS[c][1].encoder for c in columns)
        embeddings = RagasEncoder(encoder()) if needed else None
        self._metrics: dict[str, Any] = {
            c: _KINDS[c][0](llm=llm, **({"embeddings": embeddings} if _KINDS[c][1].encoder else {}))
            for c in columns
        }

    def score(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        """One tuple per answer, in the order of `columns`.

        Raises:
            ModelError: the endpoint refuses the key or does not know the address or the model.
        """
        return asyncio.run(self._all(answers))

    async def _all(self, answers: Sequence[Answer]) -> list[tuple[Score, ...]]:
        at_once = self.writer.writer.at_once
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(at_once))
        free = asyncio.Semaphore(at_once)
        cells = [self._one(column, a, free) for a in answers for column in self.columns]
        scores = await asyncio.gather(*cells)
        width = len(self.columns)
        return [tuple(scores[k : k + width]) for k in range(0, len(scores), width)]

    async def _one(self, column: str, answer: Answer, free: asyncio.Semaphore) -> Score:
        kind = _KINDS[column][1]
        reason = kind.why_not(answer)
        if reason:
            return Score(None, reason=reason)
        try:
            async with free:
                found = await self._metrics[column].ascore(**kind.fields(answer))
            value = float(found.value)
        except _NoReply as error:
            return Score(None, reason=str(error))
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            return Score(None, reason=f"{NO_VALUE} ({type(error).__name__})")
        return Score(value) if math.isfinite(value) else Score(None, reason=NO_VALUE)
