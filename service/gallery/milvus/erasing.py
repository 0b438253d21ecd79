"""What is erased in portions: faces that have expired, and what dropped galleries held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from service.domain import Expiry, Removal
from service.gallery.milvus.changes import Expiring
from service.gallery.milvus.gallery_changes import Dropping, Ending, Sweeping
from service.gallery.milvus.rows import DropRow
from service.gallery.milvus.tables import Tables
from service.gallery.milvus.writer import Writer
from service.gallery.readers import Readers
from service.gallery.records import now_us

# What one change erases, so that others need not wait long for it.
_ROWS_AT_ONCE = 8_000
_EXPIRED_AT_ONCE = 500
# A drop at which nobody has been at work for as long may be gone on with; each portion takes a second or two.
_ABANDONED_US = 60_000_000
# Portions of abandoned drops that one call erases.
_MOST_PORTIONS = 20


class Eraser:
    """Reads keys, and has the writer erase them."""

    def __init__(self, tables: Tables, readers: Readers, writer: Writer) -> None:
        self._tables, self._readers, self._writer = tables, readers, writer
        self._dropping: set[asyncio.Task[Removal]] = set()

    async def drop(self, gallery: str, expected_revision: int | None) -> Removal:
        """See `Gallery.drop_gallery`; once begun it goes on, also when the caller stops waiting."""
        task = asyncio.create_task(self._dropped(gallery, expected_revision))
        self._dropping.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def expire(self) -> list[Expiry]:
        """See `Gallery.erase_expired`; goes on with drops that were cut off, too."""
        due = await self._readers.run(lambda: self._tables.expired_faces(_EXPIRED_AT_ONCE))
        erased: list[Expiry] = []
        if due:
            change = Expiring({face.face_key: face.person_key for face in due})
            erased = await asyncio.wrap_future(self._writer.submit(change))
        drops = (await self._readers.run(self._tables.galleries)).dropping
        left = {name: drop for name, drop in drops.items() if drop.alive_us <= now_us() - _ABANDONED_US}
        await self._go_on(left)
        return erased

    async def _go_on(self, left: dict[str, DropRow]) -> None:
        portions = _MOST_PORTIONS
        for name, drop in left.items():
            sweep = _Sweep(self._tables, self._readers, self._writer, name, drop.revision)
            while portions and await sweep.step():
                portions -= 1

    async def _dropped(self, gallery: str, expected_revision: int | None) -> Removal:
        revision: int = await asyncio.wrap_future(self._writer.submit(Dropping(gallery, expected_revision)))
        sweep = _Sweep(self._tables, self._readers, self._writer, gallery, revision)
        while await sweep.step():
            pass
        return Removal(sweep.persons, sweep.faces, sweep.faces, revision, tuple(sweep.crop_digests))

    def _done(self, task: asyncio.Task[Removal]) -> None:
        self._dropping.discard(task)
        if not task.cancelled():
            # Looked at, because the caller may not wait any more.
            task.exception()


class _Sweep:
    """Erases what a dropped gallery held: persons first, so that nobody is there with only some of their faces.

    Attributes:
        persons, faces, crop_digests: what has been erased so far.
    """

    def __init__(self, tables: Tables, readers: Readers, writer: Writer, gallery: str, revision: int) -> None:
        self._tables, self._readers, self._writer = tables, readers, writer
        self._gallery, self._revision = gallery, revision
        self.persons = self.faces = 0
        self.crop_digests: list[str] = []

    async def step(self) -> bool:
        """Erase some more; false once nothing is left, or somebody else has ended the drop."""
        people = await self._readers.run(lambda: self._tables.some_person_keys(self._gallery, _ROWS_AT_ONCE))
        if people:
            self.persons += len(people)
            return await self._submit(Sweeping(self._gallery, self._revision, people=people))
        faces = await self._readers.run(lambda: self._tables.some_face_keys(self._gallery, _ROWS_AT_ONCE))
        if faces:
            self.faces += len(faces)
            self.crop_digests += filter(None, faces.values())
            return await self._submit(Sweeping(self._gallery, self._revision, faces=list(faces)))
        await self._submit(Ending(self._gallery, self._revision))
        return False

    def _submit(self, change: Sweeping | Ending) -> Awaitable[bool]:
        return asyncio.wrap_future(self._writer.submit(change))
