"""Who keeps on trying with wrong keys."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from service.domain import RateLimited


class FailureTable:
    """Counts failed attempts by client host.

    Args:
        limit: failures within the window after which a host's next ones are refused.
        window_s: how long a failure counts, seconds.
        max_hosts: that are counted at a time; of more, those that failed least recently are forgotten.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        limit: int = 10,
        window_s: float = 60.0,
        max_hosts: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._max_hosts = max_hosts
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def note(self, host: str) -> None:
        """Count a failure.

        Raises:
            RateLimited: the host has failed too often; this failure was not counted, so that the wait does not grow.
        """
        now = self._clock()
        times = self._failures.setdefault(host, deque())
        self._failures.move_to_end(host)
        if len(self._failures) > self._max_hosts:
            self._failures.popitem(last=False)
        while times and times[0] <= now - self._window_s:
            times.popleft()
        if len(times) >= self._limit:
            wait_s = max(1, math.ceil(times[0] + self._window_s - now))
            raise RateLimited(f"too many wrong API keys; try again in {wait_s} s", retry_after_s=wait_s)
        times.append(now)
