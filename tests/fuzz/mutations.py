"""Changes of picture files that know of their structure, so that a decoder gets further than the first checksum."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from service.vision.imaging import sniff_format
from tests.fuzz.pictures import jpeg_segment, png_chunk, riff_chunk

# Changes some bytes to at most so many others, as libFuzzer would.
Mutate = Callable[[bytes, int], bytes]
Part = tuple[bytes, bytes]

_MOST_PARTS = 2_000
_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
_KINDS = {
    "PNG": (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt", b"iTXt"),
    "JPEG": tuple(bytes((code,)) for code in (0xC0, 0xC2, 0xC4, 0xDB, 0xDC, 0xDD, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE)),
    "WEBP": (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"XMP "),
}


def mutated(data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
    """A changed file of at most `max_size` bytes; the same seed makes the same change."""
    chance = random.Random(seed)
    format_name = sniff_format(data)
    if format_name is None or chance.random() < 0.2:
        return mutate(data, max_size)
    if format_name == "BMP":
        return _with_number(data, chance, within=70)[:max_size] if chance.random() < 0.6 else mutate(data, max_size)
    parts = _PARSERS[format_name](data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        parts = _changed(parts, format_name, chance, mutate, max_size)
    return _WRITERS[format_name](parts)[:max_size]


def _changed(parts: list[Part], format_name: str, chance: random.Random, mutate: Mutate, max_size: int) -> list[Part]:
    if not parts:
        return [(chance.choice(_KINDS[format_name]), b"")]
    place = chance.randrange(len(parts))
    kind, body = parts[place]
    match chance.randrange(9):
        case 0:
            changed = [(kind, mutate(body, max_size))]
        case 1:
            changed = [(kind, _with_number(body, chance, within=32))]
        case 2:
            changed = [(kind, _unpacked(body, lambda inner: mutate(inner, max_size)))]
        case 3:
            changed = [(chance.choice(_KINDS[format_name]), body)]
        case 4:
            changed = []
        case 5:
            changed = [(kind, body)] * chance.choice((2, 3, 70, 500))
        case 6:
            changed = [(kind, body), (chance.choice(_KINDS[format_name]), mutate(body[:64], max_size))]
        case 7:
            other = chance.randrange(len(parts))
            changed, parts = [parts[other]], [*parts[:other], (kind, body), *parts[other + 1 :]]
        case _:
            changed = [(kind, body[: chance.randrange(len(body) + 1)])]
    return [*parts[:place], *changed, *parts[place + 1 :]][:_MOST_PARTS]


def _with_number(body: bytes, chance: random.Random, *, within: int) -> bytes:
    """With an interesting number of one, two or four bytes somewhere near the beginning."""
    layout = chance.choice((">B", ">H", "<H", ">I", "<I"))
    size = struct.calcsize(layout)
    if len(body) < size:
        return body
    place = chance.randrange(min(len(body) - size, within) + 1)
    value = chance.choice(_NUMBERS) & (1 << 8 * size) - 1
    return body[:place] + struct.pack(layout, value) + body[place + size :]


def _unpacked(body: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """With a change beneath its compression, where it is compressed."""
    for start in range(min(len(body), 8)):
        try:
            inner = zlib.decompressobj().decompress(body[start:], 1_000_000)
        except zlib.error:
            continue
        return body[:start] + zlib.compress(change(inner), 1)
    return change(body)


def _png_parts(data: bytes) -> list[Part]:
    parts, place = [], 8
    while place + 12 <= len(data) and len(parts) < _MOST_PARTS:
        length, kind = struct.unpack_from(">I4s", data, place)
        parts.append((kind, data[place + 8 : place + 8 + length]))
        place += length + 12
    return parts


def _jpeg_parts(data: bytes) -> list[Part]:
    """Segments; what follows a scan's header belongs to it."""
    parts, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and len(parts) < _MOST_PARTS:
        code, length = struct.unpack_from(">xBH", data, place)
        end = place + 2 + max(length, 2)
        if code == 0xDA:
            following = data.find(b"\xff\xda", end)
            end = following if following > 0 else len(data)
        parts.append((bytes((code,)), data[place + 4 : end]))
        place = end
    return parts


def _riff_parts(data: bytes) -> list[Part]:
    parts, place = [], 12
    while place + 8 <= len(data) and len(parts) < _MOST_PARTS:
        kind, length = struct.unpack_from("<4sI", data, place)
        parts.append((kind, data[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    return parts


def _png_of(parts: list[Part]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in parts)


def _jpeg_of(parts: list[Part]) -> bytes:
    def written(kind: bytes, body: bytes) -> bytes:
        if kind == b"\xda" and len(body) > 10:
            # Only the header has a length.
            header = 1 + 2 * body[0] + 3
            return jpeg_segment(0xDA, body[:header]) + body[header:]
        return jpeg_segment(kind[0], body[:65_533])

    return b"\xff\xd8" + b"".join(written(kind, body) for kind, body in parts)


def _webp_of(parts: list[Part]) -> bytes:
    body = b"WEBP" + b"".join(riff_chunk(kind, body) for kind, body in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


_PARSERS = {"PNG": _png_parts, "JPEG": _jpeg_parts, "WEBP": _riff_parts}
_WRITERS = {"PNG": _png_of, "JPEG": _jpeg_of, "WEBP": _webp_of}
