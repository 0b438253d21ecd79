"""What decoding needs of a picture file, and nothing else: bounded work before a decoder sees hostile bytes.

Decoders spend time and memory on more than pixels. Pillow reads the segments of a JPEG and the chunks of a PNG in
Python, some of them at a cost that grows with the square of their number, and goes through directories of EXIF data
that may point to the same megabytes thousands of times. A JPEG may hold any number of scans, each of them another pass
over the whole picture. So the file is walked through here first, and written anew without comments, profiles, previews
and whatever else bears no pixels; of EXIF data only the orientation stays.

Formats: ITU-T T.81 annex B (JPEG), W3C PNG third edition (PNG), RFC 9649 (WebP), EXIF 2.3 section 4.6 (orientation).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from service.domain import ImageAnimated, ImageDamaged, ImageError

# Far above what encoders write: a dozen scans of a progressive JPEG, some hundred segments with a long profile, a
# chunk for every few kilobytes of a PNG.
MAX_SCANS = 64
MAX_SEGMENTS = 2_048
MAX_CHUNKS = 32_768
# Filling between two segments; T.81 allows any number of 0xff bytes, encoders write none or one.
MAX_FILL_BYTES = 1_024
# Run-length encoded BMP is decoded byte by byte in Python.
MAX_RLE_BYTES = 1_000_000
_MAX_IFD_ENTRIES = 1_000

_ORIENTATION = 0x0112
# BYTE, SHORT and LONG, as `struct` spells them.
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}

_SOS, _EOI = 0xDA, 0xD9
# Frames, tables, restart intervals; JFIF and Adobe segments tell the colour space.
_JPEG_KEPT = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD})
_EXIF_PREFIX = b"Exif\0\0"
# The next marker within or behind a scan; restarts and stuffed zeros belong to the scan.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})

_WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_VP8X_EXIF, _VP8X_ALPHA = 0x08, 0x10

_BMP_RUN_LENGTHS = (1, 2)


def essentials(data: bytes, format_name: str) -> bytes:
    """A picture file of the same pixels and orientation as this one, that is cheap to read.

    Args:
        data: the file.
        format_name: one of `imaging.ACCEPTED_FORMATS`, by the first bytes of the file.

    Raises:
        ImageDamaged: it does not have the structure of its format.
        ImageAnimated: it is a PNG of several frames.
        ImageError: it has it, and reading it would take more work than a picture is worth.
    """
    if format_name == "JPEG":
        return _jpeg(data)
    if format_name == "PNG":
        return _png(data)
    if format_name == "WEBP":
        return _webp(data)
    return _bmp(data)


def _damaged(format_name: str) -> ImageDamaged:
    return ImageDamaged(f"the {format_name} picture is truncated or corrupt")


def _too_much(what: str, limit: int) -> ImageError:
    return ImageError(f"the picture has too many {what}, at most {limit} are accepted", limit=limit)


def _jpeg(data: bytes) -> bytes:
    head: list[bytes] = []
    orientation, known = 1, set()
    for code, start, end in _jpeg_segments(data):
        if code == _SOS:
            _check_scans(data, start)
            return b"".join((b"\xff\xd8", _exif_segment(orientation), *head, data[start:]))
        body = data[start + 4 : end]
        if code == 0xE1 and body.startswith(_EXIF_PREFIX) and code not in known:
            orientation = _orientation(body[len(_EXIF_PREFIX) :])
            known.add(code)
        tells_colours = (code == 0xE0 and body.startswith(b"JFIF")) or (code == 0xEE and body.startswith(b"Adobe"))
        if code in _JPEG_KEPT or (tells_colours and code not in known):
            head.append(data[start:end])
            known.add(code)
    raise _damaged("JPEG")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of each segment up to the first scan's header."""
    place = 2
    for _ in range(MAX_SEGMENTS):
        begin = place
        while data[place : place + 2] in (b"\xff\xff", b"\xff\x00") or data[place : place + 1] not in (b"\xff", b""):
            place += 1
            if place - begin > MAX_FILL_BYTES:
                raise _damaged("JPEG")
        if len(data) < place + 4:
            raise _damaged("JPEG")
        code, length = struct.unpack_from(">xBH", data, place)
        end = place + 2 + length
        if code == _EOI or length < 2 or end > len(data):
            raise _damaged("JPEG")
        yield code, place, end
        place = end
    raise _too_much("segments", MAX_SEGMENTS)


