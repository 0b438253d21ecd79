"""Answers about galleries and who is in them."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from service.domain import Face, FaceQuality, GallerySettings, Person
from service.identification import Dossier, Receipt
from service.ports import GallerySummary, JournalEntry


class QualityOut(BaseModel):
    """How well the face can be compared; `issues` names what falls short of the enrolment gate.

    `yaw_deg` and `pitch_deg` are null for faces that an older version enrolled.
    """

    side_px: float
    detection_score: float
    sharpness: float
    yaw: float = Field(description="Offset of the nose in eye distances; 0 is frontal, beyond +-0.5 profile.")
    yaw_deg: float | None = Field(description="Turn of the head, positive towards image-right.")
    pitch_deg: float | None = Field(description="Nod of the head, positive upwards.")
    roll_deg: float = Field(description="Tilt of the head, positive clockwise.")
    issues: list[str]

    @classmethod
    def of(cls, quality: FaceQuality) -> QualityOut:
        """From the domain."""
        return cls(
            side_px=quality.side_px,
            detection_score=quality.detection_score,
            sharpness=quality.sharpness,
            yaw=quality.yaw,
            yaw_deg=quality.yaw_deg,
            pitch_deg=quality.pitch_deg,
            roll_deg=quality.roll_deg,
            issues=list(quality.issues),
        )


class PersonOut(BaseModel):
    """Somebody enrolled. Their `ETag` follows from `revision`."""

    gallery: str
    person_id: str
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    face_ids: list[str]
    revision: int

    @classmethod
    def of(cls, person: Person) -> PersonOut:
        """From the domain."""
        return cls(
            gallery=person.gallery,
            person_id=person.person_id,
            name=person.name,
            metadata=dict(person.metadata),
            created_at=person.created_at,
            face_ids=list(person.face_ids),
            revision=person.revision,
        )


class PersonsOut(BaseModel):
    """One page of persons, by id; `next_cursor` is null on the last. A filtered page may be short, or even empty."""

    persons: list[PersonOut]
    next_cursor: str | None


class StoredFaceOut(BaseModel):
    """An enrolled face; `quality` is null where the embedding came without a picture."""

    face_id: str
    quality: QualityOut | None
    created_at: datetime
    expires_at: datetime | None
    crop_kept: bool

    @classmethod
    def of(cls, face: Face) -> StoredFaceOut:
        """From the domain."""
        return cls(
            face_id=face.face_id,
            quality=QualityOut.of(face.quality) if face.quality is not None else None,
            created_at=face.created_at,
            expires_at=face.expires_at,
            crop_kept=face.crop_kept,
        )


class StoredFacesOut(BaseModel):
    """A person's faces, in the order of enrolment."""

    faces: list[StoredFaceOut]


class SettingsOut(BaseModel):
    """How a gallery differs from the service's defaults; null follows the default."""

    target_fpir: float | None
    quality_gate: str | None
    keep_crops: bool

    @classmethod
    def of(cls, settings: GallerySettings) -> SettingsOut:
        """From the domain."""
        return cls(target_fpir=settings.target_fpir, quality_gate=settings.quality_gate, keep_crops=settings.keep_crops)


class GalleryOut(BaseModel):
    """A gallery at a glance; `revision` grows with every change, and the `ETag` follows from it."""

    name: str
    persons: int
    faces: int
    revision: int
    space_id: str = Field(description="Of the embeddings in it.")
    settings: SettingsOut

    @classmethod
    def of(cls, summary: GallerySummary, space_id: str) -> GalleryOut:
        """From the port."""
        return cls(
            name=summary.name,
            persons=summary.persons,
            faces=summary.faces,
            revision=summary.revision,
            space_id=space_id,
            settings=SettingsOut.of(summary.settings),
        )


class GalleriesOut(BaseModel):
    """All galleries that the caller may see, by name."""

    galleries: list[GalleryOut]


class ReceiptOut(BaseModel):
    """What a deletion took away, and from where. When it is sent, nothing of it is left on disk.

    `cache_entries` is null when the embedding cache did not answer; it lets go of the entries as soon as it does.
    """

    gallery: str
    person_id: str | None
    face_id: str | None = None
    persons: int
    faces: int
    index_entries: int
    crops: int
    cache_entries: int | None
    kept_answers: int = Field(description="To requests with an Idempotency-Key.")
    revision: int
    erased_at: datetime

    @classmethod
    def of(cls, receipt: Receipt, gallery: str, person_id: str | None = None, face_id: str | None = None) -> ReceiptOut:
        """From the use case."""
        removal = receipt.removal
        return cls(
            gallery=gallery,
            person_id=person_id,
            face_id=face_id,
            persons=removal.persons,
            faces=removal.faces,
            index_entries=removal.index_entries,
            crops=removal.crops,
            cache_entries=receipt.cache_entries,
            kept_answers=receipt.answers,
            revision=removal.revision,
            erased_at=receipt.erased_at,
        )


class JournalEntryOut(BaseModel):
    """Who changed what, and when."""

    entry: int
    at: datetime
    actor: str
    action: str
    gallery: str
    person_id: str | None
    counts: dict[str, int]

    @classmethod
    def of(cls, number: int, entry: JournalEntry) -> JournalEntryOut:
        """From the port."""
        return cls(
            entry=number,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            gallery=entry.gallery,
            person_id=entry.person_id,
            counts=dict(entry.counts),
        )


class JournalOut(BaseModel):
    """One page of the journal, newest first."""

    entries: list[JournalEntryOut]
    next_cursor: str | None


class DossierFaceOut(BaseModel):
    """A face with all that is stored of it: `embedding` is base64 of little-endian float32, `crop` of a PNG file."""

    face_id: str
    embedding: str
    quality: QualityOut | None
    expires_at: datetime | None
    crop: str | None


class DossierOut(BaseModel):
    """All that is stored of a person."""

    person: PersonOut
    space_id: str
    faces: list[DossierFaceOut]
    journal: list[JournalEntryOut]

    @classmethod
    def of(cls, dossier: Dossier, space_id: str) -> DossierOut:
        """From the use case."""
        faces = [
            DossierFaceOut(
                face_id=face.face_id,
                embedding=_base64(face.embedding.astype("<f4").tobytes()),
                quality=QualityOut.of(face.quality) if face.quality is not None else None,
                expires_at=face.expires_at,
                crop=_base64(face.crop) if face.crop is not None else None,
            )
            for face in dossier.record.faces
        ]
        return cls(
            person=PersonOut.of(dossier.person),
            space_id=space_id,
            faces=faces,
            journal=[JournalEntryOut.of(number, entry) for number, entry in dossier.entries],
        )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
