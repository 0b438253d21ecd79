"""Threads for calls that block, with a bounded number of them waiting or running."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from service.domain import NotReady, Overloaded

_R = TypeVar("_R")


class Readers:
    """Runs a gallery's searches and reads beside the event loop.

    Args:
        threads: calls that run at once.
        max_pending: calls that may wait or run; more are refused.
        initializer: run first on each thread.
    """

    def __init__(self, threads: int, max_pending: int, initializer: Callable[[], None] | None = None) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="gallery-reader", initializer=initializer)
        self._places = threading.BoundedSemaphore(max_pending)
        self._closed = False

    def check_open(self) -> None:
        """Raises NotReady once closing has begun."""
        if self._closed:
            raise NotReady("the gallery is closed")

    async def run(self, call: Callable[[], _R]) -> _R:
        """Run `call` on a thread. Raises Overloaded, NotReady, and what `call` raises."""
        self.check_open()
        if not self._places.acquire(blocking=False):
            raise Overloaded("too many searches and reads wait")
        try:
            future: Future[_R] = self._executor.submit(call)
        except RuntimeError as error:
            self._places.release()
            raise NotReady("the gallery is closed") from error
        # Not when the caller stops waiting: a cancelled caller's call may still be running.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def refuse(self) -> None:
        """Take no more calls; those that run go on."""
        self._closed = True

    def close(self) -> None:
        """Take no more calls and wait for those that run."""
        self._closed = True
        self._executor.shutdown()
