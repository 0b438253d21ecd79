"""Hostile bytes to upright pixels, with every limit checked before memory is spent."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from service.domain import (
    EmptyImage,
    ImageAnimated,
    ImageDamaged,
    ImageFormatUnsupported,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageTooSmall,
)
from service.vision.structure import essentials

ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

# A truncated picture must fail, not come back half grey; and the pixel limit is ours, not Pillow's global one.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Once for the process: `catch_warnings` around a decode would race with the other threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")

_VP8X_ANIMATION = 0x02
# What a decoder may raise on bytes that somebody has tampered with.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    struct.error,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
# What a JPEG's sides can be divided by while it is decoded.
_REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may be.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height, as the header announces it.
        min_side_px: below this no face can be told apart.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    min_side_px: int = 16


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An upright picture.

    Attributes:
        pixels: (height, width, 3) uint8, BGR; may have been scaled down.
        width, height: of the whole picture, pixels.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int

    @property
    def reduced(self) -> bool:
        """Whether the picture has more pixels than `pixels`."""
        return self.pixels.shape[:2] != (self.height, self.width)


def decode(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, WebP or BMP picture, told by its content, and turn it upright by its EXIF orientation.

    Args:
        data: the file.
        limits: what is accepted.

    Returns:
        (height, width, 3) uint8, BGR. Transparency is laid over white, sixteen bits are scaled to eight, CMYK and
        grey are converted.

    Raises:
        EmptyImage, ImageTooManyBytes, ImageFormatUnsupported, ImageAnimated, ImageTooManyPixels, ImageTooSmall,
        ImageDamaged; ImageError itself where reading it would take more work than its pixels, see `structure`.
    """
    return decode_reduced(data, limits, least_side_px=None).pixels


def decode_reduced(data: bytes, limits: ImageLimits, *, least_side_px: int | None) -> Decoded:
    """As `decode`, where a half, a quarter or an eighth of the size may do.

    A JPEG can be decoded at these sizes for a fraction of the time: each block of 8 x 8 pixels is transformed into
    fewer, which averages them. Other formats come whole.

    Args:
        least_side_px: the longer side of the result is at least this, unless the picture's is shorter; None decodes
            the whole picture.
    """
    if not data:
        raise EmptyImage("the picture has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytes(
            f"the picture has {len(data)} bytes, at most {limits.max_bytes} are accepted", limit_bytes=limits.max_bytes
        )
    format_name = sniff_format(data)
    if format_name is None:
        raise ImageFormatUnsupported("the content is not a JPEG, PNG, WebP or BMP picture", accepted=ACCEPTED_FORMATS)
    if format_name == "WEBP":
        # Pillow's WebP reader allocates the whole canvas when it opens the file, so the header is read here first.
        width, height, animated = _webp_header(data)
        _check_frames(animated)
        _check_size(width, height, limits)
    try:
        with Image.open(io.BytesIO(essentials(data, format_name)), formats=[format_name]) as picture:
            _check_size(*picture.size, limits)
            # A JPEG of several frames is a phone's picture with a depth map or preview behind it: the first counts.
            _check_frames(format_name != "JPEG" and getattr(picture, "n_frames", 1) > 1)
            whole = picture.size
            if least_side_px is not None:
                _reduce(picture, least_side_px)
            picture.load()
            turn = _turn(picture)
            pixels = _to_bgr(picture if turn is None else picture.transpose(turn))
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(limits) from error
    except MemoryError as error:
        raise _too_many_pixels(limits) from error
    except _DECODER_ERRORS as error:
        raise ImageDamaged(f"the {format_name} picture is truncated or corrupt") from error
    width, height = whole[::-1] if turn in _SIDEWAYS else whole
    return Decoded(pixels, width, height)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(height, width, 3) uint8 BGR pixels as a PNG file, which gives the same pixels back."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])).save(stream, "PNG")
    return stream.getvalue()


def sniff_format(data: bytes) -> str | None:
    """Format by the first bytes: one of `ACCEPTED_FORMATS`, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    return None


def _webp_header(data: bytes) -> tuple[int, int, bool]:
    """Width, height and whether it is animated, from the first chunk (RFC 9649, section 2.5 to 2.7)."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ImageDamaged("the WEBP picture is truncated or corrupt")
    if chunk == b"VP8X":
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
        return width, height, bool(body[0] & _VP8X_ANIMATION)
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, False
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF, False
    raise ImageDamaged("the WEBP picture is truncated or corrupt")


def _check_frames(animated: bool) -> None:
    if animated:
        raise ImageAnimated("the picture is animated; send one frame")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise _too_many_pixels(limits, width=width, height=height)
    if min(width, height) < limits.min_side_px:
        raise ImageTooSmall(
            f"the picture is {width} x {height} pixels; each side must have at least {limits.min_side_px}",
            width=width,
            height=height,
            limit_px=limits.min_side_px,
        )


def _too_many_pixels(limits: ImageLimits, **details: int) -> ImageTooManyPixels:
    return ImageTooManyPixels(
        f"the picture announces too many pixels, at most {limits.max_pixels} are accepted",
        limit_pixels=limits.max_pixels,
        **details,
    )


def _reduce(picture: ImageFile.ImageFile, least_side_px: int) -> None:
    """Have a picture that has not been loaded yet decoded at a fraction of its size, where its format can do that."""
    for divisor in _REDUCTIONS:
        width, height = (side // divisor for side in picture.size)
        if max(width, height) >= least_side_px and min(width, height) > 0:
            # Formats other than JPEG pass over it.
            picture.draft(None, (width, height))
            return


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What its EXIF orientation asks for; where that cannot be read the picture is as good as without.

    Pillow's own `exif_transpose` also writes the EXIF block anew, which fails on values of a wrong type.
    """
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:
        return None


def _to_bgr(picture: Image.Image) -> NDArray[np.uint8]:
    rgb = _to_rgb(picture)
    return np.frombuffer(rgb.tobytes("raw", "BGR"), dtype=np.uint8).reshape(rgb.height, rgb.width, 3)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return _grey_of_many_bits(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _grey_of_many_bits(picture: Image.Image) -> Image.Image:
    """Sixteen-bit grey to eight; Pillow itself would clip every value above 255."""
    values = np.asarray(picture)
    if values.dtype != np.uint16:
        values = np.clip(values, 0, 65_535).astype(np.uint16)
    return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
