"""Embeddings and pictures in Redis.

Three kinds of entries, all under the space's prefix and with the same lifetime:

    <digest>                the embedding of a crop
    picture:<key>           what a picture showed: boxes, landmarks, quality and the digests of its faces
    shown:<digest>          the set of pictures that show this face, for the day on which it is to be erased

An embedding stands in one place only. Whatever of the rest is lost, evicted or left over, a picture whose faces do not
all have their embedding is a miss.
"""

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

from service.cache import pictures
from service.ports import KnownPicture
from service.telemetry import CACHE_LOOKUPS, CACHE_TROUBLE, PICTURE_LOOKUPS

_T = TypeVar("_T")
_UNIT_TOLERANCE = 1e-3
_MOST_UNFORGOTTEN = 100_000
_FORGOTTEN_AT_ONCE = 1_000
# Pictures that one call is to find, more or less, and calls until the server is taken for confused.
_PICTURES_AT_ONCE = 1_000
_MOST_ROUNDS = 1_000
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


# In place of an answer.
_FAILED = object()


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
            pipeline.set(self._prefix + key, _bytes(vector), ex=self._ttl_s)
        await self._guarded(pipeline.execute(), None)

    async def seen(self, picture: str) -> KnownPicture | None:
        """What a picture showed, if all of it is still there; a miss once the time of one call has passed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                known = await self._seen(picture)
        except TimeoutError:
            self._rest()
            known = _FAILED
        PICTURE_LOOKUPS.labels("error" if known is _FAILED else "hit" if known is not None else "miss").inc()
        return known if isinstance(known, KnownPicture) else None

    async def saw(self, picture: str, known: KnownPicture) -> None:
        """Remember a picture and the embeddings of its faces for the lifetime set, as far as possible."""
        content = pictures.encoded(known)
        if content is None:
            return
        name = self._picture(picture)
        pipeline = self._client.pipeline(transaction=False)
        for face in known.faces:
            # The way from the face to the picture is there before the picture is.
            shown = self._shown(face.key)
            pipeline.sadd(shown, name)
            pipeline.expire(shown, self._ttl_s)
            pipeline.set(self._prefix + face.key, _bytes(face.embedding), ex=self._ttl_s)
        pipeline.set(name, content, ex=self._ttl_s)
        await self._guarded(pipeline.execute(), None)

    async def remove(self, keys: Sequence[str]) -> int | None:
        """Forget keys and the pictures of these faces; how many entries the server says it had, or None if it does not
        answer.

        Then they are kept in mind, the latest 100,000 of them, and forgotten before the next entry is asked for.
        """
        if not keys:
            return 0
        removed = await self._forget(keys)
        if removed is not None:
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

    async def _seen(self, picture: str) -> object:
        """A KnownPicture, None, or `_FAILED`."""
        # For a key of another type MGET answers as for none, GET with an error.
        reply = await self._guarded(self._client.mget([self._picture(picture)]), _FAILED)
        if not isinstance(reply, list) or len(reply) != 1:
            return _FAILED
        outline = pictures.decoded(reply[0]) if isinstance(reply[0], bytes) else None
        if outline is None:
            return None
        embeddings = [embedding for embedding in await self.get(outline.keys) if embedding is not None]
        return outline.with_embeddings(embeddings) if len(embeddings) == len(outline.keys) else None

    async def _catch_up(self) -> bool:
        """Forget some of what could not be forgotten before; whether nothing of it is left."""
        some = list(self._unforgotten)[:_FORGOTTEN_AT_ONCE]
        if await self._forget(some) is not None:
            for key in some:
                self._unforgotten.pop(key, None)
        return not self._unforgotten

    async def _forget(self, keys: Sequence[str]) -> int | None:
        """Delete embeddings, then the pictures that showed these faces, then the sets that led to them."""
        embeddings = await self._delete([self._prefix + key for key in keys])
        if embeddings is None:
            return None
        # As long as one of the sets has not been read to its end.
        open_sets, count = dict.fromkeys((self._shown(key) for key in keys), 0), 0
        for _ in range(_MOST_ROUNDS):
            pipeline = self._client.pipeline(transaction=False)
            for name, cursor in open_sets.items():
                pipeline.sscan(name, cursor, count=max(10, _PICTURES_AT_ONCE // len(open_sets)))
            replies = await self._guarded(pipeline.execute(raise_on_error=False), None)
            if not isinstance(replies, list) or len(replies) != len(open_sets):
                return None
            scans = {name: _scanned(reply) for name, reply in zip(open_sets, replies, strict=True)}
            found = {member for _, members in scans.values() for member in members if self._is_picture(member)}
            deleted = await self._delete(sorted(found))
            if deleted is None:
                return None
            count += deleted
            open_sets = {name: cursor for name, (cursor, _) in scans.items() if cursor}
            if not open_sets:
                break
        if open_sets or await self._delete([self._shown(key) for key in keys]) is None:
            return None
        return embeddings + count

    async def _delete(self, names: Sequence[str | bytes]) -> int | None:
        if not names:
            return 0
        deleted = await self._guarded(self._client.delete(*names), None)
        return deleted if isinstance(deleted, int) else None

    def _picture(self, picture: str) -> str:
        return f"{self._prefix}picture:{picture}"

    def _shown(self, key: str) -> str:
        return f"{self._prefix}shown:{key}"

    def _is_picture(self, member: bytes) -> bool:
        """Whether it is ours to delete: what stands in a set may be garbage."""
        return member.startswith(self._picture("").encode())

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
            self._rest()
            return otherwise

    def _rest(self) -> None:
        CACHE_TROUBLE.inc()
        self._resting_until = asyncio.get_running_loop().time() + self._rest_s


def _bytes(vector: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _scanned(reply: Any) -> tuple[int, list[bytes]]:
    """Cursor and members of a reply to SSCAN; nothing and the end for one that is an error or garbage."""
    if not isinstance(reply, (tuple, list)) or len(reply) != 2:
        return 0, []
    cursor, members = reply
    if not isinstance(cursor, int) or not isinstance(members, (list, set)):
        return 0, []
    return cursor, [member for member in members if isinstance(member, bytes)]


def _discard(call: Awaitable[Any]) -> None:
    """Drop a coroutine that will not be awaited, without the interpreter's warning."""
    close = getattr(call, "close", None)
    if close is not None:
        close()
