"""What is read of galleries in Milvus, by strong reads. Blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    GALLERY_NAME,
    PERSON_ID,
    Face,
    FaceNotFound,
    Match,
    NewFace,
    Person,
    PersonFilter,
    PersonPage,
    PersonRecord,
)
from service.gallery.checks import quality_of
from service.gallery.milvus.draft import person_of
from service.gallery.milvus.pages import page_of_persons
from service.gallery.milvus.refusals import no_gallery, no_person
from service.gallery.milvus.rows import FaceRow, GalleryRow, PersonRow, face_key_of, person_key_of
from service.gallery.milvus.tables import Tables
from service.gallery.records import moment, now_us, storable
from service.gallery.vectors import cosines
from service.ports import GallerySummary

# Persons that one call looks at to find those who fit a filter.
_LOOKED_AT = 1_000


class Reads:
    """The reading calls of `Gallery`, which raise what they say; safe to use from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def summaries(self) -> list[GallerySummary]:
        """All galleries, by name."""
        return [self.summary_of(name, row) for name, row in sorted(self._tables.galleries().existing.items())]

    def summary(self, gallery: str) -> GallerySummary:
        """One gallery."""
        return self.summary_of(gallery, self.existing(gallery))

    def summary_of(self, gallery: str, row: GalleryRow) -> GallerySummary:
        """A gallery whose row is known, counted."""
        persons, faces = self._tables.count_persons(gallery), self._tables.count_faces(gallery)
        return GallerySummary(gallery, persons, faces, row.revision, row.settings)

    def existing(self, gallery: str) -> GalleryRow:
        """A gallery's row. Raises GalleryNotFound."""
        row = self._tables.galleries().existing.get(gallery)
        if row is None:
            raise no_gallery(gallery)
        return row

    def check_named(self, gallery: str, person_id: str) -> None:
        """Raises GalleryNotFound, PersonNotFound for what can name nobody."""
        if not GALLERY_NAME.fullmatch(gallery):
            raise no_gallery(gallery)
        if not PERSON_ID.fullmatch(person_id):
            self.existing(gallery)
            raise no_person(gallery, person_id)

    def person(self, gallery: str, person_id: str) -> Person:
        """One person."""
        return person_of(*self._person_and_faces(gallery, person_id))

    def record(self, gallery: str, person_id: str) -> PersonRecord:
        """One person with everything."""
        return _record(*self._person_and_faces(gallery, person_id, embeddings=True))

    def faces(self, gallery: str, person_id: str) -> list[Face]:
        """One person's faces."""
        _, faces = self._person_and_faces(gallery, person_id)
        return [
            Face(
                face_id=face.face_id,
                quality=quality_of(face.quality),
                created_at=moment(face.created_us),
                expires_at=moment(face.expires_us) if face.expires_us else None,
                crop_digest=face.crop_digest,
            )
            for face in faces
        ]

    def owner_of(self, gallery: str, face_id: str) -> str:
        """Id of the person whose face this is."""
        self.existing(gallery)
        faces = []
        if storable(face_id) is not None:
            faces = self._tables.faces_concerning((), [face_key_of(gallery, face_id)])
        live = [face for face in faces if not face.expires_us or face.expires_us > now_us()]
        people = self._tables.people([face.person_key for face in live], "Strong")
        for face in live:
            if face.person_key in people:
                return people[face.person_key].person_id
        raise FaceNotFound("there is no face of this id in the gallery", gallery=gallery)

    def similarities(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        """Cosine of a unit probe (d,) to each face of one person, best first."""
        row, faces = self._person_and_faces(gallery, person_id, embeddings=True)
        if not faces:
            return []
        scores = cosines(np.stack([face.embedding for face in faces]), probe).tolist()
        matches = [Match(person_id, face.face_id, score, row.name) for face, score in zip(faces, scores, strict=True)]
        return sorted(matches, key=lambda match: (-match.similarity, match.face_id))

    def persons(self, gallery: str, after: str | None, limit: int) -> list[Person]:
        """Persons by id."""
        self.existing(gallery)
        return self._with_faces(page_of_persons(self._tables, gallery, after or "", limit))

    def find(self, gallery: str, wanted: PersonFilter, after: str | None, limit: int) -> PersonPage:
        """Persons by id who fit a filter."""
        self.existing(gallery)
        looked_at = page_of_persons(self._tables, gallery, after or "", _LOOKED_AT)
        fitting = [row for row in looked_at if wanted.admits(person_of(row, ()))]
        found = self._with_faces(fitting[:limit])
        if len(fitting) > limit:
            return PersonPage(tuple(found), fitting[limit - 1].person_id)
        return PersonPage(tuple(found), looked_at[-1].person_id if len(looked_at) == _LOOKED_AT else None)

    def exported(self, gallery: str, after: str | None, limit: int) -> list[PersonRecord]:
        """Persons by id with everything."""
        self.existing(gallery)
        rows = page_of_persons(self._tables, gallery, after or "", limit)
        faces = self._tables.faces_of([row.person_key for row in rows], embeddings=True)
        return [_record(row, faces.get(row.person_key, [])) for row in rows]

    def _with_faces(self, rows: Sequence[PersonRow]) -> list[Person]:
        faces = self._tables.faces_of([row.person_key for row in rows])
        return [person_of(row, faces.get(row.person_key, [])) for row in rows]

    def _person_and_faces(
        self, gallery: str, person_id: str, *, embeddings: bool = False
    ) -> tuple[PersonRow, list[FaceRow]]:
        self.check_named(gallery, person_id)
        key = person_key_of(gallery, person_id)
        people, galleries = self._tables.people_and_galleries([key])
        if gallery not in galleries.existing:
            raise no_gallery(gallery)
        if key not in people:
            raise no_person(gallery, person_id)
        return people[key], self._tables.faces_of([key], embeddings=embeddings).get(key, [])


def _record(row: PersonRow, faces: Sequence[FaceRow]) -> PersonRecord:
    person = person_of(row, faces)
    stored = tuple(
        NewFace(
            face.face_id,
            face.embedding,
            quality_of(face.quality),
            face.crop_digest,
            moment(face.expires_us) if face.expires_us else None,
        )
        for face in faces
    )
    return PersonRecord(person.person_id, person.name, person.metadata, stored, person.created_at)
