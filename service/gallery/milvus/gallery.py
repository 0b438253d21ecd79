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
    DomainError,
    GalleryNotFound,
    ImportOutcome,
    InvalidEmbedding,
    InvalidRequest,
    Match,
    NewFace,
    Person,
    PersonNotFound,
    PersonRecord,
    Removal,
    check_gallery_name,
    check_person_id,
)
from service.gallery.checks import (
    checked_embeddings,
    checked_face_id,
    checked_text,
    metadata_json,
    quality_json,
    quality_of,
)
from service.gallery.milvus.changes import Candidate, Enrolment, Forgetting, Import, check_record, person_of
from service.gallery.milvus.pages import page_of_persons
from service.gallery.milvus.recent import Recent
from service.gallery.milvus.rows import FaceRow, PersonRow, face_key_of, person_key_of
from service.gallery.milvus.search import Search
from service.gallery.milvus.tables import Tables
from service.gallery.milvus.writer import Writer
from service.gallery.readers import Readers
from service.gallery.records import microseconds, now_us
from service.gallery.vectors import checked_unit_rows, cosines
from service.ports import Gallery, GallerySummary, SearchResult

# A size that was counted longer ago is counted again, beside the search that asks.
_COUNT_EVERY_S = 1.0


class MilvusGallery(Gallery):
    """`Gallery` on a Milvus server, cluster, or Lite file. See `open`.

    A search reads without waiting for Milvus to make the latest writes visible; what this process wrote is laid over
    it, and what another process wrote appears within a fraction of a second. All other reads are strong: they see
    every acknowledged change of every process, and wait for it (some 0.4 s on a server).

    `gallery_size` follows this process's own changes at once and others' within about a second. What `Writer` says of
    failures and of races between processes holds.
    """

    def __init__(self, tables: Tables, dimension: int, *, max_pending: int, threads: int) -> None:
        self._tables = tables
        self._dimension = dimension
        self._recent = Recent()
        self._search = Search(tables, self._recent)
        self._writer = Writer(tables, self._recent, max_pending=max_pending)
        self._readers = Readers(threads, max_pending)
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
        """
        tables = Tables(uri, token, prefix=prefix, timeout_s=timeout_s)
        try:
            tables.prepare(space_id, dimension)
        except BaseException:
            tables.close()
            raise
        return cls(tables, dimension, max_pending=max_pending, threads=threads)

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
        candidate = self._candidate(gallery, PersonRecord(person_id, name, metadata, tuple(faces)))
        person: Person = await asyncio.wrap_future(self._writer.submit(Enrolment(gallery, candidate, extend)))
        return person

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        """See `Gallery.import_persons`; also raises Overloaded, NotReady, GalleryUnavailable."""
        check_gallery_name(gallery)
        # Checking a thousand records takes a while, so it is done beside the event loop.
        prepared = await self._readers.run(lambda: [self._prepared(gallery, record) for record in records])
        good = [each for each in prepared if not isinstance(each, DomainError)]
        stored = await asyncio.wrap_future(self._writer.submit(Import(gallery, good))) if good else []
        outcomes = iter(stored)
        return [ImportOutcome(error=each) if isinstance(each, DomainError) else next(outcomes) for each in prepared]

    async def export_persons(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        """See `Gallery.export_persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._readers.run(lambda: self._exported(gallery, after, limit))

    async def forget_person(self, gallery: str, person_id: str) -> Removal:
        """See `Gallery.forget_person`; also raises Overloaded, NotReady, GalleryUnavailable."""
        self._readers.check_open()
        if not GALLERY_NAME.fullmatch(gallery):
            raise _no_gallery(gallery)
        if not PERSON_ID.fullmatch(person_id):
            await self.summary(gallery)
            raise _no_person(gallery, person_id)
        removal: Removal = await asyncio.wrap_future(self._writer.submit(Forgetting(gallery, person_id)))
        return removal

    async def search(
        self, gallery: str, probes: NDArray[np.float32], top_k: int, *, exact: bool = False
    ) -> list[SearchResult]:
        """See `Gallery.search`; also raises InvalidRequest, Overloaded, NotReady, GalleryUnavailable."""
        if top_k < 1:
            raise InvalidRequest("top_k is at least 1", field="top_k")
        rows = checked_unit_rows(probes, self._dimension)
        self._readers.check_open()
        size, age_s = self._recent.size(gallery)
        if age_s > _COUNT_EVERY_S and GALLERY_NAME.fullmatch(gallery):
            counted = self._writer.count(gallery)
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
        return await self._readers.run(lambda: self._similarities(gallery, person_id, rows[0]))

    async def galleries(self) -> list[GallerySummary]:
        """See `Gallery.galleries`."""
        return await self._readers.run(
            lambda: [self._summary(name, revision) for name, revision in sorted(self._tables.revisions().items())]
        )

    async def summary(self, gallery: str) -> GallerySummary:
        """See `Gallery.summary`."""
        return await self._readers.run(lambda: self._summary(gallery, self._existing(gallery)))

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        """See `Gallery.persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._readers.run(lambda: self._page(gallery, after, limit))

    async def person(self, gallery: str, person_id: str) -> Person:
        """See `Gallery.person`."""

        def read() -> Person:
            row, faces = self._person_and_faces(gallery, person_id)
            return person_of(row, faces)

        return await self._readers.run(read)

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

    def _prepared(self, gallery: str, record: PersonRecord) -> Candidate | DomainError:
        try:
            return self._candidate(gallery, record)
        except DomainError as error:
            return error

    def _candidate(self, gallery: str, record: PersonRecord) -> Candidate:
        key = person_key_of(gallery, check_person_id(record.person_id))
        vectors = checked_embeddings(record.faces, self._dimension)
        person = PersonRow(
            person_key=key,
            gallery=gallery,
            person_id=record.person_id,
            name=checked_text(record.name, "name"),
            metadata=metadata_json(record.metadata),
            created_us=now_us() if record.created_at is None else microseconds(record.created_at),
        )
        check_record(person)
        faces = [
            FaceRow(
                face_key=face_key_of(gallery, checked_face_id(face.face_id)),
                gallery=gallery,
                person_key=key,
                face_id=face.face_id,
                position=0,
                quality=quality_json(face.quality),
                crop_digest=face.crop_digest,
                embedding=vector.copy(),
            )
            for face, vector in zip(record.faces, vectors, strict=True)
        ]
        return Candidate(person, faces)

    def _existing(self, gallery: str) -> int:
        """Revision of a gallery. Raises GalleryNotFound."""
        revision = self._tables.revisions().get(gallery)
        if revision is None:
            raise _no_gallery(gallery)
        return revision

    def _summary(self, gallery: str, revision: int) -> GallerySummary:
        return GallerySummary(gallery, self._tables.count_persons(gallery), self._tables.count_faces(gallery), revision)

    def _person_and_faces(
        self, gallery: str, person_id: str, *, embeddings: bool = False
    ) -> tuple[PersonRow, list[FaceRow]]:
        self._existing(gallery)
        if not PERSON_ID.fullmatch(person_id):
            raise _no_person(gallery, person_id)
        key = person_key_of(gallery, person_id)
        row = self._tables.people([key], "Strong").get(key)
        if row is None:
            raise _no_person(gallery, person_id)
        return row, self._tables.faces_of([key], embeddings=embeddings).get(key, [])

    def _similarities(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        row, faces = self._person_and_faces(gallery, person_id, embeddings=True)
        if not faces:
            return []
        scores = cosines(np.stack([face.embedding for face in faces]), probe).tolist()
        matches = [Match(person_id, face.face_id, score, row.name) for face, score in zip(faces, scores, strict=True)]
        return sorted(matches, key=lambda match: (-match.similarity, match.face_id))

    def _page(self, gallery: str, after: str | None, limit: int) -> list[Person]:
        self._existing(gallery)
        rows = page_of_persons(self._tables, gallery, after or "", limit)
        faces = self._tables.faces_of([row.person_key for row in rows])
        return [person_of(row, faces.get(row.person_key, [])) for row in rows]

    def _exported(self, gallery: str, after: str | None, limit: int) -> list[PersonRecord]:
        self._existing(gallery)
        rows = page_of_persons(self._tables, gallery, after or "", limit)
        faces = self._tables.faces_of([row.person_key for row in rows], embeddings=True)
        return [_record(row, faces.get(row.person_key, [])) for row in rows]


def _record(row: PersonRow, faces: Sequence[FaceRow]) -> PersonRecord:
    person = person_of(row, faces)
    stored = tuple(NewFace(f.face_id, f.embedding, quality_of(f.quality), f.crop_digest) for f in faces)
    return PersonRecord(person.person_id, person.name, person.metadata, stored, person.created_at)


def _check_page(after: str | None, limit: int) -> None:
    if limit < 1:
        raise InvalidRequest("limit is at least 1", field="limit")
    checked_text(after, "after")


def _no_gallery(gallery: str) -> GalleryNotFound:
    return GalleryNotFound("there is no gallery of this name", gallery=gallery)


def _no_person(gallery: str, person_id: str) -> PersonNotFound:
    return PersonNotFound("there is no person of this id in the gallery", gallery=gallery, person_id=person_id)
