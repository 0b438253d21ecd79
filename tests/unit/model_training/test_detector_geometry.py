"""Labels move with the pixels."""

import cv2
import numpy as np
import pytest

from model_training.detector import negatives
from model_training.detector.geometry import Kind, clip_to_window, mirror_rows, similarity, transform_rows


def face_row(left=40.0, top=30.0, side=40.0, kind=Kind.FACE):
    """An upright face whose five landmarks are in the template's order."""
    points = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]]) * side + [left, top]
    return np.array([left, top, left + side, top + side, *points.reshape(-1), kind], dtype=np.float32)


def test_mirroring_keeps_image_left_on_the_left():
    row = face_row()
    mirrored = mirror_rows(row[None], 160)[0]
    points = mirrored[4:14].reshape(5, 2)
    assert points[0, 0] < points[1, 0]
    assert points[3, 0] < points[4, 0]
    assert points[0, 0] == 159 - row[6]
    assert mirrored[0] < mirrored[2]


def test_mirroring_twice_changes_nothing():
    rows = np.stack([face_row(), face_row(90, 10, 20, Kind.IGNORE), np.zeros(15, dtype=np.float32)])
    np.testing.assert_allclose(mirror_rows(mirror_rows(rows, 160), 160), rows, atol=1e-4)


def test_mirrored_labels_follow_the_pixels():
    row = face_row()
    image = np.zeros((160, 160, 3), dtype=np.uint8)
    eye = row[4:6].round().astype(int)
    image[eye[1], eye[0]] = 255
    mirrored = mirror_rows(row[None], 160)[0]
    # The image-left eye has become the image-right one.
    x, y = mirrored[6:8].round().astype(int)
    assert image[:, ::-1][y, x].tolist() == [255, 255, 255]


def test_a_warp_moves_pixels_and_landmarks_alike():
    row = face_row()
    image = np.zeros((160, 160), dtype=np.uint8)
    cv2.circle(image, (int(row[8]), int(row[9])), 4, 255, -1)
    matrix = similarity(1.5, 20, (60, 50), (90, 100))
    warped = cv2.warpAffine(image, matrix, (200, 200))
    rows, columns = np.nonzero(warped > 128)
    moved = transform_rows(row[None], matrix)[0]
    assert np.hypot(columns.mean() - moved[8], rows.mean() - moved[9]) < 0.7


def test_a_turned_box_keeps_its_size():
    moved = transform_rows(face_row()[None], similarity(1.0, 25, (60, 50), (60, 50)))[0]
    assert moved[2] - moved[0] == pytest.approx(40, abs=1e-3)
    assert moved[3] - moved[1] == pytest.approx(40, abs=1e-3)


@pytest.mark.parametrize(
    ("left", "kind"),
    [(10, Kind.FACE), (-10, Kind.FACE), (-25, Kind.IGNORE), (-60, None)],
)
def test_a_cut_face_is_kept_ignored_or_dropped(left, kind):
    kept = clip_to_window(face_row(left, 20)[None], (0, 0, 100, 100))
    assert [int(row[14]) for row in kept] == ([] if kind is None else [int(kind)])
    if kind is Kind.FACE:
        assert kept[0, 0] == left
    if kind is Kind.IGNORE:
        assert kept[0, 0] == 0


def test_a_tiny_face_is_neither_face_nor_background():
    assert clip_to_window(face_row(20, 20, 8)[None], (0, 0, 100, 100))[0, 14] == Kind.IGNORE


def test_scrambling_leaves_no_tile_in_its_place():
    ramp = np.repeat(np.arange(40 * 40, dtype=np.uint16).reshape(40, 40, 1) % 251, 3, axis=2).astype(np.uint8)
    for seed in range(20):
        out = negatives.scrambled(ramp, np.random.default_rng(seed))
        whole = cv2.resize(ramp, out.shape[1::-1], interpolation=cv2.INTER_AREA)
        count = next(c for c in range(2, 6) if out.shape[0] == max(4, 40 // c) * c)
        tile = out.shape[0] // count
        for y in range(count):
            for x in range(count):
                region = np.s_[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
                assert not np.array_equal(out[region], whole[region])


def test_a_faceless_patch_touches_no_face():
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[30:70, 30:70] = 255
    boxes = np.array([[30, 30, 70, 70]], dtype=np.float32)
    patches = [negatives.faceless_patch(image, boxes, np.random.default_rng(seed)) for seed in range(40)]
    found = [patch for patch in patches if patch is not None]
    assert found
    assert all(patch.max() == 0 for patch in found)


def test_a_part_of_a_face_is_too_little_to_be_one():
    face = np.zeros((80, 60, 3), dtype=np.uint8)
    for seed in range(30):
        height, width = negatives.face_part(face, np.random.default_rng(seed)).shape[:2]
        assert 0 < height * width < 0.25 * 80 * 60


def test_photo_patches_are_square_pieces_of_the_photo():
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for seed in range(30):
        patch = negatives.photo_patch(photo, np.random.default_rng(seed))
        assert patch.shape[0] == patch.shape[1]
        assert 48 <= patch.shape[0] <= 50


@pytest.mark.parametrize("seed", range(30))
def test_textures_fill_what_they_are_asked_to(seed):
    image = negatives.texture(37, 61, np.random.default_rng(seed))
    assert image.shape == (37, 61, 3)
    assert image.dtype == np.uint8
