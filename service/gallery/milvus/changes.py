"""Changes to persons and their faces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from service.domain import (
    DomainError,
    Expiry,
    ImportOutcome,
    InvalidRequest,
    Person,
    PersonExists,
    Removal,
    Unchanged,
)
from service.gallery.milvus.draft import Change, Draft
from service.gallery.milvus.refusals import check_revision, no_face
from service.gallery.milvus.rows import FaceRow, PersonRow, person_key_of, record_of
from service.gallery.records import now_us

_MOST_RECORD_BYTES = 65_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody to be stored, with the faces that are to be theirs (their `position` is not yet known)."""

    person: PersonRow
    faces: Sequence[FaceRow]


@dataclass(frozen=True)
class Enrolment(Change):
    """See `Gallery.enrol`."""

    gallery: str
    candidate: Candidate
    extend: bool

    def person_keys(self) -> list[str]:
        """See `Change`."""
        return [self.candidate.person.person_key]

    def face_keys(self) -> list[str]:
        """See `Change`."""
        return [face.face_key for face in self.candidate.faces]

    def apply(self, draft: Draft) -> Person:
        """See `Change`."""
        draft.check_name(self.gallery)
        new, faces = self.candidate.person, self.candidate.faces
        known = draft.people.get(new.person_key)
        if known is not None and not self.extend:
            raise PersonExists("a person of this id is enrolled already", gallery=self.gallery, person_id=new.person_id)
        keys = self.face_keys()
        if len(set(keys)) < len(keys) or any(draft.is_taken(key) for key in keys):
            raise InvalidRequest("a face of this id is in the gallery already", field="face_id")
        person = new
        if known is not None:
            person = replace(
                known,
                name=known.name if new.name is None else new.name,
                metadata=known.metadata if new.metadata == "{}" else new.metadata,
            )
        check_record(person)
        if known is None:
            draft.remove_faces(new.person_key)
        stored = draft.store(person)
        draft.add_faces(faces)
        return draft.seen(stored)


@dataclass(frozen=True)
class Import(Change):
    """See `Gallery.import_persons`; the records that passed the checks."""

    gallery: str
    candidates: Sequence[Candidate]

    def person_keys(self) -> list[str]:
        """See `Change`."""
        return [candidate.person.person_key for candidate in self.candidates]

    def listed_keys(self) -> Iterable[str]:
        """See `Change`; an import tells nobody which faces a person has, so they are not fetched."""
        return ()

    def face_keys(self) -> list[str]:
        """See `Change`."""
        return [face.face_key for candidate in self.candidates for face in candidate.faces]

    def apply(self, draft: Draft) -> list[ImportOutcome]:
        """See `Change`; raises Overloaded alone."""
        draft.check_name(self.gallery)
        return [self._stored(draft, candidate) for candidate in self.candidates]

    def _stored(self, draft: Draft, candidate: Candidate) -> ImportOutcome:
        key, faces = candidate.person.person_key, candidate.faces
        known = draft.people.get(key) is not None
        new = [face for face in faces if not (known and draft.owners.get(face.face_key) == key)]
        keys = [face.face_key for face in faces]
        if len(set(keys)) < len(keys):
            return ImportOutcome(error=InvalidRequest("a face id is there twice", field="face_id"))
        if known and not new:
            return ImportOutcome(present=len(faces))
        unnamed = replace(candidate.person, name=None, metadata="{}") if known else candidate.person
        try:
            Enrolment(self.gallery, Candidate(unnamed, new), extend=True).apply(draft)
        except DomainError as error:
            return ImportOutcome(error=error)
        return ImportOutcome(added=len(new), present=len(faces) - len(new))


@dataclass(frozen=True)
class OfPerson(Change):
    """A change to one person; the id is one that may name somebody, and the revision theirs as the caller saw it."""

    gallery: str
    person_id: str
    expected_revision: int | None

    def person_keys(self) -> list[str]:
        """See `Change`."""
        return [person_key_of(self.gallery, self.person_id)]

    def found(self, draft: Draft) -> PersonRow:
        """The person. Raises GalleryNotFound, PersonNotFound, RevisionMismatch."""
        person = draft.person(self.gallery, self.person_id)
        check_revision(person.revision, self.expected_revision)
        return person


@dataclass(frozen=True)
class Update(OfPerson):
    """See `Gallery.update_person`; `metadata` is a JSON object."""

    name: str | Unchanged | None
    metadata: str | Unchanged

    def apply(self, draft: Draft) -> Person:
        """See `Change`."""
        known = self.found(draft)
        person = replace(
            known,
            name=known.name if isinstance(self.name, Unchanged) else self.name,
            metadata=known.metadata if isinstance(self.metadata, Unchanged) else self.metadata,
        )
        check_record(person)
        return draft.seen(known if person == known else draft.store(person))


@dataclass(frozen=True)
class Forgetting(OfPerson):
    """See `Gallery.forget_person`."""

    def apply(self, draft: Draft) -> Removal:
        """See `Change`."""
        person = self.found(draft)
        gone = draft.remove_faces(person.person_key)
        return _removal(gone, persons=1, revision=draft.erase(person))


@dataclass(frozen=True)
class FaceForgetting(OfPerson):
    """See `Gallery.forget_face`."""

    face_id: str

    def apply(self, draft: Draft) -> Removal:
        """See `Change`."""
        person, now = self.found(draft), now_us()
        for face in draft.faces.get(person.person_key, []):
            if face.face_id == self.face_id and not face.expired(now):
                gone = draft.remove_faces(person.person_key, {face.face_key})
                return _removal(gone, persons=0, revision=draft.store(person).revision)
        raise no_face(self.gallery, self.person_id)


@dataclass(frozen=True)
class Expiring(Change):
    """See `Gallery.erase_expired`; faces that were found expired, by key, and whose they are."""

    owners: Mapping[str, str]

    def person_keys(self) -> Iterable[str]:
        """See `Change`."""
        return set(self.owners.values())

    def apply(self, draft: Draft) -> list[Expiry]:
        """See `Change`; raises nothing."""
        erased, now = [], now_us()
        for key in sorted(self.person_keys()):
            faces = draft.faces.get(key, [])
            due = {face.face_key for face in faces if face.face_key in self.owners and face.expired(now)}
            if not due:
                continue
            person, last = draft.people.get(key), len(due) == len(faces)
            gone = draft.remove_faces(key, due)
            # Faces of nobody go without a word, and what a dropped gallery held is told of by its drop.
            if person is not None and person.gallery in draft.galleries.existing:
                revision = draft.erase(person) if last else draft.store(person).revision
                removal = _removal(gone, persons=int(last), revision=revision)
                erased.append(Expiry(person.gallery, person.person_id, removal))
        return erased


def check_record(person: PersonRow) -> None:
    """Raises InvalidRequest when name and metadata are more than Milvus stores in a field."""
    if len(record_of(person)) > _MOST_RECORD_BYTES:
        raise InvalidRequest(f"name and metadata take more than {_MOST_RECORD_BYTES} bytes as JSON", field="metadata")


def _removal(gone: Sequence[FaceRow], *, persons: int, revision: int) -> Removal:
    digests = tuple(face.crop_digest for face in gone if face.crop_digest)
    return Removal(persons, faces=len(gone), index_entries=len(gone), revision=revision, crop_digests=digests)
