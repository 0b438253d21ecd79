"""Pictures of every kind."""

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from service.domain import ImageDamaged, ImageTooManyPixels
from service.vision.imaging import ImageLimits, decode, decode_reduced, sniff_format
from tests.unit.vision.pictures import LIMITS, QUARTERS, encoded, orientation, quarters


def decoded_rgb(data, limits=LIMITS):
    return decode(data, limits)[..., ::-1]


def assert_close(got, expected, tolerance):
    """Quarter by quarter, away from the edges, where a lossy format smears."""
    assert got.shape == expected.shape
    height, width = got.shape[:2]
    for y, x in itertools.product((height // 4, height * 3 // 4), (width // 4, width * 3 // 4)):
        assert np.abs(got[y, x].astype(int) - expected[y, x]).max() <= tolerance


class TestFormats:
    @pytest.mark.parametrize(
        ("format_name", "options"),
        [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("PNG", {"optimize": True})],
    )
    def test_lossless_formats_come_back_exactly_as_bgr(self, format_name, options):
        picture = decode(encoded(quarters(), format_name, **options), LIMITS)
        np.testing.assert_array_equal(picture, quarters()[..., ::-1])
        assert picture.dtype == np.uint8
        assert picture.flags.c_contiguous

    @pytest.mark.parametrize(
        ("format_name", "options"),
        [
            ("JPEG", {"quality": 90}),
            ("JPEG", {"quality": 90, "progressive": True}),
            ("JPEG", {"quality": 90, "subsampling": 0}),
            ("WEBP", {"quality": 90}),
        ],
    )
    def test_lossy_formats_keep_the_colours(self, format_name, options):
        assert_close(decoded_rgb(encoded(quarters(), format_name, **options)), quarters(), 12)

    def test_a_cmyk_jpeg_keeps_its_colours_roughly(self):
        data = encoded(Image.fromarray(quarters()).convert("CMYK"), "JPEG", quality=95)
        assert_close(decoded_rgb(data), quarters(), 16)

    @pytest.mark.parametrize("format_name", ["PNG", "BMP", "JPEG"])
    def test_grey_becomes_three_equal_channels(self, format_name):
        rgb = decoded_rgb(encoded(np.full((20, 30), 90, dtype=np.uint8), format_name))
        assert rgb.shape == (20, 30, 3)
        assert np.abs(rgb.astype(int) - 90).max() <= 1

    @pytest.mark.parametrize("format_name", ["PNG", "BMP"])
    def test_one_bit_is_black_and_white(self, format_name):
        bits = np.zeros((20, 24), dtype=bool)
        bits[:, 12:] = True
        rgb = decoded_rgb(encoded(Image.fromarray(bits), format_name))
        assert (rgb[:, :12] == 0).all()
        assert (rgb[:, 12:] == 255).all()

    @pytest.mark.parametrize("format_name", ["PNG", "BMP"])
    def test_a_palette_is_looked_up(self, format_name):
        data = encoded(Image.fromarray(quarters()).quantize(8), format_name)
        assert_close(decoded_rgb(data), quarters(), 2)

    def test_sixteen_bit_grey_is_scaled_not_clipped(self):
        values = np.repeat(np.uint16([0, 257, 0x8080, 300 * 100, 65535]), 20)[None].repeat(20, axis=0)
        rgb = decoded_rgb(encoded(values, "PNG"))
        assert Image.open(io.BytesIO(encoded(values, "PNG"))).mode.startswith("I")
        # 30000 / 257 = 116.7
        assert rgb[5, ::20, 1].tolist() == pytest.approx([0, 1, 128, 117, 255], abs=1)
        assert rgb[5, 45, 0] == 128

    @pytest.mark.parametrize("alpha", [False, True])
    def test_sixteen_bit_colour_is_scaled(self, alpha):
        bgr = quarters()[..., ::-1].astype(np.uint16) * 257
        if alpha:
            bgr = np.dstack([bgr, np.full(bgr.shape[:2], 65535, np.uint16)])
        data = cv2.imencode(".png", bgr)[1].tobytes()
        assert data[24] == 16  # bits a sample, in the header
        assert_close(decoded_rgb(data), quarters(), 1)

    @pytest.mark.parametrize(("format_name", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
    def test_transparency_lies_over_white(self, format_name, options):
        rgba = np.zeros((32, 48, 4), dtype=np.uint8)
        rgba[:, :16] = (200, 0, 0, 255)
        rgba[:, 16:32] = (200, 0, 0, 128)
        rgba[:, 32:] = (200, 0, 0, 0)
        rgb = decoded_rgb(encoded(rgba, format_name, **options))
        assert rgb[10, 5].tolist() == [200, 0, 0]
        # Half of 200 and half of 255; half of 0 and half of 255.
        assert rgb[10, 20].tolist() == pytest.approx([227, 127, 127], abs=1)
        assert rgb[10, 40].tolist() == [255, 255, 255]

    def test_lossy_webp_with_alpha_lies_over_white(self):
        rgba = np.dstack([quarters(), np.full((40, 64), 255, np.uint8)])
        rgba[:, 32:, 3] = 0
        rgb = decoded_rgb(encoded(rgba, "WEBP", quality=90))
        assert (rgb[5, 50:] >= 250).all()
        assert np.abs(rgb[5, 10].astype(int) - QUARTERS[0]).max() <= 12

    def test_grey_with_alpha_lies_over_white(self):
        pixels = np.zeros((20, 20, 2), dtype=np.uint8)
        pixels[:, 10:, 1] = 255
        rgb = decoded_rgb(encoded(Image.fromarray(pixels), "PNG"))
        assert (rgb[:, :10] == 255).all()
        assert (rgb[:, 10:] == 0).all()

    def test_a_transparent_palette_entry_is_white(self):
        picture = Image.new("P", (40, 20), 0)
        picture.putpalette([10, 20, 30, 200, 100, 50])
        picture.paste(1, (20, 0, 40, 20))
        rgb = decoded_rgb(encoded(picture, "PNG", transparency=0))
        assert (rgb[:, :20] == 255).all()
        assert (rgb[:, 20:] == (200, 100, 50)).all()

    def test_a_transparent_colour_is_white(self):
        rgb = decoded_rgb(encoded(quarters(), "PNG", transparency=QUARTERS[0]))
        assert rgb[5, 5].tolist() == [255, 255, 255]
        assert rgb[5, 60].tolist() == list(QUARTERS[1])

    def test_a_phone_jpeg_with_a_second_frame_counts_by_its_first(self):
        data = encoded(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 40))], quality=90)
        assert_close(decoded_rgb(data), quarters(), 12)

    def test_the_name_of_a_format_comes_from_the_content(self):
        assert [sniff_format(encoded(quarters(), name)) for name in ("JPEG", "PNG", "WEBP", "BMP")] == [
            "JPEG",
            "PNG",
            "WEBP",
            "BMP",
        ]
        assert sniff_format(b"RIFF\0\0\0\0WAVE") is None


# What has to be done to the stored pixels to see them as taken: EXIF 2.3, tag 274.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


class TestOrientation:
    @pytest.mark.parametrize("value", list(UPRIGHT))
    @pytest.mark.parametrize(("format_name", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
    def test_lossless_pictures_are_turned_upright(self, value, format_name, options):
        data = encoded(quarters(), format_name, exif=orientation(value), **options)
        np.testing.assert_array_equal(decoded_rgb(data), UPRIGHT[value](quarters()))

    @pytest.mark.parametrize("value", list(UPRIGHT))
    def test_a_jpeg_is_turned_upright(self, value):
        data = encoded(quarters(), "JPEG", quality=92, exif=orientation(value))
        assert_close(decoded_rgb(data), UPRIGHT[value](quarters()), 12)

    @pytest.mark.parametrize("value", [0, 9, 6000])
    def test_an_orientation_that_does_not_exist_changes_nothing(self, value):
        data = encoded(quarters(), "PNG", exif=orientation(value))
        np.testing.assert_array_equal(decoded_rgb(data), quarters())

    def test_a_tag_of_a_wrong_type_does_not_spoil_the_picture(self):
        """Orientation 6 beside a camera name that claims to be a floating-point number."""
        entries = struct.pack("<HHII", 0x010F, 11, 1, 0x3F800000) + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
        data = encoded(quarters(), "JPEG", quality=92, exif=exif)
        assert_close(decoded_rgb(data), UPRIGHT[6](quarters()), 12)

    @pytest.mark.parametrize("block", [b"Exif\0\0rubbish!", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
    def test_an_exif_block_that_cannot_be_read_is_no_orientation(self, block):
        assert_close(decoded_rgb(encoded(quarters(), "JPEG", quality=92, exif=block)), quarters(), 12)


class TestReduced:
    SIZE = (1600, 1000)

    @pytest.mark.parametrize(
        ("least_side_px", "size"),
        [
            (1601, (1600, 1000)),
            (801, (1600, 1000)),
            (800, (800, 500)),
            (401, (800, 500)),
            (400, (400, 250)),
            (200, (200, 125)),
            (20, (200, 125)),
            (None, (1600, 1000)),
        ],
    )
    def test_a_jpeg_is_decoded_as_small_as_it_may_be_and_says_how_large_it_is(self, least_side_px, size):
        picture = decode_reduced(encoded(quarters(*self.SIZE), "JPEG"), LIMITS, least_side_px=least_side_px)
        assert picture.pixels.shape == (size[1], size[0], 3)
        assert (picture.width, picture.height) == self.SIZE
        assert picture.reduced == (size != self.SIZE)
        assert_close(picture.pixels[..., ::-1], quarters(*size), 12)

    def test_sides_that_do_not_divide_are_rounded_up(self):
        picture = decode_reduced(encoded(quarters(1003, 597), "JPEG"), LIMITS, least_side_px=240)
        assert picture.pixels.shape == (150, 251, 3)
        assert (picture.width, picture.height) == (1003, 597)

    @pytest.mark.parametrize("value", list(UPRIGHT))
    def test_it_is_turned_upright_as_the_whole_one_is(self, value):
        data = encoded(quarters(*self.SIZE), "JPEG", exif=orientation(value), quality=95)
        whole, picture = decode(data, LIMITS), decode_reduced(data, LIMITS, least_side_px=400)
        assert (picture.height, picture.width) == whole.shape[:2]
        averaged = cv2.resize(whole, picture.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(picture.pixels.astype(int) - averaged).mean() < 1

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_grey_and_cmyk_come_reduced_too(self, mode):
        data = encoded(Image.fromarray(quarters(*self.SIZE)).convert(mode), "JPEG", quality=95)
        picture = decode_reduced(data, LIMITS, least_side_px=400).pixels
        assert picture.shape == (250, 400, 3)
        averaged = cv2.resize(decode(data, LIMITS), (400, 250), interpolation=cv2.INTER_AREA)
        assert np.abs(picture.astype(int) - averaged).mean() < 1

    @pytest.mark.parametrize("format_name", ["PNG", "BMP", "WEBP"])
    def test_other_formats_come_whole(self, format_name):
        picture = decode_reduced(encoded(quarters(*self.SIZE), format_name), LIMITS, least_side_px=400)
        assert picture.pixels.shape == (1000, 1600, 3)
        assert not picture.reduced

    def test_limits_are_those_of_the_whole_picture(self):
        data = encoded(quarters(*self.SIZE), "JPEG")
        with pytest.raises(ImageTooManyPixels):
            decode_reduced(data, ImageLimits(max_pixels=1_599_999), least_side_px=200)
        # An eighth of it has fewer pixels a side than the least allowed.
        picture = decode_reduced(data, ImageLimits(min_side_px=1000), least_side_px=200)
        assert picture.pixels.shape == (125, 200, 3)

    def test_a_truncated_picture_is_damaged_at_any_size(self):
        data = encoded(np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8), "JPEG")
        with pytest.raises(ImageDamaged):
            decode_reduced(data[: len(data) // 2], LIMITS, least_side_px=100)
