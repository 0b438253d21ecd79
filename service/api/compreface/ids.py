"""CompreFace's names in ours and back: a subject is a person, an image is a face.

The subject of a person is their name where their id follows from it, and otherwise their id; so every person of a
gallery is a subject, whichever call enrolled them, and is found again by what is shown.
"""

from __future__ import annotations

import hashlib
import re
import uuid

from service.domain import PERSON_ID, InvalidRequest

MAX_SUBJECT = 255

_DASHED = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# The service makes `f-`; a face that moves to another person takes the other letter, since for a moment both have it.
_FACE_ID = re.compile(r"[fg]-([0-9a-f]{32})")
# For face ids that came with an import and are no UUIDs.
_NAMESPACE = uuid.UUID("6f2a3d5e-3b61-5c9f-9d0e-8a4b7c1d2e3f")


def checked_subject(subject: str) -> str:
    """The subject itself, if it may be one.

    Raises:
        InvalidRequest: it is blank, over 255 characters, or not valid Unicode.
    """
    if not subject.strip():
        raise InvalidRequest("Subject name is empty", field="subject")
    if len(subject) > MAX_SUBJECT:
        raise InvalidRequest(f"Subject name has over {MAX_SUBJECT} characters", field="subject")
    try:
        subject.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("Subject name is not valid Unicode", field="subject") from None
    return subject


def person_id_of(subject: str) -> str:
    """The subject itself where it may be a person's id, and otherwise `cf-` and a hash of it."""
    if PERSON_ID.fullmatch(subject):
        return subject
    return f"cf-{hashlib.blake2b(subject.encode(), digest_size=16).hexdigest()}"


def subject_of(person_id: str, name: str | None) -> str:
    """What a person is called as a subject."""
    return name if name is not None and person_id_of(name) == person_id else person_id


def image_id_of(face_id: str) -> str:
    """A UUID for the faces that the service named; any other id as it is."""
    matched = _FACE_ID.fullmatch(face_id)
    return str(uuid.UUID(hex=matched[1])) if matched else face_id


def face_ids_of(image_id: str) -> tuple[str, ...]:
    """Ids that a face may have whose image id this is; at most one of them is there, but for a rename cut short."""
    if not _DASHED.fullmatch(image_id):
        return (image_id,)
    digits = uuid.UUID(image_id).hex
    return f"f-{digits}", f"g-{digits}", image_id


def moved_face_id(face_id: str) -> str:
    """Another id for a face, of the same image id; only an imported id that is no UUID gets a new image id too."""
    if _FACE_ID.fullmatch(face_id):
        return ("g" if face_id[0] == "f" else "f") + face_id[1:]
    known = uuid.UUID(face_id) if _DASHED.fullmatch(face_id) else uuid.uuid5(_NAMESPACE, face_id)
    return f"f-{known.hex}"