def _check_scans(data: bytes, place: int) -> None:
    """Raises ImageError when more scans begin here than a decoder should have to go through."""
    # At most so many; exact only where it matters, since what lies behind the picture may hold the same two bytes.
    if data.count(bytes((0xFF, _SOS)), place) <= MAX_SCANS:
        return
    scans = segments = 0
    while (found := _MARKER.search(data, place)) is not None and data[found.start() + 1] != _EOI:
        segments += 1
        scans += data[found.start() + 1] == _SOS
        if scans > MAX_SCANS:
            raise _too_much("scans", MAX_SCANS)
        if segments > MAX_SEGMENTS:
            raise _too_much("segments", MAX_SEGMENTS)
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        place = found.end() + max(length, 2)


def _png(data: bytes) -> bytes:
    kept = [_PNG_SIGNATURE]
    orientation = 1
    for kind, start, end in _png_chunks(data):
        if kind == b"acTL" and int.from_bytes(data[start + 8 : start + 12], "big") > 1:
            raise ImageAnimated("the picture is animated; send one frame")
        if kind == b"eXIf":
            orientation = _orientation(data[start + 8 : end - 4])
        if kind in _PNG_KEPT:
            kept.append(data[start:end])
    if orientation != 1 and len(kept) > 1:
        # Behind the header, which has to come first.
        kept.insert(2, _png_chunk(b"eXIf", _exif_block(orientation)))
    return b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of each chunk; the last may be cut off, which the decoder tells."""
    place = len(_PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            return
        (length, kind) = struct.unpack_from(">I4s", data, place)
        end = place + length + 12
        yield kind, place, end
        if kind == b"IEND":
            return
        place = end
    raise _too_much("chunks", MAX_CHUNKS)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _webp(data: bytes) -> bytes:
    kept: list[bytes] = []
    orientation, header = 1, b""
    for kind, start, end in _webp_chunks(data):
        if kind == b"VP8X" and not kept:
            header = data[start + 8 : start + 18]
        elif kind == b"EXIF":
            orientation = _orientation(data[start + 8 : end].removeprefix(_EXIF_PREFIX))
        elif kind in _WEBP_KEPT:
            kept.append(data[start:end])
            if not header:
                # The simple layout: one chunk of pixels, and nothing that counts behind it.
                break
    if header:
        flags = header[0] & _VP8X_ALPHA | (_VP8X_EXIF if orientation != 1 else 0)
        kept.insert(0, _riff_chunk(b"VP8X", bytes((flags,)) + header[1:]))
        if orientation != 1:
            kept.append(_riff_chunk(b"EXIF", _exif_block(orientation)))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and padded end of each chunk; the last may be cut off, which the decoder tells."""
    place = 12
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            return
        (kind, length) = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        yield kind, place, end
        place = end
    raise _too_much("chunks", MAX_CHUNKS)


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _bmp(data: bytes) -> bytes:
    if len(data) > MAX_RLE_BYTES and int.from_bytes(data[30:34], "little") in _BMP_RUN_LENGTHS:
        raise _too_much("run-length encoded bytes", MAX_RLE_BYTES)
    return data


def _orientation(block: bytes) -> int:
    """What the first directory of a TIFF block says of the orientation; 1, upright, where that cannot be read."""
    order: Literal["<", ">"] = "<" if block[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(f"{order}4xI", block)
        (entries,) = struct.unpack_from(f"{order}H", block, first)
        for place in range(first + 2, first + 2 + 12 * min(entries, _MAX_IFD_ENTRIES), 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", block, place)
            if tag == _ORIENTATION and kind in _WHOLE_NUMBERS and count == 1:
                (value,) = struct.unpack_from(f"{order}{_WHOLE_NUMBERS[kind]}", block, place + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _exif_block(orientation: int) -> bytes:
    """A TIFF block that says nothing but the orientation."""
    return b"MM\0*" + struct.pack(">IHHHIHxxI", 8, 1, _ORIENTATION, 3, 1, orientation, 0)


def _exif_segment(orientation: int) -> bytes:
    if orientation == 1:
        return b""
    body = _EXIF_PREFIX + _exif_block(orientation)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
