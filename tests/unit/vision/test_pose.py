"""Head pose: exact where the head is the model's, and of one mind with itself on a real one."""

import cv2
import numpy as np
import pytest
from skimage import data

from service.contract import TEMPLATE
from service.vision.detection import YuNetDetector
from service.vision.pose import HEAD, HeadPose, head_pose
from tests.unit.vision.common import DETECTOR


def rotation(yaw_deg, pitch_deg, roll_deg):
    """Of coordinates right, down, towards the viewer: first pitch, then yaw, then roll."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return tilt @ turn @ nod


def photographed(yaw=0.0, pitch=0.0, roll=0.0, *, scale=60.0, at=(200.0, 150.0), head=HEAD):
    return (scale * (head @ rotation(yaw, pitch, roll).T)[:, :2] + at).astype(np.float32)


def angles(pose: HeadPose):
    return pose.yaw_deg, pose.pitch_deg, pose.roll_deg


@pytest.mark.parametrize("yaw", [-40, -15, 0, 25, 40])
@pytest.mark.parametrize("pitch", [-40, -10, 0, 30, 40])
@pytest.mark.parametrize("roll", [-90, -45, 0, 20, 90])
def test_a_head_of_the_models_shape_gets_its_angles(yaw, pitch, roll):
    assert angles(head_pose(photographed(yaw, pitch, roll))) == pytest.approx((yaw, pitch, roll), abs=0.01)


def test_directions_are_those_of_the_documentation():
    # Where each turn carries the tip of the nose, seen from between the eyes: right, up, and clockwise to the left.
    nose = HEAD[2]
    assert (rotation(20, 0, 0) @ nose)[0] > 0
    assert (rotation(0, 20, 0) @ nose)[1] < nose[1]
    assert (rotation(0, 0, 20) @ nose)[0] < 0


@pytest.mark.parametrize(("scale", "at"), [(5.0, (0, 0)), (900.0, (4000, 100))])
def test_size_and_place_do_not_count(scale, at):
    pose = head_pose(photographed(-20, 10, 5, scale=scale, at=at))
    assert angles(pose) == pytest.approx((-20, 10, 5), abs=0.02)


def test_a_near_camera_moves_the_angles_by_some_degrees_only():
    head = HEAD @ rotation(20, -10, 0).T
    # From ten eye distances, some 60 cm, as a telephone is held.
    seen = head[:, :2] * 10 / (10 - head[:, 2:])
    assert angles(head_pose(seen.astype(np.float32) * 60)) == pytest.approx((20, -10, 0), abs=5)


def test_heads_of_other_shapes_are_off_by_what_their_shape_differs():
    rng = np.random.default_rng(3)
    heads = [HEAD + rng.normal(0, 0.03, HEAD.shape) for _ in range(200)]
    off = np.array([angles(head_pose(photographed(25, 10, 0, head=head))) for head in heads]) - [25, 10, 0]
    assert np.abs(off.mean(axis=0)).max() < 1.0
    assert np.sqrt(np.square(off).mean(axis=0)).max() < 6.0


def test_the_templates_face_looks_nearly_straight_ahead():
    pose = head_pose(TEMPLATE)
    assert abs(pose.yaw_deg) < 3
    assert abs(pose.pitch_deg) < 10
    assert abs(pose.roll_deg) < 1


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), 77.5), np.outer(np.arange(5), [3, 4])])
def test_points_without_extent_have_no_pose(points):
    assert angles(head_pose(points.astype(np.float32))) == (0.0, 0.0, 0.0)


def turned(image):
    """The astronaut with the middle of her face moved to image-left, as a turn of the head would."""
    across = np.arange(512, dtype=np.float32)
    from_middle = (across - 225) / 60
    bulge = np.where(np.abs(from_middle) < 1, 60 * 0.3 * (1 - from_middle**2), 0).astype(np.float32)
    return cv2.remap(image, np.tile(across + bulge, (512, 1)), np.tile(across[:, None], (1, 512)), cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def astronaut():
    return np.ascontiguousarray(data.astronaut()[..., ::-1])


@pytest.fixture(scope="module")
def pose_in():
    detector = YuNetDetector(DETECTOR)

    def pose(image):
        return head_pose(detector.detect(np.ascontiguousarray(image))[0].landmarks)

    return pose


class TestPortrait:
    def test_a_mirror_changes_the_signs_of_yaw_and_roll_and_leaves_pitch(self, astronaut, pose_in):
        there, mirrored = pose_in(turned(astronaut)), pose_in(turned(astronaut)[:, ::-1])
        assert there.yaw_deg < -8
        assert mirrored.yaw_deg > 8
        assert there.yaw_deg == pytest.approx(-mirrored.yaw_deg, abs=4)
        assert there.roll_deg == pytest.approx(-mirrored.roll_deg, abs=3)
        assert there.pitch_deg == pytest.approx(mirrored.pitch_deg, abs=6)

    def test_as_she_is_she_looks_ahead(self, astronaut, pose_in):
        there, mirrored = pose_in(astronaut), pose_in(astronaut[:, ::-1])
        assert there.yaw_deg < 0 < mirrored.yaw_deg
        assert abs(there.yaw_deg + mirrored.yaw_deg) < 3
        assert max(abs(there.yaw_deg), abs(there.pitch_deg), abs(there.roll_deg)) < 8

    @pytest.mark.parametrize("degrees", [-30, 20])
    def test_a_tilted_picture_is_a_tilted_head(self, astronaut, pose_in, degrees):
        # OpenCV turns counter-clockwise. How far is another matter: the detector's landmarks lean towards the upright.
        turn = cv2.getRotationMatrix2D((225, 120), -degrees, 1.0)
        pose = pose_in(cv2.warpAffine(astronaut, turn, (512, 512)))
        assert 4 < np.sign(degrees) * pose.roll_deg < abs(degrees) + 4
