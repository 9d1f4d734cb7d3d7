"""Carries out the API's requests with an engine and a judge.

Knows nothing of routes, keys and limits on the way here.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from fastapi import Request

from litee.encode.dialogues import check_messages
from litee.errors import LiteeError
from litee.predict.best_of import Candidates, best_index, candidate_pairs, kl_bound, pair_rewards
from litee.predict.generation_sampling import Sampling
from litee.records import Message
from litee.serve.api_errors import ApiError
from litee.serve.api_models import (
    Answer,
    BestOfRequest,
    BestOfResponse,
    Candidate,
    ChatRequest,
    ChatResponse,
    Choice,
    Health,
    Judgement,
    JudgeRequest,
    JudgeResponse,
    ModelCard,
    Probabilities,
    Usage,
)
from litee.serve.api_settings import ServeSettings
from litee.serve.batching import JudgeWorker
from litee.serve.engines import Call, ChatEngine, Piece
from litee.serve.metrics import Metrics

T = TypeVar("T")


class Service:
    """Engine, judge and settings of one server.

    Args:
        settings: limits and defaults.
        engine: writes answers.
        metrics: counts tokens.
        judge: judges pairs, None when the server has none.
        judge_name: what clients see.
    """

    def __init__(
        self,
        settings: ServeSettings,
        engine: ChatEngine,
        metrics: Metrics,
        *,
        judge: JudgeWorker | None = None,
        judge_name: str = "judge",
    ) -> None:
        self.settings, self.engine, self.metrics = settings, engine, metrics
        self.judge, self.judge_name = judge, judge_name
        self.created = int(time.time())
        self.stopping = False
        metrics.watch("litee_answers_waiting", "Answers that wait.", lambda: engine.counts[0])
        metrics.watch("litee_answers_writing", "Answers in writing.", lambda: engine.counts[1])

    async def close(self) -> None:
        """End the workers; what they have not finished fails."""
        self.stopping = True
        await self.engine.close()
        if self.judge is not None:
            await asyncio.to_thread(self.judge.close)

    # requests to calls

    async def check_model(self, name: str) -> None:
        """Refuse an unknown model as OpenAI does.

        Raises:
            ApiError: 404.
        """
        known = await self.engine.models()
        if name not in known:
            raise ApiError(
                404,
                f"the model {name[:100]!r} does not exist; models: {', '.join(known) or 'none'}",
                code="model_not_found",
                param="model",
            )

    def check_judge(self) -> None:
        """Refuse when there is no judge.

        Raises:
            ApiError: 404.
        """
        if self.judge is None:
            raise ApiError(404, "this server has no judge; start it with --judge", code="no_judge")

    async def calls(self, body: ChatRequest | BestOfRequest) -> list[Call]:
        """One call per answer that is asked for, each with a seed of its own.

        Raises:
            ApiError: unknown model, too many messages or answers.
            InputError: the dialogue asks nothing.
        """
        await self.check_model(body.model)
        if len(body.messages) > self.settings.max_messages:
            raise ApiError(
                400, f"at most {self.settings.max_messages} messages are taken", param="messages"
            )
        count = body.n or 1
        if count > self.settings.max_samples:
            raise ApiError(400, f"at most {self.settings.max_samples} answers", param="n")
        messages = tuple(message.record() for message in body.messages)
        check_messages(messages)
        first = self._sampling(body)
        given = frozenset(
            name
            for name in ("temperature", "top_p", "repetition_penalty")
            if getattr(body, name) is not None
        )
        return [
            Call(body.model, messages, replace(first, seed=(first.seed + k) % (1 << 63)), given)
            for k in range(count)
        ]

    def _sampling(self, body: ChatRequest | BestOfRequest) -> Sampling:
        own = self.settings
        seed = secrets.randbits(62) if body.seed is None else body.seed % (1 << 63)

        def or_default(value: T | None, default: T) -> T:
            return default if value is None else value

        return Sampling(
            or_default(body.temperature, own.temperature),
            or_default(body.top_p, own.top_p),
            or_default(body.repetition_penalty, own.repetition_penalty),
            or_default(body.limit, own.max_new_tokens),
            seed,
            body.stops,
            own.penalise_prompt,
        )

    # answers

    async def write(self, call: Call) -> Piece:
        """A whole answer."""
        texts: list[str] = []
        last = Piece("")
        async with aclosing(self.engine.stream(call)) as pieces:
            async for last in pieces:
                texts.append(last.text)
        self.count_tokens(last)
        return replace(last, text="".join(texts))

    def count_tokens(self, last: Piece) -> None:
        """Add a finished answer to the counters."""
        self.metrics.tokens.labels("prompt").inc(last.prompt_tokens)
        self.metrics.tokens.labels("written").inc(last.tokens)

    async def _write_all(self, calls: Sequence[Call]) -> list[Piece]:
        """All answers; when one fails, the others are ended too."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.write(call)) for call in calls]
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        return [task.result() for task in tasks]

    async def complete(self, calls: Sequence[Call], body: ChatRequest) -> ChatResponse:
        """Answers as OpenAI's `chat.completion`."""
        written = await self._write_all(calls)
        choices = [
            Choice(index=k, message=Answer(content=one.text), finish_reason=one.finish_reason)
            for k, one in enumerate(written)
        ]
        return ChatResponse(
            id=answer_id(),
            created=int(time.time()),
            model=body.model,
            choices=choices,
            usage=usage_of(written),
        )

    async def best_of(self, calls: Sequence[Call], body: BestOfRequest) -> BestOfResponse:
        """Write all, let the judge reward them in one call, return the best.

        Raises:
            ApiError: no judge, or the dialogue does not start with the user.
        """
        asked, answered = _turns(calls[0].messages)
        written = await self._write_all(calls)
        candidates = Candidates(asked, tuple((*answered, one.text) for one in written))
        assert self.judge is not None
        rewards = pair_rewards(await self.judge.predict(candidate_pairs(candidates)))
        best = best_index(rewards)
        shown = None
        if body.return_candidates:
            shown = [
                Candidate(
                    index=k,
                    message=Answer(content=one.text),
                    finish_reason=one.finish_reason,
                    reward=reward,
                )
                for k, (one, reward) in enumerate(zip(written, rewards, strict=True))
            ]
        chosen = written[best]
        message = Answer(content=chosen.text)
        return BestOfResponse(
            id=answer_id(),
            created=int(time.time()),
            model=body.model,
            choices=[Choice(index=0, message=message, finish_reason=chosen.finish_reason)],
            usage=usage_of(written),
            reward=rewards[best],
            n=len(written),
            kl_bound_nats=kl_bound(len(written)),
            candidates=shown,
        )

    # the judge

    async def judge_pairs(self, body: JudgeRequest) -> JudgeResponse:
        """The judge's opinion on every pair.

        Raises:
            ApiError: no judge, or too many pairs.
        """
        self.check_judge()
        pairs = body.records()
        if len(pairs) > self.settings.max_pairs:
            raise ApiError(400, f"at most {self.settings.max_pairs} pairs", param="pairs")
        assert self.judge is not None
        found = [
            Judgement(
                id=p.pair_id,
                probabilities=Probabilities(
                    a=p.probabilities[0], b=p.probabilities[1], tie=p.probabilities[2]
                ),
                winner=p.winner.value,
                reward_a=p.reward_a,
                reward_b=p.reward_b,
                tokens_cut=p.tokens_cut,
            )
            for p in await self.judge.predict(pairs)
        ]
        return JudgeResponse(model=self.judge_name, data=found)

    # state

    def card(self, name: str) -> ModelCard:
        """A model as OpenAI lists it."""
        return ModelCard(id=name, created=self.created)

    def health(self) -> Health:
        """Whether requests are taken, and what waits."""
        waiting, writing = self.engine.counts
        return Health(
            status="stopping" if self.stopping else "ok",
            engine=self.engine.name,
            judge=None if self.judge is None else self.judge_name,
            waiting=waiting,
            writing=writing,
        )


def answer_id() -> str:
    """A fresh id, as OpenAI writes them."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def usage_of(written: Sequence[Piece]) -> Usage:
    """Tokens of several answers to one prompt."""
    prompt = max((one.prompt_tokens for one in written), default=0)
    completion = sum(one.tokens for one in written)
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def _turns(messages: Sequence[Message]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """User turns and earlier answers; the judge sees no system message."""
    said = [m for m in messages if m.role != "system"]
    roles = [m.role for m in said]
    if roles != (["user", "assistant"] * len(said))[: len(said)]:
        raise ApiError(400, "the judge needs user and assistant in turns", param="messages")
    users = tuple(m.text for m in said if m.role == "user")
    return users, tuple(m.text for m in said if m.role == "assistant")


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """The error that a client is told of several."""
    known = [e for e in errors.exceptions if isinstance(e, ApiError | LiteeError)]
    return known[0] if known else errors.exceptions[0]


async def unless_gone(request: Request, work: Coroutine[object, object, T]) -> T:
    """The work's result; when the client leaves first, the work is ended.

    Raises:
        ApiError: 499, which nobody reads.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client left")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
