"""Pictures to begin fuzzing with: every format and kind that the service takes, and headers that lie."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

_WIDTH, _HEIGHT = 40, 24


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg_segment(code: int, body: bytes) -> bytes:
    """A segment with its length."""
    return bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length, padded."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def seeds() -> dict[str, bytes]:
    """Files by name, each of at most a few kilobytes."""
    return {**_good(), **_lying(), **_padded(), **_cut()}


def _pixels() -> np.ndarray:
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    return np.dstack([rows * 9, columns * 6, rows * columns % 256]).astype(np.uint8)


def _encoded(picture: Image.Image, format_name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format_name, **options)
    return stream.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def _good() -> dict[str, bytes]:
    rows = b"\0\0" * _HEIGHT + b"\0\1"
    rgb = Image.fromarray(_pixels())
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(_pixels()[..., 1]))
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b")
    text.add_text("c", "d" * 100, zip=True)
    text.add_itxt("e", "f", "de", "g", zip=True)
    two = [Image.fromarray(np.roll(_pixels(), 5, axis=1))]
    palette = rgb.quantize(16)
    return {
        "jpeg": _encoded(rgb, "JPEG", quality=50),
        "jpeg-exif": _encoded(rgb, "JPEG", exif=_exif(6), quality=50, comment=b"comment", icc_profile=b"profile"),
        "jpeg-progressive": _encoded(rgb, "JPEG", progressive=True, quality=50),
        "jpeg-restarts": _encoded(rgb, "JPEG", restart_marker_blocks=1, quality=50),
        "jpeg-grey": _encoded(rgb.convert("L"), "JPEG", quality=50),
        "jpeg-cmyk": _encoded(rgb.convert("CMYK"), "JPEG", quality=50),
        "jpeg-several": _encoded(rgb, "MPO", save_all=True, append_images=two, quality=50),
        "png": _encoded(rgb, "PNG"),
        "png-exif": _encoded(rgb, "PNG", exif=_exif(3), pnginfo=text, icc_profile=b"profile", dpi=(72, 72)),
        "png-alpha": _encoded(rgba, "PNG"),
        "png-palette": _encoded(palette, "PNG", transparency=bytes(range(16))),
        "png-bits": _encoded(rgb.convert("1"), "PNG"),
        "png-deep": _encoded(Image.fromarray(_pixels()[..., 0].astype(np.uint16) * 257), "PNG"),
        "png-grey-alpha": _encoded(rgba.convert("LA"), "PNG"),
        "png-interlaced": _interlaced(),
        "png-animated": _encoded(rgb, "PNG", save_all=True, append_images=two),
        "webp": _encoded(rgb, "WEBP", quality=40),
        "webp-lossless": _encoded(rgb, "WEBP", lossless=True),
        "webp-alpha": _encoded(rgba, "WEBP", quality=40, exif=_exif(8), xmp=b"<x/>", icc_profile=b"profile"),
        "webp-animated": _encoded(rgb, "WEBP", save_all=True, append_images=two),
        "bmp": _encoded(rgb, "BMP"),
        "bmp-palette": _encoded(palette, "BMP"),
        "bmp-bits": _encoded(rgb.convert("1"), "BMP"),
        "bmp-alpha": _encoded(rgba, "BMP"),
        "bmp-runs": _run_lengths(1, b"\x05\x01\x00\x03abc\0\x00\x02\x07\x01" * 4 + rows),
        "bmp-nibble-runs": _run_lengths(
            2, b"\x05\x12\x00\x04\x12\x34\x00\x02\x07\x01" * 4 + b"\0\0" * _HEIGHT + b"\0\1"
        ),
    }


def _interlaced() -> bytes:
    """Seven passes (Adam7) over 8 x 8 grey pixels."""
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    rows = b"".join((b"\0" + bytes(range(width))) * height for width, height in passes)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def _run_lengths(compression: int, body: bytes) -> bytes:
    bits = 8 if compression == 1 else 4
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(0, 256, 1 if bits == 8 else 16))
    info = struct.pack("<IiiHHIIiiII", 40, _WIDTH, _HEIGHT, 1, bits, compression, len(body), 0, 0, 1 << bits, 0)
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body


def _lying() -> dict[str, bytes]:
    """Files whose headers announce other sizes than they have."""
    good = _good()
    jpeg, png, bmp = good["jpeg-progressive"], good["png"], good["bmp"]
    frame = jpeg.index(b"\xff\xc2") + 5
    files = {}
    for name, width, height in (("huge", 60_000, 60_000), ("wide", 65_000, 60), ("fits", 1_999, 2_000), ("none", 0, 0)):
        files[f"jpeg-{name}"] = jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4 :]
        header = struct.pack(">II", width, height) + png[24:29]
        files[f"png-{name}"] = png[:8] + png_chunk(b"IHDR", header) + png[33:]
        files[f"bmp-{name}"] = bmp[:18] + struct.pack("<ii", width, -height) + bmp[26:]
        canvas = (max(width, 1) - 1).to_bytes(3, "little") + (max(height, 1) - 1).to_bytes(3, "little")
        body = b"WEBP" + riff_chunk(b"VP8X", bytes(4) + canvas) + good["webp"][12:]
        files[f"webp-{name}"] = b"RIFF" + struct.pack("<I", len(body)) + body
    return files


def _padded() -> dict[str, bytes]:
    """Files with more in them than pixels."""
    good = _good()
    jpeg, progressive, png = good["jpeg"], good["jpeg-progressive"], good["png"]
    scan = progressive.rindex(b"\xff\xda")
    return {
        "jpeg-filled": jpeg[:2] + b"\xff" * 300 + jpeg[2:],
        "jpeg-many-segments": jpeg[:2] + jpeg_segment(0xFE, b"") * 300 + jpeg[2:],
        "jpeg-many-exif": jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0MM") * 100 + jpeg[2:],
        "jpeg-many-scans": progressive[:-2] + progressive[scan:-2] * 40 + progressive[-2:],
        "jpeg-trailing": jpeg + b"\xff\xda\x00\x08" * 100,
        "png-many-chunks": png[:33] + png_chunk(b"tEXt", b"a\0b") * 100 + png[33:],
        "png-empty-data": png[:33] + png_chunk(b"IDAT", b"") * 100 + png[33:],
        "png-packed-text": png[:33] + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000))) * 3 + png[33:],
        "png-packed-profile": png[:33] + png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(900_000))) + png[33:],
    }


def _cut() -> dict[str, bytes]:
    good = _good()
    return {f"{name}-cut": good[name][: len(good[name]) * 2 // 3] for name in ("jpeg", "png", "webp", "bmp")}
