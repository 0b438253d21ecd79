"""The `Gallery` protocol in the fewest words: dictionaries and NumPy. What the others are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    UNCHANGED,
    CropNotKept,
    DomainError,
    Expiry,
    Face,
    FaceNotFound,
    GalleryExists,
    GalleryNotFound,
    GallerySettings,
    ImportOutcome,
    InvalidEmbedding,
    InvalidRequest,
    Match,
    NewFace,
    NotReady,
    Person,
    PersonChange,
    PersonExists,
    PersonFilter,
    PersonNotFound,
    PersonPage,
    PersonRecord,
    Removal,
    RevisionMismatch,
    check_gallery_name,
    check_metadata_depth,
    check_person_id,
)
from service.ports import Gallery, GallerySummary, SearchResult

# Persons that a filtered list looks at in one call; few, so that pages are short.
_LOOKED_AT = 3


def exact_cosines(vectors: NDArray[np.float32], probe: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each of (n, d) unit rows to a unit probe (d,), (n,) float32, clipped to [-1, 1]."""
    return np.clip(vectors.astype(np.float64) @ probe.astype(np.float64), -1, 1).astype(np.float32)


@dataclass
class _Face:
    owner: str
    new: NewFace
    created_at: datetime

    @property
    def expired(self) -> bool:
        return self.new.expires_at is not None and self.new.expires_at <= datetime.now(UTC)


