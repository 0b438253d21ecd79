"""How well a face can be compared, read off the picture before any network sees it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from service.domain import Detection, FaceQuality
from service.vision.pose import head_pose


@dataclass(frozen=True, slots=True)
class QualityGate:
    """What a face must have to be enrolled. Probes are never refused; they carry the issues.

    Attributes:
        min_side_px: geometric mean of the box's sides.
        min_detection_score: the detector's confidence.
        min_sharpness: as in `FaceQuality`.
        max_yaw: as in `FaceQuality`, either side.
    """

    min_side_px: float = 24.0
    min_detection_score: float = 0.7
    min_sharpness: float = 3.0
    max_yaw: float = 0.9

    def issues(self, side_px: float, detection_score: float, sharpness: float, yaw: float) -> tuple[str, ...]:
        """Names of what falls short, in a fixed order."""
        checks = (
            ("face-too-small", side_px < self.min_side_px),
            ("face-uncertain", detection_score < self.min_detection_score),
            ("face-blurred", sharpness < self.min_sharpness),
            ("face-turned-away", abs(yaw) > self.max_yaw),
        )
        return tuple(name for name, fails in checks if fails)


# For galleries that want few faces but good ones: frontal, near and sharp.
STRICT = QualityGate(min_side_px=60.0, min_detection_score=0.8, min_sharpness=8.0, max_yaw=0.4)


def assess(detection: Detection, crop: NDArray[np.uint8], gate: QualityGate) -> FaceQuality:
    """Measure one face.

    Args:
        detection: box, landmarks and score.
        crop: (112, 112, 3) uint8, BGR: the face as the embedding network will see it.
        gate: decides which shortcomings are named.
    """
    side_px = float(np.sqrt(max(0.0, detection.box.width) * max(0.0, detection.box.height)))
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    # The middle only: black corners from outside the picture would count as edges.
    sharpness = float(cv2.Laplacian(grey[28:84, 28:84], cv2.CV_32F).std())
    yaw = nose_offset(detection.landmarks)
    pose = head_pose(detection.landmarks)
    return FaceQuality(
        side_px=round(side_px, 1),
        detection_score=round(detection.score, 4),
        sharpness=round(sharpness, 2),
        yaw=round(yaw, 3),
        roll_deg=round(pose.roll_deg, 1),
        issues=gate.issues(side_px, detection.score, sharpness, yaw),
        yaw_deg=round(pose.yaw_deg, 1),
        pitch_deg=round(pose.pitch_deg, 1),
    )


def nose_offset(landmarks: NDArray[np.float32]) -> float:
    """How far a face is turned, without a model of heads.

    Args:
        landmarks: (5, 2) float, pixels, in the contract's order.

    Returns:
        The nose's offset from the midline between eyes and mouth along the line of the eyes, as a fraction of the eye
        distance: 0 frontal, positive towards image-right.
    """
    points = landmarks.astype(np.float64)
    eyes = points[1] - points[0]
    distance = float(np.hypot(*eyes))
    if distance < 1e-6:
        return 0.0
    middle = (points[0] + points[1] + points[3] + points[4]) / 4
    return float(np.dot(points[2] - middle, eyes) / distance**2)
