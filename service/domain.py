"""The words of the domain: faces, persons, matches, and what can go wrong. No HTTP, no SQL, no network runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

GALLERY_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
PERSON_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned face box, pixels of the upright picture; may reach past its border."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One face found in a picture.

    Attributes:
        box: where it is.
        landmarks: (5, 2) float32, pixels: image-left eye, image-right eye, nose tip, image-left and image-right
            mouth corner.
        score: confidence in [0, 1].
    """

    box: Box
    landmarks: NDArray[np.float32]
    score: float


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """How well a face can be compared.

    Attributes:
        side_px: geometric mean of the box's sides.
        detection_score: the detector's confidence in [0, 1].
        sharpness: standard deviation of the aligned crop's Laplacian, grey levels; under about 5 is blurred.
        yaw: turn of the head read off the nose, as a fraction of the eye distance; 0 is frontal, beyond +-0.5 profile.
        roll_deg: tilt in the picture plane, degrees, clockwise positive.
        issues: what falls short of the enrolment gate, empty when nothing does.
    """

    side_px: float
    detection_score: float
    sharpness: float
    yaw: float
    roll_deg: float
    issues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedFace:
    """A detection with its quality and, where one was asked for, its embedding: (d,) float32 of unit length."""

    detection: Detection
    quality: FaceQuality
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody enrolled in a gallery."""

    gallery: str
    person_id: str
    name: str | None
    metadata: Mapping[str, Any]
    created_at: datetime
    face_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class NewFace:
    """A face about to be stored.

    Attributes:
        embedding: (d,) float32 of unit length.
        quality: None where the embedding came without a picture.
        crop_digest: hash of the aligned crop, under which its embedding may be cached; empty when there was no crop.
    """

    face_id: str
    embedding: NDArray[np.float32]
    quality: FaceQuality | None
    crop_digest: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PersonRecord:
    """Somebody with everything that a gallery holds of them: what an export writes and an import reads.

    Attributes:
        created_at: None for somebody who is new.
    """

    person_id: str
    name: str | None
    metadata: Mapping[str, Any]
    faces: tuple[NewFace, ...]
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """An enrolled person who resembles the probe: cosine similarity of the nearest face, in [-1, 1]."""

    person_id: str
    face_id: str
    similarity: float
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What became of one record of an import.

    Attributes:
        added: faces stored.
        present: faces that the person had already.
        error: why nothing of the record was stored; None when it was.
    """

    added: int = 0
    present: int = 0
    error: DomainError | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """What a deletion took away.

    Attributes:
        crop_digests: of the faces that went, so that caches can forget them too.
        revision: of the data folder after the deletion.
    """

    persons: int
    faces: int
    index_entries: int
    revision: int
    crop_digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """An open-set answer: the person, or nobody.

    Attributes:
        threshold: least cosine that was accepted.
        fpir: chance that a stranger would be identified at this threshold and gallery size.
    """

    identified: bool
    person_id: str | None
    threshold: float
    fpir: float


@dataclass(frozen=True, slots=True)
class IdentifiedFace:
    """A face of the probe picture with its candidates, best first, and the decision on it."""

    face: AnalysedFace
    matches: tuple[Match, ...]
    decision: Decision


class DomainError(Exception):
    """Something the caller can be told about.

    `code` is stable and becomes the problem type; `details` are safe to show and hold nothing biometric.
    """

    code: ClassVar[str] = "internal-error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequest(DomainError):
    """A value that is well-formed but not acceptable."""

    code = "invalid-request"


class ImageError(DomainError):
    """A picture that cannot be used."""

    code = "image-invalid"


class EmptyImage(ImageError):
    """No bytes."""

    code = "image-empty"


class ImageFormatUnsupported(ImageError):
    """The content is none of the accepted formats."""

    code = "image-format-unsupported"


class ImageDamaged(ImageError):
    """The format is known but the data is truncated or corrupt."""

    code = "image-damaged"


class ImageTooManyBytes(ImageError):
    """The file is over the byte limit."""

    code = "image-too-many-bytes"


class ImageTooManyPixels(ImageError):
    """The header announces more pixels than are allowed; nothing was decoded."""

    code = "image-too-many-pixels"


class ImageTooSmall(ImageError):
    """A side is too short to hold a face."""

    code = "image-too-small"


class ImageAnimated(ImageError):
    """More than one frame."""

    code = "image-animated"


class Base64Invalid(ImageError):
    """The text is not base64."""

    code = "base64-invalid"


class NoFaceFound(DomainError):
    """The picture shows no face."""

    code = "no-face"


class SeveralFacesFound(DomainError):
    """Exactly one face was needed and several are there."""

    code = "several-faces"


class QualityTooLow(DomainError):
    """The face falls short of the enrolment gate."""

    code = "quality-too-low"


class GalleryNotFound(DomainError):
    """No gallery of this name."""

    code = "gallery-not-found"


class PersonNotFound(DomainError):
    """No person of this id in the gallery."""

    code = "person-not-found"


class PersonExists(DomainError):
    """The person id is taken."""

    code = "person-exists"


class InvalidEmbedding(DomainError):
    """A vector of the wrong length, not finite, or zero."""

    code = "embedding-invalid"


class Overloaded(DomainError):
    """A bounded queue is full or its deadline has passed; the same request may succeed later."""

    code = "overloaded"


class NotReady(DomainError):
    """The service is starting or draining."""

    code = "not-ready"


class StorageFull(DomainError):
    """The disk took no more; nothing of the request was stored."""

    code = "storage-full"


class StorageUnusable(DomainError):
    """The data folder is damaged, cannot be read or written, or was written by a newer release."""

    code = "storage-unusable"


class GalleryUnavailable(DomainError):
    """The engine that keeps the gallery does not answer; whether a change happened is open."""

    code = "gallery-unavailable"


class SpaceMismatch(DomainError):
    """The data folder holds embeddings of another model."""

    code = "space-mismatch"


class FolderInUse(DomainError):
    """Another process owns the data folder."""

    code = "folder-in-use"


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """What every answer says of the model behind it."""

    embedder: str
    detector: str
    space_id: str
    dimension: int
    details: Mapping[str, Any] = field(default_factory=dict)


def check_gallery_name(name: str) -> str:
    """The name itself, if it may name a gallery.

    Raises:
        InvalidRequest: it is empty, over 64 characters, or holds anything but letters, digits, dot, dash, underscore.
    """
    if not GALLERY_NAME.fullmatch(name):
        raise InvalidRequest(
            "a gallery name is 1 to 64 letters, digits, dots, dashes or underscores, and starts with a letter or digit",
            field="gallery",
        )
    return name


def check_person_id(person_id: str) -> str:
    """The id itself, if it may name a person.

    Raises:
        InvalidRequest: it is empty, over 128 characters, or holds a character that a URL path would need to escape.
    """
    if not PERSON_ID.fullmatch(person_id):
        raise InvalidRequest(
            "a person id is 1 to 128 letters, digits, dots, dashes, underscores, colons or @, "
            "and starts with a letter or digit",
            field="person_id",
        )
    return person_id
