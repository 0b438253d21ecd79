"""Faces in pictures: where they are, how good they are, who they might be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.attributes import AttributeReading


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

    def magnified(self, across: float, down: float) -> Detection:
        """The same face where the picture has so many times the columns and rows.

        Pixel centres are at whole numbers, so that a pixel's middle stays the middle of what it becomes.
        """
        step = np.array([across, down], dtype=np.float32)
        shift = (step - 1) / 2
        box = self.box
        return Detection(
            box=Box(
                box.x * across + float(shift[0]), box.y * down + float(shift[1]), box.width * across, box.height * down
            ),
            landmarks=np.asarray(self.landmarks * step + shift, dtype=np.float32),
            score=self.score,
        )


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
        yaw_deg: turn of the head, degrees, positive towards image-right; None for faces that an older version enrolled.
        pitch_deg: nod of the head, degrees, positive upwards; None likewise.
    """

    side_px: float
    detection_score: float
    sharpness: float
    yaw: float
    roll_deg: float
    issues: tuple[str, ...] = ()
    yaw_deg: float | None = None
    pitch_deg: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedFace:
    """A detection with its quality and, where they were asked for, embedding and attributes.

    Attributes:
        embedding: (d,) float32 of unit length.
        attributes: by name, those that were asked for.
    """

    detection: Detection
    quality: FaceQuality
    embedding: NDArray[np.float32] | None = None
    attributes: Mapping[str, AttributeReading] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """An enrolled person who resembles the probe: cosine similarity of the nearest face, in [-1, 1]."""

    person_id: str
    face_id: str
    similarity: float
    name: str | None = None


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


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """What every answer says of the model behind it.

    Attributes:
        attributes: the networks that tell each attribute, by its name.
    """

    embedder: str
    detector: str
    space_id: str
    dimension: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
