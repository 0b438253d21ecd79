"""Pictures of every kind, and bytes that only pretend to be one."""

import io
import itertools
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.domain import (
    EmptyImage,
    ImageAnimated,
    ImageDamaged,
    ImageError,
    ImageFormatUnsupported,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageTooSmall,
)
from service.vision.imaging import ImageLimits, decode, decode_reduced, sniff_format

LIMITS = ImageLimits()
# Quarters of different colours, none of which a turn or a flip maps onto itself; RGB.
QUARTERS = ((230, 40, 30), (30, 200, 60), (40, 60, 220), (240, 230, 40))


def quarters(width=64, height=40):
    """(height, width, 3) uint8 RGB."""
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    for (row, column), colour in zip(itertools.product((0, 1), (0, 1)), QUARTERS, strict=True):
        rgb[row * height // 2 : (row + 1) * height // 2, column * width // 2 : (column + 1) * width // 2] = colour
    return rgb


def encoded(picture, format_name, **options):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    stream = io.BytesIO()
    picture.save(stream, format_name, **options)
    return stream.getvalue()


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


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


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


class TestRefusals:
    def test_no_bytes(self):
        with pytest.raises(EmptyImage):
            decode(b"", LIMITS)

    @pytest.mark.parametrize(
        "data",
        [
            b"Dear service,\nthis is a text in a file called portrait.jpg.\n" * 20,
            b"\xff",
            b"\x00" * 1000,
            b"%PDF-1.7\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            encoded(quarters(), "GIF"),
            encoded(quarters(), "TIFF"),
        ],
        ids=["text", "one byte", "zeros", "pdf", "svg", "gif", "tiff"],
    )
    def test_other_content(self, data):
        with pytest.raises(ImageFormatUnsupported):
            decode(data, LIMITS)

    def test_too_many_bytes(self):
        data = encoded(quarters(), "PNG")
        with pytest.raises(ImageTooManyBytes) as caught:
            decode(data, ImageLimits(max_bytes=len(data) - 1))
        assert caught.value.details == {"limit_bytes": len(data) - 1}
        assert decode(data, ImageLimits(max_bytes=len(data))).shape == (40, 64, 3)

    @pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "BMP"])
    def test_the_pixel_limit_is_exact(self, format_name):
        data = encoded(quarters(), format_name)
        assert decode(data, ImageLimits(max_pixels=64 * 40)).shape == (40, 64, 3)
        with pytest.raises(ImageTooManyPixels):
            decode(data, ImageLimits(max_pixels=64 * 40 - 1))

    @pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "BMP"])
    @pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
    def test_a_picture_too_small_for_a_face(self, format_name, size):
        data = encoded(Image.new("RGB", size), format_name)
        with pytest.raises(ImageTooSmall) as caught:
            decode(data, LIMITS)
        assert (caught.value.details["width"], caught.value.details["height"]) == size

    def test_the_smallest_picture_that_may_pass(self):
        assert decode(encoded(Image.new("RGB", (16, 16)), "PNG"), LIMITS).shape == (16, 16, 3)

    @pytest.mark.parametrize("format_name", ["WEBP", "PNG"])
    def test_an_animation(self, format_name):
        data = encoded(quarters(), format_name, save_all=True, append_images=[Image.new("RGB", (64, 40))])
        with pytest.raises(ImageAnimated):
            decode(data, LIMITS)

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    @pytest.mark.parametrize(
        ("format_name", "options"),
        [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})],
    )
    def test_a_truncated_file(self, format_name, options, share):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        data = encoded(noise, format_name, **options)
        with pytest.raises(ImageDamaged):
            decode(data[: int(len(data) * share)], LIMITS)

    @pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP"])
    def test_a_header_and_nothing_else(self, format_name):
        with pytest.raises(ImageDamaged):
            decode(encoded(quarters(), format_name)[:14], LIMITS)

    def test_a_corrupt_png_checksum(self):
        data = bytearray(encoded(quarters(), "PNG"))
        data[data.index(b"IDAT") + 8] ^= 0xFF
        with pytest.raises(ImageDamaged):
            decode(bytes(data), LIMITS)


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb():
    """A valid one-bit PNG of 30,000 x 30,000 pixels in about 110 KB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    rows = [packer.compress(row * 1000) for _ in range(30)]
    body = b"".join([*rows, packer.flush()])
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def webp_bomb(kind, side=16383):
    """A small picture whose header claims another size, by default the largest that WebP can state."""
    data = bytearray(encoded(quarters(), "WEBP", lossless=kind == b"VP8L"))
    assert data[12:16] == kind
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little") & ~0x0FFFFFFF
        data[21:25] = (bits | (side - 1) << 14 | (side - 1)).to_bytes(4, "little")
    else:
        data[26:30] = struct.pack("<HH", side, side)
    return bytes(data)


def extended_webp_bomb():
    body = struct.pack("<I", 0) + (16382).to_bytes(3, "little") * 2
    rest = encoded(quarters(), "WEBP")[12:]
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + body + rest
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


BOMBS = {
    "png": png_bomb,
    "webp": lambda: webp_bomb(b"VP8 "),
    "webp-lossless": lambda: webp_bomb(b"VP8L"),
    "webp-extended": extended_webp_bomb,
    # Over our limit and under the one at which Pillow itself refuses: it would claim the canvas on opening.
    "webp-lossless-moderate": lambda: webp_bomb(b"VP8L", 10_000),
}

_MEASURE = """
import json, sys, time
from pathlib import Path
from service.domain import ImageError
from service.vision.imaging import ImageLimits, decode

