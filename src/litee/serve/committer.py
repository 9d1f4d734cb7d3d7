"""One thread that writes: works that arrive together share one commit, and none is lost.

A work's result is given out only after its commit is on the disk, so whatever was acknowledged
survives a kill. Knows nothing of what the works write.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import sqlalchemy as sa

from litee.errors import LiteeError, ResourceError

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

#: Most works in one commit.
BATCH = 128


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Work[T]
    light: bool = False
    future: Future[T] = field(default_factory=Future)
    result: T | None = None
    error: Exception | None = None

    def settle(self, failure: Exception | None = None) -> None:
        error = failure or self.error
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class Committer:
    """Runs works one after the other on one connection, many per commit.

    Args:
        engine: of the database.
        on_failure: called in the writing thread after a commit failed, before its works hear of it:
            nothing of the batch was stored. When it fails too, it is called again before the next
            batch, which fails as long as it does: a database that was away for a while is found.
        flush: called before a commit, and before a work that is not light: writes what light works
            left to be written together.
    """

    def __init__(
        self,
        engine: sa.Engine,
        on_failure: Callable[[], None],
        flush: Callable[[sa.Connection], None],
    ) -> None:
        self._engine = engine
        self._on_failure = on_failure
        self._flush = flush
        self._queue: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="litee-commits", daemon=True)
        self._closed = False
        self._stale = False  # a failure that `on_failure` could not follow yet
        self._thread.start()

    async def do(self, work: Work[T], *, light: bool = False) -> T:
        """Run a work and wait until it is stored.

        Args:
            work: to run.
            light: it leaves its rows to `flush` and raises no `LiteeError`, so it needs no
                savepoint: what many people do at once costs a few round trips altogether.

        Raises:
            ResourceError: the database could not store it.
            LiteeError: raised by the work itself; nothing of it was stored.
        """
        return await asyncio.wrap_future(self._put(work, light=light))

    def run(self, work: Work[T], *, light: bool = False) -> T:
        """As `do`, from a thread."""
        return self._put(work, light=light).result()

    def _put(self, work: Work[T], *, light: bool = False) -> Future[T]:
        if self._closed:
            raise ResourceError("the page is shutting down", fix="try again in a moment")
        job: _Job[T] = _Job(work, light)
        self._queue.put(job)  # type: ignore[arg-type]
        return job.future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            if batch:
                self._commit(batch)

    def _gather(self) -> tuple[list[_Job[object]], bool]:
        """The next jobs, and whether there will be more."""
        batch: list[_Job[object]] = []
        job = self._queue.get()
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH or self._queue.empty():
                return batch, True
            job = self._queue.get()
        return batch, False

    def _commit(self, batch: list[_Job[object]]) -> None:
        # from here on nobody can cancel a job, so that all of them can be settled
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        try:
            if self._stale:
                self._on_failure()
                self._stale = False
            with self._engine.begin() as connection:
                for job in batch:
                    self._one(connection, job)
                self._flush(connection)
        except Exception as error:  # noqa: BLE001  whatever went wrong, nobody may be told "saved"
            failure = _explain(error)
            try:
                self._on_failure()
                self._stale = False
            except Exception:  # noqa: BLE001  whatever it was, this thread must go on
                self._stale = True
            for job in batch:
                job.settle(failure)
            return
        for job in batch:
            job.settle()

    def _one(self, connection: sa.Connection, job: _Job[object]) -> None:
        """One work, in a savepoint of its own so that its failure leaves the others untouched."""
        if job.light:
            job.result = job.work(connection)
            return
        self._flush(connection)
        try:
            with connection.begin_nested():
                job.result = job.work(connection)
        except LiteeError as error:
            job.error = error


def _explain(error: Exception) -> Exception:
    if isinstance(error, sa.exc.DatabaseError):
        reason = str(error.orig).splitlines()[0]
        fix = "check that the database runs and its disk has room; the vote was not stored"
        return ResourceError(f"cannot store: {reason}", fix=fix)
    return error
