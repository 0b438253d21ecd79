"""A picture whose turns all differ, in every format."""

from __future__ import annotations

import io
import itertools

import numpy as np
from PIL import Image

from service.vision.imaging import ImageLimits

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


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif
