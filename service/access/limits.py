"""How many requests a caller may make: counted in this process, or by all processes together in Redis."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Any, Protocol, cast

import structlog
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.domain import RateLimited

_KEY_PREFIX = "shrinkface:rate"
_RATE_TOLERANCE = 0.01
_MAX_IDS = 10_000
# A storage of the library walks through all it holds at every hit; of many callers, each has only a share to walk.
_SHARES = 16
_REDIS_CONNECTIONS = 64
# What a missing, slow or confused server can raise; the latter ones come out of replies of a wrong kind.
_TROUBLE = (RedisError, OSError, TimeoutError, ValueError, AssertionError, TypeError, IndexError)

_log = structlog.get_logger()


class RateLimiter(Protocol):
    """Counts what callers spend against what they may."""

    async def spend(self, key_id: str, cost: int = 1) -> None:
        """Count `cost` requests, at least one, against a caller.

        Raises:
            RateLimited: that is more than there is now; nothing was counted. `retry_after_s` is when there will be
                enough, if nothing else is spent meanwhile.
        """

    async def close(self) -> None:
        """Let go of connections."""


class NullLimiter:
    """No limit."""

    async def spend(self, key_id: str, cost: int = 1) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Nothing to let go of."""


class _Window:
    """A rate as the library's sliding window: `amount` requests in any `length_s` seconds.

    Of the window before, that part counts which the sliding window still covers, as if it had been spent evenly; so two
    counters are all that is kept of a caller.
    """

    def __init__(self, rate_per_s: float, burst_s: float) -> None:
        # The library counts whole requests in whole seconds: the shortest window, not under the one asked for, in which
        # that is the rate but for a hundredth. Rounding is off by half a request, so fifty requests are always enough.
        length_s = max(1, math.ceil(burst_s), math.ceil(1 / rate_per_s))
        while abs(round(rate_per_s * length_s) / (rate_per_s * length_s) - 1) > _RATE_TOLERANCE:
            length_s += 1
        self.length_s = length_s
        self.amount = round(rate_per_s * length_s)
        self._item = RateLimitItemPerSecond(self.amount, length_s, namespace="window")

    def key(self, key_id: str) -> str:
        return self._item.key_for(key_id)

    async def take(self, storage: MemoryStorage | RedisStorage, key_id: str, cost: int) -> int:
        """0 when the cost was taken; else how long to wait, in seconds.

        What costs more than a whole window takes the whole window: it would have to wait for ever otherwise.
        """
        cost = min(cost, self.amount)
        if await SlidingWindowCounterRateLimiter(storage).hit(self._item, key_id, cost=cost):
            return 0
        counts = await storage.get_sliding_window(self.key(key_id), self.length_s)
        return max(1, math.floor(self._wait_s(cost, *counts)) + 1)

    def _wait_s(self, cost: int, before: int, before_ends_s: float, now: int, now_expires_s: float) -> float:
        """After this, the library will take the cost: it does while floor(what counts) + cost is within the amount."""
        room = self.amount - cost + 1
        if now < room:
            # The window before has to fade: before * (its rest / length) to below room - now.
            return before_ends_s - (room - now) * self.length_s / before if before else 0.0
        turns_s = now_expires_s - self.length_s
        return turns_s + self.length_s * (1 - room / now)


class LocalLimiter:
    """RateLimiter within this process: several processes allow several times as much.

    Args:
        rate_per_s: requests a second that a caller may make for long.
        burst_s: length of the window, seconds: as many requests may come at once as the rate allows in it.
        max_ids: callers that are counted at a time; of more, those that were heard of least recently are forgotten.
    """

    def __init__(self, *, rate_per_s: float, burst_s: float, max_ids: int = _MAX_IDS) -> None:
        self._window = _Window(rate_per_s, burst_s)
        self._storages = [MemoryStorage() for _ in range(_SHARES)]
        self._max_ids = max_ids
        self._ids: OrderedDict[str, None] = OrderedDict()

    async def spend(self, key_id: str, cost: int = 1) -> None:
        """Count a request; see RateLimiter."""
        self._ids[key_id] = None
        self._ids.move_to_end(key_id)
        if len(self._ids) > self._max_ids:
            stale, _ = self._ids.popitem(last=False)
            await self._storage_of(stale).clear_sliding_window(self._window.key(stale), self._window.length_s)
        _refuse_if(await self._window.take(self._storage_of(key_id), key_id, cost))

    async def close(self) -> None:
        """Nothing to let go of."""

    def _storage_of(self, key_id: str) -> MemoryStorage:
        return self._storages[hash(key_id) % _SHARES]


class RedisLimiter:
    """RateLimiter that all processes share through Redis.

    When Redis is in trouble this process counts by itself, and leaves the server alone for `rest_s`, so that a frozen
    one costs one timeout now and then, not one a request.

    Args:
        url: redis://...
        rate_per_s, burst_s: see LocalLimiter.
        timeout_s: longest wait for Redis.
        rest_s: pause after trouble.
    """

    def __init__(self, url: str, *, rate_per_s: float, burst_s: float, timeout_s: float, rest_s: float = 1.0) -> None:
        # One that waits for a free connection: more requests at once than connections are no trouble.
        self._pool = BlockingConnectionPool.from_url(
            url,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=_REDIS_CONNECTIONS,
        )
        self._storage = RedisStorage(
            "redis://",
            implementation="redispy",
            key_prefix=_KEY_PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]
        )
        # The library takes any reply that is not nothing for a yes.
        cast(Any, self._storage.bridge).get_connection().set_response_callback("EVALSHA", _checked)
        self._window = _Window(rate_per_s, burst_s)
        self._local = LocalLimiter(rate_per_s=rate_per_s, burst_s=burst_s)
        self._timeout_s = timeout_s
        self._rest_s = rest_s
        self._resting_until = 0.0
        self._in_trouble = False

    async def spend(self, key_id: str, cost: int = 1) -> None:
        """Count a request; see RateLimiter."""
        if asyncio.get_running_loop().time() < self._resting_until:
            await self._local.spend(key_id, cost)
            return
        try:
            wait_s = await asyncio.wait_for(self._window.take(self._storage, key_id, cost), self._timeout_s)
        except _TROUBLE as error:
            self._rest(error)
            await self._local.spend(key_id, cost)
            return
        if self._in_trouble:
            self._in_trouble = False
            _log.info("rate limits are shared again")
        _refuse_if(wait_s)

    async def close(self) -> None:
        """Close the connections."""
        try:
            await asyncio.wait_for(self._pool.aclose(), self._timeout_s)
        except _TROUBLE as error:
            _log.warning("rate limiter closed badly", error=type(error).__name__)

    def _rest(self, error: BaseException) -> None:
        self._resting_until = asyncio.get_running_loop().time() + self._rest_s
        if not self._in_trouble:
            self._in_trouble = True
            # Not the error's text: it may hold the URL with its password.
            _log.warning("rate limits are counted in this process alone", error=type(error).__name__)


def _refuse_if(wait_s: int) -> None:
    if wait_s:
        raise RateLimited(f"too many requests; try again in {wait_s} s", retry_after_s=wait_s)


def _checked(reply: Any, **_: Any) -> Any:
    """A reply to one of the library's scripts, if it is of the kind that they give: yes, no, or four counts."""
    if isinstance(reply, list) and len(reply) == 4:
        return [0 if count is None else int(count) for count in reply]
    if reply is None or reply == 1:
        return reply
    raise ValueError("not a reply of the script")
