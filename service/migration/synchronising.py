"""Making one gallery's galleries, persons and faces those of another, in the target's own embedding space."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    GalleryNotFound,
    GallerySettings,
    Person,
    PersonChange,
    PersonNotFound,
    PersonRecord,
    Removal,
    StorageUnusable,
)
from service.migration.guard import Shadow
from service.ports import Gallery

_PERSONS_AT_ONCE = 500
# Faces that are copied by one commit, and whose crops are in memory at once.
_FACES_AT_ONCE = 32
MAX_LACKING = 10_000

# Embeddings of crops; None for a crop that cannot be embedded.
EmbedCrops = Callable[[Sequence[bytes]], Awaitable[list[NDArray[np.float32] | None]]]
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Lacking:
    """Somebody with faces that cannot be carried over, because their crops were not kept.

    Attributes:
        faces: how many.
        carried: faces that could be; with none, nobody can identify the person.
    """

    gallery: str
    person_id: str
    faces: int
    carried: int


class Synchroniser:
    """Copies what the target lacks, in rounds: each looks only at what has changed in the source since the last one.

    Args:
        source, target: two galleries that nobody else changes, but for the source's callers and for erasures that come
            to the target through the shadow.
        erase: whether what the source does not have goes from the target. Not where the target had more to begin with.
    """

    def __init__(self, source: Gallery, target: Shadow, *, erase: bool) -> None:
        self._source, self._shadow, self._target = source, target, target.gallery
        self._erase = erase
        self._seen: dict[str, int] = {}
        self._lacking: dict[tuple[str, str], Lacking] = {}
        # Persons beyond `MAX_LACKING`, who are counted and not listed.
        self.lacking_more = 0

    @property
    def lacking(self) -> list[Lacking]:
        """Whose faces could not be carried over, up to `MAX_LACKING` persons."""
        return list(self._lacking.values())

    async def round(self, embed: EmbedCrops, advance: Advance | None = None) -> None:
        """Bring the target up to date with the source as it is now; changes meanwhile are for the next round.

        Args:
            embed: by the target's model.
            advance: told of faces that are done with.

        Raises:
            StorageFull, StorageUnusable, Overloaded, NotReady: what was copied stays.
        """
        tell = advance or (lambda _: None)
        summaries = await self._source.galleries()
        for summary in summaries:
            await self._begin(summary.name, summary.settings)
            await self._persons(summary.name, embed, tell)
            self._seen[summary.name] = summary.revision
        if self._erase:
            names = {summary.name for summary in summaries}
            for stale in await self._target.galleries():
                if stale.name not in names:
                    await self._shadow.erased(partial(_drop, name=stale.name))

    async def _begin(self, gallery: str, settings: GallerySettings) -> None:
        async with self._shadow.lock:
            try:
                # It may have been dropped since it was listed.
                settings = (await self._source.summary(gallery)).settings
                known = await self._target.summary(gallery)
            except GalleryNotFound:
                if any(each.name == gallery for each in await self._source.galleries()):
                    await self._target.create_gallery(gallery, settings)
                return
            if known.settings != settings:
                await self._target.configure_gallery(gallery, settings)

    async def _persons(self, gallery: str, embed: EmbedCrops, advance: Advance) -> None:
        seen = self._seen.get(gallery, -1)
        waiting: list[PersonRecord] = []
        async for mine, theirs in self._paired(gallery):
            if mine is None:
                if theirs is not None and self._erase:
                    await self._forget(gallery, theirs.person_id)
                continue
            if theirs is not None and mine.revision <= seen:
                continue
            if theirs is not None and await self._is_same(gallery, mine, theirs):
                advance(len(mine.face_ids))
                continue
            try:
                waiting.append(await self._source.person_record(gallery, mine.person_id))
            except (GalleryNotFound, PersonNotFound):
                continue
            if sum(len(record.faces) for record in waiting) >= _FACES_AT_ONCE or len(waiting) >= _FACES_AT_ONCE:
                await self._carry(gallery, waiting, embed, advance)
                waiting = []
        await self._carry(gallery, waiting, embed, advance)

    async def _is_same(self, gallery: str, mine: Person, theirs: Person) -> bool:
        """Whether nothing needs copying; what they are called is brought up to date on the way."""
        if mine.created_at != theirs.created_at:
            # Somebody else, who was given the id of one who was erased.
            await self._forget(gallery, theirs.person_id)
            return False
        for face_id in set(theirs.face_ids) - set(mine.face_ids) if self._erase else ():
            await self._shadow.erased(partial(_forget_face, gallery=gallery, person_id=mine.person_id, face_id=face_id))
        if (mine.name, mine.metadata) != (theirs.name, theirs.metadata):
            change = PersonChange(mine.name, mine.metadata)
            await self._shadow.changed(lambda target: target.update_person(gallery, mine.person_id, change))
        return set(mine.face_ids) <= set(theirs.face_ids)

    async def _carry(self, gallery: str, records: Sequence[PersonRecord], embed: EmbedCrops, advance: Advance) -> None:
        """Copy persons with those of their faces that the target lacks, in one commit."""
        if not records:
            return
        present = [await self._present(gallery, record.person_id) for record in records]
        missing = [
            [face for face in record.faces if face.face_id not in there and face.crop is not None]
            for record, there in zip(records, present, strict=True)
        ]
        vectors = iter(await embed([face.crop for faces in missing for face in faces if face.crop is not None]))
        ready = []
        for record, faces in zip(records, missing, strict=True):
            embedded = [(face, next(vectors)) for face in faces]
            new = tuple(replace(face, embedding=vector) for face, vector in embedded if vector is not None)
            ready.append(replace(record, faces=new))
        await self._store(gallery, ready)
        for record, there, copied in zip(records, present, ready, strict=True):
            self._note(gallery, record, there | {face.face_id for face in copied.faces})
            advance(len(record.faces))

    async def _store(self, gallery: str, records: Sequence[PersonRecord]) -> None:
        """Copy persons with new embeddings, as far as the source still has them."""
        async with self._shadow.lock:
            current = []
            for record in records:
                try:
                    person = await self._source.person(gallery, record.person_id)
                except (GalleryNotFound, PersonNotFound):
                    continue
                faces = tuple(face for face in record.faces if face.face_id in person.face_ids)
                current.append(PersonRecord(person.person_id, person.name, person.metadata, faces, person.created_at))
            for outcome in await self._target.import_persons(gallery, current):
                if outcome.error is not None:
                    raise StorageUnusable(f"a person could not be carried over: {outcome.error.message}")

    async def _present(self, gallery: str, person_id: str) -> set[str]:
        try:
            return set((await self._target.person(gallery, person_id)).face_ids)
        except (GalleryNotFound, PersonNotFound):
            return set()

    async def _forget(self, gallery: str, person_id: str) -> None:
        self._lacking.pop((gallery, person_id), None)
        await self._shadow.erased(lambda target: target.forget_person(gallery, person_id))

    def _note(self, gallery: str, record: PersonRecord, there: set[str]) -> None:
        carried = sum(face.face_id in there for face in record.faces)
        key, lost = (gallery, record.person_id), len(record.faces) - carried
        if lost <= 0:
            self._lacking.pop(key, None)
        elif key in self._lacking or len(self._lacking) < MAX_LACKING:
            self._lacking[key] = Lacking(gallery, record.person_id, lost, carried)
        else:
            self.lacking_more += 1

    async def _paired(self, gallery: str) -> AsyncIterator[tuple[Person | None, Person | None]]:
        """Persons of both by id, where both have one together."""
        left, right = _walk(self._source, gallery), _walk(self._target, gallery)
        mine, theirs = await anext(left, None), await anext(right, None)
        while mine is not None or theirs is not None:
            if theirs is None or (mine is not None and mine.person_id < theirs.person_id):
                yield mine, None
                mine = await anext(left, None)
            elif mine is None or theirs.person_id < mine.person_id:
                yield None, theirs
                theirs = await anext(right, None)
            else:
                yield mine, theirs
                mine, theirs = await anext(left, None), await anext(right, None)


async def _drop(target: Gallery, name: str) -> Removal:
    return await target.drop_gallery(name)


async def _forget_face(target: Gallery, gallery: str, person_id: str, face_id: str) -> Removal:
    return await target.forget_face(gallery, person_id, face_id)


async def _walk(gallery: Gallery, name: str) -> AsyncIterator[Person]:
    after = None
    try:
        while page := await gallery.persons(name, after=after, limit=_PERSONS_AT_ONCE):
            for person in page:
                yield person
            after = page[-1].person_id
    except GalleryNotFound:
        return
