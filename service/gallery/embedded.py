"""The gallery that runs inside the service: SQLite holds the truth, an index in memory answers the searches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    DomainError,
    ImportOutcome,
    InvalidEmbedding,
    InvalidRequest,
    Match,
    NewFace,
    Person,
    PersonRecord,
    Removal,
    check_gallery_name,
    check_person_id,
)
from service.gallery.bulk import Candidate, Imported
from service.gallery.checks import (
    checked_embeddings,
    checked_embeddings_each,
    checked_face_id,
    checked_text,
    metadata_json,
    quality_json,
)
from service.gallery.collection import IndexCollection, Progress
from service.gallery.index import SIEVE_FROM, search_on_one_core
from service.gallery.readers import Readers
from service.gallery.records import Enrolled, Enrolment, FaceRow, Forgotten, microseconds
from service.gallery.search import Hit
from service.gallery.snapshot import INDEX_FOLDER, SnapshotFolder
from service.gallery.store import Store
from service.gallery.vectors import STORED_DTYPE, checked_unit_rows, cosines
from service.ports import Gallery, GallerySummary, SearchResult


class EmbeddedGallery(Gallery):
    """`Gallery` on one data folder of one machine. See `open`.

    Reads and searches run on a few threads of its own, changes on the store's writer. The writer changes the index
    between commit and acknowledgement, so that the index follows the order of commits and needs no log of its own.
    What an index has to put in order afterwards waits for one more thread.
    """

    def __init__(self, store: Store, indexes: IndexCollection, *, max_pending: int, threads: int) -> None:
        self._store = store
        self._indexes = indexes
        self._dimension = indexes.dimension
        self._readers = Readers(threads, max_pending, initializer=search_on_one_core)

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
            indexes.build(store, progress)
        except BaseException:
            indexes.close()
            store.close()
            raise
        return cls(store, indexes, max_pending=max_pending, threads=threads)

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
            InvalidRequest: a name, id or metadata is not acceptable, a face id is taken, or a new person has no face.
            Overloaded: too many changes wait.
            NotReady: the gallery is closed.
        """
        self._readers.check_open()
        check_gallery_name(gallery)
        check_person_id(person_id)
        vectors = checked_embeddings(faces, self._dimension)
        rows = [_face_row(face, vector) for face, vector in zip(faces, vectors, strict=True)]
        new = Enrolment(gallery, person_id, checked_text(name, "name"), metadata_json(metadata), rows, extend)
        publish = partial(self._publish_faces, [row.face_id for row in rows], vectors)
        stored = self._store.enrol(new, publish=publish)
        return await asyncio.wrap_future(stored)

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        """See `Gallery.import_persons`; one commit, however many records. Also raises Overloaded, NotReady."""
        check_gallery_name(gallery)
        # Checking a thousand records takes a while, so it is done beside the event loop.
        prepared = await self._readers.run(lambda: self._prepared(records))
        good = [each for each in prepared if not isinstance(each, DomainError)]
        stored: list[ImportOutcome] = []
        if good:
            publish = partial(self._publish_import, gallery, np.concatenate([vectors for _, vectors in good]))
            imported = self._store.import_all(gallery, [candidate for candidate, _ in good], publish=publish)
            stored = await asyncio.wrap_future(imported)
        outcomes = iter(stored)
        return [ImportOutcome(error=each) if isinstance(each, DomainError) else next(outcomes) for each in prepared]

    async def export_persons(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        """See `Gallery.export_persons`; raises InvalidRequest for a limit under 1."""
        if limit < 1:
            raise InvalidRequest("limit is at least 1", field="limit")
        checked_text(after, "after")
        return await self._readers.run(lambda: self._store.person_records(gallery, after=after, limit=limit))

    async def forget_person(self, gallery: str, person_id: str) -> Removal:
        """See `Gallery.forget_person`; also raises StorageFull, Overloaded, NotReady."""
        self._readers.check_open()
        removed = self._store.forget(gallery, person_id, publish=self._publish_removal)
        return await asyncio.wrap_future(removed)

    async def search(
        self, gallery: str, probes: NDArray[np.float32], top_k: int, *, exact: bool = False
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
        return await self._readers.run(lambda: self._search(gallery, rows, top_k, exact=exact))

    async def similarities_to(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        """See `Gallery.similarities_to`; also raises InvalidEmbedding, Overloaded, NotReady."""
        if np.ndim(probe) != 1:
            raise InvalidEmbedding("one probe is a vector")
        rows = checked_unit_rows(probe[np.newaxis], self._dimension)
        return await self._readers.run(lambda: self._similarities(gallery, person_id, rows[0]))

    async def galleries(self) -> list[GallerySummary]:
        """See `Gallery.galleries`."""
        return await self._readers.run(self._store.galleries)

    async def summary(self, gallery: str) -> GallerySummary:
        """See `Gallery.summary`."""
        return await self._readers.run(lambda: self._store.summary(gallery))

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        """See `Gallery.persons`; raises InvalidRequest for a limit under 1."""
        if limit < 1:
            raise InvalidRequest("limit is at least 1", field="limit")
        checked_text(after, "after")
        return await self._readers.run(lambda: self._store.persons(gallery, after=after, limit=limit))

    async def person(self, gallery: str, person_id: str) -> Person:
        """See `Gallery.person`."""
        return await self._readers.run(lambda: self._store.person(gallery, person_id))

    async def close(self) -> None:
        """See `Gallery.close`; closing twice does nothing."""
        self._readers.refuse()
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._readers.close()
        self._store.close()
        self._indexes.close()

    def _prepared(self, records: Sequence[PersonRecord]) -> list[tuple[Candidate, NDArray[np.float32]] | DomainError]:
        checked = checked_embeddings_each([record.faces for record in records], self._dimension)
        return [_candidate(record, vectors) for record, vectors in zip(records, checked, strict=True)]

    def _publish_import(self, gallery: str, vectors: NDArray[np.float32], stored: Imported) -> list[ImportOutcome]:
        """On the writer's thread, after the commit."""
        if len(stored.face_keys):
            index = self._indexes.begun(gallery)
            chosen = vectors[stored.positions]
            index.add(stored.face_keys, stored.person_keys, stored.face_ids, chosen, revision=stored.revision)
        return stored.outcomes

    def _publish_faces(self, face_ids: list[str], vectors: NDArray[np.float32], stored: Enrolled) -> Person:
        """On the writer's thread, after the commit."""
        index = self._indexes.begun(stored.person.gallery)
        persons = np.full(len(face_ids), stored.person_key, dtype=np.int64)
        index.add(stored.face_keys, persons, face_ids, vectors, revision=stored.revision)
        return stored.person

    def _publish_removal(self, forgotten: Forgotten) -> Removal:
        """On the writer's thread, after the commit."""
        entries = self._indexes.remove(forgotten.gallery, forgotten.face_keys, revision=forgotten.revision)
        return Removal(
            persons=1,
            faces=len(forgotten.face_keys),
            index_entries=entries,
            revision=forgotten.revision,
            crop_digests=forgotten.crop_digests,
        )

    def _search(self, gallery: str, probes: NDArray[np.float32], top_k: int, *, exact: bool) -> list[SearchResult]:
        index = self._indexes.get(gallery)
        if index is None:
            return [SearchResult((), 0) for _ in probes]
        wanted = top_k
        while True:
            found, size = index.search(probes, wanted, exact=exact)
            names = self._store.names_of({hit.person for hits in found for hit in hits})
            kept = [[hit for hit in hits if hit.person in names][:top_k] for hits in found]
            # A person whose deletion is committed but not yet in the index has no name any more. Nobody else may be
            # crowded out by them, so look deeper until the places are filled or nobody is left.
            if all(len(row) == top_k or len(hits) < wanted for row, hits in zip(kept, found, strict=True)):
                return [SearchResult(tuple(_match(hit, names) for hit in row), size) for row in kept]
            wanted += len({hit.person for hits in found for hit in hits} - names.keys())

    def _similarities(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        name, faces = self._store.faces_of(gallery, person_id)
        scores = cosines(faces.embeddings, probe).tolist()
        matches = [
            Match(person_id, face_id, score, name) for face_id, score in zip(faces.face_ids, scores, strict=True)
        ]
        return sorted(matches, key=lambda match: (-match.similarity, match.face_id))


def _match(hit: Hit, names: Mapping[int, tuple[str, str | None]]) -> Match:
    person_id, name = names[hit.person]
    return Match(person_id=person_id, face_id=hit.face_id, similarity=hit.similarity, name=name)


def _candidate(
    record: PersonRecord, vectors: NDArray[np.float32] | InvalidEmbedding
) -> tuple[Candidate, NDArray[np.float32]] | DomainError:
    """What is to be stored of a record whose embeddings have been checked, or why nothing of it is."""
    if isinstance(vectors, InvalidEmbedding):
        return vectors
    try:
        candidate = Candidate(
            check_person_id(record.person_id),
            checked_text(record.name, "name"),
            metadata_json(record.metadata),
            None if record.created_at is None else microseconds(record.created_at),
            [_face_row(face, vector) for face, vector in zip(record.faces, vectors, strict=True)],
        )
    except DomainError as error:
        return error
    return candidate, vectors


def _face_row(face: NewFace, vector: NDArray[np.float32]) -> FaceRow:
    return FaceRow(
        face_id=checked_face_id(face.face_id),
        embedding=vector.astype(STORED_DTYPE, copy=False).tobytes(),
        quality=quality_json(face.quality),
        crop_digest=face.crop_digest,
    )
