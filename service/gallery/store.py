"""The truth about who is enrolled: SQLite, written by one thread, read by several."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.domain import NewFace, NotReady, PersonRecord, StorageUnusable
from service.gallery import bulk, galleries, reads, records
from service.gallery.bulk import Candidate, Imported
from service.gallery.checks import quality_of
from service.gallery.folder import FolderLock, sync_folder
from service.gallery.records import Enrolled, Enrolment
from service.gallery.schema import as_domain_error, open_reader, open_writer
from service.gallery.vectors import STORED_DTYPE, not_unit
from service.gallery.writer import GroupCommitter

_C = TypeVar("_C")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, eq=False)
class StoredFaces:
    """Faces as they lie in the store, in the order of their keys.

    Attributes:
        gallery_keys, face_keys, person_keys: (n,) int64.
        face_ids: n ids.
        embeddings: (n, d) float32, unit length.
    """

    gallery_keys: NDArray[np.int64]
    face_keys: NDArray[np.int64]
    person_keys: NDArray[np.int64]
    face_ids: list[str]
    embeddings: NDArray[np.float32]


class Store:
    """An open data folder. Changes are queued and come back as futures; reads block and may run in any thread.

    Args:
        folder: made when it does not exist; one process at a time.
        space_id, dimension: the embedding space that the folder holds or is to hold.
        max_pending: changes that may wait to be written.
        max_readers: connections that may read at once; further readers wait.

    Raises:
        FolderInUse, SpaceMismatch, StorageFull, StorageUnusable.
    """

    def __init__(
        self, folder: Path, *, space_id: str, dimension: int, max_pending: int = 1024, max_readers: int = 4
    ) -> None:
        self._dimension = dimension
        with ExitStack() as undo:
            lock = undo.enter_context(FolderLock(folder))
            connection = open_writer(folder, space_id=space_id, dimension=dimension)
            undo.callback(connection.close)
            sync_folder(folder)
            self._readers = _ReaderPool(folder, max_readers)
            self.writer = GroupCommitter(connection, max_pending=max_pending)
            undo.pop_all()
        self._lock, self._connection = lock, connection
        self._closing = threading.Lock()

    def enrol(self, new: Enrolment, *, publish: Callable[[Enrolled], _R]) -> Future[_R]:
        """Queue an enrolment. See `Gallery.enrol` and `GroupCommitter.submit`."""
        return self.writer.submit(lambda connection: records.enrol(connection, new), publish)

    def change(
        self,
        operation: Callable[[sqlite3.Connection], _C],
        *,
        publish: Callable[[_C], _R],
        erases: bool = False,
    ) -> Future[_R]:
        """Queue any other change: a function of `records`, `erasing` or `galleries`. See `GroupCommitter.submit`."""
        return self.writer.submit(operation, publish, erases=erases)

    def read(self, question: Callable[[sqlite3.Connection], _R]) -> _R:
        """Ask a question of `reads` or `galleries` within one snapshot."""
        with self._readers.connection() as connection:
            return question(connection)

    def import_all(
        self, gallery: str, candidates: Sequence[Candidate], *, publish: Callable[[Imported], _R]
    ) -> Future[_R]:
        """Queue an import. See `Gallery.import_persons` and `GroupCommitter.submit`."""
        return self.writer.submit(lambda connection: bulk.import_all(connection, gallery, candidates), publish)

    def gallery_names(self) -> dict[int, str]:
        """Names of the galleries by key."""
        return dict(self.read(galleries.names))

    def names_of(self, person_keys: Collection[int]) -> dict[int, tuple[str, str | None]]:
        """Id and name by key, for those of the persons who are still enrolled."""
        with self._readers.connection() as connection:
            rows = connection.execute(
                "SELECT person_key, person_id, name FROM persons JOIN profiles USING (profile_key) "
                "WHERE person_key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(person_keys)),),
            )
            return {key: (person_id, name) for key, person_id, name in rows}

    def person_records(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        """Up to `limit` persons with their faces, by id, behind `after`. Raises GalleryNotFound, StorageUnusable."""
        return self._records(lambda connection: reads.person_rows(connection, gallery, after, limit), gallery)

    def person_record(self, gallery: str, person_id: str) -> PersonRecord:
        """One person with their faces. Raises GalleryNotFound, PersonNotFound, StorageUnusable."""
        return self._records(lambda connection: [reads.person_row(connection, gallery, person_id)], gallery)[0]

    def _records(
        self, question: Callable[[sqlite3.Connection], list[tuple[Any, ...]]], gallery: str
    ) -> list[PersonRecord]:
        with self._readers.connection() as connection:
            rows = question(connection)
            persons = records.persons_of_rows(connection, gallery, rows)
            stored = bulk.faces_of_persons(connection, [row[0] for row in rows])
        checked = self._decoded([(f.gallery_key, f.face_key, f.person_key, f.face_id, f.embedding) for f in stored])
        faces: dict[int, list[NewFace]] = {row[0]: [] for row in rows}
        for face, embedding in zip(stored, checked.embeddings, strict=True):
            expires_at = None if face.expires_us is None else records.moment(face.expires_us)
            quality = quality_of(face.quality)
            faces[face.person_key].append(
                NewFace(face.face_id, embedding, quality, face.crop_digest, expires_at, face.crop)
            )
        return [
            PersonRecord(p.person_id, p.name, p.metadata, tuple(faces[row[0]]), p.created_at)
            for row, p in zip(rows, persons, strict=True)
        ]

    def faces_among(
        self, gallery: str, person_ids: Sequence[str]
    ) -> tuple[dict[int, tuple[str, str | None]], StoredFaces]:
        """Ids and names by key of those of some persons who are enrolled, and their faces. Raises StorageUnusable."""
        with self._readers.connection() as connection:
            names = reads.known_among(connection, gallery, person_ids)
            rows = reads.face_rows(connection, list(names))
        return names, self._decoded(rows)

    def faces_of(self, gallery: str, person_id: str) -> tuple[str | None, StoredFaces]:
        """A person's name and faces. Raises GalleryNotFound, PersonNotFound, StorageUnusable."""
        with self._readers.connection() as connection:
            person_key, _, name, *_ = reads.person_row(connection, gallery, person_id)
            rows = reads.face_rows(connection, [person_key])
        return name, self._decoded(rows)

    def face_keys(self, *, chunk: int = 65_536) -> dict[str, NDArray[np.int64]]:
        """Keys of the faces of each gallery, by its name, ascending."""
        found: dict[int, list[NDArray[np.int64]]] = {}
        with self._readers.connection() as connection:
            # All of it is in the index that keeps face ids unique; the rows of the table are not touched.
            cursor = connection.execute("SELECT gallery_key, face_key FROM faces ORDER BY gallery_key, face_id")
            while rows := cursor.fetchmany(chunk):
                pairs = np.array(rows, dtype=np.int64)
                for gallery_key in np.unique(pairs[:, 0]).tolist():
                    found.setdefault(gallery_key, []).append(pairs[pairs[:, 0] == gallery_key, 1])
        names = self.gallery_names()
        keys = {name: np.sort(np.concatenate(found[key])) for key, name in names.items() if key in found}
        return {name: keys.get(name, np.empty(0, dtype=np.int64)) for name in names.values()}

    def expired_keys(self, now_us: int) -> dict[str, NDArray[np.int64]]:
        """Keys of the faces whose time has come and who are not erased yet, ascending, by gallery."""
        keys = self.read(lambda connection: reads.expired_keys(connection, now_us))
        return {gallery: np.array(expired, dtype=np.int64) for gallery, expired in keys.items()}

    def stored_faces(self, keys: NDArray[np.int64], *, chunk: int = 8_192) -> Iterator[StoredFaces]:
        """Faces by their keys, ascending, `chunk` at a time.

        Raises:
            StorageUnusable: an embedding is missing, has the wrong length, is not finite or not of unit length; the
                message names gallery and face.
        """
        for start in range(0, len(keys), chunk):
            with self._readers.connection() as connection:
                rows = connection.execute(
                    "SELECT gallery_key, face_key, person_key, face_id, vector FROM faces "
                    "LEFT JOIN embeddings USING (face_key) WHERE face_key IN (SELECT value FROM json_each(?)) "
                    "ORDER BY face_key",
                    (json.dumps(keys[start : start + chunk].tolist()),),
                ).fetchall()
            yield self._decoded(rows)

    def close(self) -> None:
        """Finish queued changes and let go of the folder; closing twice does nothing."""
        with self._closing:
            self.writer.close()
            # Readers first: the connection that closes last carries the log into the database and removes it.
            self._readers.close()
            self._connection.close()
            self._lock.release()

    def _decoded(self, rows: list[tuple[int, int, int, str, bytes]]) -> StoredFaces:
        if not rows:
            none, width = np.empty(0, dtype=np.int64), self._dimension
            return StoredFaces(none, none, none, [], np.empty((0, width), dtype=np.float32))
        gallery_keys, face_keys, person_keys, face_ids, blobs = zip(*rows, strict=True)
        size = self._dimension * STORED_DTYPE.itemsize
        # One comparison for the whole chunk; only a chunk with a fault is looked through.
        if {(type(blob), len(blob) if blob is not None else 0) for blob in blobs} != {(bytes, size)}:
            wrong = next(i for i, blob in enumerate(blobs) if not isinstance(blob, bytes) or len(blob) != size)
            raise self._damaged(gallery_keys[wrong], face_ids[wrong], f"is not {size} bytes long")
        stored = np.frombuffer(b"".join(blobs), dtype=STORED_DTYPE).reshape(-1, self._dimension)
        embeddings = stored.astype(np.float32, copy=False)
        faulty = not_unit(embeddings)
        if len(faulty):
            raise self._damaged(gallery_keys[faulty[0]], face_ids[faulty[0]], "is not a finite vector of unit length")
        return StoredFaces(
            np.array(gallery_keys, dtype=np.int64),
            np.array(face_keys, dtype=np.int64),
            np.array(person_keys, dtype=np.int64),
            list(face_ids),
            embeddings,
        )

    def _damaged(self, gallery_key: int, face_id: str, what: str) -> StorageUnusable:
        gallery = self.gallery_names().get(gallery_key, f"number {gallery_key}")
        return StorageUnusable(
            f"the database is damaged: the embedding of face {face_id} in gallery {gallery} {what}. "
            "Restore the folder from a backup, or enrol again from the pictures into a new one.",
            gallery=gallery,
            face_id=face_id,
        )


def as_it_is(changed: _C) -> _C:
    """Publish a change by nothing: what it returned is the answer."""
    return changed


class _ReaderPool:
    """Read-only connections, made when first needed, each used by one thread at a time within one snapshot."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._free = threading.BoundedSemaphore(size)
        self._idle: list[sqlite3.Connection] = []
        self._size = size
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection within a read transaction. Raises NotReady when the pool is closed."""
        with self._free:
            if self._closed:
                raise NotReady("the gallery is closed")
            try:
                connection = self._idle.pop() if self._idle else open_reader(self._folder)
            except sqlite3.Error as error:
                raise as_domain_error(error) from error
            try:
                connection.execute("BEGIN")
                yield connection
            except sqlite3.Error as error:
                raise as_domain_error(error) from error
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._idle.append(connection)

    def close(self) -> None:
        """Wait for readers and close their connections; closing twice does nothing."""
        self._closed = True
        for _ in range(self._size):
            self._free.acquire()
        while self._idle:
            self._idle.pop().close()
        self._free.release(self._size)
