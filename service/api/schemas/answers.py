"""Answers about pictures and the faces in them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.api.schemas.attributes import AttributeOut, attribute_out
from service.api.schemas.people import PersonOut, QualityOut
from service.domain import AnalysedFace, Match, ScoreReading, ServiceIdentity
from service.identification import Enrolment, Identification, IdentificationService, PictureFaces, Verification


class BoxOut(BaseModel):
    """Pixels of the upright picture."""

    x: float
    y: float
    width: float
    height: float


class MaskOut(BaseModel):
    """Whether a face wears a mask, and how likely it does."""

    worn: bool
    probability: float


class FaceOut(BaseModel):
    """A face in a picture. Landmarks: image-left and image-right eye, nose, image-left and image-right mouth corner."""

    box: BoxOut
    landmarks: list[tuple[float, float]]
    detection_score: float
    quality: QualityOut
    mask: MaskOut | None = Field(default=None, description="Null unless `attributes` asks for it.")
    attributes: dict[str, AttributeOut] = Field(
        default_factory=dict, description="By name what `attributes` asks for, `mask` too."
    )

    @classmethod
    def of(cls, face: AnalysedFace) -> FaceOut:
        """From the domain."""
        return cls(**_face_members(face))


class EmbeddedFaceOut(FaceOut):
    """A face with its embedding: unit length, comparable within one `space_id` only."""

    embedding: list[float]


class EnrolledFaceOut(FaceOut):
    """The enrolled face of one picture; `already` says that the same picture had been enrolled before."""

    face_id: str
    already: bool


class ModelOut(BaseModel):
    """The model behind an answer."""

    embedder: str
    detector: str
    space_id: str
    dimension: int
    attributes: dict[str, str] = Field(
        default_factory=dict, description="Names of the networks that tell each attribute of a face."
    )

    @classmethod
    def of(cls, identity: ServiceIdentity) -> ModelOut:
        """From the domain."""
        return cls(
            embedder=identity.embedder,
            detector=identity.detector,
            space_id=identity.space_id,
            dimension=identity.dimension,
            attributes=dict(identity.attributes),
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
            faces=[
                EnrolledFaceOut(face_id=each.face_id, already=each.already, **_face_members(each.face))
                for each in enrolment.faces
            ],
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
    timings_ms: dict[str, float]

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
            timings_ms=_rounded(verification.timings_ms),
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


class HealthOut(BaseModel):
    """State of the process."""

    status: Literal["ok"]
    version: str
    model: ModelOut | None = None


def _face_members(face: AnalysedFace) -> dict[str, Any]:
    box, mask = face.detection.box, face.attributes.get("mask")
    return {
        "box": BoxOut(x=round(box.x, 1), y=round(box.y, 1), width=round(box.width, 1), height=round(box.height, 1)),
        "landmarks": [(round(float(x), 1), round(float(y), 1)) for x, y in face.detection.landmarks],
        "detection_score": round(face.detection.score, 4),
        "quality": QualityOut.of(face.quality),
        "mask": MaskOut(worn=mask.value, probability=round(mask.probability, 4))
        if isinstance(mask, ScoreReading)
        else None,
        "attributes": {name: attribute_out(reading) for name, reading in face.attributes.items()},
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


class BatchItemOut(BaseModel):
    """What became of one item of a batch: `status` as the call for it alone would have had, and its answer or problem.

    `result` or `problem` is null.
    """

    index: int
    status: int
    problem: dict[str, Any] | None = None


class BatchIdentifyItemOut(BatchItemOut):
    """One picture of a batch."""

    result: IdentifyOut | None = None


class BatchIdentifyOut(BaseModel):
    """Outcomes in the order of the pictures."""

    items: list[BatchIdentifyItemOut]


class BatchEnrolItemOut(BatchItemOut):
    """One person of a batch."""

    result: EnrolOut | None = None


class BatchEnrolOut(BaseModel):
    """Outcomes in the order of the items."""

    items: list[BatchEnrolItemOut]
