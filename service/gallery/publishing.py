"""What searches are told of a change: on the writer's thread, after the commit and before the caller hears of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain import ImportOutcome, Person, Removal
from service.gallery.bulk import Candidate, Imported
from service.gallery.collection import IndexCollection
from service.gallery.erasing import Forgotten
from service.gallery.expiry import ExpiryWatch
from service.gallery.records import Enrolled, FaceRow


class Publisher:
    """Brings the indexes of a folder up to date with its store."""

    def __init__(self, indexes: IndexCollection, expiry: ExpiryWatch) -> None:
        self._indexes, self._expiry = indexes, expiry

    def imported(
        self, gallery: str, candidates: Sequence[Candidate], vectors: NDArray[np.float32], stored: Imported
    ) -> list[ImportOutcome]:
        """Faces of an import."""
        if len(stored.face_keys):
            chosen = vectors[stored.positions]
            with self._expiry.expecting(face.expires_us for candidate in candidates for face in candidate.faces):
                self._indexes.begun(gallery).add(
                    stored.face_keys, stored.person_keys, stored.face_ids, chosen, revision=stored.revision
                )
        return stored.outcomes

    def enrolled(self, rows: Sequence[FaceRow], vectors: NDArray[np.float32], stored: Enrolled) -> Person:
        """Faces of one person."""
        index = self._indexes.begun(stored.person.gallery)
        persons = np.full(len(rows), stored.person_key, dtype=np.int64)
        face_ids = [row.face_id for row in rows]
        with self._expiry.expecting(row.expires_us for row in rows):
            index.add(stored.face_keys, persons, face_ids, vectors, revision=stored.revision)
        return stored.person

    def erased(self, forgotten: Forgotten) -> Removal:
        """What an erasure took away."""
        entries = self._indexes.remove(forgotten.gallery, forgotten.face_keys, revision=forgotten.revision)
        return Removal(
            persons=forgotten.persons,
            faces=len(forgotten.face_keys),
            index_entries=entries,
            revision=forgotten.revision,
            crop_digests=forgotten.crop_digests,
            crops=forgotten.crops,
        )
