"""The gallery as it is served while models change: changes can be held back, erasures reach the folder beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    DomainError,
    Expiry,
    Face,
    FaceNotFound,
    GalleryNotFound,
    GallerySettings,
    ImportOutcome,
    Match,
    NewFace,
    Overloaded,
    Person,
    PersonChange,
    PersonFilter,
    PersonNotFound,
    PersonPage,
    PersonRecord,
    Removal,
)
from service.ports import Gallery, GallerySummary, SearchResult

_R = TypeVar("_R")

_NOBODY = (GalleryNotFound, PersonNotFound, FaceNotFound)
_AGAIN_AFTER_S = 1


class Gate:
    """Lets changes pass, or holds them back while one that needs stillness goes on."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._inside = 0

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """One change, which waits while the gate is closed."""
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Hold changes back, after those that have begun are done."""
        self._open.clear()
        try:
            await self._empty.wait()
            yield
        finally:
            self._open.set()


class Shadow:
    """A gallery beside the one that is served. What is erased or renamed there is here too, if it is here.

    Attributes:
        lock: held while something is copied to it, so that nothing is copied that has just been erased.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self.lock = asyncio.Lock()

    async def erased(self, erase: Callable[[Gallery], Awaitable[Removal]]) -> tuple[str, ...]:
        """Erase the same here; digests of the crops of what went."""
        async with self.lock:
            with suppress(*_NOBODY):
                return (await erase(self.gallery)).crop_digests
        return ()

    async def changed(self, change: Callable[[Gallery], Awaitable[object]]) -> None:
        """Change the same here."""
        async with self.lock:
            with suppress(*_NOBODY):
                await change(self.gallery)


