"""Answers as CompreFace gives them; members that were not asked for are left out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.compreface.options import ATTRIBUTE_PLUGINS, FaceOptions
from service.domain import (
    AnalysedFace,
    AttributeReading,
    Box,
    ClassReading,
    ScoreReading,
    ServiceIdentity,
    ValueReading,
    age_range,
)
from service.identification import Identification, PictureFaces


class CompreFaceBox(BaseModel):
    """Where a face is, in pixels of the upright picture, and how sure the detector is of it."""

    probability: float
    x_max: int
    y_max: int
    x_min: int
    y_min: int


class CompreFacePose(BaseModel):
    """How a head is held, in degrees: positive are up, clockwise and towards image-right."""

    pitch: float | None
    roll: float
    yaw: float | None


class CompreFaceMask(BaseModel):
    """Whether a mask is worn, and how likely that is; nothing is said of masks that are worn wrongly."""

    value: Literal["with_mask", "without_mask"]
    probability: float


class CompreFaceAge(BaseModel):
    """Between which ages somebody is taken to be; how likely that is, null where a network tells an age alone."""

    probability: float | None
    high: int
    low: int


class CompreFaceGender(BaseModel):
    """Which gender a face is taken for, by the labels of the network, and how likely that is."""

    probability: float
    value: str


class CompreFaceFace(BaseModel):
    """A face of a picture, with what the plugins that were asked for say of it."""

    box: CompreFaceBox
    landmarks: list[tuple[int, int]] | None = Field(
        default=None, description="Eyes, tip of the nose, corners of the mouth; image-left ones first."
    )
    embedding: list[float] | None = None
    pose: CompreFacePose | None = None
    mask: CompreFaceMask | None = None
    age: CompreFaceAge | None = None
    gender: CompreFaceGender | None = None
    execution_time: dict[str, float] | None = Field(default=None, description="Milliseconds, of the whole picture.")


class CompreFaceSubjectMatch(BaseModel):
    """A subject who resembles a face."""

    subject: str
    similarity: float


class CompreFaceRecognisedFace(CompreFaceFace):
    """A face with the subjects who resemble it most, best first."""

    subjects: list[CompreFaceSubjectMatch]


class CompreFaceVerifiedFace(CompreFaceFace):
    """A face and its similarity to the one that it was compared with, and whose that is where it is enrolled."""

    similarity: float
    subject: str | None = None


class CompreFaceDetection(BaseModel):
    """Faces of a picture, largest first."""

    result: list[CompreFaceFace]
    plugins_versions: dict[str, str] | None = None


class CompreFaceRecognition(BaseModel):
    """Faces of a picture, largest first, with subjects."""

    result: list[CompreFaceRecognisedFace]
    plugins_versions: dict[str, str] | None = None


class CompreFaceImageVerification(BaseModel):
    """Faces of a picture, each compared with an enrolled face."""

    result: list[CompreFaceVerifiedFace]
    plugins_versions: dict[str, str] | None = None


class CompreFaceMatches(BaseModel):
    """The face of the source picture, and those of the target picture compared with it."""

    source_image_face: CompreFaceFace
    face_matches: list[CompreFaceVerifiedFace]
    plugins_versions: dict[str, str] | None = None


class CompreFaceVerification(BaseModel):
    """One comparison of two pictures."""

    result: list[CompreFaceMatches]


class CompreFaceExample(BaseModel):
    """An enrolled face and whose it is."""

    image_id: str
    subject: str


class CompreFaceExamples(BaseModel):
    """A page of enrolled faces."""

    faces: list[CompreFaceExample]
    page_number: int
    page_size: int
    total_pages: int
    total_elements: int


class CompreFaceSubject(BaseModel):
    """A subject; also the body that names one."""

    model_config = ConfigDict(extra="ignore")

    subject: str = Field(examples=["Ada Lovelace"])


class CompreFaceSubjects(BaseModel):
    """All subjects."""

    subjects: list[str]


class CompreFaceUpdate(BaseModel):
    """Whether anything was changed."""

    updated: bool


class CompreFaceDeletion(BaseModel):
    """How many went."""

    deleted: int


def face_members(face: AnalysedFace, found: PictureFaces | Identification, options: FaceOptions) -> dict[str, Any]:
    """Members of a `CompreFaceFace`."""
    members: dict[str, Any] = {"box": _box(face, found.width, found.height)}
    if "landmarks" in options.plugins:
        members["landmarks"] = [(round(float(x)), round(float(y))) for x, y in face.detection.landmarks]
    if "pose" in options.plugins:
        quality = face.quality
        members["pose"] = CompreFacePose(pitch=quality.pitch_deg, roll=quality.roll_deg, yaw=quality.yaw_deg)
    members |= {name: plugin for name, reading in face.attributes.items() if (plugin := _plugin(name, reading))}
    if "calculator" in options.plugins and face.embedding is not None:
        members["embedding"] = face.embedding.tolist()
    if options.status:
        stages = {"detector": "detect", "calculator": "embed", **{name: name for name in ATTRIBUTE_PLUGINS}}
        members["execution_time"] = {
            plugin: round(found.timings_ms[stage], 1) for plugin, stage in stages.items() if stage in found.timings_ms
        }
    return members


def status_members(identity: ServiceIdentity, options: FaceOptions) -> dict[str, Any]:
    """`plugins_versions`, where the status was asked for."""
    if not options.status:
        return {}
    networks = {name: networks for name, networks in identity.attributes.items() if name in ATTRIBUTE_PLUGINS}
    versions = {"detector": identity.detector, "calculator": identity.embedder, **networks}
    return {"plugins_versions": versions}


def _plugin(name: str, reading: AttributeReading) -> BaseModel | None:
    """What CompreFace's plugin of this name says; None where it has none."""
    if name == "mask" and isinstance(reading, ScoreReading):
        probability = reading.probability if reading.value else 1 - reading.probability
        return CompreFaceMask(value="with_mask" if reading.value else "without_mask", probability=round(probability, 5))
    if name == "gender" and isinstance(reading, ClassReading):
        return CompreFaceGender(probability=round(reading.probability, 5), value=reading.value)
    if name == "age" and isinstance(reading, ValueReading):
        age = max(0, round(reading.value))
        return CompreFaceAge(probability=None, high=age, low=age)
    if name == "age" and isinstance(reading, ClassReading) and (ages := age_range(reading.value)) is not None:
        return CompreFaceAge(probability=round(reading.probability, 5), high=ages[1], low=ages[0])
    return None


def _box(face: AnalysedFace, width: int, height: int) -> CompreFaceBox:
    box: Box = face.detection.box
    return CompreFaceBox(
        probability=round(face.detection.score, 5),
        x_min=_within(box.x, width),
        y_min=_within(box.y, height),
        x_max=_within(box.x + box.width, width),
        y_max=_within(box.y + box.height, height),
    )


def _within(position: float, length: int) -> int:
    return min(max(round(position), 0), length)
