"""Journal and cache of whichever model is served; what is erased goes from those beside it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from service.domain import DomainError
from service.journal import log_fields
from service.migration.guard import Gate
from service.ports import EmbeddingCache, Journal, JournalEntry, KnownPicture, Replay

_log = structlog.get_logger("journal")


class ServedJournal(Journal):
    """The journal of the gallery that is served; entries wait while the gate is closed.

    Attributes:
        current: where entries go.
        beside: whose answers to repeatable requests are erased as well.
    """

    def __init__(self, current: Journal, gate: Gate) -> None:
        self.current = current
        self.beside: Journal | None = None
        self._gate = gate

    async def note(self, entry: JournalEntry) -> None:
        """See `Journal.note`; an entry that finds no room goes to the log.

        What it tells of is on disk by now, and an error would say that it is not.
        """
        async with self._gate.passing():
            try:
                await self.current.note(entry)
            except DomainError as error:
                _log.error("an entry of the journal could not be kept", problem=error.code, **log_fields(entry))

    async def entries(
        self, *, gallery: str | None, person_id: str | None, before: int | None, limit: int
    ) -> list[tuple[int, JournalEntry]]:
        """See `Journal.entries`."""
        return await self.current.entries(gallery=gallery, person_id=person_id, before=before, limit=limit)

    async def replay(self, key: str) -> Replay | None:
        """See `Journal.replay`."""
        return await self.current.replay(key)

    async def keep(self, key: str, replay: Replay) -> None:
        """See `Journal.keep`."""
        async with self._gate.passing():
            await self.current.keep(key, replay)

    async def erase(self, gallery: str, person_id: str | None) -> int:
        """See `Journal.erase`."""
        async with self._gate.passing():
            if self.beside is not None:
                await self.beside.erase(gallery, person_id)
            return await self.current.erase(gallery, person_id)

    async def prune(self) -> None:
        """See `Journal.prune`."""
        async with self._gate.passing():
            if self.beside is not None:
                await self.beside.prune()
            await self.current.prune()

    async def close(self) -> None:
        """Nothing to let go of: whoever opened the journals closes them."""


class LinkedCache(EmbeddingCache):
    """The cache of one model; what is removed goes from that of the model beside it too.

    Attributes:
        own: of this model.
        beside: of the other.
    """

    def __init__(self, own: EmbeddingCache) -> None:
        self.own = own
        self.beside: EmbeddingCache | None = None

    async def get(self, keys: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """See `EmbeddingCache.get`."""
        return await self.own.get(keys)

    async def put(self, entries: Mapping[str, NDArray[np.float32]]) -> None:
        """See `EmbeddingCache.put`."""
        await self.own.put(entries)

    async def seen(self, picture: str) -> KnownPicture | None:
        """See `EmbeddingCache.seen`."""
        return await self.own.seen(picture)

    async def saw(self, picture: str, known: KnownPicture) -> None:
        """See `EmbeddingCache.saw`."""
        await self.own.saw(picture, known)

    async def remove(self, keys: Sequence[str]) -> int | None:
        """See `EmbeddingCache.remove`."""
        # Both are asked, whatever becomes of the first.
        removed = await self.own.remove(keys)
        also = await self.beside.remove(keys) if self.beside is not None else 0
        return None if removed is None or also is None else removed + also

    async def close(self) -> None:
        """See `EmbeddingCache.close`."""
        await self.own.close()
