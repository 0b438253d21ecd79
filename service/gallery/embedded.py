"""The gallery that runs inside the service: SQLite holds the truth, an index in memory answers the searches."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.domain import (
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
    check_person_id,
)
from service.gallery import erasing, galleries, reads, records
from service.gallery.candidates import face_row, prepared
from service.gallery.checks import checked_embeddings, checked_text, metadata_json
from service.gallery.collection import IndexCollection, Progress
from service.gallery.dropping import erase_dropped, finish_drops
from service.gallery.erasing import Forgotten
from service.gallery.expiry import ExpiryWatch
from service.gallery.index import SIEVE_FROM, search_on_one_core
from service.gallery.journal import StoreJournal
from service.gallery.lookup import Lookup
from service.gallery.publishing import Publisher
from service.gallery.readers import Readers
from service.gallery.records import Enrolment
from service.gallery.sharing import SharedSearches
from service.gallery.snapshot import INDEX_FOLDER, SnapshotFolder
from service.gallery.store import Store, as_it_is
from service.gallery.succession import take_over
from service.gallery.vectors import checked_unit_rows
from service.ports import Gallery, GallerySummary, SearchResult

_R = TypeVar("_R")

# Faces that one commit erases, so that other changes need not wait long for it.
_EXPIRED_AT_ONCE = 500


class EmbeddedGallery(Gallery):
    """`Gallery` on one data folder of one machine. See `open`.

    Reads and searches run on a few threads of its own, changes on the store's writer. The writer changes the index
    between commit and acknowledgement, so that the index follows the order of commits and needs no log of its own.
    What an index has to put in order afterwards waits for one more thread.
    """

    def __init__(self, store: Store, indexes: IndexCollection, *, max_pending: int, threads: int) -> None:
        self._store = store
        self._indexes = indexes
        self._expiry = ExpiryWatch(store, indexes)
        self._publisher = Publisher(indexes, self._expiry)
        self._lookup = Lookup(store, indexes, self._expiry)
        self._settings = {each.name: each.settings for each in store.read(galleries.summaries)}
        self._dropping: set[asyncio.Task[Removal]] = set()
        self._dimension = indexes.dimension
        self._readers = Readers(threads, max_pending, initializer=search_on_one_core)
        # With more, few searches would share a run; a run that is alone is helped by another core, see `Team`.
        runners = min(threads, max(1, (os.cpu_count() or 1) // 2))
        search = partial(self._lookup.search, exact=False)
        self._searches = SharedSearches(search, self._readers, runners=runners, max_pending=max_pending)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        space_id: str,
        dimension: int,
        max_pending: int = 1024,
        threads: int = 4,
        exact_up_to: int = SIEVE_FROM,
        matrix: Literal["float32", "float16"] = "float32",
        on_recall: Callable[[float], None] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Open a data folder, or begin one, and build the search indexes. Blocks; a million faces take seconds.

        Args:
            folder: made when it does not exist.
            space_id: name of the embedding space that the model at hand makes.
            dimension: length of its embeddings.
            max_pending: changes that may wait to be stored, and likewise reads that may wait or run.
            threads: how many reads and searches run at once.
            exact_up_to: galleries of more faces are searched compressed first, then exactly.
            matrix: what embeddings are searched as; float16 takes half of the memory, and scores are off by up to
                about 1e-4.
            on_recall: told now and then which share of the last such searches an exact one agrees with.
            progress: called now and then with the faces indexed so far and the faces in all.

        Raises:
            FolderInUse: another process owns the folder.
            SpaceMismatch: the folder holds embeddings of another space.
            StorageFull, StorageUnusable: the folder cannot be used; a damaged embedding is named.
        """
        store = Store(folder, space_id=space_id, dimension=dimension, max_pending=max_pending, max_readers=threads)
        indexes = IndexCollection(
            dimension,
            exact_up_to,
            on_recall,
            dtype=np.dtype(matrix),
            home=lambda name: SnapshotFolder(
                folder / INDEX_FOLDER / name, space_id=space_id, dimension=dimension, dtype=np.dtype(matrix)
            ),
        )
        store.writer.before_erasure = indexes.sync_removed
        try:
            finish_drops(store, folder / INDEX_FOLDER)
            indexes.build(store, progress)
        except BaseException:
            indexes.close()
            store.close()
            raise
        return cls(store, indexes, max_pending=max_pending, threads=threads)

    def journal(self, *, kept_days: int) -> StoreJournal:
        """A journal in this folder; it ends with the gallery."""
        return StoreJournal(self._store, self._readers, kept_days=kept_days)

    async def take_over(self, predecessor: EmbeddedGallery) -> None:
        """Go on with another gallery's revisions, journal and answers to repeatable requests, but not its persons.

        Raises StorageFull, Overloaded, NotReady.
        """
        await asyncio.to_thread(take_over, self._store, predecessor._store)

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
        """See `Gallery.enrol`.

        A caller who is cancelled while the change waits has stored nothing; once it runs, all of it is stored.

        Raises:
            PersonExists, InvalidEmbedding, StorageFull: as in the protocol.
            InvalidRequest: a name, id or metadata is not acceptable, or a face id is taken.
            Overloaded: too many changes wait.
            NotReady: the gallery is closed.
        """
        self._readers.check_open()
        check_gallery_name(gallery)
        check_person_id(person_id)
        vectors = checked_embeddings(faces, self._dimension)
        rows = [face_row(face, vector) for face, vector in zip(faces, vectors, strict=True)]
        new = Enrolment(gallery, person_id, checked_text(name, "name"), metadata_json(metadata), rows, extend)
        publish = partial(self._publisher.enrolled, rows, vectors)
        stored = self._store.enrol(new, publish=publish)
        return await asyncio.wrap_future(stored)

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        """See `Gallery.import_persons`; one commit, however many records. Also raises Overloaded, NotReady."""
        check_gallery_name(gallery)
        # Checking a thousand records takes a while, so it is done beside the event loop.
        checked = await self._readers.run(lambda: prepared(records, self._dimension))
        good = [each for each in checked if not isinstance(each, DomainError)]
        stored: list[ImportOutcome] = []
        if good:
            candidates = [candidate for candidate, _ in good]
            publish = partial(self._publisher.imported, gallery, candidates, np.concatenate([rows for _, rows in good]))
            imported = self._store.import_all(gallery, candidates, publish=publish)
            stored = await asyncio.wrap_future(imported)
        outcomes = iter(stored)
        return [ImportOutcome(error=each) if isinstance(each, DomainError) else next(outcomes) for each in checked]

    async def export_persons(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        """See `Gallery.export_persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._readers.run(lambda: self._store.person_records(gallery, after=after, limit=limit))

    async def person_record(self, gallery: str, person_id: str) -> PersonRecord:
        """See `Gallery.person_record`."""
        return await self._readers.run(lambda: self._store.person_record(gallery, person_id))

    async def create_gallery(self, gallery: str, settings: GallerySettings) -> GallerySummary:
        """See `Gallery.create_gallery`; also raises StorageFull, Overloaded, NotReady."""
        self._readers.check_open()
        check_gallery_name(gallery)
        return await asyncio.wrap_future(
            self._store.change(
                partial(galleries.create, gallery=gallery, settings=settings), publish=self._publish_settings
            )
        )

    async def configure_gallery(
        self, gallery: str, settings: GallerySettings, *, expected_revision: int | None = None
    ) -> GallerySummary:
        """See `Gallery.configure_gallery`; also raises StorageFull, Overloaded, NotReady."""
        self._readers.check_open()
        change = partial(galleries.configure, gallery=gallery, settings=settings, expected_revision=expected_revision)
        return await asyncio.wrap_future(self._store.change(change, publish=self._publish_settings))

    async def settings(self, gallery: str) -> GallerySettings:
        """See `Gallery.settings`."""
        self._readers.check_open()
        return self._settings.get(gallery, GallerySettings())

    async def drop_gallery(self, gallery: str, *, expected_revision: int | None = None) -> Removal:
        """See `Gallery.drop_gallery`; also raises StorageFull, Overloaded, NotReady.

        The gallery is gone with the first commit; its rows are erased some thousands a commit, between other changes,
        also when the caller stops waiting, and when the process ends, at the next start.
        """
        self._readers.check_open()

        def publish(begun: tuple[int, int]) -> tuple[int, int, Future[None]]:
            self._settings.pop(gallery, None)
            return *begun, self._indexes.drop(gallery)

        change = partial(erasing.begin_drop, gallery=gallery, expected_revision=expected_revision)
        begun = await asyncio.wrap_future(self._store.change(change, publish=publish))
        task = asyncio.create_task(erase_dropped(self._store, *begun))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)
        return await asyncio.shield(task)

    async def update_person(
        self, gallery: str, person_id: str, change: PersonChange, *, expected_revision: int | None = None
    ) -> Person:
        """See `Gallery.update_person`; also raises InvalidRequest, StorageFull, Overloaded, NotReady."""
        self._readers.check_open()
        name = change.name if isinstance(change.name, Unchanged) else checked_text(change.name, "name")
        metadata = change.metadata if isinstance(change.metadata, Unchanged) else metadata_json(change.metadata)
        update = partial(
            records.update_person,
            gallery=gallery,
            person_id=person_id,
            name=name,
            metadata=metadata,
            expected_revision=expected_revision,
        )
        # What was the name must not be found any more.
        return await asyncio.wrap_future(self._store.change(update, publish=as_it_is, erases=True))

    async def forget_person(self, gallery: str, person_id: str, *, expected_revision: int | None = None) -> Removal:
        """See `Gallery.forget_person`; also raises StorageFull, Overloaded, NotReady."""
        self._readers.check_open()
        change = partial(erasing.forget, gallery=gallery, person_id=person_id, expected_revision=expected_revision)
        return await asyncio.wrap_future(self._store.change(change, publish=self._publisher.erased, erases=True))

    async def forget_face(
        self, gallery: str, person_id: str, face_id: str, *, expected_revision: int | None = None
    ) -> Removal:
        """See `Gallery.forget_face`; also raises StorageFull, Overloaded, NotReady."""
        self._readers.check_open()
        change = partial(
            erasing.forget_face,
            gallery=gallery,
            person_id=person_id,
            face_id=face_id,
            expected_revision=expected_revision,
        )
        return await asyncio.wrap_future(self._store.change(change, publish=self._publisher.erased, erases=True))

    async def erase_expired(self) -> list[Expiry]:
        """See `Gallery.erase_expired`; also raises StorageFull, Overloaded, NotReady."""

        def publish(gone: list[Forgotten]) -> list[Expiry]:
            return [Expiry(each.gallery, each.person_id, self._publisher.erased(each)) for each in gone]

        if self._expiry.due:
            await self._readers.run(self._expiry.hide)
        if not await self._readers.run(lambda: self._store.read(reads.any_expired)):
            return []
        change = partial(erasing.expire, limit=_EXPIRED_AT_ONCE)
        return await asyncio.wrap_future(self._store.change(change, publish=publish, erases=True))

    async def search(
        self,
        gallery: str,
        probes: NDArray[np.float32],
        top_k: int,
        *,
        exact: bool = False,
        among: Sequence[str] | None = None,
    ) -> list[SearchResult]:
        """See `Gallery.search`.

        Raises:
            InvalidEmbedding: a probe has the wrong length, is not finite or not of unit length.
            InvalidRequest: `top_k` is under 1.
            Overloaded, NotReady.
        """
        if top_k < 1:
            raise InvalidRequest("top_k is at least 1", field="top_k")
        rows = checked_unit_rows(probes, self._dimension)
        if among is not None:
            return await self._readers.run(lambda: self._lookup.search_among(gallery, rows, top_k, among))
        if exact:
            # A pass over everything; nobody who asks for less is to wait for it.
            return await self._readers.run(lambda: self._lookup.search(gallery, rows, top_k, exact=True))
        return await self._searches.search(gallery, rows, top_k)

    async def similarities_to(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        """See `Gallery.similarities_to`; also raises InvalidEmbedding, Overloaded, NotReady."""
        if np.ndim(probe) != 1:
            raise InvalidEmbedding("one probe is a vector")
        rows = checked_unit_rows(probe[np.newaxis], self._dimension)
        return await self._readers.run(lambda: self._lookup.similarities(gallery, person_id, rows[0]))

    async def galleries(self) -> list[GallerySummary]:
        """See `Gallery.galleries`."""
        return await self._read(galleries.summaries)

    async def summary(self, gallery: str) -> GallerySummary:
        """See `Gallery.summary`."""
        return await self._read(partial(galleries.summary, gallery=gallery))

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        """See `Gallery.persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._read(partial(reads.persons, gallery=gallery, after=after, limit=limit))

    async def find_persons(self, gallery: str, wanted: PersonFilter, *, after: str | None, limit: int) -> PersonPage:
        """See `Gallery.find_persons`; raises InvalidRequest for a limit under 1."""
        _check_page(after, limit)
        return await self._read(partial(reads.find_persons, gallery=gallery, wanted=wanted, after=after, limit=limit))

    async def person(self, gallery: str, person_id: str) -> Person:
        """See `Gallery.person`."""
        return await self._read(partial(reads.person, gallery=gallery, person_id=person_id))

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        """See `Gallery.faces`."""
        return await self._read(partial(reads.faces, gallery=gallery, person_id=person_id))

    async def owner_of(self, gallery: str, face_id: str) -> str:
        """See `Gallery.owner_of`."""
        return await self._read(partial(reads.owner_of, gallery=gallery, face_id=face_id))

    async def crop(self, gallery: str, person_id: str, face_id: str) -> bytes:
        """See `Gallery.crop`."""
        return await self._read(partial(reads.crop, gallery=gallery, person_id=person_id, face_id=face_id))

    async def close(self) -> None:
        """See `Gallery.close`; closing twice does nothing."""
        self._readers.refuse()
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._readers.close()
        self._store.close()
        self._indexes.close()

    async def _read(self, question: Callable[[sqlite3.Connection], _R]) -> _R:
        return await self._readers.run(lambda: self._store.read(question))

    def _publish_settings(self, summary: GallerySummary) -> GallerySummary:
        """On the writer's thread, after the commit."""
        self._settings[summary.name] = summary.settings
        return summary


def _check_page(after: str | None, limit: int) -> None:
    if limit < 1:
        raise InvalidRequest("limit is at least 1", field="limit")
    checked_text(after, "after")
