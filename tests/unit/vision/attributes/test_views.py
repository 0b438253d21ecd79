"""How faces are cut out for attribute networks, held against windows that are known by hand."""

import cv2
import numpy as np
import pytest

from service.domain import Box
from service.ports import BoxView
from service.vision.attributes.manifest import Pixels
from service.vision.attributes.views import aligned_view, box_view, network_input


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(5).integers(0, 256, (120, 100, 3), dtype=np.uint8)


class TestBlackOutside:
    def test_a_square_around_the_middle_of_the_box(self, image):
        # The longer side times 1.5 is 30, centred on (50, 35).
        view = box_view(image, Box(40, 30, 20, 10), BoxView(1.5, 30))
        np.testing.assert_array_equal(view, image[20:50, 35:65])

    def test_what_lies_outside_is_black(self, image):
        view = box_view(image, Box(0, 0, 20, 20), BoxView(2.0, 40))
        np.testing.assert_array_equal(view[10:, 10:], image[:30, :30])
        assert view[:10].max() == view[:, :10].max() == 0

    def test_it_is_made_smaller_and_larger(self):
        ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
        for side_px in (10, 80):
            view = box_view(ramp, Box(30, 30, 20, 20), BoxView(2.0, side_px))
            # Column x of the view is where (x - side / 2) * 40 / side + 40 is in the picture.
            columns = (np.arange(side_px) - side_px / 2) * 40 / side_px + 40
            np.testing.assert_allclose(view[side_px // 2, :, 0], columns * 2, atol=1)

    def test_a_box_of_its_own_shape_is_stretched(self, image):
        view = box_view(image, Box(40, 30, 20, 10), BoxView(1.0, 20, shape="box"))
        np.testing.assert_array_equal(view[::2], image[30:40, 40:60])


class TestInside:
    def test_the_window_is_moved_into_the_picture(self, image):
        view = box_view(image, Box(0, 4, 20, 20), BoxView(2.7, 80, shape="box", outside="inside"))
        # 54 wide, moved to begin at 0, and both ends count.
        np.testing.assert_array_equal(view, cv2.resize(image[:55, :55], (80, 80)))

    def test_at_the_far_corner_likewise(self, image):
        view = box_view(image, Box(90, 110, 20, 20), BoxView(2.0, 80, shape="box", outside="inside"))
        np.testing.assert_array_equal(view, cv2.resize(image[79:, 59:], (80, 80)))

    def test_it_is_made_smaller_until_it_fits(self, image):
        # 119 / 80 is the most: 89.25 x 119.
        view = box_view(image, Box(10, 10, 60, 80), BoxView(4.0, 80, shape="box", outside="inside"))
        np.testing.assert_array_equal(view, cv2.resize(image[:, :90], (80, 80)))

    def test_a_square_of_the_longer_side(self, image):
        view = box_view(image, Box(40, 40, 10, 20), BoxView(2.0, 41, shape="square", outside="inside"))
        np.testing.assert_array_equal(view, image[30:71, 25:66])

    @pytest.mark.parametrize("box", [Box(-500, -500, 3, 900), Box(99, 119, 0.01, 0.01), Box(3_000, 3_000, 1, 1)])
    def test_whatever_the_box_there_is_a_view(self, image, box):
        for shape in ("square", "box"):
            for outside in ("black", "inside"):
                assert box_view(image, box, BoxView(4.0, 16, shape, outside)).shape == (16, 16, 3)


def test_an_aligned_crop_is_averaged_down_and_interpolated_up(image):
    crop = np.ascontiguousarray(image[:112, :100].repeat(2, axis=1)[:, :112])
    assert aligned_view(crop, 112) is crop
    halves = crop.reshape(56, 2, 56, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(aligned_view(crop, 56), halves, atol=0.51)
    assert aligned_view(crop, 224).shape == (224, 224, 3)


class TestInput:
    def test_colours_and_normalisation(self):
        views = np.zeros((2, 4, 4, 3), np.uint8)
        views[1] = (10, 20, 30)
        bgr = network_input(views, Pixels(colour_order="BGR", mean=2.0, scale=0.5))
        assert (bgr.shape, bgr.dtype) == ((2, 3, 4, 4), np.float32)
        assert bgr[1, :, 0, 0].tolist() == [4.0, 9.0, 14.0]
        rgb = network_input(views, Pixels(colour_order="RGB"))
        assert rgb[1, :, 3, 3].tolist() == [30.0, 20.0, 10.0]

    def test_each_channel_may_have_its_own(self):
        views = np.full((1, 2, 2, 3), (10, 20, 30), np.uint8)
        pixels = Pixels(colour_order="RGB", mean=(30.0, 10.0, 0.0), scale=(1.0, 0.5, 2.0))
        assert network_input(views, pixels)[0, :, 0, 0].tolist() == [0.0, 5.0, 20.0]

    def test_channels_may_come_last(self):
        views = np.full((1, 2, 2, 3), (10, 20, 30), np.uint8)
        pixels = network_input(views, Pixels(colour_order="BGR", layout="NHWC"))
        assert pixels.shape == (1, 2, 2, 3)
        assert pixels[0, 1, 1].tolist() == [10.0, 20.0, 30.0]