@dataclass
class _Gallery:
    persons: dict[str, Person] = field(default_factory=dict)
    faces: dict[str, _Face] = field(default_factory=dict)
    settings: GallerySettings = field(default_factory=GallerySettings)
    revision: int = 0

    def seen(self, face_ids: Iterable[str]) -> list[str]:
        return [face_id for face_id in face_ids if not self.faces[face_id].expired]

    def person(self, person_id: str) -> Person:
        person = self.persons[person_id]
        return replace(person, face_ids=tuple(self.seen(person.face_ids)))


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

    async def create_gallery(self, gallery: str, settings: GallerySettings) -> GallerySummary:
        self._check_open()
        check_gallery_name(gallery)
        if gallery in self._state.galleries:
            raise GalleryExists(gallery)
        self._state.galleries[gallery] = _Gallery()
        return await self.configure_gallery(gallery, settings)

    async def configure_gallery(
        self, gallery: str, settings: GallerySettings, *, expected_revision: int | None = None
    ) -> GallerySummary:
        here = self._get(gallery)
        _check_revision(here.revision, expected_revision)
        here.settings, here.revision = settings, self._next_revision()
        return await self.summary(gallery)

    async def drop_gallery(self, gallery: str, *, expected_revision: int | None = None) -> Removal:
        here = self._get(gallery)
        _check_revision(here.revision, expected_revision)
        del self._state.galleries[gallery]
        return _removal(list(here.faces.values()), persons=len(here.persons), revision=self._next_revision())

    async def settings(self, gallery: str) -> GallerySettings:
        self._check_open()
        return self._state.galleries.get(gallery, _Gallery()).settings

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
        _check_profile(name, metadata)
        if any(not 1 <= len(face.face_id) <= 128 or _is_broken(face.face_id) for face in faces):
            raise InvalidRequest("face_id")
        for face in faces:
            self._check(face.embedding[np.newaxis])
        here = self._state.galleries.get(gallery, _Gallery())
        person = here.persons.get(person_id)
        if person is not None and not extend:
            raise PersonExists(person_id)
        ids = [face.face_id for face in faces]
        if len(set(ids)) < len(ids) or here.faces.keys() & set(ids):
            raise InvalidRequest("faces")
        now = datetime.now(UTC)
        if person is None:
            person = Person(gallery, person_id, name, dict(metadata), now)
        else:
            name, metadata = person.name if name is None else name, dict(metadata) or person.metadata
            person = replace(person, name=name, metadata=metadata)
        here.faces.update(
            {face.face_id: _Face(person_id, replace(face, embedding=face.embedding.copy()), now) for face in faces}
        )
        self._state.galleries[gallery] = here
        return self._stamped(here, replace(person, face_ids=person.face_ids + tuple(ids)))

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        self._check_open()
        check_gallery_name(gallery)
        return [await self._imported(gallery, record) for record in records]

    async def _imported(self, gallery: str, record: PersonRecord) -> ImportOutcome:
        here = self._state.galleries.get(gallery, _Gallery())
        ids = [face.face_id for face in record.faces]
        mine = [face_id for face_id in ids if face_id in here.faces and here.faces[face_id].owner == record.person_id]
        known = record.person_id in here.persons
        new = [face for face in record.faces if face.face_id not in mine]
        try:
            if len(set(ids)) < len(ids):
                raise InvalidRequest("faces")
            for face in record.faces:
                self._check(face.embedding[np.newaxis])
            if new or not known:
                name, metadata = (None, {}) if known else (record.name, record.metadata)
                await self.enrol(gallery, record.person_id, name, metadata, new, extend=True)
                if not known and record.created_at is not None:
                    here = self._state.galleries[gallery]
                    person = here.persons[record.person_id]
                    here.persons[record.person_id] = replace(person, created_at=record.created_at)
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
                tuple(here.faces[face_id].new for face_id in person.face_ids),
                person.created_at,
            )
            for person in await self.persons(gallery, after=after, limit=limit)
        ]

    async def person_record(self, gallery: str, person_id: str) -> PersonRecord:
        await self.person(gallery, person_id)
        records = await self.export_persons(gallery, after=None, limit=10**9)
        return next(record for record in records if record.person_id == person_id)

    async def search(
        self,
        gallery: str,
        probes: NDArray[np.float32],
        top_k: int,
        *,
        exact: bool = False,
        among: Sequence[str] | None = None,
    ) -> list[SearchResult]:
        self._check_open()
        self._check(probes)
        here = self._state.galleries.get(gallery, _Gallery())
        searched = here.seen(f for f, face in here.faces.items() if among is None or face.owner in among)
        results = []
        for probe in probes:
            matches: dict[str, Match] = {}
            for match in self._ranked(here, searched, probe):
                matches.setdefault(match.person_id, match)
            results.append(SearchResult(tuple(matches.values())[:top_k], len(searched)))
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
        return GallerySummary(gallery, len(here.persons), len(here.faces), here.revision, here.settings)

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        here = self._get(gallery)
        return [here.person(key) for key in sorted(here.persons) if key > (after or "")][:limit]

    async def find_persons(self, gallery: str, wanted: PersonFilter, *, after: str | None, limit: int) -> PersonPage:
        looked_at = await self.persons(gallery, after=after, limit=min(limit, _LOOKED_AT))
        found = tuple(person for person in looked_at if wanted.admits(person))
        return PersonPage(found, looked_at[-1].person_id if looked_at else None)

    async def person(self, gallery: str, person_id: str) -> Person:
        here = self._get(gallery)
        if person_id not in here.persons:
            raise PersonNotFound(person_id)
        return here.person(person_id)

    async def update_person(
        self, gallery: str, person_id: str, change: PersonChange, *, expected_revision: int | None = None
    ) -> Person:
        here, person = self._get(gallery), await self.person(gallery, person_id)
        _check_revision(person.revision, expected_revision)
        person = here.persons[person_id]
        name = person.name if change.name is UNCHANGED else change.name
        metadata = person.metadata if change.metadata is UNCHANGED else dict(change.metadata)
        _check_profile(name, metadata)
        changed = replace(person, name=name, metadata=metadata)
        return here.person(person_id) if changed == person else self._stamped(here, changed)

    async def forget_person(self, gallery: str, person_id: str, *, expected_revision: int | None = None) -> Removal:
        person, here = await self.person(gallery, person_id), self._get(gallery)
        _check_revision(person.revision, expected_revision)
        gone = [here.faces.pop(face_id) for face_id in here.persons.pop(person_id).face_ids]
        here.revision = self._next_revision()
        return _removal(gone, persons=1, revision=here.revision)

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        person, here = await self.person(gallery, person_id), self._get(gallery)
        return [
            Face(new.face_id, new.quality, stored.created_at, new.expires_at, new.crop_digest, new.crop is not None)
            for stored in (here.faces[face_id] for face_id in person.face_ids)
            for new in [stored.new]
        ]

    async def owner_of(self, gallery: str, face_id: str) -> str:
        here = self._get(gallery)
        if face_id not in here.faces or not here.seen([face_id]):
            raise FaceNotFound(face_id)
        return here.faces[face_id].owner

    async def crop(self, gallery: str, person_id: str, face_id: str) -> bytes:
        person = await self.person(gallery, person_id)
        if face_id not in person.face_ids:
            raise FaceNotFound(face_id)
        crop = self._get(gallery).faces[face_id].new.crop
        if crop is None:
            raise CropNotKept(face_id)
        return crop

    async def forget_face(
        self, gallery: str, person_id: str, face_id: str, *, expected_revision: int | None = None
    ) -> Removal:
        person, here = await self.person(gallery, person_id), self._get(gallery)
        _check_revision(person.revision, expected_revision)
        if face_id not in person.face_ids:
            raise FaceNotFound(face_id)
        return self._without(here, person_id, [face_id])

    async def erase_expired(self) -> list[Expiry]:
        self._check_open()
        erased = []
        for name, here in self._state.galleries.items():
            for person_id, person in list(here.persons.items()):
                due = [face_id for face_id in person.face_ids if here.faces[face_id].expired]
                if due and due == list(person.face_ids):
                    erased.append(Expiry(name, person_id, await self.forget_person(name, person_id)))
                elif due:
                    erased.append(Expiry(name, person_id, self._without(here, person_id, due)))
        return erased

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
        scores = exact_cosines(np.stack([here.faces[face_id].new.embedding for face_id in face_ids]), probe)
        owners = [here.faces[face_id].owner for face_id in face_ids]
        matches = [
            Match(owner, face_id, float(score), here.persons[owner].name)
            for owner, face_id, score in zip(owners, face_ids, scores, strict=True)
        ]
        return sorted(matches, key=lambda match: (-match.similarity, match.face_id))

    def _without(self, here: _Gallery, person_id: str, face_ids: list[str]) -> Removal:
        gone = [here.faces.pop(face_id) for face_id in face_ids]
        person = here.persons[person_id]
        left = tuple(face_id for face_id in person.face_ids if face_id not in face_ids)
        person = self._stamped(here, replace(person, face_ids=left))
        return _removal(gone, persons=0, revision=person.revision)

    def _stamped(self, here: _Gallery, person: Person) -> Person:
        here.revision = self._next_revision()
        here.persons[person.person_id] = replace(person, revision=here.revision)
        return here.person(person.person_id)

    def _next_revision(self) -> int:
        self._state.revision += 1
        return self._state.revision


def _removal(gone: list[_Face], *, persons: int, revision: int) -> Removal:
    digests = tuple(face.new.crop_digest for face in gone if face.new.crop_digest)
    crops = sum(face.new.crop is not None for face in gone)
    return Removal(persons, len(gone), len(gone), revision, digests, crops)


def _check_revision(revision: int, expected: int | None) -> None:
    if expected not in (None, revision):
        raise RevisionMismatch("revision")


def _check_profile(name: str | None, metadata: Mapping[str, Any]) -> None:
    if _is_broken(name or ""):
        raise InvalidRequest("name")
    check_metadata_depth(metadata)
    try:
        json.dumps(metadata, allow_nan=False)
    except ValueError as error:
        raise InvalidRequest("metadata") from error


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