class GuardedGallery(Gallery):
    """A gallery behind the gate.

    Attributes:
        inner: the gallery itself.
        shadow: what erasures reach as well.
        successor: set once another gallery is served instead. Requests that began before then search this one to their
            end; their changes go to the successor, except for embeddings, which are of this one's model.
    """

    def __init__(self, inner: Gallery, gate: Gate) -> None:
        self.inner = inner
        self.shadow: Shadow | None = None
        self.successor: GuardedGallery | None = None
        self._gate = gate

    async def create_gallery(self, gallery: str, settings: GallerySettings) -> GallerySummary:
        """See `Gallery.create_gallery`."""
        return await self._change(lambda target: target.create_gallery(gallery, settings))

    async def configure_gallery(
        self, gallery: str, settings: GallerySettings, *, expected_revision: int | None = None
    ) -> GallerySummary:
        """See `Gallery.configure_gallery`."""
        return await self._change(
            lambda target: target.configure_gallery(gallery, settings, expected_revision=expected_revision)
        )

    async def drop_gallery(self, gallery: str, *, expected_revision: int | None = None) -> Removal:
        """See `Gallery.drop_gallery`."""
        return await self._erase(
            lambda target: target.drop_gallery(gallery, expected_revision=expected_revision),
            lambda beside: beside.drop_gallery(gallery),
        )

    async def settings(self, gallery: str) -> GallerySettings:
        """See `Gallery.settings`."""
        return await self.inner.settings(gallery)

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        name: str | None,
        metadata: Mapping[str, Any],
        faces: Sequence[NewFace],
        *,
        extend: bool = False,
    ) -> Person:
        """See `Gallery.enrol`; also raises Overloaded when the model has changed since the faces were embedded."""
        return await self._change(
            lambda target: target.enrol(gallery, person_id, name, metadata, faces, extend=extend),
            embedded=bool(faces),
        )

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        """See `Gallery.import_persons`; also raises Overloaded, as `enrol`."""
        return await self._change(
            lambda target: target.import_persons(gallery, records), embedded=any(record.faces for record in records)
        )

    async def export_persons(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        """See `Gallery.export_persons`."""
        return await self.inner.export_persons(gallery, after=after, limit=limit)

    async def person_record(self, gallery: str, person_id: str) -> PersonRecord:
        """See `Gallery.person_record`."""
        return await self.inner.person_record(gallery, person_id)

    async def search(
        self,
        gallery: str,
        probes: NDArray[np.float32],
        top_k: int,
        *,
        exact: bool = False,
        among: Sequence[str] | None = None,
    ) -> list[SearchResult]:
        """See `Gallery.search`."""
        return await self.inner.search(gallery, probes, top_k, exact=exact, among=among)

    async def similarities_to(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        """See `Gallery.similarities_to`."""
        return await self.inner.similarities_to(gallery, person_id, probe)

    async def galleries(self) -> list[GallerySummary]:
        """See `Gallery.galleries`."""
        return await self.inner.galleries()

    async def summary(self, gallery: str) -> GallerySummary:
        """See `Gallery.summary`."""
        return await self.inner.summary(gallery)

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        """See `Gallery.persons`."""
        return await self.inner.persons(gallery, after=after, limit=limit)

    async def find_persons(self, gallery: str, wanted: PersonFilter, *, after: str | None, limit: int) -> PersonPage:
        """See `Gallery.find_persons`."""
        return await self.inner.find_persons(gallery, wanted, after=after, limit=limit)

    async def person(self, gallery: str, person_id: str) -> Person:
        """See `Gallery.person`."""
        return await self.inner.person(gallery, person_id)

    async def update_person(
        self, gallery: str, person_id: str, change: PersonChange, *, expected_revision: int | None = None
    ) -> Person:
        """See `Gallery.update_person`; what was the name goes from the shadow too."""

        async def both(target: Gallery) -> Person:
            person = await target.update_person(gallery, person_id, change, expected_revision=expected_revision)
            if (shadow := self._served().shadow) is not None:
                await shadow.changed(lambda beside: beside.update_person(gallery, person_id, change))
            return person

        return await self._change(both)

    async def forget_person(self, gallery: str, person_id: str, *, expected_revision: int | None = None) -> Removal:
        """See `Gallery.forget_person`."""
        return await self._erase(
            lambda target: target.forget_person(gallery, person_id, expected_revision=expected_revision),
            lambda beside: beside.forget_person(gallery, person_id),
        )

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        """See `Gallery.faces`."""
        return await self.inner.faces(gallery, person_id)

    async def owner_of(self, gallery: str, face_id: str) -> str:
        """See `Gallery.owner_of`."""
        return await self.inner.owner_of(gallery, face_id)

    async def crop(self, gallery: str, person_id: str, face_id: str) -> bytes:
        """See `Gallery.crop`."""
        return await self.inner.crop(gallery, person_id, face_id)

    async def forget_face(
        self, gallery: str, person_id: str, face_id: str, *, expected_revision: int | None = None
    ) -> Removal:
        """See `Gallery.forget_face`."""
        return await self._erase(
            lambda target: target.forget_face(gallery, person_id, face_id, expected_revision=expected_revision),
            lambda beside: beside.forget_face(gallery, person_id, face_id),
        )

    async def erase_expired(self) -> list[Expiry]:
        """See `Gallery.erase_expired`; the shadow knows by itself what has expired."""

        async def both(target: Gallery) -> list[Expiry]:
            if (shadow := self._served().shadow) is not None:
                await shadow.changed(lambda beside: beside.erase_expired())
            return await target.erase_expired()

        return await self._change(both)

    async def close(self) -> None:
        """See `Gallery.close`."""
        await self.inner.close()

    def _served(self) -> GuardedGallery:
        return self.successor if self.successor is not None else self

    async def _change(self, change: Callable[[Gallery], Awaitable[_R]], *, embedded: bool = False) -> _R:
        async with self._gate.passing():
            if embedded and self.successor is not None:
                raise Overloaded(
                    "the model has just been changed; send the request again", retry_after_s=_AGAIN_AFTER_S
                )
            return await change(self._served().inner)

    async def _erase(
        self, erase: Callable[[Gallery], Awaitable[Removal]], beside: Callable[[Gallery], Awaitable[Removal]]
    ) -> Removal:
        async with self._gate.passing():
            served = self._served()
            refusal: DomainError | None = None
            removal = Removal(0, 0, 0, 0)
            try:
                removal = await erase(served.inner)
            except _NOBODY as error:
                # The shadow may still have them: faces whose crops were not kept, or an erasure that was cut short.
                refusal = error
            digests = await served.shadow.erased(beside) if served.shadow is not None else ()
            if refusal is not None:
                raise refusal
            return replace(removal, crop_digests=tuple(dict.fromkeys((*removal.crop_digests, *digests))))
