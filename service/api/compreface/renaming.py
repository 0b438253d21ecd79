"""A subject's new name, which may be another subject's: their faces move from one person to another."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from service.api.compreface.ids import moved_face_id, person_id_of
from service.api.dependencies import RunningService
from service.domain import (
    FaceNotFound,
    GalleryNotFound,
    Overloaded,
    PersonChange,
    PersonNotFound,
    PersonRecord,
    RevisionMismatch,
)

# Changes by others between reading a person and erasing them, after each of which the move begins anew.
_ATTEMPTS = 4


async def rename_subject(running: RunningService, gallery: str, old: str, new: str, *, actor: str) -> bool:
    """Give a subject another name, or all of its faces to the subject of that name; whether anything was to do.

    Faces keep embedding, crop, quality, expiry and image id. They are stored under the new name before they are
    erased under the old one: a crash in between leaves both, and the same call again finishes the move.

    Raises:
        PersonNotFound: there is no subject of the old name.
        InvalidRequest: a face is somebody else's already, since its move to a third name was cut short.
        Overloaded: others keep changing the subject.
    """
    old_id, new_id = person_id_of(old), person_id_of(new)
    if old == new:
        return False
    try:
        if old_id == new_id:
            # The old name was the id that follows from the new one.
            change = PersonChange(name=new)
            await running.custody.update_person(gallery, old_id, change, expected_revision=None, actor=actor)
        else:
            await _Move(running, gallery, old_id, new_id, new, actor).carry_out()
    except (GalleryNotFound, PersonNotFound):
        raise PersonNotFound(f"Subject {old} not found") from None
    return True


@dataclass(frozen=True, slots=True)
class _Move:
    running: RunningService
    gallery: str
    old_id: str
    new_id: str
    name: str
    actor: str

    async def carry_out(self) -> None:
        copied: frozenset[str] | None = None
        for _ in range(_ATTEMPTS):
            try:
                revision = (await self.running.gallery.person(self.gallery, self.old_id)).revision
                record = await self.running.gallery.person_record(self.gallery, self.old_id)
            except PersonNotFound:
                if copied is None:
                    raise
                # The same move, asked for twice, has been ended by the other one.
                return
            present = await self._copy(record)
            # Erased by somebody while the copy was made.
            await self._take_back((copied or present) - present)
            copied = present
            try:
                await self.running.custody.forget_person(
                    self.gallery, self.old_id, expected_revision=revision, actor=self.actor
                )
            except (RevisionMismatch, PersonNotFound):
                continue
            counts = {"faces": len(present)}
            await self.running.custody.noted(self.gallery, "person.rename", actor=self.actor, counts=counts)
            return
        raise Overloaded("the subject is being changed by others", retry_after_s=1)

    async def _copy(self, record: PersonRecord) -> frozenset[str]:
        """Store a person's faces under the other one; ids of those faces there."""
        faces = tuple(replace(face, face_id=moved_face_id(face.face_id)) for face in record.faces)
        moved = replace(record, person_id=self.new_id, name=self.name, faces=faces)
        (outcome,) = await self.running.gallery.import_persons(self.gallery, [moved])
        if outcome.error is not None:
            raise outcome.error
        return frozenset(face.face_id for face in faces)

    async def _take_back(self, face_ids: frozenset[str]) -> None:
        for face_id in face_ids:
            with suppress(PersonNotFound, FaceNotFound):
                await self.running.custody.forget_face(self.gallery, self.new_id, face_id, actor=self.actor)
