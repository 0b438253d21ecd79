"""The bundled detector on a portrait whose face is known."""

import cv2
import numpy as np
import pytest
from skimage import data

from service.contract import ContractError, read_manifest
from service.vision.detection import YuNetDetector
from tests.unit.vision.common import DETECTOR

# Of skimage's astronaut, 512 x 512, read off the picture by eye: image-left eye, image-right eye, nose tip, mouth
# corners, in pixels.
LANDMARKS = np.array([[203, 101], [247, 103], [223, 127], [204, 140], [244, 140]], dtype=float)
TOLERANCE_PX = 7.0


@pytest.fixture(scope="module")
def astronaut():
    return np.ascontiguousarray(data.astronaut()[..., ::-1])


def best_face(detector, image):
    faces = detector.detect(image)
    assert faces, "no face found"
    return faces[0]


@pytest.fixture(scope="module")
def detector():
    return YuNetDetector(DETECTOR)


@pytest.fixture(scope="module")
def reference(detector, astronaut):
    return best_face(detector, astronaut)


def test_the_bundled_file_is_what_its_manifest_says():
    assert read_manifest(DETECTOR).role == "detector"


def test_the_astronaut_is_found_where_she_is(reference):
    assert np.abs(reference.landmarks - LANDMARKS).max() < TOLERANCE_PX
    assert reference.landmarks.dtype == np.float32
    assert 0.6 <= reference.score <= 1.0
    box = reference.box
    assert box.x < 200
    assert box.x + box.width > 250
    assert box.y < 100
    assert box.y + box.height > 155
    assert 60 < box.width < 130
    assert 70 < box.height < 160


@pytest.mark.parametrize("max_side_px", [416, 300, 256, 200])
def test_coordinates_come_back_in_pixels_of_the_picture_when_it_is_searched_smaller(reference, astronaut, max_side_px):
    small = best_face(YuNetDetector(DETECTOR, max_side_px=max_side_px), astronaut)
    assert np.abs(small.landmarks - reference.landmarks).max() < TOLERANCE_PX
    assert small.box.width == pytest.approx(reference.box.width, rel=0.2)
    assert small.box.x == pytest.approx(reference.box.x, abs=12)


def test_a_picture_of_any_size_is_padded_without_shifting_faces(detector, reference, astronaut):
    cut = astronaut[:333, :401]
    assert np.abs(best_face(detector, cut).landmarks - reference.landmarks).max() < TOLERANCE_PX


def test_wide_pictures_scale_alike_in_both_directions(detector, reference, astronaut):
    wide = np.zeros((512, 1600, 3), dtype=np.uint8)
    wide[:, 1000:1512] = astronaut
    found = best_face(detector, wide)
    assert np.abs(found.landmarks - reference.landmarks - [1000, 0]).max() < TOLERANCE_PX


def test_a_magnified_picture_gives_magnified_coordinates(detector, reference, astronaut):
    twice = cv2.resize(astronaut, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    assert np.abs(best_face(detector, twice).landmarks / 2 - reference.landmarks).max() < TOLERANCE_PX


def test_the_best_come_first_and_no_more_than_wanted(astronaut):
    twins = np.hstack([astronaut[:256, 128:384], cv2.GaussianBlur(astronaut[:256, 128:384], (0, 0), 2)])
    faces = YuNetDetector(DETECTOR).detect(twins)
    scores = [face.score for face in faces]
    assert len(faces) >= 2
    assert scores == sorted(scores, reverse=True)
    (one,) = YuNetDetector(DETECTOR, max_faces=1).detect(twins)
    assert one.score == scores[0]


@pytest.mark.parametrize("shape", [(240, 320, 3), (16, 16, 3), (20, 900, 3)])
@pytest.mark.parametrize("grey", [0, 255])
def test_an_empty_picture_shows_nobody(detector, shape, grey):
    assert detector.detect(np.full(shape, grey, dtype=np.uint8)) == []


def test_the_picture_stays_as_it_is(detector, astronaut):
    before = astronaut.copy()
    detector.detect(astronaut)
    np.testing.assert_array_equal(astronaut, before)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    path = tmp_path / "detector.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(ContractError):
        YuNetDetector(path)
    with pytest.raises(ContractError):
        YuNetDetector(tmp_path / "absent.onnx")
