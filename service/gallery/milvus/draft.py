"""Changes to galleries in Milvus, worked out on what a strong read has shown before anything is written."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from service.domain import Overloaded, Person
from service.gallery.milvus.refusals import no_gallery, no_person
from service.gallery.milvus.rows import DropRow, FaceRow, Galleries, GalleryRow, PersonRow, person_key_of
from service.gallery.milvus.tables import Tables
from service.gallery.records import moment, now_us


@dataclass(slots=True)
class Draft:
    """What some changes concern, as it was read and as they have left it so far.

    Attributes:
        people: persons by key; None where there is nobody.
        faces: faces by person, in order; of persons whose faces a change must know.
        owners: person of each face key that a change wants to use, where it is taken.
        galleries: all of them.
        stored, erased: faces to write and to erase, by key; a key in both is replaced.
        changed: persons to write, or None for those to erase.
        touched: galleries with a new revision.
        dropped: galleries that cease to exist with these changes.
        alive: drops whose rows are to be written.
        swept_people, swept_faces: keys to erase of galleries that do not exist any more.
        ended: galleries of which all is erased.
    """

    people: dict[str, PersonRow | None]
    faces: dict[str, list[FaceRow]]
    owners: dict[str, str]
    galleries: Galleries
    stored: dict[str, FaceRow] = field(default_factory=dict)
    erased: dict[str, FaceRow | None] = field(default_factory=dict)
    changed: dict[str, PersonRow | None] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    alive: dict[str, DropRow] = field(default_factory=dict)
    swept_people: list[str] = field(default_factory=list)
    swept_faces: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    position: int = field(default_factory=time.time_ns)

    def gallery(self, name: str) -> GalleryRow:
        """A gallery that exists. Raises GalleryNotFound."""
        row = self.galleries.existing.get(name)
        if row is None:
            raise no_gallery(name)
        return row

    def check_name(self, name: str) -> None:
        """Raises Overloaded while what a dropped gallery of this name held is being erased."""
        if name in self.galleries.dropping:
            raise Overloaded("a gallery of this name is being erased")

    def person(self, gallery: str, person_id: str) -> PersonRow:
        """A person who exists. Raises GalleryNotFound, PersonNotFound."""
        self.gallery(gallery)
        row = self.people.get(person_key_of(gallery, person_id))
        if row is None:
            raise no_person(gallery, person_id)
        return row

    def next_revision(self, gallery: str) -> int:
        """A revision above all there have been, now that of the gallery, which exists from now on."""
        row = self.galleries.existing.get(gallery, GalleryRow())
        self.galleries.last += 1
        self.galleries.existing[gallery] = replace(row, revision=self.galleries.last)
        self.touched.add(gallery)
        return self.galleries.last

    def store(self, person: PersonRow) -> PersonRow:
        """Let a person be this, with a new revision; what they are now."""
        stored = replace(person, revision=self.next_revision(person.gallery))
        self.people[person.person_key] = self.changed[person.person_key] = stored
        return stored

    def erase(self, person: PersonRow) -> int:
        """Let a person be gone; the revision of that."""
        self.people[person.person_key] = self.changed[person.person_key] = None
        return self.next_revision(person.gallery)

    def is_taken(self, face_key: str) -> bool:
        """Whether somebody who exists has this face."""
        owner = self.owners.get(face_key)
        return owner is not None and self.people.get(owner) is not None

    def add_faces(self, faces: Sequence[FaceRow]) -> None:
        """Add faces whose keys nobody has; what nobody's face stands in the way goes."""
        for face in faces:
            self.position += 1
            placed = replace(face, position=self.position)
            if face.face_key in self.owners and face.face_key not in self.stored:
                self.erased.setdefault(face.face_key, None)
            self.owners[face.face_key] = face.person_key
            self.stored[face.face_key] = placed
            self.faces.setdefault(face.person_key, []).append(placed)

    def remove_faces(self, person_key: str, only: Collection[str] | None = None) -> list[FaceRow]:
        """Take away faces of a person; those that were written before these changes are to be erased.

        Args:
            person_key: whose.
            only: keys of those that go; all by default.
        """
        faces = self.faces.pop(person_key, [])
        gone = [face for face in faces if only is None or face.face_key in only]
        self.faces[person_key] = [face for face in faces if not (only is None or face.face_key in only)]
        for face in gone:
            self.owners.pop(face.face_key, None)
            if self.stored.pop(face.face_key, None) is None:
                self.erased[face.face_key] = face
        return gone

    def seen(self, person: PersonRow) -> Person:
        """A person as the domain knows them."""
        return person_of(person, self.faces.get(person.person_key, []))

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.touched or self.erased or self.alive or self.ended)


class Change(ABC):
    """One caller's change."""

    def person_keys(self) -> Iterable[str]:
        """Persons whom it concerns."""
        return ()

    def listed_keys(self) -> Iterable[str]:
        """Those of them whose faces it must know."""
        return self.person_keys()

    def face_keys(self) -> Iterable[str]:
        """Faces that it wants to add."""
        return ()

    @abstractmethod
    def apply(self, draft: Draft) -> Any:
        """Make it on the draft, or raise a DomainError and leave the draft as it is."""


def person_of(row: PersonRow, faces: Iterable[FaceRow]) -> Person:
    """A person as the domain knows them, with those of the faces that have not expired."""
    now = now_us()
    return Person(
        gallery=row.gallery,
        person_id=row.person_id,
        name=row.name,
        metadata=json.loads(row.metadata),
        created_at=moment(row.created_us),
        face_ids=tuple(face.face_id for face in faces if not face.expired(now)),
        revision=row.revision,
    )


def read_draft(tables: Tables, changes: Sequence[Change], beside: Executor) -> Draft:
    """All that some changes need to know, by strong reads. Raises GalleryUnavailable.

    The two collections are asked at once, because a strong read waits for the server's clock rather than for work.

    Args:
        tables: to read.
        changes: of one round.
        beside: runs one of the two questions.
    """
    keys = {key for change in changes for key in change.person_keys()}
    listed = {key for change in changes for key in change.listed_keys()}
    wanted = {key for change in changes for key in change.face_keys()}
    asked = beside.submit(tables.people_and_galleries, keys)
    faces = tables.faces_concerning(listed, wanted)
    found, galleries = asked.result()
    people: dict[str, PersonRow | None] = {**dict.fromkeys(keys), **found}
    # Faces of imported persons who do not exist are left from a change that was cut off.
    left = {key for key in keys - listed if people[key] is None}
    faces += tables.faces_concerning(left, ()) if left else []
    others = {face.person_key for face in faces} - people.keys()
    if others:
        people |= {**dict.fromkeys(others), **tables.people(others, "Strong")}
    by_person: dict[str, list[FaceRow]] = {}
    for face in sorted({face.face_key: face for face in faces}.values(), key=lambda face: face.position):
        by_person.setdefault(face.person_key, []).append(face)
    return Draft(people, by_person, {face.face_key: face.person_key for face in faces}, galleries)
