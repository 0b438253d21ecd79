"""What goes over the wire: request fields and answers. Field names are the API's promise."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.domain import AnalysedFace, Match, Person, ServiceIdentity
from service.identification import Enrolment, Identification, IdentificationService, PictureFaces, Verification
from service.ports import GallerySummary

_MAX_METADATA_BYTES = 16_384


def _metadata(value: Any) -> Any:
    """Multipart carries metadata as JSON text; either way it must be an object of bounded size."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise ValueError("metadata is not valid JSON") from None
    if isinstance(value, dict) and len(orjson.dumps(value)) > _MAX_METADATA_BYTES:
        raise ValueError(f"metadata may take at most {_MAX_METADATA_BYTES} bytes as JSON")
    return value


Metadata = Annotated[dict[str, Any], BeforeValidator(_metadata)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EnrolFields(_Fields):
    """Fields of an enrolment beside its pictures."""

    person_id: str | None = Field(default=None, description="Yours, or left out for a fresh one.", examples=["ada"])
    name: str | None = Field(default=None, max_length=200, examples=["Ada Lovelace"])
    metadata: Metadata = Field(default_factory=dict, description="Any JSON object; as text in multipart.")
    gallery: str | None = Field(default=None, description="Created by its first enrolment.")
    on_existing: Literal["reject", "extend"] = Field(
        default="reject", description="What to do when the person exists: refuse with 409, or add the faces."
    )


class IdentifyFields(_Fields):
    """Fields of an identification beside its picture."""

    gallery: str | None = None
    top_k: int = Field(default=5, ge=1, le=100, description="Candidates listed for each face.")
    fpir: float | None = Field(default=None, gt=0, lt=1, description="Target false-positive identification rate.")
    threshold: float | None = Field(default=None, ge=-1, le=1, description="A cosine to decide by instead of an FPIR.")
    max_faces: int | None = Field(default=None, ge=1, description="Answer for the largest so many faces only.")
    exact: bool = Field(default=False, description="Compare with every face, however large the gallery.")


class VerifyFields(_Fields):
    """Fields of a verification beside its pictures."""

    person_id: str | None = Field(default=None, description="Compare with this person, instead of a second picture.")
    gallery: str | None = None
    fmr: float = Field(default=1e-3, gt=0, lt=1, description="Target false-match rate.")


class DetectFields(_Fields):
    """Fields of a detection beside its picture."""

    max_faces: int | None = Field(default=None, ge=1)


class BoxOut(BaseModel):
    """Pixels of the upright picture."""

    x: float
    y: float
    width: float
    height: float


class QualityOut(BaseModel):
    """How well the face can be compared; `issues` names what falls short of the enrolment gate."""

    side_px: float
    detection_score: float
    sharpness: float
    yaw: float
    roll_deg: float
    issues: list[str]


class FaceOut(BaseModel):
    """A face in a picture. Landmarks: image-left and image-right eye, nose, image-left and image-right mouth corner."""

    box: BoxOut
    landmarks: list[tuple[float, float]]
    detection_score: float
    quality: QualityOut

    @classmethod
    def of(cls, face: AnalysedFace) -> FaceOut:
        """From the domain."""
        return cls(**_face_members(face))


class EmbeddedFaceOut(FaceOut):
    """A face with its embedding: unit length, comparable within one `space_id` only."""

    embedding: list[float]


class EnrolledFaceOut(FaceOut):
    """A face that was stored."""

    face_id: str


class ModelOut(BaseModel):
    """The model behind an answer."""

    embedder: str
    detector: str
    space_id: str
    dimension: int

    @classmethod
    def of(cls, identity: ServiceIdentity) -> ModelOut:
        """From the domain."""
        return cls(
            embedder=identity.embedder,
            detector=identity.detector,
            space_id=identity.space_id,
            dimension=identity.dimension,
        )


class PersonOut(BaseModel):
    """Somebody enrolled."""

    gallery: str
    person_id: str
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    face_ids: list[str]

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
        )


class MatchOut(BaseModel):
    """A candidate: `similarity` is the raw cosine, `fpir` the chance that a stranger scores as high in this gallery."""

    person_id: str
    face_id: str
    name: str | None
    similarity: float
    fpir: float


class ConflictOut(BaseModel):
    """Somebody else in the gallery who looks like the person just enrolled."""

    person_id: str
    face_id: str
    name: str | None
    similarity: float


class DecisionOut(BaseModel):
    """Who it is, or nobody, at the threshold that was in force."""

    identified: bool
    person_id: str | None
    threshold: float
    fpir: float


class EnrolOut(BaseModel):
    """Answer to an enrolment; once it is sent, the enrolment is on disk."""

    person: PersonOut
    faces: list[EnrolledFaceOut]
    conflicts: list[ConflictOut]
    model: ModelOut
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, enrolment: Enrolment, identity: ServiceIdentity) -> EnrolOut:
        """From the use case."""
        return cls(
            person=PersonOut.of(enrolment.person),
            faces=[EnrolledFaceOut(face_id=face_id, **_face_members(face)) for face_id, face in enrolment.faces],
            conflicts=[ConflictOut(**_match_members(match)) for match in enrolment.conflicts],
            model=ModelOut.of(identity),
            timings_ms=_rounded(enrolment.timings_ms),
        )


