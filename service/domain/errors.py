"""What can go wrong, in words that the caller can be told. `code` becomes the problem type of an answer."""

from __future__ import annotations

from typing import Any, ClassVar


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


class AttributeUnavailable(DomainError):
    """An attribute was asked for that this service has no network for, or that its network cannot tell of this face."""

    code = "attribute-unavailable"


class GalleryNotFound(DomainError):
    """No gallery of this name."""

    code = "gallery-not-found"


class PersonNotFound(DomainError):
    """No person of this id in the gallery."""

    code = "person-not-found"


class PersonExists(DomainError):
    """The person id is taken."""

    code = "person-exists"


class PersonErased(DomainError):
    """The call was made before under this Idempotency-Key, and who it enrolled has been erased since."""

    code = "person-erased"


class FaceNotFound(DomainError):
    """The person has no face of this id."""

    code = "face-not-found"


class CropNotKept(DomainError):
    """The face's crop was not kept."""

    code = "crop-not-kept"


class GalleryExists(DomainError):
    """The gallery's name is taken."""

    code = "gallery-exists"


class RevisionMismatch(DomainError):
    """What was to be changed has changed since the caller read it."""

    code = "revision-mismatch"


class LooksLikeAnother(DomainError):
    """Somebody else in the gallery looks like the person to be enrolled, and the caller wants to hear of it first."""

    code = "looks-like-another"


class IdempotencyKeyReused(DomainError):
    """The Idempotency-Key came with another request before."""

    code = "idempotency-key-reused"


class IdempotencyInProgress(DomainError):
    """A request with this Idempotency-Key is being worked on."""

    code = "idempotency-in-progress"


class Unauthenticated(DomainError):
    """No API key, or not one that this service knows."""

    code = "unauthenticated"


class Forbidden(DomainError):
    """The API key does not allow this."""

    code = "forbidden"


class RateLimited(DomainError):
    """The API key has used up its requests for now."""

    code = "rate-limited"


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


class MigrationConflict(DomainError):
    """The change of model is not at a point where this can be done."""

    code = "migration-conflict"


class MigrationUnsupported(DomainError):
    """A gallery that cannot change its model while the service runs."""

    code = "migration-unsupported"
