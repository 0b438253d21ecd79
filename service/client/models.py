"""What the service answers, as frozen pydantic models. Members that a newer service adds are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from service.client.errors import ProblemError


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Box(Answer):
    """Pixels of the upright picture."""

    x: float
    y: float
    width: float
    height: float


class Quality(Answer):
    """How well a face can be compared; `issues` names what falls short of the enrolment gate.

    Angles are in degrees; yaw and pitch are None for faces that an older version enrolled.
    """

    side_px: float
    detection_score: float
    sharpness: float
    yaw: float
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float
    issues: tuple[str, ...]


class Mask(Answer):
    """Whether a face wears a mask, and how likely it does."""

    worn: bool
    probability: float


class Attribute(Answer):
    """What a network says of a face.

    `kind` is `classes`: `value` is the likeliest label, with its `probability` and those of all; `value`: a number of
    `unit`; or `score`: whether something is so, which is when `probability` reaches `threshold`.
    """

    kind: str
    value: bool | float | str
    probability: float | None = None
    probabilities: Mapping[str, float] | None = None
    threshold: float | None = None
    unit: str | None = None


class Face(Answer):
    """A face in a picture. Landmarks: image-left and image-right eye, nose, image-left and image-right mouth corner.

    `attributes` has what the call's `attributes` asked for, by name; `mask` is None unless it did.
    """

    box: Box
    landmarks: tuple[tuple[float, float], ...]
    detection_score: float
    quality: Quality
    mask: Mask | None = None
    attributes: Mapping[str, Attribute] = {}


class EmbeddedFace(Face):
    """A face with its embedding: unit length, comparable within one `space_id` only."""

    embedding: tuple[float, ...]


class EnrolledFace(Face):
    """The enrolled face of one picture; `already` says that the same picture had been enrolled before."""

    face_id: str
    already: bool


class Model(Answer):
    """The model behind an answer; `attributes` names the networks that tell each attribute of a face."""

    embedder: str
    detector: str
    space_id: str
    dimension: int
    attributes: Mapping[str, str] = {}


class Conflict(Answer):
    """Somebody else in the gallery who looks like the person just enrolled. `similarity` is the raw cosine."""

    person_id: str
    face_id: str
    name: str | None
    similarity: float


class Match(Answer):
    """A candidate: `similarity` is the raw cosine, `fpir` the chance that a stranger scores as high in this gallery."""

    person_id: str
    face_id: str
    name: str | None
    similarity: float
    fpir: float


class Decision(Answer):
    """Who it is, or nobody, at the threshold that was in force."""

    identified: bool
    person_id: str | None
    threshold: float
    fpir: float


class Person(Answer):
    """Somebody enrolled. `revision` is what `if_match` takes."""

    gallery: str
    person_id: str
    name: str | None
    metadata: Mapping[str, Any]
    created_at: datetime
    face_ids: tuple[str, ...]
    revision: int


class Enrolment(Answer):
    """A person and the faces of the pictures that were sent, all on the service's disk."""

    person: Person
    faces: tuple[EnrolledFace, ...]
    conflicts: tuple[Conflict, ...]
    model: Model
    timings_ms: Mapping[str, float]


class IdentifiedFace(Face):
    """A face of the probe with its candidates, best first, and the decision."""

    matches: tuple[Match, ...]
    decision: Decision


class Identification(Answer):
    """Every face of a probe; `faces_total` counts those that were left out too."""

    faces: tuple[IdentifiedFace, ...]
    faces_total: int
    width: int
    height: int
    gallery: str
    gallery_size: int
    threshold: float
    fpir: float
    model: Model
    timings_ms: Mapping[str, float]


class Verification(Answer):
    """Whether two faces are of one person; `false_match_rate` is the chance that two different people score as high."""

    same: bool
    similarity: float
    threshold: float
    false_match_rate: float
    face: Face
    reference: Face | None
    face_id: str | None
    model: Model
    timings_ms: Mapping[str, float] = {}


class DetectedFaces(Answer):
    """Faces of a picture, largest first."""

    faces: tuple[Face, ...]
    faces_total: int
    width: int
    height: int
    timings_ms: Mapping[str, float]


class EmbeddedFaces(Answer):
    """Faces of a picture with their embeddings, largest first."""

    faces: tuple[EmbeddedFace, ...]
    faces_total: int
    width: int
    height: int
    model: Model
    timings_ms: Mapping[str, float]


class BatchItem(Answer):
    """What became of one item of many: `status` is what the call for it alone would have been answered with."""

    index: int
    status: int
    problem: Mapping[str, Any] | None

    @property
    def error(self) -> ProblemError | None:
        """The problem, as the call for the item alone would have raised it."""
        return None if self.problem is None else ProblemError(self.problem)


class IdentifyItem(BatchItem):
    """One picture of many; `result` is None where there is a problem."""

    result: Identification | None


class EnrolItem(BatchItem):
    """One person of many; `result` is None where there is a problem."""

    result: Enrolment | None


class StoredFace(Answer):
    """An enrolled face; `quality` is None where the embedding came without a picture."""

    face_id: str
    quality: Quality | None
    created_at: datetime
    expires_at: datetime | None
    crop_kept: bool


class GallerySettings(Answer):
    """How a gallery differs from the service's defaults; None follows the default."""

    target_fpir: float | None
    quality_gate: str | None
    keep_crops: bool


class Gallery(Answer):
    """A gallery at a glance. `revision` is what `if_match` takes."""

    name: str
    persons: int
    faces: int
    revision: int
    space_id: str
    settings: GallerySettings


class Receipt(Answer):
    """What a deletion took away, and from where.

    `cache_entries` is None when the embedding cache did not answer; `kept_answers` were to repeatable requests.
    """

    gallery: str
    person_id: str | None
    face_id: str | None
    persons: int
    faces: int
    index_entries: int
    crops: int
    cache_entries: int | None
    kept_answers: int
    revision: int
    erased_at: datetime


class JournalEntry(Answer):
    """Who changed what, and when."""

    entry: int
    at: datetime
    actor: str
    action: str
    gallery: str
    person_id: str | None
    counts: Mapping[str, int]


class DossierFace(Answer):
    """A face with all that is stored of it: `embedding` is base64 of little-endian float32, `crop` of a PNG file."""

    face_id: str
    embedding: str
    quality: Quality | None
    expires_at: datetime | None
    crop: str | None


class Dossier(Answer):
    """All that is stored of a person."""

    person: Person
    space_id: str
    faces: tuple[DossierFace, ...]
    journal: tuple[JournalEntry, ...]


class SkippedPicture(Answer):
    """A picture of an imported person that could not be used."""

    picture: str
    problem: str
    detail: str


class ImportOutcome(Answer):
    """What became of one line of an import: `status` is stored, present or failed."""

    item: str
    status: str
    person_id: str | None = None
    added: int = 0
    present: int = 0
    problem: str | None = None
    detail: str | None = None
    skipped: tuple[SkippedPicture, ...] = ()


class ImportSummary(Answer):
    """An import in figures: persons seen, of those failed, and faces stored and found there already."""

    persons: int
    failed: int
    added: int
    present: int
    pictures_skipped: int


class Health(Answer):
    """A service that is ready, and its model."""

    status: str
    version: str
    model: Model
