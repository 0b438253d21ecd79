"""The bundled detector on a portrait whose face is known."""

from concurrent.futures import ThreadPoolExecutor

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


class TestAgainstOpenCV:
    """The same network read by `cv2.FaceDetectorYN`, which decodes and suppresses by itself."""

    @staticmethod
    def rows(image, threshold, overlap=0.3):
        height, width = image.shape[:2]
        return cv2.FaceDetectorYN.create(str(DETECTOR), "", (width, height), threshold, overlap, 5000).detect(image)[1]

    # Where much is found and nothing suppressed, and as it is served: OpenCV suppresses by boxes of whole pixels.
    @pytest.mark.parametrize(("threshold", "overlap"), [(0.02, 1.0), (0.7, 0.3)])
    @pytest.mark.parametrize("cut", [(512, 512), (256, 320), (320, 256)])
    def test_finds_the_same_faces_in_the_same_places(self, astronaut, cut, threshold, overlap):
        image = np.ascontiguousarray(astronaut[: cut[0], : cut[1]])
        options = {"score_threshold": threshold, "nms_threshold": overlap, "max_faces": 5000}
        faces = YuNetDetector(DETECTOR, **options).detect(image)
        expected = self.rows(image, threshold, overlap)
        assert len(faces) == len(expected)
        order = np.argsort(-expected[:, 14], kind="stable")
        for face, row in zip(faces, expected[order], strict=True):
            box = face.box
            np.testing.assert_allclose([box.x, box.y, box.width, box.height], row[:4], atol=0.05)
            np.testing.assert_allclose(face.landmarks.ravel(), row[4:14], atol=0.05)
            assert face.score == pytest.approx(row[14], abs=1e-4)
        if threshold < 0.1:
            assert len(faces) > 1

    def test_a_crowd_is_all_found(self, astronaut):
        # Four portraits: suppression has something to choose from everywhere.
        crowd = np.tile(astronaut[:256, 96:352], (2, 2, 1))
        assert len(YuNetDetector(DETECTOR).detect(crowd)) == len(self.rows(crowd, 0.7)) == 4


def test_several_threads_share_one_detector(detector, astronaut, reference):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: best_face(detector, astronaut), range(16)))
    for each in found:
        np.testing.assert_array_equal(each.landmarks, reference.landmarks)


def test_a_network_of_other_outputs_is_refused():
    with pytest.raises(ContractError, match="YuNet"):
        YuNetDetector(DETECTOR.with_name("student.onnx"))
