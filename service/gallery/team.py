"""The other cores, for a search that has the machine to itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_R = TypeVar("_R")


class Team:
    """Shares the parts of one search among threads while no other search runs.

    Concurrent searches fill the cores by themselves, and then helping would only get in their way.

    Args:
        helpers: threads besides the searching one; 0 for none.
        initializer: called on each of them first.
    """

    def __init__(self, helpers: int, initializer: Callable[[], None] | None = None) -> None:
        self._helpers = helpers
        self._executor = ThreadPoolExecutor(max(helpers, 1), "gallery-helper", initializer=initializer)
        self._searching = 0
        self._lock = threading.Lock()

    @contextmanager
    def searching(self) -> Iterator[None]:
        """To be held by every search."""
        with self._lock:
            self._searching += 1
        try:
            yield
        finally:
            with self._lock:
                self._searching -= 1

    def run(self, parts: Sequence[Callable[[], _R]]) -> list[_R]:
        """Call all parts, in whatever order, and return what they return in theirs."""
        if len(parts) < 2 or not self._helpers or self._searching > 1:
            return [part() for part in parts]
        results: list[_R | None] = [None] * len(parts)
        left = iter(range(len(parts)))

        def work() -> None:
            # Whoever is free takes the next one; `next` on a range is atomic.
            for number in left:
                results[number] = parts[number]()

        try:
            others = [self._executor.submit(work) for _ in range(min(self._helpers, len(parts) - 1))]
        except RuntimeError:
            # Closed meanwhile.
            others = []
        work()
        for other in others:
            # One that has not begun has nothing left to do.
            if not other.cancel():
                other.result()
        return [result for result in results if result is not None]

    def close(self) -> None:
        """Let the threads end."""
        self._executor.shutdown()
