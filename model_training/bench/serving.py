"""Pictures as the service sees them: through its decoder, detector, alignment and networks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model_training.protocols.embedding import Embed, Picture
from model_training.protocols.templates import TemplateFace
from service.contract import CROP_SIDE_PX, ContractError, align
from service.domain import Detection, ImageError
from service.ports import Detector
from service.vision.embedding import OnnxNetwork
from service.vision.imaging import ImageLimits, decode

Crop = NDArray[np.uint8]
Vectors = NDArray[np.float32]
# Decoded picture (height, width, 3) uint8 BGR, and what it was read from, to the aligned crop of its face, or None.
Cropper = Callable[[Crop, Picture], Crop | None]
_BATCH = 32
_WORKERS = 2
# Beyond the longer side of a box.
_SURROUNDINGS = 0.5


class Network(Protocol):
    """Crops to embeddings: `OnnxNetwork`, or one without a manifest."""

    def embed(self, crops: Crop) -> Vectors:
        """(n, 112, 112, 3) uint8 BGR to (n, d) float32 of unit length."""


def serving_embed(detector: Detector, network: OnnxNetwork) -> Embed:
    """A picture's main face through decoder, detector, alignment and network, as a request would go.

    LFW centres the person it names, so among several faces the largest and most central one is meant.
    """
    limits = ImageLimits()

    def embed(picture: Picture) -> NDArray[np.float32] | None:
        image = decode(picture.read_bytes(), limits)
        crop = main_face(image, detector)
        return None if crop is None else network.embed(crop[None])[0]

    return embed


def detected(detector: Detector) -> Cropper:
    """Crops the main face of any picture; of a template's picture the face that the data set means."""

    def crop(image: Crop, picture: Picture) -> Crop | None:
        if not isinstance(picture, TemplateFace) or (picture.landmarks is None and picture.box is None):
            return main_face(image, detector)
        if picture.landmarks is None:
            return _face_in(image, picture.box, detector)
        try:
            return align(image, np.array(picture.landmarks, dtype=np.float32))
        except ContractError:
            return None

    return crop


def _face_in(image: Crop, box: Sequence[float] | None, detector: Detector) -> Crop | None:
    """The main face of a box and its surroundings, which the detector needs to see a head."""
    left, top, width, height = box or (0, 0, image.shape[1], image.shape[0])
    margin = _SURROUNDINGS * max(width, height)
    rows = slice(max(0, int(top - margin)), max(0, int(top + height + margin)))
    columns = slice(max(0, int(left - margin)), max(0, int(left + width + margin)))
    region = np.ascontiguousarray(image[rows, columns])
    return main_face(region, detector) if region.size else None


def already_aligned(image: Crop, picture: Picture) -> Crop:
    """Takes a picture that is an aligned crop already, as InsightFace's files hold them.

    Raises:
        ContractError: it is not of 112 by 112 pixels.
    """
    if image.shape != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
        raise ContractError(
            f"{picture.name} has {image.shape[1]} by {image.shape[0]} pixels, an aligned crop {CROP_SIDE_PX}"
        )
    return image


def main_face(image: NDArray[np.uint8], detector: Detector) -> NDArray[np.uint8] | None:
    """Aligned crop (112, 112, 3) of the face a benchmark picture is about, or None."""
    middle = np.array([image.shape[1], image.shape[0]]) / 2

    def prominence(face: Detection) -> float:
        box = face.box
        centre = np.array([box.x + box.width / 2, box.y + box.height / 2])
        return float(np.sqrt(box.width * box.height) - np.hypot(*(centre - middle)))

    for face in sorted(detector.detect(image), key=prominence, reverse=True):
        try:
            return align(image, face.landmarks)
        except ContractError:
            continue
    return None


def embedded_by(
    networks: Sequence[Network], cropper: Cropper, pictures: Sequence[Picture], *, label: str = "embedding"
) -> list[Embed]:
    """What `serving_embed` would say of each picture, for several networks at once, faster.

    A picture is decoded, searched and aligned once for all of them. Crops are not kept: what stays in memory are the
    embeddings. The callables know the pictures given here and no others.

    Raises:
        ContractError: a picture is none, or an aligned one of the wrong size.
    """
    known: list[dict[Picture, Vectors | None]] = [dict.fromkeys(pictures) for _ in networks]
    batch: list[tuple[Picture, Crop]] = []

    def run() -> None:
        crops = np.stack([crop for _, crop in batch])
        for network, found in zip(networks, known, strict=True):
            found.update(zip([picture for picture, _ in batch], network.embed(crops), strict=True))
        batch.clear()

    bar = track(_crops(pictures, cropper), description=label, total=len(pictures), console=Console(stderr=True))
    for picture, crop in bar:
        if crop is not None:
            batch.append((picture, crop))
        if len(batch) == _BATCH:
            run()
    if batch:
        run()
    return [found.__getitem__ for found in known]


def _crops(pictures: Sequence[Picture], cropper: Cropper) -> Iterator[tuple[Picture, Crop | None]]:
    """Each picture's face, in order; a few are cut out ahead of the networks."""
    limits = ImageLimits()
    # Each worker has a core already.
    cv2.setNumThreads(1)

    def cut(picture: Picture) -> Crop | None:
        try:
            return cropper(decode(picture.read_bytes(), limits), picture)
        except ImageError as error:
            raise ContractError(f"{picture.name}: {error}") from error

    ahead: deque[tuple[Picture, Future[Crop | None]]] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        for picture in pictures:
            ahead.append((picture, pool.submit(cut, picture)))
            if len(ahead) > 2 * _BATCH:
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()
