"""The mean head, found again from pictures of heads that vary about a known one."""

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from model_training.cli import app
from model_training.data.heads import HeadError, main_landmarks, measure_head
from service.domain import Box, Detection

KNOWN = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.6, 0.45], [-0.4, 1.05, -0.1], [0.4, 1.05, -0.1]])


def pictures_of(head, count=4_000, *, spread=0.02, turn_deg=20.0, seed=5):
    """(n, 5, 2) landmarks of heads about this one, turned and nodding and tilted, of many sizes."""
    rng = np.random.default_rng(seed)
    heads = head + rng.normal(0, spread, (count, 5, 3))
    yaw, pitch, roll = np.radians(rng.normal(0, 1, (3, count)) * [[turn_deg], [6], [8]])
    one, none = np.ones(count), np.zeros(count)
    nod = [[one, none, none], [none, np.cos(pitch), -np.sin(pitch)], [none, np.sin(pitch), np.cos(pitch)]]
    turn = [[np.cos(yaw), none, np.sin(yaw)], [none, one, none], [-np.sin(yaw), none, np.cos(yaw)]]
    tilt = [[np.cos(roll), -np.sin(roll), none], [np.sin(roll), np.cos(roll), none], [none, none, one]]
    seen = heads
    for step in (nod, turn, tilt):
        seen = np.einsum("ijn,nkj->nki", np.array(step), seen)
    return (seen[..., :2] * rng.uniform(20, 90, (count, 1, 1)) + rng.uniform(0, 500, (count, 1, 2))).astype(np.float32)


def test_the_head_behind_the_pictures_is_found():
    np.testing.assert_allclose(measure_head(pictures_of(KNOWN)), KNOWN, atol=0.04)


def test_it_is_symmetric_and_its_eyes_are_the_unit():
    head = measure_head(pictures_of(KNOWN, 500))
    np.testing.assert_array_equal(head[:2], [[-0.5, 0, 0], [0.5, 0, 0]])
    np.testing.assert_array_equal(head[3] * [-1, 1, 1], head[4])


def test_faces_that_are_too_small_do_not_count():
    good, tiny = pictures_of(KNOWN, 500), pictures_of(KNOWN * [1, 2, 1], 500) / 20
    np.testing.assert_array_equal(measure_head(np.concatenate([good, tiny])), measure_head(good))


@pytest.mark.parametrize("landmarks", [np.empty((0, 5, 2), np.float32), pictures_of(KNOWN, 200, turn_deg=0.1)])
def test_heads_that_never_turn_say_nothing_of_depth(landmarks):
    with pytest.raises(HeadError):
        measure_head(landmarks)


class Finder:
    """Two faces in every picture that is not black; the larger one is the second."""

    def detect(self, image):
        if not image.any():
            return []
        points = np.arange(10, dtype=np.float32).reshape(5, 2)
        return [Detection(Box(0, 0, 5, 5), points, 0.9), Detection(Box(0, 0, 9, 9), points + image[0, 0, 0], 0.8)]


def test_the_largest_face_of_each_picture_counts(tmp_path):
    for name, level in (("a", 50), ("b", 0), ("c", 90)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), level, np.uint8))
    (tmp_path / "d.png").write_bytes(b"no picture")
    found = main_landmarks(sorted(tmp_path.iterdir()), Finder())
    assert found[:, 0, 0].tolist() == [50.0, 90.0]


def test_the_command_refuses_what_shows_no_heads(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 90, np.uint8))
    result = CliRunner().invoke(app, ["head", "--source", str(tmp_path)])
    assert result.exit_code == 2
    assert "0 faces are frontal" in result.output
