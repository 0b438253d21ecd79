"""Measures of a face, by hand."""

import numpy as np
import pytest

from service.contract import TEMPLATE
from service.domain import Box, Detection
from service.vision.quality import QualityGate, assess, nose_offset

GATE = QualityGate(min_side_px=24.0, min_detection_score=0.6, min_sharpness=3.0, max_yaw=0.9)


def detection(*, width=80.0, height=125.0, landmarks=TEMPLATE, score=0.9):
    return Detection(Box(0.0, 0.0, width, height), np.asarray(landmarks, dtype=np.float32), score)


def striped():
    """Black and white columns of two pixels: next to the edges the Laplacian is +-255."""
    crop = np.zeros((112, 112, 3), dtype=np.uint8)
    crop[:, np.arange(112) % 4 < 2] = 255
    return crop


def turned(points, degrees):
    angle = np.radians(degrees)
    return np.asarray(points) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


class TestNoseOffset:
    # Eyes at +-1, mouth corners at +-0.8 below: the middle is at 0 and the eye distance is 2.
    FRONTAL = ((-1, 0), (1, 0), (0, 1), (-0.8, 2), (0.8, 2))

    def test_of_a_symmetric_face_there_is_none(self):
        assert nose_offset(np.float32(self.FRONTAL)) == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.parametrize(("nose_x", "offset"), [(0.5, 0.25), (-0.5, -0.25), (2.0, 1.0)])
    def test_it_is_in_eye_distances(self, nose_x, offset):
        points = np.float32(self.FRONTAL)
        points[2, 0] = nose_x
        assert nose_offset(points) == pytest.approx(offset, abs=1e-6)

    @pytest.mark.parametrize("degrees", [-170, -35, 10, 90])
    def test_a_tilt_leaves_it_alone(self, degrees):
        points = np.float32(self.FRONTAL)
        points[2, 0] = 0.5
        assert nose_offset(turned(points, degrees).astype(np.float32)) == pytest.approx(0.25, abs=1e-5)

    def test_it_depends_on_neither_size_nor_place(self):
        points = np.float32(self.FRONTAL)
        points[2, 0] = 0.3
        assert nose_offset(points * 37 + 400) == pytest.approx(nose_offset(points), abs=1e-4)

    def test_eyes_in_one_place_have_no_direction(self):
        assert nose_offset(np.zeros((5, 2), np.float32)) == 0.0


class TestAssess:
    def test_side_is_the_geometric_mean(self):
        assert assess(detection(), striped(), GATE).side_px == 100.0

    def test_a_box_without_area_has_no_side(self):
        assert assess(detection(width=-3.0), striped(), GATE).side_px == 0.0

    def test_a_flat_crop_has_no_sharpness(self):
        flat = np.full((112, 112, 3), 130, dtype=np.uint8)
        assert assess(detection(), flat, GATE).sharpness == 0.0

    def test_sharpness_is_the_deviation_of_the_laplacian(self):
        # Every column is an edge on one side only, so the Laplacian is +255 or -255; but the outermost two of the 56 in
        # the middle are mirrored onto their own colour, where it is 0: 255 * sqrt(54 / 56).
        assert assess(detection(), striped(), GATE).sharpness == pytest.approx(250.405, abs=0.01)

    def test_black_corners_from_outside_the_picture_count_for_nothing(self):
        crop = np.full((112, 112, 3), 130, dtype=np.uint8)
        crop[:25], crop[:, 88:] = 0, 0
        assert assess(detection(), crop, GATE).sharpness == 0.0

    def test_a_good_face_has_no_issues(self):
        quality = assess(detection(), striped(), GATE)
        assert quality.issues == ()
        assert quality.detection_score == 0.9

    def test_the_pose_is_told_in_degrees(self):
        # A clockwise turn in the picture.
        points = turned(TEMPLATE - TEMPLATE.mean(axis=0), 30)
        away = points.copy()
        away[2] += [8 * np.cos(np.pi / 6), 8 * np.sin(np.pi / 6)]
        straight, right = (assess(detection(landmarks=each), striped(), GATE) for each in (points, away))
        assert straight.roll_deg == pytest.approx(30, abs=1)
        assert right.roll_deg == pytest.approx(30, abs=2)
        assert right.yaw_deg > straight.yaw_deg + 15
        assert right.pitch_deg == pytest.approx(straight.pitch_deg, abs=2)

    def test_everything_wrong_is_named_in_a_fixed_order(self):
        away = np.array(TEMPLATE)
        away[2, 0] += 40
        bad = detection(width=10, height=10, landmarks=away, score=0.3)
        quality = assess(bad, np.zeros((112, 112, 3), np.uint8), GATE)
        assert quality.issues == ("face-too-small", "face-uncertain", "face-blurred", "face-turned-away")


@pytest.mark.parametrize(
    ("measures", "issues"),
    [
        ((24.0, 0.6, 3.0, 0.9), ()),
        ((24.0, 0.6, 3.0, -0.9), ()),
        ((23.9, 0.6, 3.0, 0.0), ("face-too-small",)),
        ((24.0, 0.59, 3.0, 0.0), ("face-uncertain",)),
        ((24.0, 0.6, 2.9, 0.0), ("face-blurred",)),
        ((24.0, 0.6, 3.0, 0.91), ("face-turned-away",)),
        ((24.0, 0.6, 3.0, -0.91), ("face-turned-away",)),
    ],
)
def test_the_gate_accepts_its_own_limits(measures, issues):
    assert GATE.issues(*measures) == issues
