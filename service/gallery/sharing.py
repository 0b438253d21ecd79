"""Searches that are asked for at the same time share a run: several probes at once are cheaper than one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain import Overloaded
from service.gallery.readers import Readers
from service.ports import SearchResult

# Probes of one run; from some eight on, a probe more costs as much as the others.
MOST_PROBES = 16

# Gallery, probes (n, d) float32 and top_k to n results.
Search = Callable[[str, NDArray[np.float32], int], list[SearchResult]]


@dataclass(slots=True, eq=False)
class _Asked:
    gallery: str
    probes: NDArray[np.float32]
    top_k: int
    answer: asyncio.Future[list[SearchResult]]

    def fits(self, other: _Asked) -> bool:
        return (self.gallery, self.top_k) == (other.gallery, other.top_k)


class SharedSearches:
    """Runs searches on a gallery's threads, those of one gallery and `top_k` together.

    Nobody waits for company: a search begins at once while a runner is free, and what comes meanwhile makes up the
    next run. Belongs to one event loop.

    Args:
        search: blocks; called from the threads.
        readers: the threads.
        runners: runs at the same time.
        max_pending: searches that may wait; more are refused.
    """

    def __init__(self, search: Search, readers: Readers, *, runners: int, max_pending: int) -> None:
        self._search = search
        self._readers = readers
        self._free = runners
        self._max_pending = max_pending
        self._waiting: deque[_Asked] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def search(self, gallery: str, probes: NDArray[np.float32], top_k: int) -> list[SearchResult]:
        """A result for each probe. Raises Overloaded, NotReady, and what `search` raises."""
        self._readers.check_open()
        if len(self._waiting) >= self._max_pending:
            raise Overloaded("too many searches wait")
        asked = _Asked(gallery, probes, top_k, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asked.answer

    async def _work(self) -> None:
        try:
            while together := self._next():
                await self._run(together)
        finally:
            self._free += 1

    def _next(self) -> list[_Asked]:
        """The search that has waited longest, with those that fit it; callers who have gone away are passed over."""
        self._waiting = deque(asked for asked in self._waiting if not asked.answer.done())
        together: list[_Asked] = []
        count = 0
        for asked in self._waiting:
            if not together or (asked.fits(together[0]) and count + len(asked.probes) <= MOST_PROBES):
                together.append(asked)
                count += len(asked.probes)
        taken = set(map(id, together))
        self._waiting = deque(asked for asked in self._waiting if id(asked) not in taken)
        return together

    async def _run(self, together: list[_Asked]) -> None:
        first = together[0]
        probes = np.concatenate([asked.probes for asked in together]) if len(together) > 1 else first.probes
        try:
            results = await self._readers.run(lambda: self._search(first.gallery, probes, first.top_k))
        except Exception as error:  # noqa: BLE001 - whatever a run raises belongs to those who asked
            for asked in together:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
            return
        for asked in together:
            own, results = results[: len(asked.probes)], results[len(asked.probes) :]
            if not asked.answer.done():
                asked.answer.set_result(own)
