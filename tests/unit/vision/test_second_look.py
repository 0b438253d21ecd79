"""Tilted, small and doubtful faces of real portraits, and what looking for them may cost."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from service.contract import align
from service.demo import load_portraits
from service.domain import Box, Detection
from service.vision.detection import YuNetDetector
from service.vision.embedding import OnnxNetwork
from service.vision.pose import head_pose
from service.vision.second_look import SecondLookDetector, open_detector
from tests.unit.vision.common import DETECTOR

PORTRAITS = load_portraits()
# First pass, three of the picture lying, and the looks.
MOST_RUNS = 1 + 3 + 24


class Counting:
    """A detector that counts how often it is asked."""

    def __init__(self, detector):
        self.detector, self.identity, self.shapes = detector, detector.identity, []

    def detect(self, image):
        self.shapes.append(image.shape)
        return self.detector.detect(image)


class Everywhere:
    """Finds leaning faces all over whatever it is shown."""

    identity = "everywhere"

    def __init__(self, score, lean_deg=15.0):
        turn = cv2.getRotationMatrix2D((0, 0), -lean_deg, 1.0)[:, :2]
        self.points = np.array([[-9, -8], [9, -8], [0, 2], [-7, 10], [7, 10]]) @ turn.T
        self.score, self.runs = score, 0

    def detect(self, image):
        self.runs += 1
        places = [(x, y) for x in range(30, image.shape[1], 60) for y in range(30, image.shape[0], 60)][:100]
        return [
            Detection(Box(x - 20, y - 20, 40, 40), (self.points + np.array([x, y])).astype(np.float32), self.score)
            for x, y in places
        ]


@pytest.fixture(scope="module")
def detector():
    return open_detector(DETECTOR)


@pytest.fixture(scope="module")
def embedded():
    network = OnnxNetwork(Path(DETECTOR).with_name("student-wide.onnx"))
    return lambda image, face: network.embed(align(image, face.landmarks)[None])[0]


def tilted(image, degrees):
    """Turned clockwise around its middle, on a black canvas that holds all of it; and the map there."""
    side = int(np.ceil(np.hypot(*image.shape[:2])))
    middle = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, -degrees, 1.0)
    matrix[:, 2] += (side - 1) / 2 - np.array(middle)
    return cv2.warpAffine(image, matrix, (side, side)), matrix


def half_turn(degrees):
    return (degrees + 180) % 360 - 180


class TestTiltedHeads:
    @pytest.mark.parametrize("degrees", [-90, -45, -30, -20, 20, 30, 45, 60, 90, 180])
    @pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda portrait: portrait.person_id)
    def test_is_the_same_person_and_told_how_tilted(self, detector, embedded, portrait, degrees):
        upright = detector.detect(portrait.pixels)[0]
        picture, matrix = tilted(portrait.pixels, degrees)
        face = detector.detect(picture)[0]
        assert embedded(picture, face) @ embedded(portrait.pixels, upright) > 0.75
        roll = head_pose(face.landmarks).roll_deg - head_pose(upright.landmarks).roll_deg
        # Between the sizes that the network is best at, 20 degrees may pass for upright at the first look.
        assert abs(half_turn(roll - degrees)) < (13 if abs(degrees) == 20 else 8)
        eyes_px = np.hypot(*(upright.landmarks[1] - upright.landmarks[0]))
        expected = upright.landmarks @ matrix[:, :2].T + matrix[:, 2]
        assert np.linalg.norm(face.landmarks - expected, axis=1).mean() < 0.25 * eyes_px
        low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
        assert (low > [face.box.x, face.box.y]).all()
        assert (high < [face.box.x + face.box.width, face.box.y + face.box.height]).all()

    def test_the_network_alone_does_not_know_them_again(self, embedded):
        # What all of this is for; should it fail one day, the second look can go.
        plain, portrait = YuNetDetector(DETECTOR), PORTRAITS[0]
        picture, _ = tilted(portrait.pixels, 45)
        upright = embedded(portrait.pixels, plain.detect(portrait.pixels)[0])
        assert all(embedded(picture, face) @ upright < 0.5 for face in plain.detect(picture))

    def test_a_tilted_head_beside_an_upright_one(self, detector):
        known, other = (cv2.resize(each.pixels[:440], (200, 176), interpolation=cv2.INTER_AREA) for each in PORTRAITS)
        pair = np.hstack([tilted(known, 0)[0], tilted(other, 30)[0]])
        faces = sorted(detector.detect(pair), key=lambda face: face.box.x)
        assert [head_pose(face.landmarks).roll_deg for face in faces] == pytest.approx([0, 30], abs=10)


class TestSmallFaces:
    @pytest.mark.parametrize("width_px", [16, 20, 26])
    @pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda portrait: portrait.person_id)
    def test_a_shrunk_portrait_is_found_where_it_is(self, detector, portrait, width_px):
        large = detector.detect(portrait.pixels)[0]
        scale = width_px / large.box.width
        small = cv2.resize(portrait.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        faces = detector.detect(small)
        assert len(faces) == 1
        assert faces[0].box.width == pytest.approx(width_px, rel=0.25)
        # A whole pixel is a tenth of the eye distance here.
        expected = (large.landmarks + 0.5) * [small.shape[1] / portrait.pixels.shape[1]] - 0.5
        assert np.abs(faces[0].landmarks - expected).max() < 3.0


class TestCost:
    def test_an_upright_face_is_looked_at_once(self):
        network = Counting(YuNetDetector(DETECTOR, score_threshold=0.3))
        picture = cv2.resize(PORTRAITS[0].pixels, (256, 256), interpolation=cv2.INTER_AREA)
        assert len(SecondLookDetector(network).detect(picture)) == 1
        assert network.shapes == [picture.shape]

    def test_a_picture_without_faces_is_searched_lying_at_a_bounded_size(self):
        network = Counting(YuNetDetector(DETECTOR, score_threshold=0.3))
        assert SecondLookDetector(network).detect(np.zeros((900, 1300, 3), np.uint8)) == []
        assert network.shapes == [(900, 1300, 3)] + 3 * [(320, 320, 3)]

    @pytest.mark.parametrize("score", [0.35, 0.6, 0.75, 0.95])
    def test_looks_are_bounded_whatever_the_network_says(self, score):
        network = Everywhere(score)
        SecondLookDetector(network).detect(np.zeros((640, 640, 3), np.uint8))
        assert 1 < network.runs <= MOST_RUNS

    def test_faces_that_may_not_be_looked_at_again_are_kept(self):
        network = Everywhere(0.95)
        found = SecondLookDetector(network).detect(np.zeros((640, 640, 3), np.uint8))
        assert len(found) == 100


class TestWhatIsNoFace:
    @pytest.mark.parametrize("side_px", [96, 240, 640])
    def test_photos_without_faces_stay_so(self, detector, side_px):
        for photo in load_sample_images().images:
            scale = side_px / max(photo.shape[:2])
            small = cv2.resize(np.ascontiguousarray(photo[..., ::-1]), None, fx=scale, fy=scale)
            assert detector.detect(small) == []

    @pytest.mark.parametrize("shape", [(16, 16, 3), (1, 700, 3), (20, 900, 3)])
    def test_pictures_of_any_shape(self, detector, shape):
        assert detector.detect(np.full(shape, 128, np.uint8)) == []

    def test_a_face_without_extent_is_not_looked_at(self):
        class Degenerate:
            identity = "degenerate"

            def detect(self, image):
                return [Detection(Box(5.0, 5.0, 1e-9, 1e-9), np.full((5, 2), 5, np.float32), 0.6)]

        assert SecondLookDetector(Degenerate()).detect(np.zeros((64, 64, 3), np.uint8)) == []


def test_everything_that_decides_is_in_the_identity():
    network = YuNetDetector(DETECTOR, score_threshold=0.3)
    names = {open_detector(DETECTOR).identity, SecondLookDetector(network).identity, network.identity}
    names |= {
        SecondLookDetector(network, score_threshold=0.6).identity,
        open_detector(DETECTOR, max_side_px=320).identity,
    }
    assert len(names) == 4
