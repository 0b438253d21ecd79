"""Faces as attribute networks see them: cut out by their boxes or aligned, and as tensors."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from service.domain import Box
from service.ports import BoxView
from service.vision.attributes.manifest import Pixels


def box_view(image: NDArray[np.uint8], box: Box, view: BoxView) -> NDArray[np.uint8]:
    """A face's box with its surroundings, bilinear without averaging, as the networks' own programs cut it out.

    Args:
        image: (height, width, 3) uint8, BGR.
        box: in pixels of `image`, with sides above 0.

    Returns:
        (side_px, side_px, 3) uint8, BGR.

    Sources: `black` is what InsightFace's `model_zoo/attribute.py` does, `inside` what `generate_patches.py` of
    minivision's Silent-Face-Anti-Spoofing does.
    """
    width, height = box.width, box.height
    if view.shape == "square":
        width = height = max(width, height)
    centre = (box.x + box.width / 2, box.y + box.height / 2)
    if view.outside == "inside":
        return _moved_inside(image, centre, (width, height), view)
    across, down = view.side_px / (width * view.scale), view.side_px / (height * view.scale)
    middle = view.side_px / 2
    matrix = np.array([[across, 0, middle - across * centre[0]], [0, down, middle - down * centre[1]]])
    cut = cv2.warpAffine(image, matrix, (view.side_px, view.side_px), flags=cv2.INTER_LINEAR)
    return np.asarray(cut, dtype=np.uint8)


def _moved_inside(
    image: NDArray[np.uint8], centre: tuple[float, float], sides: tuple[float, float], view: BoxView
) -> NDArray[np.uint8]:
    # Between the middles of the picture's first and last pixels.
    room = (image.shape[1] - 1, image.shape[0] - 1)
    scale = min(view.scale, room[0] / sides[0], room[1] / sides[1])
    ranges = []
    for middle, side, most in zip(centre, sides, room, strict=True):
        window = side * scale
        start = min(max(middle - window / 2, 0.0), max(most - window, 0.0))
        ranges.append((int(start), min(int(start + window), most) + 1))
    (left, right), (top, bottom) = ranges
    cut = cv2.resize(image[top:bottom, left:right], (view.side_px, view.side_px), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cut, dtype=np.uint8)


def aligned_view(crop: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """An aligned (112, 112, 3) uint8 crop at another size; averaged where it is made smaller."""
    if crop.shape[0] == side_px:
        return crop
    smaller = side_px < crop.shape[0]
    sized = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(sized, dtype=np.uint8)


def network_input(views: NDArray[np.uint8], pixels: Pixels) -> NDArray[np.float32]:
    """What a network reads of views.

    Args:
        views: (n, side, side, 3) uint8, BGR.

    Returns:
        (n, 3, side, side) float32, or (n, side, side, 3) by the layout; contiguous.
    """
    ordered = views[..., ::-1] if pixels.colour_order == "RGB" else views
    values = ordered.astype(np.float32)
    values -= np.asarray(pixels.mean, dtype=np.float32)
    values *= np.asarray(pixels.scale, dtype=np.float32)
    return np.ascontiguousarray(values if pixels.layout == "NHWC" else values.transpose(0, 3, 1, 2))
