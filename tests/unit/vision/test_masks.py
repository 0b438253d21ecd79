"""The mask classifier's service side: its input and its file; and the shipped one on portraits."""

import shutil

import cv2
import numpy as np
import pytest
from skimage import data

from service.contract import ContractError, Preprocessing, align, read_manifest, to_network_input
from service.domain import MASK_WORN_FROM
from service.vision.attributes.mask import OnnxMaskNetwork, mask_input
from service.vision.detection import YuNetDetector
from tests.unit.vision.common import DETECTOR

MODEL = DETECTOR.with_name("mask.onnx")
# Over nose, mouth and chin of an aligned face.
OUTLINE = np.array([[10, 66], [56, 60], [102, 66], [100, 92], [76, 111], [36, 111], [12, 92]])
COLOURS = {"white": (245, 245, 245), "surgical": (205, 180, 130), "black": (25, 22, 20), "red": (40, 40, 190)}


@pytest.fixture(scope="module")
def network():
    return OnnxMaskNetwork(MODEL)


@pytest.fixture(scope="module")
def astronaut():
    image = np.ascontiguousarray(data.astronaut()[..., ::-1])
    return align(image, YuNetDetector(DETECTOR).detect(image)[0].landmarks)


def wearing(crop, colour):
    cloth = crop.copy()
    cv2.fillPoly(cloth, [OUTLINE], colour, cv2.LINE_AA)
    # In the light of the face.
    light = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32), (0, 0), 12)
    return np.where((cloth == crop).all(axis=2)[..., None], crop, cloth * (light / light.max())[..., None]).astype(
        np.uint8
    )


def test_its_input_is_the_crop_at_half_its_size():
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    pixels = mask_input(crops)
    assert (pixels.shape, pixels.dtype) == ((3, 3, 56, 56), np.float32)
    halved = to_network_input(crops, Preprocessing()).reshape(3, 3, 56, 2, 56, 2).mean(axis=(3, 5))
    # Means of four bytes are rounded to bytes.
    np.testing.assert_allclose(pixels, halved, atol=0.51 * Preprocessing().scale)


@pytest.mark.parametrize("crops", [np.zeros((112, 112, 3), np.uint8), np.zeros((1, 112, 112, 3), np.float32)])
def test_anything_else_is_refused(crops):
    with pytest.raises(ContractError):
        mask_input(crops)


class TestFile:
    def test_the_shipped_one_is_what_its_manifest_says(self):
        manifest = read_manifest(MODEL)
        assert manifest.role == "mask-classifier"
        assert manifest.size_bytes < 60_000
        assert manifest.metrics

    def test_a_detector_is_none(self):
        with pytest.raises(ContractError, match="not a mask classifier"):
            OnnxMaskNetwork(DETECTOR)

    def test_one_that_was_changed_is_refused(self, tmp_path):
        changed = tmp_path / MODEL.name
        changed.write_bytes(MODEL.read_bytes()[:-1] + b"?")
        shutil.copy(MODEL.with_suffix(".json"), tmp_path)
        with pytest.raises(ContractError, match="SHA-256"):
            OnnxMaskNetwork(changed)


class TestPortrait:
    def test_the_astronaut_wears_none(self, network, astronaut):
        views = np.stack([astronaut, astronaut[:, ::-1], cv2.GaussianBlur(astronaut, (0, 0), 2)])
        assert network.probabilities(views).max() < MASK_WORN_FROM

    @pytest.mark.parametrize("colour", COLOURS)
    def test_one_over_nose_and_mouth_is_seen(self, network, astronaut, colour):
        crop = wearing(astronaut, COLOURS[colour])
        assert network.probabilities(np.stack([crop, crop[:, ::-1]])).min() > 0.8

    def test_dark_glasses_are_none(self, network, astronaut):
        crop = astronaut.copy()
        for eye in ((38, 52), (74, 52)):
            cv2.ellipse(crop, eye, (16, 12), 0, 0, 360, (20, 20, 20), -1)
        assert network.probabilities(crop[None])[0] < MASK_WORN_FROM
