"""Worker threads that run requests of many clients together: one writes answers, one judges.

A model is touched by its worker's thread alone; asyncio code talks to it through queues. Knows
nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from litee.errors import LiteeError, ResourceError
from litee.predict.best_of import Predictor
from litee.predict.generation import Delta, Engine, Request
from litee.records import Pair, Prediction
from litee.serve.metrics import Metrics

_logger = logging.getLogger("litee.serve")

#: Pairs that the judge is given at once, as long as requests wait.
JUDGE_BATCH = 512

_STOPPING = "the server is stopping"


@dataclass(slots=True, eq=False)
class _Asked:
    """A request to the writer and where its deltas go."""

    request: Request
    loop: asyncio.AbstractEventLoop
    deltas: asyncio.Queue[Delta | LiteeError]
    key: int = 0
    left: bool = False

    def tell(self, item: Delta | LiteeError) -> None:
        """Hand over from the worker's thread; a loop that is gone does not mind."""
        try:
            self.loop.call_soon_threadsafe(self.deltas.put_nowait, item)
        except RuntimeError:
            self.left = True


class Writer:
    """Writes answers of all requests in one batch that they join and leave.

    Args:
        engine: used by this thread alone.
        metrics: counts batches.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine, self._metrics = engine, metrics
        self._inbox: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._open: dict[int, _Asked] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="litee-writer", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> tuple[int, int]:
        """Answers waiting and in writing."""
        waiting, writing = self._engine.counts
        return waiting + self._inbox.qsize(), writing

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Deltas of one answer; closing the generator ends the writing.

        Raises:
            InputError: the request cannot be answered.
            ResourceError: memory ran out, or the server is stopping.
        """
        if self._stop.is_set():
            raise ResourceError(_STOPPING)
        asked = _Asked(request, asyncio.get_running_loop(), asyncio.Queue())
        self._inbox.put(asked)
        try:
            while True:
                item = await asked.deltas.get()
                if isinstance(item, LiteeError):
                    raise item
                yield item
                if item.finish_reason:
                    return
        finally:
            asked.left = True

    def close(self) -> None:
        """Stop the thread; answers in writing fail."""
        self._stop.set()
        self._inbox.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._take()
            try:
                deltas = self._engine.step()
            except Exception:  # of torch or of the machine: the next requests may fare better
                _logger.exception("writing failed")
                self._fail(ResourceError("writing failed; the server's log says more"))
                continue
            if deltas:
                self._metrics.batches.labels("answers").observe(len(deltas))
            for delta in deltas:
                asked = self._open[delta.key]
                asked.tell(delta)
                if delta.finish_reason:
                    del self._open[delta.key]
        self._fail(ResourceError(_STOPPING))

    def _take(self) -> None:
        """Let new requests in and drop those whose clients have left; sleeps when idle."""
        while True:
            try:
                asked = self._inbox.get(block=not self._engine.busy)
            except queue.Empty:
                break
            if asked is None:
                return
            try:
                asked.key = self._engine.add(asked.request)
            except LiteeError as error:
                asked.tell(error)
                continue
            self._open[asked.key] = asked
        for key in [key for key, asked in self._open.items() if asked.left]:
            self._engine.cancel(key)
            del self._open[key]

    def _fail(self, error: LiteeError) -> None:
        self._engine.clear()
        for asked in self._open.values():
            asked.tell(error)
        self._open.clear()
        while True:
            try:
                waiting = self._inbox.get(block=False)
            except queue.Empty:
                return
            if waiting is not None:
                waiting.tell(error)


@dataclass(slots=True, eq=False)
class _Work:
    pairs: Sequence[Pair]
    done: Future[Sequence[Prediction]] = field(default_factory=Future)


class JudgeWorker:
    """Judges pairs of all requests together: whatever waits when the judge is free.

    Args:
        judge: used by this thread alone.
        metrics: counts batches and pairs.
        wait: seconds that a first request waits for others.
    """

    def __init__(self, judge: Predictor, metrics: Metrics, *, wait: float = 0.005) -> None:
        self._judge, self._metrics, self._wait = judge, metrics, wait
        self._inbox: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="litee-judge", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._inbox.qsize()

    def submit(self, pairs: Sequence[Pair]) -> Future[Sequence[Prediction]]:
        """Predictions of some pairs, in their order, in the future."""
        work = _Work(pairs)
        if self._stop.is_set():
            work.done.set_exception(ResourceError(_STOPPING))
        else:
            self._inbox.put(work)
        return work.done

    async def predict(self, pairs: Sequence[Pair]) -> Sequence[Prediction]:
        """Predictions of some pairs, in their order."""
        return await asyncio.wrap_future(self.submit(pairs))

    def close(self) -> None:
        """Stop the thread; what waits fails."""
        self._stop.set()
        self._inbox.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stop.is_set():
            batch = self._gather()
            if batch:
                self._judge_batch(batch)
        for work in self._drain():
            work.done.set_exception(ResourceError(_STOPPING))

    def _gather(self) -> list[_Work]:
        """The next requests, at least one, at most about `JUDGE_BATCH` pairs."""
        first = self._inbox.get()
        if first is None:
            return []
        batch, size = [first], len(first.pairs)
        until = time.monotonic() + self._wait
        while size < JUDGE_BATCH:
            try:
                work = self._inbox.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if work is None:
                break
            batch.append(work)
            size += len(work.pairs)
        return [work for work in batch if work.done.set_running_or_notify_cancel()]

    def _judge_batch(self, batch: Sequence[_Work]) -> None:
        pairs = [pair for work in batch for pair in work.pairs]
        try:
            found = list(self._judge.predict(pairs))
        except Exception as error:
            _logger.exception("judging failed")
            if len(batch) > 1:  # one request's pairs must not spoil the others'
                for work in batch:
                    self._judge_batch([work])
                return
            known = isinstance(error, LiteeError)
            said = error if known else ResourceError("judging failed; the server's log says more")
            batch[0].done.set_exception(said)
            return
        self._metrics.batches.labels("judge").observe(len(pairs))
        self._metrics.pairs.inc(len(pairs))
        start = 0
        for work in batch:
            work.done.set_result(found[start : start + len(work.pairs)])
            start += len(work.pairs)

    def _drain(self) -> list[_Work]:
        found: list[_Work] = []
        while True:
            try:
                work = self._inbox.get(block=False)
            except queue.Empty:
                return [w for w in found if w.done.set_running_or_notify_cancel()]
            if work is not None:
                found.append(work)
