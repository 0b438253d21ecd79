"""The `Gallery` protocol in the fewest words: dictionaries and NumPy. What the others are compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    DomainError,
    GalleryNotFound,
    ImportOutcome,
    InvalidEmbedding,
    InvalidRequest,
    Match,
    NewFace,
    NotReady,
    Person,
    PersonExists,
    PersonNotFound,
    PersonRecord,
    Removal,
    check_gallery_name,
    check_person_id,
)
from service.ports import Gallery, GallerySummary, SearchResult


def exact_cosines(vectors: NDArray[np.float32], probe: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each of (n, d) unit rows to a unit probe (d,), (n,) float32, clipped to [-1, 1]."""
    return np.clip(vectors.astype(np.float64) @ probe.astype(np.float64), -1, 1).astype(np.float32)


@dataclass
class _Gallery:
    persons: dict[str, Person] = field(default_factory=dict)
    faces: dict[str, tuple[str, NewFace]] = field(default_factory=dict)
    revision: int = 0


@dataclass
class ReferenceState:
    """What stays when a reference gallery is closed and opened again."""

    galleries: dict[str, _Gallery] = field(default_factory=dict)
    revision: int = 0


class ReferenceGallery(Gallery):
    def __init__(self, state: ReferenceState, dimension: int) -> None:
        self._state = state
        self._dimension = dimension
        self._open = True

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
        self._check_open()
        check_gallery_name(gallery)
        check_person_id(person_id)
        for text in (name or "", *(face.face_id for face in faces)):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InvalidRequest("text")
        if any(not 1 <= len(face.face_id) <= 128 for face in faces):
            raise InvalidRequest("face_id")
        try:
            json.dumps(metadata, allow_nan=False)
        except ValueError as error:
            raise InvalidRequest("metadata") from error
        for face in faces:
            self._check(face.embedding[np.newaxis])
        here = self._state.galleries.get(gallery, _Gallery())
        person = here.persons.get(person_id)
        if person is not None and not extend:
            raise PersonExists(person_id)
        ids = [face.face_id for face in faces]
        if len(set(ids)) < len(ids) or here.faces.keys() & set(ids) or not (faces or person):
            raise InvalidRequest("faces")
        if person is None:
            person = Person(gallery, person_id, name, dict(metadata), datetime.now(UTC), tuple(ids))
        else:
            person = replace(
                person,
                name=person.name if name is None else name,
                metadata=dict(metadata) or person.metadata,
                face_ids=person.face_ids + tuple(ids),
            )
        here.persons[person_id] = person
        here.faces.update({face.face_id: (person_id, replace(face, embedding=face.embedding.copy())) for face in faces})
        self._state.galleries[gallery] = here
        here.revision = self._next_revision()
        return person

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        self._check_open()
        check_gallery_name(gallery)
        return [await self._imported(gallery, record) for record in records]

    async def _imported(self, gallery: str, record: PersonRecord) -> ImportOutcome:
        here = self._state.galleries.get(gallery, _Gallery())
        ids = [face.face_id for face in record.faces]
        mine = [face_id for face_id in ids if here.faces.get(face_id, ("",))[0] == record.person_id]
        known = record.person_id in here.persons
        new = [face for face in record.faces if face.face_id not in mine]
        try:
            if len(set(ids)) < len(ids):
                raise InvalidRequest("faces")
            for face in record.faces:
                self._check(face.embedding[np.newaxis])
            if new or not known:
                name, metadata = (None, {}) if known else (record.name, record.metadata)
                person = await self.enrol(gallery, record.person_id, name, metadata, new, extend=True)
                if not known and record.created_at is not None:
                    here = self._state.galleries[gallery]
                    here.persons[person.person_id] = replace(person, created_at=record.created_at)
        except DomainError as error:
            return ImportOutcome(error=error)
        return ImportOutcome(added=len(new), present=len(mine))

    async def export_persons(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        here = self._get(gallery)
        return [
            PersonRecord(
                person.person_id,
                person.name,
                person.metadata,
                tuple(here.faces[face_id][1] for face_id in person.face_ids),
                person.created_at,
            )
            for person in await self.persons(gallery, after=after, limit=limit)
        ]

    async def search(
        self, gallery: str, probes: NDArray[np.float32], top_k: int, *, exact: bool = False
    ) -> list[SearchResult]:
        self._check_open()
        self._check(probes)
        here = self._state.galleries.get(gallery, _Gallery())
        results = []
        for probe in probes:
            matches: dict[str, Match] = {}
            for match in self._ranked(here, list(here.faces), probe):
                matches.setdefault(match.person_id, match)
            results.append(SearchResult(tuple(matches.values())[:top_k], len(here.faces)))
        return results

    async def similarities_to(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        person = await self.person(gallery, person_id)
        self._check(probe[np.newaxis])
        return self._ranked(self._get(gallery), list(person.face_ids), probe)

    async def galleries(self) -> list[GallerySummary]:
        self._check_open()
        return [await self.summary(name) for name in sorted(self._state.galleries)]

    async def summary(self, gallery: str) -> GallerySummary:
        here = self._get(gallery)
        return GallerySummary(gallery, len(here.persons), len(here.faces), here.revision)

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        here = self._get(gallery)
        return [here.persons[key] for key in sorted(here.persons) if key > (after or "")][:limit]

    async def person(self, gallery: str, person_id: str) -> Person:
        person = self._get(gallery).persons.get(person_id)
        if person is None:
            raise PersonNotFound(person_id)
        return person

    async def forget_person(self, gallery: str, person_id: str) -> Removal:
        person = await self.person(gallery, person_id)
        here = self._get(gallery)
        del here.persons[person_id]
        digests = tuple(here.faces.pop(face_id)[1].crop_digest for face_id in person.face_ids)
        here.revision = self._next_revision()
        return Removal(1, len(person.face_ids), len(person.face_ids), here.revision, tuple(filter(None, digests)))

    async def close(self) -> None:
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise NotReady("closed")

    def _check(self, vectors: NDArray[np.float32]) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self._dimension or not np.isfinite(vectors).all():
            raise InvalidEmbedding("shape or value")
        if (np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1) > 1e-3).any():
            raise InvalidEmbedding("length")

    def _get(self, gallery: str) -> _Gallery:
        self._check_open()
        if gallery not in self._state.galleries:
            raise GalleryNotFound(gallery)
        return self._state.galleries[gallery]

    def _ranked(self, here: _Gallery, face_ids: list[str], probe: NDArray[np.float32]) -> list[Match]:
        if not face_ids:
            return []
        scores = exact_cosines(np.stack([here.faces[face_id][1].embedding for face_id in face_ids]), probe)
        owners = [here.faces[face_id][0] for face_id in face_ids]
        matches = [
            Match(owner, face_id, float(score), here.persons[owner].name)
            for owner, face_id, score in zip(owners, face_ids, scores, strict=True)
        ]
        return sorted(matches, key=lambda match: (-match.similarity, match.face_id))

    def _next_revision(self) -> int:
        self._state.revision += 1
        return self._state.revision
