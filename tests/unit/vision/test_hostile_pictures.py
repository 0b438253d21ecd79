"""Bytes that only pretend to be a picture, and pictures that cost too much."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

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
from service.vision.imaging import ImageLimits, decode, decode_reduced
from tests.unit.vision.pictures import LIMITS, encoded, orientation, quarters


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
before, started = peak_kb(), time.process_time()
try:
    decode(data, ImageLimits())
    outcome = "decoded"
except ImageError as error:
    outcome = error.code
print(json.dumps([outcome, peak_kb() - before, time.process_time() - started]))
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
