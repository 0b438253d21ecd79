"""A micro-batcher: concurrent callers share runs of a network that is cheaper by the batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.domain import NotReady, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]
    expires_at: float


class MicroBatcher(Generic[Item, Result]):
    """Runs `run` in worker threads over whatever waits, up to `max_batch` items at a time.

    There is no collecting window: an idle network starts at once, and while it runs the next batch gathers by itself,
    so batches grow with the load. Each item has its own outcome: `run` returns a result or an exception for each.
    Callers that were cancelled are dropped before a run, callers past their deadline are told so.

    Args:
        run: maps items to one result or exception each; called from a worker thread.
        max_batch: items in a run.
        max_pending: items that may wait; more are refused with Overloaded.
        deadline_s: how long an item may wait for its run to begin.
        workers: runs at the same time.
        on_batch: told the size of each run.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result | Exception]],
        *,
        max_batch: int,
        max_pending: int,
        deadline_s: float,
        workers: int = 1,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._deadline_s = deadline_s
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="batch")
        self._workers = [asyncio.create_task(self._work()) for _ in range(workers)]
        self._closed = False

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Results in the order of `items`, all of which must be taken or none.

        Raises:
            Overloaded: the queue has no room for them, or their deadline passed.
            NotReady: the batcher is closed.
            Exception: whatever the run gave for one of the items; the first one wins.
        """
        if self._closed:
            raise NotReady("the service is shutting down")
        if len(self._queue) + len(items) > self._max_pending:
            raise Overloaded("too many faces are waiting for a network", retry_after_s=1)
        loop = asyncio.get_running_loop()
        expires_at = loop.time() + self._deadline_s
        waiting = [_Waiting(item, loop.create_future(), expires_at) for item in items]
        self._queue.extend(waiting)
        self._arrived.set()
        try:
            outcomes = await asyncio.gather(*(entry.future for entry in waiting), return_exceptions=True)
        finally:
            for entry in waiting:
                entry.future.cancel()
        results: list[Result] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        return results

    async def close(self) -> None:
        """Refuse new items, fail what waits, and let runs in progress end."""
        self._closed = True
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        while self._queue:
            entry = self._queue.popleft()
            if not entry.future.done():
                entry.future.set_exception(NotReady("the service is shutting down"))
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._take(loop.time())
            if not batch:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if self._on_batch is not None:
                self._on_batch(len(batch))
            items = [entry.item for entry in batch]
            try:
                outcomes = await loop.run_in_executor(self._threads, self._run_checked, items)
            except asyncio.CancelledError:
                for entry in batch:
                    if not entry.future.done():
                        entry.future.set_exception(NotReady("the service is shutting down"))
                raise
            for entry, outcome in zip(batch, outcomes, strict=True):
                if entry.future.done():
                    continue
                if isinstance(outcome, Exception):
                    entry.future.set_exception(outcome)
                else:
                    entry.future.set_result(outcome)

    def _take(self, now: float) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        while self._queue and len(batch) < self._max_batch:
            entry = self._queue.popleft()
            if entry.future.done():
                continue
            if entry.expires_at < now:
                entry.future.set_exception(Overloaded("the face waited too long for a network", retry_after_s=1))
                continue
            batch.append(entry)
        return batch

    def _run_checked(self, items: list[Item]) -> Sequence[Result | Exception]:
        try:
            outcomes = self._run(items)
        except Exception as error:  # noqa: BLE001 - whatever a run raises belongs to its callers, not to the worker
            return [error] * len(items)
        if len(outcomes) != len(items):
            return [RuntimeError(f"a run of {len(items)} items gave {len(outcomes)} results")] * len(items)
        return outcomes