class IdentifiedFaceOut(FaceOut):
    """A face of the probe with its candidates, best first, and the decision."""

    matches: list[MatchOut]
    decision: DecisionOut


class IdentifyOut(BaseModel):
    """Answer to an identification."""

    faces: list[IdentifiedFaceOut]
    faces_total: int
    width: int
    height: int
    gallery: str
    gallery_size: int
    threshold: float
    fpir: float
    model: ModelOut
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, found: Identification, service: IdentificationService, identity: ServiceIdentity) -> IdentifyOut:
        """From the use case."""
        faces = [
            IdentifiedFaceOut(
                **_face_members(item.face),
                matches=[
                    MatchOut(**_match_members(match), fpir=service.fpir_of(match.similarity, found.gallery_size))
                    for match in item.matches
                ],
                decision=DecisionOut(
                    identified=item.decision.identified,
                    person_id=item.decision.person_id,
                    threshold=item.decision.threshold,
                    fpir=item.decision.fpir,
                ),
            )
            for item in found.faces
        ]
        return cls(
            faces=faces,
            faces_total=found.faces_total,
            width=found.width,
            height=found.height,
            gallery=found.gallery,
            gallery_size=found.gallery_size,
            threshold=found.threshold,
            fpir=found.fpir,
            model=ModelOut.of(identity),
            timings_ms=_rounded(found.timings_ms),
        )


class VerifyOut(BaseModel):
    """Answer to a verification; `false_match_rate` is the chance that two different people score as high."""

    same: bool
    similarity: float
    threshold: float
    false_match_rate: float
    face: FaceOut
    reference: FaceOut | None
    face_id: str | None
    model: ModelOut

    @classmethod
    def of(cls, verification: Verification, identity: ServiceIdentity) -> VerifyOut:
        """From the use case."""
        return cls(
            same=verification.same,
            similarity=verification.similarity,
            threshold=verification.threshold,
            false_match_rate=verification.false_match_rate,
            face=FaceOut.of(verification.probe),
            reference=FaceOut.of(verification.reference) if verification.reference is not None else None,
            face_id=verification.face_id,
            model=ModelOut.of(identity),
        )


class DetectOut(BaseModel):
    """Faces of a picture, largest first."""

    faces: list[FaceOut]
    faces_total: int
    width: int
    height: int
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, found: PictureFaces) -> DetectOut:
        """From the use case."""
        return cls(faces=[FaceOut.of(face) for face in found.faces], **_picture_members(found))


class EmbeddingsOut(BaseModel):
    """Faces of a picture with their embeddings, largest first."""

    faces: list[EmbeddedFaceOut]
    faces_total: int
    width: int
    height: int
    model: ModelOut
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, found: PictureFaces, identity: ServiceIdentity) -> EmbeddingsOut:
        """From the use case."""
        faces = [
            EmbeddedFaceOut(embedding=face.embedding.tolist(), **_face_members(face))
            for face in found.faces
            if face.embedding is not None
        ]
        return cls(faces=faces, model=ModelOut.of(identity), **_picture_members(found))


class GalleryOut(BaseModel):
    """A gallery at a glance; `revision` grows with every change."""

    name: str
    persons: int
    faces: int
    revision: int

    @classmethod
    def of(cls, summary: GallerySummary) -> GalleryOut:
        """From the port."""
        return cls(name=summary.name, persons=summary.persons, faces=summary.faces, revision=summary.revision)


class GalleriesOut(BaseModel):
    """All galleries, by name."""

    galleries: list[GalleryOut]


class PersonsOut(BaseModel):
    """One page of persons, by id; `next_cursor` is null on the last."""

    persons: list[PersonOut]
    next_cursor: str | None


class ErasureOut(BaseModel):
    """What a deletion took away."""

    gallery: str
    person_id: str
    persons: int
    faces: int
    index_entries: int
    cache_entries: int
    revision: int


class HealthOut(BaseModel):
    """State of the process."""

    status: Literal["ok"]
    version: str
    model: ModelOut | None = None


def _face_members(face: AnalysedFace) -> dict[str, Any]:
    box, quality = face.detection.box, face.quality
    return {
        "box": BoxOut(x=round(box.x, 1), y=round(box.y, 1), width=round(box.width, 1), height=round(box.height, 1)),
        "landmarks": [(round(float(x), 1), round(float(y), 1)) for x, y in face.detection.landmarks],
        "detection_score": round(face.detection.score, 4),
        "quality": QualityOut(
            side_px=quality.side_px,
            detection_score=quality.detection_score,
            sharpness=quality.sharpness,
            yaw=quality.yaw,
            roll_deg=quality.roll_deg,
            issues=list(quality.issues),
        ),
    }


def _match_members(match: Match) -> dict[str, Any]:
    return {
        "person_id": match.person_id,
        "face_id": match.face_id,
        "name": match.name,
        "similarity": match.similarity,
    }


def _picture_members(found: PictureFaces) -> dict[str, Any]:
    return {
        "faces_total": found.faces_total,
        "width": found.width,
        "height": found.height,
        "timings_ms": _rounded(found.timings_ms),
    }


def _rounded(timings: Any) -> dict[str, float]:
    return {stage: round(value, 2) for stage, value in timings.items()}
