"""`Gallery` on Milvus: the service keeps nothing itself, so any number of replicas may run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    GALLERY_NAME,
    PERSON_ID,
    CropNotKept,
    DomainError,
    Expiry,
    Face,
    GallerySettings,
    ImportOutcome,
    InvalidEmbedding,
    InvalidRequest,
    Match,
    NewFace,
    Person,
    PersonChange,
    PersonFilter,
    PersonPage,
    PersonRecord,
    Removal,
    Unchanged,
    check_gallery_name,
)
from service.gallery.checks import checked_text, metadata_json
from service.gallery.milvus.candidates import candidate, prepared
from service.gallery.milvus.changes import Enrolment, FaceForgetting, Forgetting, Import, Update
from service.gallery.milvus.draft import Change
from service.gallery.milvus.erasing import Eraser
from service.gallery.milvus.gallery_changes import Configuration, Creation
from service.gallery.milvus.reads import Reads
from service.gallery.milvus.recent import Recent
from service.gallery.milvus.refusals import check_settings, no_face
from service.gallery.milvus.rows import GalleryRow
from service.gallery.milvus.search import Search
from service.gallery.milvus.tables import Tables
from service.gallery.milvus.writer import Writer
from service.gallery.readers import Readers
from service.gallery.vectors import checked_unit_rows
from service.ports import Gallery, GallerySummary, SearchResult

# A size or settings that were read longer ago are read again, beside the call that asks.
_LOOK_EVERY_S = 1.0


class MilvusGallery(Gallery):
    """`Gallery` on a Milvus server, cluster, or Lite file. See `open`.

    A search reads without waiting for Milvus to make the latest writes visible; what this process wrote is laid over
    it, and what another process wrote appears within a fraction of a second. All other reads are strong: they see
    every acknowledged change of every process, and wait for it (some 0.4 s on a server).

    `gallery_size` and `settings` follow this process's own changes at once and others' within about a second while
    calls come in; the first call after a pause answers by what was known before it. `gallery_size` follows faces that
    expire likewise. What `Writer` says of failures and of races between processes holds.

    It keeps no crops. While what a dropped gallery held is being erased, its name is refused with Overloaded.
    """

    def __init__(self, tables: Tables, dimension: int, *, max_pending: int, threads: int) -> None:
        self._tables = tables
        self._dimension = dimension
        self._recent = Recent()
        self._search = Search(tables, self._recent)
        self._reads = Reads(tables)
        self._recent.know(tables.galleries())
        self._writer = Writer(tables, self._recent, max_pending=max_pending)
        self._readers = Readers(threads, max_pending)
        self._eraser = Eraser(tables, self._readers, self._writer)
        self._closed = False

    @classmethod
    def open(
        cls,
        uri: str,
        *,
        token: str = "",
        prefix: str = "shrinkface",
        space_id: str,
        dimension: int,
        timeout_s: float = 10.0,
        max_pending: int = 1024,
        threads: int = 8,
    ) -> Self:
        """Connect, and make the collections where they are missing. Blocks.

        Args:
            uri: `http://host:19530` of a server or cluster, or the path of a Milvus Lite file.
            token: `user:password` or an API key; empty where none is needed.
            prefix: of the collections' names.
            space_id: name of the embedding space that the model at hand makes.
            dimension: length of its embeddings.
            timeout_s: for each call to Milvus.
            max_pending: changes that may wait to be stored, and likewise reads that may wait or run.
            threads: how many reads and searches run at once.

        Raises:
            GalleryUnavailable: Milvus does not answer.
            SpaceMismatch: it holds embeddings of another space.
            StorageUnusable: another release has laid it out in another way.
        """
        tables = Tables(uri, token, prefix=prefix, timeout_s=timeout_s)
        try:
            tables.prepare(space_id, dimension)
            return cls(tables, dimension, max_pending=max_pending, threads=threads)
        except BaseException:
            tables.close()
            raise

    async def create_gallery(self, gallery: str, settings: GallerySettings) -> GallerySummary:
        """See `Gallery.create_gallery`; also raises Overloaded, NotReady, GalleryUnavailable."""
        self._readers.check_open()
        check_gallery_name(gallery)
        check_settings(settings)
        row: GalleryRow = await self._changed(Creation(gallery, settings))
        return GallerySummary(gallery, 0, 0, row.revision, row.settings)

    async def configure_gallery(
        self, gallery: str, settings: GallerySettings, *, expected_revision: int | None = None
    ) -> GallerySummary:
        """See `Gallery.configure_gallery`; also raises Overloaded, NotReady, GalleryUnavailable."""
        self._readers.check_open()
        check_settings(settings)
        row: GalleryRow = await self._changed(Configuration(gallery, settings, expected_revision))
        return await self._readers.run(lambda: self._reads.summary_of(gallery, row))

    async def drop_gallery(self, gallery: str, *, expected_revision: int | None = None) -> Removal:
        """See `Gallery.drop_gallery`; also raises Overloaded, NotReady, GalleryUnavailable.

        The gallery is gone at once; what it held is erased some thousands of rows at a time, between other changes,
        also when the caller stops waiting. If it is cut off, `erase_expired` of any process goes on after a minute.
        """
        self._readers.check_open()
        return await self._eraser.drop(gallery, expected_revision)

    async def settings(self, gallery: str) -> GallerySettings:
        """See `Gallery.settings`; raises NotReady."""
        self._readers.check_open()
        settings, age_s = self._recent.settings(gallery)
        if age_s > _LOOK_EVERY_S:
            self._writer.look()
        return settings

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
        """See `Gallery.enrol`; also raises InvalidRequest, Overloaded, NotReady, GalleryUnavailable."""
        self._readers.check_open()
        check_gallery_name(gallery)
        new = candidate(gallery, PersonRecord(person_id, name, metadata, tuple(faces)), self._dimension)
        person: Person = await self._changed(Enrolment(gallery, new, extend))
        return person

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        """See `Gallery.import_persons`; also raises Overloaded, NotReady, GalleryUnavailable."""
        check_gallery_name(gallery)
        # Checking a thousand records takes a while, so it is done beside the event loop.
        checked = await self._readers.run(lambda: [prepared(gallery, record, self._dimension) for record in records])
        good = [each for each in checked if not isinstance(each, DomainError)]
        stored: list[ImportOutcome] = await self._changed(Import(gallery, good)) if good else []
        outcomes = iter(stored)
        return [ImportOutcome(error=each) if isinstance(each, DomainError) else next(outcomes) for each in checked]

    async def export_persons(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        """See `Gallery.export_persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._readers.run(lambda: self._reads.exported(gallery, after, limit))

    async def person_record(self, gallery: str, person_id: str) -> PersonRecord:
        """See `Gallery.person_record`."""
        return await self._readers.run(lambda: self._reads.record(gallery, person_id))

    async def search(
        self,
        gallery: str,
        probes: NDArray[np.float32],
        top_k: int,
        *,
        exact: bool = False,
        among: Sequence[str] | None = None,
    ) -> list[SearchResult]:
        """See `Gallery.search`; also raises InvalidRequest, Overloaded, NotReady, GalleryUnavailable."""
        if top_k < 1:
            raise InvalidRequest("top_k is at least 1", field="top_k")
        rows = checked_unit_rows(probes, self._dimension)
        self._readers.check_open()
        if among is not None:
            return await self._readers.run(lambda: self._search.among(gallery, rows, top_k, among))
        size, age_s = self._recent.size(gallery)
        if age_s > _LOOK_EVERY_S and GALLERY_NAME.fullmatch(gallery):
            counted = self._writer.look(gallery)
            if not size:
                await asyncio.shield(asyncio.wrap_future(counted))
                size, _ = self._recent.size(gallery)
        if not size or not len(rows):
            return [SearchResult((), 0) for _ in rows]
        return await self._readers.run(lambda: self._search.run(gallery, rows, top_k, exact=exact))

    async def similarities_to(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        """See `Gallery.similarities_to`; also raises InvalidEmbedding, Overloaded, NotReady, GalleryUnavailable."""
        if np.ndim(probe) != 1:
            raise InvalidEmbedding("one probe is a vector")
        rows = checked_unit_rows(probe[np.newaxis], self._dimension)
        return await self._readers.run(lambda: self._reads.similarities(gallery, person_id, rows[0]))

    async def galleries(self) -> list[GallerySummary]:
        """See `Gallery.galleries`."""
        return await self._readers.run(self._reads.summaries)

    async def summary(self, gallery: str) -> GallerySummary:
        """See `Gallery.summary`."""
        return await self._readers.run(lambda: self._reads.summary(gallery))

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        """See `Gallery.persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._readers.run(lambda: self._reads.persons(gallery, after, limit))

    async def find_persons(self, gallery: str, wanted: PersonFilter, *, after: str | None, limit: int) -> PersonPage:
        """See `Gallery.find_persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._readers.run(lambda: self._reads.find(gallery, wanted, after, limit))

    async def person(self, gallery: str, person_id: str) -> Person:
        """See `Gallery.person`."""
        return await self._readers.run(lambda: self._reads.person(gallery, person_id))

    async def update_person(
        self, gallery: str, person_id: str, change: PersonChange, *, expected_revision: int | None = None
    ) -> Person:
        """See `Gallery.update_person`; also raises InvalidRequest, Overloaded, NotReady, GalleryUnavailable."""
        await self._check_named(gallery, person_id)
        name = change.name if isinstance(change.name, Unchanged) else checked_text(change.name, "name")
        metadata = change.metadata if isinstance(change.metadata, Unchanged) else metadata_json(change.metadata)
        person: Person = await self._changed(Update(gallery, person_id, expected_revision, name, metadata))
        return person

    async def forget_person(self, gallery: str, person_id: str, *, expected_revision: int | None = None) -> Removal:
        """See `Gallery.forget_person`; also raises Overloaded, NotReady, GalleryUnavailable."""
        await self._check_named(gallery, person_id)
        removal: Removal = await self._changed(Forgetting(gallery, person_id, expected_revision))
        return removal

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        """See `Gallery.faces`."""
        return await self._readers.run(lambda: self._reads.faces(gallery, person_id))

    async def owner_of(self, gallery: str, face_id: str) -> str:
        """See `Gallery.owner_of`."""
        return await self._readers.run(lambda: self._reads.owner_of(gallery, face_id))

    async def crop(self, gallery: str, person_id: str, face_id: str) -> bytes:
        """See `Gallery.crop`; none is kept here."""
        if all(face.face_id != face_id for face in await self.faces(gallery, person_id)):
            raise no_face(gallery, person_id)
        raise CropNotKept("a gallery in Milvus keeps no crops", gallery=gallery, person_id=person_id)

    async def forget_face(
        self, gallery: str, person_id: str, face_id: str, *, expected_revision: int | None = None
    ) -> Removal:
        """See `Gallery.forget_face`; also raises Overloaded, NotReady, GalleryUnavailable."""
        await self._check_named(gallery, person_id)
        removal: Removal = await self._changed(FaceForgetting(gallery, person_id, expected_revision, face_id))
        return removal

    async def erase_expired(self) -> list[Expiry]:
        """See `Gallery.erase_expired`; also raises Overloaded, NotReady, GalleryUnavailable."""
        return await self._eraser.expire()

    async def close(self) -> None:
        """See `Gallery.close`; closing twice does nothing."""
        self._readers.refuse()
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._readers.close()
        self._writer.close()
        self._tables.close()

    async def _changed(self, change: Change) -> Any:
        return await asyncio.wrap_future(self._writer.submit(change))

    async def _check_named(self, gallery: str, person_id: str) -> None:
        """Refuse what can name nobody, before keys are made of it."""
        self._readers.check_open()
        if not (GALLERY_NAME.fullmatch(gallery) and PERSON_ID.fullmatch(person_id)):
            await self._readers.run(lambda: self._reads.check_named(gallery, person_id))


def _check_page(after: str | None, limit: int) -> None:
    if limit < 1:
        raise InvalidRequest("limit is at least 1", field="limit")
    checked_text(after, "after")
