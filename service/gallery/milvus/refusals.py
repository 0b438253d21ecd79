"""What is said to callers who ask for what is not there, or want what cannot be."""

from __future__ import annotations

from service.domain import (
    FaceNotFound,
    GalleryNotFound,
    GallerySettings,
    InvalidRequest,
    PersonNotFound,
    RevisionMismatch,
)


def no_gallery(gallery: str) -> GalleryNotFound:
    """There is no such gallery."""
    return GalleryNotFound("there is no gallery of this name", gallery=gallery)


def no_person(gallery: str, person_id: str) -> PersonNotFound:
    """There is no such person."""
    return PersonNotFound("there is no person of this id in the gallery", gallery=gallery, person_id=person_id)


def no_face(gallery: str, person_id: str) -> FaceNotFound:
    """There is no such face."""
    return FaceNotFound("the person has no face of this id", gallery=gallery, person_id=person_id)


def check_revision(revision: int, expected: int | None) -> None:
    """Raises RevisionMismatch when the caller has seen another one."""
    if expected not in (None, revision):
        raise RevisionMismatch("it has been changed since it was read", revision=revision)


def check_settings(settings: GallerySettings) -> None:
    """Raises InvalidRequest for what a gallery in Milvus cannot do."""
    if settings.keep_crops:
        raise InvalidRequest("a gallery in Milvus cannot keep crops", field="keep_crops")
