"""Group commit: many small changes, one transaction, one fsync."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.domain import DomainError, NotReady, Overloaded
from service.gallery.page_cache import PageCache
from service.gallery.schema import BUSY_TIMEOUT_MS, as_domain_error

_C = TypeVar("_C")
_R = TypeVar("_R")

_MAX_BATCH = 256
# How long a reader may hold up the erasure that an acknowledgement waits for, and when to try again.
_ERASE_WAIT_MS = 20
_ERASE_RETRY_S = 0.05


@dataclass(slots=True)
class _Job:
    operation: Callable[[sqlite3.Connection], Any]
    publish: Callable[[Any], Any]
    erases: bool
    future: Future[Any] = field(default_factory=Future)


class _TransactionLostError(Exception):
    """SQLite gave up the whole transaction, not only the statement that failed."""


class GroupCommitter:
    """Runs changes on one thread, and commits those that wait together in one transaction.

    While a commit is being written the next ones gather, so the batches grow with the load and a lone change waits for
    nobody. Each change runs in a savepoint: one that fails leaves its neighbours alone. Nobody hears of success or
    refusal before COMMIT has returned, which with synchronous=FULL is after the log is on disk.

    Args:
        connection: the writing connection; nobody else uses it until `close` has returned.
        max_pending: changes that may wait; more are refused.
    """

    def __init__(self, connection: sqlite3.Connection, *, max_pending: int) -> None:
        self._connection = connection
        self._pages = PageCache(connection)
        self._max_pending = max_pending
        self._pending: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._broken: BaseException | None = None
        self._to_erase = False
        self._commits = 0
        # Called on the writer's thread before content is erased from the database's files.
        self.before_erasure: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="gallery-writer", daemon=True)
        self._thread.start()

    @property
    def commits(self) -> int:
        """Transactions committed so far."""
        return self._commits

    def submit(
        self, operation: Callable[[sqlite3.Connection], _C], publish: Callable[[_C], _R], *, erases: bool = False
    ) -> Future[_R]:
        """Queue a change; never blocks.

        Cancelling the future while the change waits takes it back; once it runs, it runs to its end.

        Args:
            operation: makes the change, inside a transaction that it must not end. A DomainError refuses it.
            publish: called on the writer's thread after the commit, in the order of commits, with what `operation`
                returned; what it returns becomes the future's result.
            erases: the old content must be gone from the files before the acknowledgement.

        Returns:
            A future that fails with the operation's error, StorageFull, StorageUnusable or Overloaded.

        Raises:
            Overloaded: too many changes wait.
            NotReady: the committer is closed or has failed.
        """
        job = _Job(operation, publish, erases)
        with self._changed:
            if self._broken is not None:
                raise NotReady("the gallery stopped after an internal error; restart the service") from self._broken
            if self._closing:
                raise NotReady("the gallery is closed")
            if len(self._pending) >= self._max_pending:
                raise Overloaded("too many changes wait to be stored", max_pending=self._max_pending)
            self._pending.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Finish what is queued and end the thread; closing twice does nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
            try:
                if jobs:
                    self._store(jobs)
                elif self._to_erase:
                    self._erase()
            except BaseException as error:  # noqa: BLE001 - a waiting caller must hear of whatever ended the writer
                self._give_up(error, jobs)
                return

    def _next_batch(self) -> list[_Job] | None:
        """What waits; an empty list when there is time to erase; None at the end."""
        with self._changed:
            if not self._pending and not self._closing:
                self._changed.wait(_ERASE_RETRY_S if self._to_erase else None)
            if not self._pending and self._closing:
                return None
            return [self._pending.popleft() for _ in range(min(_MAX_BATCH, len(self._pending)))]

    def _store(self, jobs: list[_Job]) -> None:
        try:
            self._commit(jobs)
        except _TransactionLostError as lost:
            # One operation took the others down with it, say by needing more room than the disk has. Alone, each
            # gets the outcome that it deserves.
            if len(jobs) > 1:
                for job in jobs:
                    self._store([job])
            else:
                jobs[0].future.set_exception(lost.__cause__ or lost)

    def _commit(self, jobs: list[_Job]) -> None:
        done: list[tuple[_Job, Any]] = []
        refused: list[tuple[_Job, Exception]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job, done, refused)
            self._connection.execute("COMMIT" if done else "ROLLBACK")
        except sqlite3.Error as error:
            self._roll_back()
            told = as_domain_error(error)
            told.__cause__ = error
            # Refusals too: what a refusal was based on may just have been rolled back.
            for job in jobs:
                job.future.set_exception(told)
            return
        except BaseException:
            self._roll_back()
            raise
        self._commits += bool(done)
        self._pages.follow()
        if any(job.erases for job, _ in done):
            self._to_erase = True
        # The index before the acknowledgement: a search that begins after it must see the change.
        results = [(job, job.publish(change)) for job, change in done]
        if self._to_erase:
            self.before_erasure()
            self._erase()
        for job, result in results:
            job.future.set_result(result)
        for job, refusal in refused:
            job.future.set_exception(refusal)

    def _attempt(self, job: _Job, done: list[tuple[_Job, Any]], refused: list[tuple[_Job, Exception]]) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT operation")
        try:
            done.append((job, job.operation(connection)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's own failure
            told: Exception = error
            if isinstance(error, sqlite3.Error):
                told = as_domain_error(error)
                told.__cause__ = error
            if not connection.in_transaction:
                raise _TransactionLostError from told
            connection.execute("ROLLBACK TO operation")
            refused.append((job, told))
        connection.execute("RELEASE operation")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _erase(self) -> None:
        """Carry the log into the database and cut it to nothing: until then it and the database hold old content.

        A reader in an old snapshot, or a full disk, can prevent it. Then it is tried again between batches.
        """
        try:
            self._connection.execute(f"PRAGMA busy_timeout = {_ERASE_WAIT_MS}")
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._to_erase = bool(busy)
        except sqlite3.Error:
            # The change itself is committed, so this is nobody's failure.
            time.sleep(_ERASE_WAIT_MS / 1000)
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    def _give_up(self, error: BaseException, jobs: list[_Job]) -> None:
        """The index no longer follows the store, or worse: refuse everything from here on."""
        with self._changed:
            self._broken = error
            waiting = [job for job in self._pending if job.future.set_running_or_notify_cancel()]
            self._pending.clear()
        for job in [*jobs, *waiting]:
            if not job.future.done():
                failure: DomainError = NotReady("the gallery stopped after an internal error; restart the service")
                failure.__cause__ = error
                job.future.set_exception(failure)
