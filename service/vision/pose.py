"""How a head is held, from the five landmarks of its face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Image-left eye, image-right eye, tip of the nose, image-left and image-right mouth corner of a head that looks
# straight ahead: right, down, towards the viewer, in eye distances. Measured by `python -m model_training head` on
# 17,274 faces of LFW outside its pairs, CelebA and photos of unmasked faces, as the bundled detector sees them; so zero
# pitch is how the median photographed head is held.
HEAD: NDArray[np.float64] = np.array(
    [[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.557, 0.406], [-0.421, 0.992, -0.035], [0.421, 0.992, -0.035]]
)
HEAD.setflags(write=False)

_TO_CAMERA: NDArray[np.float64] = np.linalg.pinv(HEAD - HEAD.mean(axis=0))
_LEAST_SCALE = 1e-6


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Angles of a head towards the camera, in degrees; all zero looks straight at it, upright.

    The head is turned by pitch first, then by yaw, then by roll, so that roll is the tilt of the line of the eyes.

    Attributes:
        yaw_deg: -90 to 90, positive when the nose points towards image-right.
        pitch_deg: -180 to 180, positive when it points up.
        roll_deg: -180 to 180, positive when the head is tilted clockwise in the picture.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def head_pose(landmarks: NDArray[np.float32]) -> HeadPose:
    """Pose of a head under scaled orthographic projection.

    The affine camera that maps `HEAD` onto the landmarks with least squares, and the rotation next to it: DeMenthon and
    Davis, "Model-based object pose in 25 lines of code" (1995), without its iterations for perspective, since the
    distance of the camera is not known here.

    Args:
        landmarks: (5, 2) float, pixels, in the contract's order.

    Returns:
        The angles; all zero for points that coincide or lie on a line, which show no head.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    camera = (_TO_CAMERA @ (points - points.mean(axis=0))).T
    left, scales, right = np.linalg.svd(camera, full_matrices=False)
    if not scales[1] > _LEAST_SCALE:
        return HeadPose(0.0, 0.0, 0.0)
    across, down = left @ right
    towards = np.cross(across, down)
    return HeadPose(
        yaw_deg=_degrees(-towards[0], np.hypot(across[0], down[0])),
        pitch_deg=_degrees(towards[1], towards[2]),
        roll_deg=_degrees(down[0], across[0]),
    )


def _degrees(sine: float, cosine: float) -> float:
    return float(np.degrees(np.arctan2(sine, cosine)))
