"""Embedding caches: Redis, or none. A cache may only ever save time; it cannot fail a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.telemetry import CACHE_LOOKUPS, CACHE_TROUBLE

_T = TypeVar("_T")
_UNIT_TOLERANCE = 1e-3
_MOST_UNFORGOTTEN = 100_000
_FORGOTTEN_AT_ONCE = 1_000
# What a missing, slow or confused server can raise; ValueError and UnicodeError come out of a reply that is not RESP.
_TROUBLE = (
    RedisError,
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
    ValueError,
    UnicodeError,
    AssertionError,
    TypeError,
)


class NullCache:
    """Remembers nothing."""

    async def get(self, keys: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """A miss for every key."""
        return [None] * len(keys)

    async def put(self, entries: Mapping[str, NDArray[np.float32]]) -> None:
        """Does nothing."""

    async def remove(self, keys: Sequence[str]) -> int | None:
        """Nothing was there."""
        return 0

    async def close(self) -> None:
        """Nothing to let go of."""


class RedisCache:
    """EmbeddingCache port over Redis.

    After trouble the server is left alone for `rest_s`, so that a frozen one costs one timeout now and then, not one a
    request.

    Args:
        url: redis://...
        space_id: part of every key, so that a change of model can never meet old vectors.
        dimension: what is not a unit vector of this length is garbage and counts as a miss.
        timeout_s: longest wait of any call.
        ttl_s: lifetime of an entry.
        rest_s: pause after trouble.
    """

    def __init__(
        self, url: str, *, space_id: str, dimension: int, timeout_s: float, ttl_s: int, rest_s: float = 1.0
    ) -> None:
        # One that waits for a free connection: more requests at once than connections are no trouble.
        pool = BlockingConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
            timeout=timeout_s,
        )
        self._client: Redis = Redis.from_pool(pool)
        self._prefix = f"shrinkface:{space_id}:"
        self._dimension = dimension
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._rest_s = rest_s
        self._resting_until = 0.0
        # Erased while the server did not answer. What it says of these must not be believed.
        self._unforgotten: dict[str, None] = {}

    async def get(self, keys: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """One embedding or None for each key."""
        if not keys:
            return []
        if self._unforgotten and not await self._catch_up():
            return [None] * len(keys)
        replies = await self._guarded(self._client.mget([self._prefix + key for key in keys]), None)
        found: list[NDArray[np.float32] | None]
        if not isinstance(replies, list) or len(replies) != len(keys):
            found = [None] * len(keys)
        else:
            found = [self._parse(reply) for reply in replies]
        hits = sum(vector is not None for vector in found)
        CACHE_LOOKUPS.labels("hit").inc(hits)
        CACHE_LOOKUPS.labels("miss").inc(len(keys) - hits)
        return found

    async def put(self, entries: Mapping[str, NDArray[np.float32]]) -> None:
        """Remember embeddings for the lifetime set, as far as possible."""
        if not entries:
            return
        pipeline = self._client.pipeline(transaction=False)
        for key, vector in entries.items():
            pipeline.set(self._prefix + key, np.ascontiguousarray(vector, dtype="<f4").tobytes(), ex=self._ttl_s)
        await self._guarded(pipeline.execute(), None)

    async def remove(self, keys: Sequence[str]) -> int | None:
        """Forget keys; how many the server says it had, or None if it does not answer.

        Then they are kept in mind, the latest 100,000 of them, and forgotten before the next entry is asked for.
        """
        if not keys:
            return 0
        removed = await self._guarded(self._client.delete(*(self._prefix + key for key in keys)), None)
        if isinstance(removed, int):
            return removed
        self._unforgotten.update(dict.fromkeys(keys))
        while len(self._unforgotten) > _MOST_UNFORGOTTEN:
            del self._unforgotten[next(iter(self._unforgotten))]
        return None

    async def close(self) -> None:
        """Close the connections."""
        try:
            await asyncio.wait_for(self._client.aclose(), self._timeout_s)
        except _TROUBLE:
            CACHE_TROUBLE.inc()

    async def _catch_up(self) -> bool:
        """Forget some of what could not be forgotten before; whether nothing of it is left."""
        some = list(self._unforgotten)[:_FORGOTTEN_AT_ONCE]
        removed = await self._guarded(self._client.delete(*(self._prefix + key for key in some)), None)
        if isinstance(removed, int):
            for key in some:
                self._unforgotten.pop(key, None)
        return not self._unforgotten

    def _parse(self, reply: Any) -> NDArray[np.float32] | None:
        if not isinstance(reply, bytes) or len(reply) != 4 * self._dimension:
            return None
        vector = np.frombuffer(reply, dtype="<f4").astype(np.float32)
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        return vector if np.isfinite(norm) and abs(norm - 1.0) < _UNIT_TOLERANCE else None

    async def _guarded(self, call: Awaitable[_T], otherwise: _T) -> _T:
        now = asyncio.get_running_loop().time()
        if now < self._resting_until:
            _discard(call)
            return otherwise
        try:
            return await asyncio.wait_for(call, self._timeout_s)
        except _TROUBLE:
            CACHE_TROUBLE.inc()
            self._resting_until = asyncio.get_running_loop().time() + self._rest_s
            return otherwise


def _discard(call: Awaitable[Any]) -> None:
    """Drop a coroutine that will not be awaited, without the interpreter's warning."""
    close = getattr(call, "close", None)
    if close is not None:
        close()
