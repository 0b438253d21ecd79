"""Which face of a picture a benchmark sees."""

from pathlib import Path

import numpy as np
import pytest

from model_training.bench.serving import already_aligned, detected, embedded_by, main_face
from model_training.protocols.templates import TemplateFace
from service.contract import ContractError, align
from service.demo import VERSIONS, load_portraits
from service.settings import Settings
from service.vision.detection import YuNetDetector


@pytest.fixture(scope="module")
def detector():
    return YuNetDetector(Settings().detector_path)


@pytest.fixture(scope="module")
def two_faces():
    """Two portraits side by side, and where the second begins."""
    first, second = (np.asarray(portrait.pixels)[:400, :400] for portrait in load_portraits())
    return np.ascontiguousarray(np.concatenate([first, second], axis=1)), first.shape[1]


def test_landmarks_are_taken_as_they_are(detector, two_faces):
    image, middle = two_faces
    faces = sorted(detector.detect(image), key=lambda face: face.box.x)
    assert faces[0].box.x < middle < faces[-1].box.x
    for face in (faces[0], faces[-1]):
        landmarks = tuple(map(tuple, face.landmarks.tolist()))
        crop = detected(detector)(image, TemplateFace(Path("a.jpg"), landmarks=landmarks))
        np.testing.assert_array_equal(crop, align(image, face.landmarks))
    assert detected(detector)(image, TemplateFace(Path("a.jpg"), landmarks=((5.0, 5.0),) * 5)) is None


def test_a_box_says_which_face_is_meant(detector, two_faces):
    image, _ = two_faces
    faces = sorted(detector.detect(image), key=lambda face: face.box.x)
    expected = [align(image, face.landmarks).astype(float) for face in (faces[0], faces[-1])]
    for number, face in enumerate((faces[0], faces[-1])):
        box = (face.box.x, face.box.y, face.box.width, face.box.height)
        crop = detected(detector)(image, TemplateFace(Path("a.jpg"), box=box))
        apart = [np.abs(crop - each).mean() for each in expected]
        # Landmarks move a little with what surrounds the face.
        assert apart[number] < apart[1 - number] / 2
    assert detected(detector)(image, TemplateFace(Path("a.jpg"), box=(5_000.0, 5_000.0, 10.0, 10.0))) is None


def test_without_either_it_is_the_main_face(detector, two_faces):
    image, _ = two_faces
    for picture in (Path("a.jpg"), TemplateFace(Path("a.jpg"))):
        np.testing.assert_array_equal(detected(detector)(image, picture), main_face(image, detector))


def test_aligned_pictures_are_of_the_size_of_a_crop():
    crop = np.zeros((112, 112, 3), dtype=np.uint8)
    assert already_aligned(crop, Path("a.jpg")) is crop
    with pytest.raises(ContractError, match=r"a\.jpg has 96 by 112 pixels"):
        already_aligned(crop[:, :96], Path("a.jpg"))


class Means:
    def __init__(self, sign):
        self.sign = sign
        self.batches = []

    def embed(self, crops):
        self.batches.append(len(crops))
        return self.sign * crops.mean(axis=(1, 2))


def test_several_networks_see_each_face_once_in_batches(tmp_path, detector):
    make = next(iter(VERSIONS.values()))
    faces = [tmp_path / f"{number}.jpg" for number in range(70)]
    portraits = [make(portrait.pixels) for portrait in load_portraits()]
    for number, path in enumerate(faces):
        path.write_bytes(portraits[number % 2])
    networks = [Means(1), Means(-1)]
    plus, minus = embedded_by(networks, detected(detector), faces)
    assert networks[0].batches == networks[1].batches == [32, 32, 6]
    for path in faces:
        np.testing.assert_array_equal(plus(path), -minus(path))
        np.testing.assert_array_equal(plus(path), plus(faces[int(path.stem) % 2]))
    assert not np.array_equal(plus(faces[0]), plus(faces[1]))
    with pytest.raises(KeyError):
        plus(tmp_path / "other.jpg")
