"""Writes answers: many at once, each with its own rule, seed and stop texts, token by token.

Answers join and leave the batch at any step, so short ones do not wait for long ones and a server
can take requests while others are written. Equal prompts are read once. Knows nothing of files,
judges and networks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from litee.errors import InputError
from litee.predict.generation_cache import RowCache
from litee.predict.generation_model import BASE, GenerationModel, Voice
from litee.predict.generation_sampling import Sampling, draw, penalise
from litee.predict.generation_text import TextStream
from litee.records import Message

#: Prompt tokens, filling included, that are read in one pass.
READ_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """An answer that is asked for.

    Attributes:
        messages: the dialogue; the last message is the user's.
        sampling: how it is drawn.
        adapter: which adapter writes it, `BASE` for none.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str = BASE


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer.

    Attributes:
        key: which request, as `Engine.add` returned it.
        text: new text, maybe none.
        finish_reason: `stop` or `length` with the last piece, else "".
        tokens: tokens written so far, the end-of-turn token included.
        prompt_tokens: tokens of the prompt.
    """

    key: int
    text: str
    finish_reason: str
    tokens: int
    prompt_tokens: int


@dataclass(slots=True)
class _Row:
    """An answer in writing."""

    key: int
    prompt: tuple[int, ...]
    request: Request
    voice: Voice
    limit: int
    stream: TextStream
    generator: torch.Generator
    tokens: int = 0
    last: int = 0

    @property
    def room(self) -> int:
        """Tokens that it may come to."""
        return len(self.prompt) + self.limit


class Engine:
    """Keeps a batch of answers in writing.

    Args:
        model: writes them.
        max_batch: answers at once.
        max_batch_tokens: tokens held for them; a single longer answer is written alone.

    Not for several threads at once.
    """

    def __init__(
        self, model: GenerationModel, *, max_batch: int = 16, max_batch_tokens: int = 32768
    ) -> None:
        self.model = model
        self.max_batch, self.max_batch_tokens = max_batch, max_batch_tokens
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._cache = RowCache(model.layers)
        self._occurred: Tensor | None = None
        self._next = 0

    @property
    def busy(self) -> bool:
        """Whether any answer is waiting or in writing."""
        return bool(self._waiting or self._rows)

    @property
    def counts(self) -> tuple[int, int]:
        """Answers waiting and answers in writing."""
        return len(self._waiting), len(self._rows)

    def add(self, request: Request) -> int:
        """Queue an answer; its key stands in its deltas.

        Raises:
            InputError: the dialogue asks nothing or is too long, the adapter is unknown, or a
                stop text is empty.
        """
        if not all(request.sampling.stop):
            raise InputError("a stop text is empty", fix="leave it out")
        prompt = tuple(self.model.encode(request.messages, request.adapter))
        voice = self.model.voice(request.adapter)
        stop = (*request.sampling.stop, *voice.dialogues.stop_texts)
        plain = voice.dialogues.template.name == "plain"
        generator = torch.Generator().manual_seed(request.sampling.seed)
        limit = min(request.sampling.max_new_tokens, self.model.max_positions - len(prompt))
        stream = TextStream(voice.decode, stop, strip=plain)
        self._next += 1
        row = _Row(self._next, prompt, request, voice, limit, stream, generator)
        self._waiting.append(row)
        return self._next

    def cancel(self, key: int) -> None:
        """Stop writing an answer; unknown and finished ones are left alone."""
        self._waiting = deque(row for row in self._waiting if row.key != key)
        self._keep([k for k, row in enumerate(self._rows) if row.key != key])

    def clear(self) -> list[int]:
        """Drop everything, for instance after an error; returns the keys that were dropped."""
        keys = [row.key for row in (*self._rows, *self._waiting)]
        self._waiting.clear()
        self._rows = []
        self._cache = RowCache(self.model.layers)
        self._occurred = None
        return keys

    def step(self) -> list[Delta]:
        """Write one token of every answer in the batch; new answers join it first."""
        joining = self._admit()
        if not self._rows and not joining:
            return []
        adapter = (self._rows or joining)[0].request.adapter
        with self.model.speaking(adapter):
            parts = [self._advance()] if self._rows else []
            if joining:
                parts.append(self._read(joining))
            return self._write(torch.cat(parts))

    def _admit(self) -> list[_Row]:
        """Waiting answers that may join: same adapter, and the batch stays within its bounds."""
        joining: list[_Row] = []
        prompts: dict[tuple[int, ...], None] = {}
        while self._waiting:
            row = self._waiting[0]
            batch = [*self._rows, *joining, row]
            widest = max(member.room for member in batch)
            prompts.setdefault(row.prompt)
            reading = len(prompts) * max(map(len, prompts))
            if len(batch) > 1 and (
                row.request.adapter != batch[0].request.adapter
                or len(batch) > self.max_batch
                or widest * len(batch) > self.max_batch_tokens
                or (joining and reading > READ_TOKENS)
            ):
                break
            joining.append(self._waiting.popleft())
        return joining

    def _advance(self) -> Tensor:
        """Run the last token of every row."""
        ids = torch.tensor([[row.last] for row in self._rows])
        return self.model.logits(ids, torch.ones_like(ids), self._cache)

    def _read(self, joining: list[_Row]) -> Tensor:
        """Run the prompts of new rows, each distinct one once, and put the rows into the batch."""
        prompts = list(dict.fromkeys(row.prompt for row in joining))
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        cache = RowCache(self.model.layers)
        logits = self.model.logits(ids, mask, cache)
        index = [prompts.index(row.prompt) for row in joining]
        if index != list(range(len(prompts))):
            cache.select(index)
        self._cache.append(cache)
        self._rows += joining
        occurred = torch.zeros((len(joining), logits.shape[1]), dtype=torch.bool)
        for k, row in enumerate(joining):
            if row.request.sampling.penalise_prompt:
                occurred[k, list(row.prompt)] = True
        new = occurred.to(logits.device)
        old = self._occurred
        self._occurred = new if old is None or not len(old) else torch.cat([old, new])
        return logits[index]

    def _write(self, logits: Tensor) -> list[Delta]:
        """Draw a token for every row, hand out text, let finished rows leave."""
        assert self._occurred is not None
        samplings = [row.request.sampling for row in self._rows]
        vocabulary = self._rows[0].voice.vocabulary
        if vocabulary < logits.shape[1]:
            logits[:, vocabulary:] = float("-inf")
        theta = torch.tensor([s.repetition_penalty for s in samplings], device=logits.device)
        uniforms = torch.cat([torch.rand(1, generator=r.generator) for r in self._rows])
        tokens = draw(penalise(logits, self._occurred, theta), samplings, uniforms)
        self._occurred[torch.arange(len(tokens), device=tokens.device), tokens] = True
        deltas = [
            self._push(row, int(token)) for row, token in zip(self._rows, tokens, strict=True)
        ]
        self._keep([k for k, delta in enumerate(deltas) if not delta.finish_reason])
        return deltas

    @staticmethod
    def _push(row: _Row, token: int) -> Delta:
        row.last, row.tokens = token, row.tokens + 1
        text, reason = "", ""
        if token in row.voice.ends:
            text, reason = row.stream.finish(), "stop"
        else:
            text = row.stream.push(token)
            if row.stream.stopped:
                reason = "stop"
            elif row.tokens >= row.limit:
                text += row.stream.finish()
                reason = "stop" if row.stream.stopped else "length"
        return Delta(row.key, text, reason, row.tokens, len(row.prompt))

    def _keep(self, rows: list[int]) -> None:
        if len(rows) == len(self._rows):
            return
        if not rows:
            self._rows, self._cache, self._occurred = [], RowCache(self.model.layers), None
            return
        assert self._occurred is not None
        with torch.inference_mode():
            self._rows = [self._rows[k] for k in rows]
            self._cache.select(rows)
            self._occurred = self._occurred[torch.tensor(rows, device=self._occurred.device)]


@dataclass(frozen=True, slots=True)
class Written:
    """A finished answer.

    Attributes:
        text: without the end-of-turn token and stop texts.
        finish_reason: `stop` or `length`.
        tokens: tokens written, the end-of-turn token included.
        prompt_tokens: tokens of the prompt.
    """

    text: str
    finish_reason: str
    tokens: int
    prompt_tokens: int


def write_answers(engine: Engine, requests: Sequence[Request]) -> list[Written]:
    """All answers, in the order of the requests; long prompts are read first.

    The same requests with the same engine settings give the same answers.
    """
    found: dict[int, Written] = {}
    for k, written in finished_answers(engine, requests):
        found[k] = written
    return [found[k] for k in range(len(requests))]


def finished_answers(engine: Engine, requests: Sequence[Request]) -> Iterator[tuple[int, Written]]:
    """(number of the request, answer) as they are finished."""
    size = [sum(len(m.text) for m in request.messages) for request in requests]
    order = sorted(range(len(requests)), key=lambda k: (-size[k], k))
    numbers = {engine.add(requests[k]): k for k in order}
    texts: dict[int, list[str]] = {key: [] for key in numbers}
    while engine.busy:
        for delta in engine.step():
            texts[delta.key].append(delta.text)
            if delta.finish_reason:
                text = "".join(texts.pop(delta.key))
                yield (
                    numbers[delta.key],
                    Written(text, delta.finish_reason, delta.tokens, delta.prompt_tokens),
                )


def stream_answer(engine: Engine, request: Request) -> Generator[Delta, None, None]:
    """One answer, piece by piece; closing the iterator stops the writing."""
    key = engine.add(request)
    try:
        while engine.busy:
            yield from (delta for delta in engine.step() if delta.key == key)
    finally:
        engine.cancel(key)
