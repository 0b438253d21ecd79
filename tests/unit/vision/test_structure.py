"""Files that cost a decoder far more than their pixels do, and what is left of a file for it to see."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from itertools import takewhile

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.domain import ImageAnimated, ImageDamaged, ImageError
from service.vision import structure
from service.vision.imaging import ImageLimits, decode
from service.vision.structure import MAX_CHUNKS, MAX_RLE_BYTES, MAX_SCANS, MAX_SEGMENTS, essentials

SIDE = 64
LIMITS = ImageLimits()
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


def pixels() -> np.ndarray:
    """(SIDE, SIDE, 3) uint8 RGB without a symmetry."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    return np.dstack([rows * 4, columns * 3, (rows + 2 * columns)]).astype(np.uint8)


def encoded(format_name: str, picture: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (picture or Image.fromarray(pixels())).save(stream, format_name, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "maker"
    block[0x9286] = "a comment"
    return block


def segment(code: int, body: bytes) -> bytes:
    return bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def compressed(kind: bytes, size: int) -> bytes:
    """A text or profile that unpacks to so many bytes."""
    return chunk(kind, b"a\0\0" + zlib.compress(bytes(size)))


def behind_the_header(inserted: bytes) -> bytes:
    """A PNG with something between its header and its pixels."""
    png = encoded("PNG")
    return png[:33] + inserted + png[33:]


def after_the_start(inserted: bytes) -> bytes:
    """A JPEG with something before all else."""
    jpeg = encoded("JPEG")
    return jpeg[:2] + inserted + jpeg[2:]


def scans_again(times: int, separator: bytes = b"", *, progressive: bool = True) -> bytes:
    """A JPEG whose last scan comes so many times more."""
    jpeg = encoded("JPEG", progressive=progressive)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + (separator + jpeg[last:-2]) * times + jpeg[-2:]


def bad_directory(entries: int, size: int) -> bytes:
    """A TIFF block whose directory points at all of it again and again."""
    rows = b"".join(struct.pack("<HHII", 1_000 + number, 7, size - 8, 0) for number in range(entries))
    block = b"II*\0" + struct.pack("<IH", 8, entries) + rows + bytes(4)
    return block + bytes(size - len(block))


# Each of them would keep a decoder busy, most of them for seconds, and the longer the file the longer.
HOSTILE: dict[str, tuple[Callable[[], bytes], type[ImageError] | None]] = {
    "jpeg-filling": (lambda: after_the_start(b"\xff" * 15_000_000), ImageDamaged),
    "jpeg-stuffing": (lambda: after_the_start(b"\xff\x00" * 7_000_000), ImageDamaged),
    "jpeg-junk": (lambda: after_the_start(segment(0xFE, b"x") + bytes(15_000_000)), ImageDamaged),
    "jpeg-comments": (lambda: after_the_start(segment(0xFE, b"") * 4_000_000), ImageError),
    "jpeg-exif-segments": (lambda: after_the_start(segment(0xE1, b"Exif\0\0" + bytes(900)) * 16_000), ImageError),
    "jpeg-long-exif-segments": (lambda: after_the_start(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 300), None),
    "jpeg-scans": (lambda: scans_again(20_000), ImageError),
    "jpeg-sequential-scans": (lambda: scans_again(5_000, progressive=False), ImageError),
    "jpeg-scans-and-comments": (lambda: scans_again(3_000, segment(0xFE, b"")), ImageError),
    "jpeg-exif-directory": (lambda: after_the_start(segment(0xE1, b"Exif\0\0" + bad_directory(5_000, 65_000))), None),
    "png-texts": (lambda: behind_the_header(chunk(b"tEXt", b"a\0b") * 1_000_000), ImageError),
    "png-empty-data": (lambda: behind_the_header(chunk(b"IDAT", b"") * 1_000_000), ImageError),
    "png-compressed-texts": (
        lambda: behind_the_header(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 60),
        None,
    ),
    "png-compressed-profile": (
        lambda: behind_the_header(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(90_000_000)))),
        None,
    ),
    "png-exif-directory": (lambda: behind_the_header(chunk(b"eXIf", bad_directory(60_000, 15_000_000))), None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_costs_more_than_its_pixels_is_refused_or_freed_of_it(name: str) -> None:
    make, refusal = HOSTILE[name]
    data = make()
    assert len(data) <= LIMITS.max_bytes
    started = time.thread_time()
    if refusal is None:
        assert decode(data, LIMITS).shape == (SIDE, SIDE, 3)
    else:
        with pytest.raises(refusal):
            decode(data, LIMITS)
    assert time.thread_time() - started < 0.5


def test_what_other_encoders_write_is_taken() -> None:
    for times in (0, 12, MAX_SCANS - 12):
        assert decode(scans_again(times), LIMITS).shape == (SIDE, SIDE, 3)
    assert decode(after_the_start(segment(0xE2, b"ICC_PROFILE\0" + bytes(9_000)) * 255), LIMITS).size
    assert decode(after_the_start(b"\xff\xff\xff"), LIMITS).size
    # Behind the picture's end there may be anything: another frame, a film.
    assert decode(encoded("JPEG") + b"\xff\xda\x00\x08" * 1_000, LIMITS).size
    png = encoded("PNG")
    data = png[33:-12]
    (length,) = struct.unpack_from(">I", data)
    body = data[8 : 8 + length]
    split = b"".join(chunk(b"IDAT", body[place : place + 1]) for place in range(len(body)))
    assert np.array_equal(decode(png[:33] + split + png[-12:], LIMITS), decode(png, LIMITS))


def test_run_length_encoded_bmp_is_taken_while_it_is_small() -> None:
    def run_lengths(side: int) -> bytes:
        """Grey rows of runs of one pixel, as wasteful as it can be."""
        row = b"\x01\x80" * side + b"\0\0"
        body = row * side + b"\0\1"
        palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
        info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
        offset = 14 + len(info) + len(palette)
        return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body

    assert (decode(run_lengths(200), LIMITS) == 0x80).all()
    large = run_lengths(3_000)
    assert len(large) > MAX_RLE_BYTES
    started = time.thread_time()
    with pytest.raises(ImageError, match="run-length"):
        decode(large, LIMITS)
    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize("format_name", FORMATS[:3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_and_pixels_stay_and_nothing_else(format_name: str, orientation: int) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("secret", "where it was taken")
    options = {
        "JPEG": {"comment": b"secret", "icc_profile": b"secret" * 20_000, "quality": 95},
        "PNG": {"pnginfo": text, "icc_profile": b"secret"},
        "WEBP": {"lossless": True, "icc_profile": b"secret", "xmp": b"secret"},
    }[format_name]
    data = encoded(format_name, exif=exif(orientation), **options)
    left = essentials(data, format_name)
    assert b"secret" in data or b"maker" in data
    assert not any(word in left for word in (b"secret", b"maker", b"comment", b"taken"))
    assert len(left) < len(data)
    with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(left)) as stripped:
        assert stripped.getexif().get(0x0112, 1) == orientation
        assert np.array_equal(np.asarray(whole), np.asarray(stripped))
        assert not {"icc_profile", "xmp", "comment", "secret"} & stripped.info.keys()


@pytest.mark.parametrize("kind", ["BYTE", "SHORT", "LONG"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_either_order_and_any_size(kind: str, order: str) -> None:
    number, letter = {"BYTE": (1, "B3x"), "SHORT": (3, "H2x"), "LONG": (4, "I")}[kind]
    start = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHI{letter}", 0x0112, number, 1, 6)
    block = start + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
    assert decode(after_the_start(segment(0xE1, b"Exif\0\0" + block)), LIMITS).shape == (SIDE, SIDE, 3)
    assert structure._orientation(block) == 6
    for end in range(len(block) - 6):
        assert structure._orientation(block[:end]) in (1, 6)
    assert structure._orientation(block[:8] + b"\xff\xff" + block[10:]) == 6


@pytest.mark.parametrize(
    "make", [lambda: encoded("JPEG"), lambda: encoded("JPEG", Image.fromarray(pixels()).convert("CMYK"))]
)
def test_colour_spaces_are_told_as_before(make: Callable[[], bytes]) -> None:
    data = make()
    with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(essentials(data, "JPEG"))) as left:
        assert whole.mode == left.mode
        assert np.array_equal(np.asarray(whole), np.asarray(left))


def test_a_png_of_several_frames_is_animated_and_one_of_one_frame_is_not() -> None:
    frames = [Image.fromarray(np.roll(pixels(), shift, axis=0)) for shift in range(3)]
    moving = encoded("PNG", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(ImageAnimated):
        decode(moving, LIMITS)
    single = behind_the_header(chunk(b"acTL", struct.pack(">II", 1, 0)))
    assert np.array_equal(decode(single, LIMITS), decode(encoded("PNG"), LIMITS))


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_file_cut_anywhere_is_told_as_such(format_name: str) -> None:
    data = encoded(format_name)
    for end in [*range(4, 64), *range(64, len(data) - 16, 97)]:
        with pytest.raises(ImageError):
            decode(data[:end], LIMITS)


def test_the_limits_are_counted_to_the_last() -> None:
    comment = segment(0xFE, b"")
    own = 1 + sum(1 for _ in takewhile(lambda found: found[0] != 0xDA, structure._jpeg_segments(encoded("JPEG"))))
    assert decode(after_the_start(comment * (MAX_SEGMENTS - own)), LIMITS).size
    with pytest.raises(ImageError, match="segments"):
        decode(after_the_start(comment * (MAX_SEGMENTS - own + 1)), LIMITS)
    text = chunk(b"tEXt", b"a\0b")
    own = sum(1 for _ in structure._png_chunks(encoded("PNG")))
    assert decode(behind_the_header(text * (MAX_CHUNKS - own)), LIMITS).size
    with pytest.raises(ImageError, match="chunks"):
        decode(behind_the_header(text * (MAX_CHUNKS - own + 1)), LIMITS)
