"""The picture decoder as a fuzzing target."""

from __future__ import annotations

import numpy as np

from service.domain import ImageError
from service.vision.imaging import ImageLimits, decode, decode_reduced, sniff_format
from tests.fuzz import mutations, pictures

NAME = "decoder"
# A picture of the most pixels that the service takes may take a second to decode; what is looked for here is work that
# is out of all proportion to a picture's size.
LIMITS = ImageLimits(max_bytes=4_000_000, max_pixels=4_000_000)
MAX_BYTES = 64_000
# Four bytes a pixel, some of them several times while colours are converted.
MAX_GROWTH_MB = 160
_LEAST_SIDES_PX = (1, 8, 20, 640)


def check(data: bytes) -> None:
    """Decode a file. Raises AssertionError, or whatever it should not, when the decoder breaks its promises."""
    try:
        image = decode(data, LIMITS)
    except ImageError:
        return
    height, width, channels = image.shape
    assert sniff_format(data) is not None
    assert channels == 3
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert LIMITS.min_side_px <= min(height, width)
    assert height * width <= LIMITS.max_pixels
    # Whatever can be decoded can be decoded smaller.
    least_side_px = _LEAST_SIDES_PX[len(data) % len(_LEAST_SIDES_PX)]
    reduced = decode_reduced(data, LIMITS, least_side_px=least_side_px)
    assert (reduced.height, reduced.width) == (height, width)
    assert max(reduced.pixels.shape[:2]) >= min(least_side_px, max(height, width))
    assert min(reduced.pixels.shape) >= 1


def seeds() -> dict[str, bytes]:
    """Files to begin with."""
    return pictures.seeds()


def mutated(data: bytes, max_size: int, seed: int, mutate: mutations.Mutate) -> bytes:
    """Another file, see `mutations`."""
    return mutations.mutated(data, max_size, seed, mutate)


def tokens() -> list[bytes]:
    """What a mutation may put in."""
    return [
        b"IHDR",
        b"PLTE",
        b"tRNS",
        b"IDAT",
        b"acTL",
        b"eXIf",
        b"VP8 ",
        b"VP8L",
        b"VP8X",
        b"ALPH",
        b"ANMF",
        b"Exif\0\0",
    ]