def peak_kb():
    # Address space, not resident pages: a canvas that is claimed and never touched counts as well.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmPeak"))

data = Path(sys.argv[1]).read_bytes()
decode(Path(sys.argv[2]).read_bytes(), ImageLimits())
before, started = peak_kb(), time.perf_counter()
try:
    decode(data, ImageLimits())
    outcome = "decoded"
except ImageError as error:
    outcome = error.code
print(json.dumps([outcome, peak_kb() - before, time.perf_counter() - started]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
@pytest.mark.parametrize("name", list(BOMBS))
def test_a_header_bomb_costs_neither_memory_nor_time(name, tmp_path):
    bomb, small = tmp_path / "bomb", tmp_path / "small"
    bomb.write_bytes(BOMBS[name]())
    small.write_bytes(encoded(quarters(), "WEBP" if "webp" in name else "PNG"))
    assert bomb.stat().st_size < 150_000
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(bomb), str(small)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    outcome, grown_kb, took_s = json.loads(run.stdout)
    assert outcome == "image-too-many-pixels"
    # Decoded it would be 110 MB as bits and 800 MB or more as pixels.
    assert grown_kb < 4_000, grown_kb
    assert took_s < 0.2


def samples():
    rgba = np.dstack([quarters(), np.full((40, 64), 90, np.uint8)])
    return [
        encoded(quarters(), "JPEG", exif=orientation(6)),
        encoded(quarters(), "JPEG", progressive=True),
        encoded(Image.fromarray(quarters()).convert("CMYK"), "JPEG"),
        encoded(quarters(), "PNG", exif=orientation(3)),
        encoded(rgba, "PNG"),
        encoded(Image.fromarray(quarters()).quantize(8), "PNG", transparency=1),
        encoded(np.full((20, 20), 40_000, np.uint16), "PNG"),
        encoded(quarters(), "WEBP", exif=orientation(8)),
        encoded(quarters(), "WEBP", lossless=True),
        encoded(rgba, "WEBP"),
        encoded(quarters(), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 40))]),
        encoded(quarters(), "BMP"),
        encoded(Image.fromarray(quarters()).quantize(8), "BMP"),
    ]


SAMPLES = samples()


@st.composite
def tampered(draw):
    data = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 6))):
        # Half of the changes hit the header, where the decisions are made.
        end = draw(st.sampled_from([min(120, len(data)), len(data)]))
        at = draw(st.integers(0, end - 1))
        match draw(st.sampled_from(["set", "word", "delete", "insert", "cut"])):
            case "set":
                data[at] = draw(st.integers(0, 255))
            case "word":
                data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\x80\0"]))
            case "delete":
                del data[at : at + draw(st.integers(1, 8))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del data[max(at, 12) :]
        if not data:
            break
    if data[1:4] == b"PNG" and draw(st.booleans()):
        data = with_right_checksums(data)
    return bytes(data)


def with_right_checksums(data):
    """So that a change is met by the decoder, not by the checksum."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(data[at + 4 : end])))
        at = end + 4
    return data


@settings(max_examples=400, deadline=2000)
@given(data=tampered())
def test_tampered_files_are_pictures_or_image_errors(data):
    limits = ImageLimits(max_pixels=1_000_000)
    try:
        picture = decode(data, limits)
    except ImageError as error:
        with pytest.raises(type(error)):
            decode_reduced(data, limits, least_side_px=16)
        return
    reduced = decode_reduced(data, limits, least_side_px=16)
    assert (reduced.height, reduced.width) == picture.shape[:2]
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert min(picture.shape[:2]) >= limits.min_side_px
    assert picture.shape[0] * picture.shape[1] <= limits.max_pixels


@given(data=st.binary(max_size=300), start=st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b""]))
def test_any_bytes_behind_a_known_signature_are_image_errors(data, start):
    with pytest.raises(ImageError):
        decode(start + data, LIMITS)
