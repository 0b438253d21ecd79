"""Pictures as the service sees them: through its decoder, detector, alignment and networks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model_training.protocols.embedding import Embed
from service.contract import ContractError, align
from service.domain import Detection
from service.vision.detection import YuNetDetector
from service.vision.embedding import OnnxNetwork
from service.vision.imaging import ImageLimits, decode

Crop = NDArray[np.uint8]
Vectors = NDArray[np.float32]
_BATCH = 32
_WORKERS = 2


class Network(Protocol):
    """Crops to embeddings: `OnnxNetwork`, or one without a manifest."""

    def embed(self, crops: Crop) -> Vectors:
        """(n, 112, 112, 3) uint8 BGR to (n, d) float32 of unit length."""


def serving_embed(detector: YuNetDetector, network: OnnxNetwork) -> Embed:
    """A picture file's main face through decoder, detector, alignment and network, as a request would go.

    LFW centres the person it names, so among several faces the largest and most central one is meant.
    """
    limits = ImageLimits()

    def embed(path: Path) -> NDArray[np.float32] | None:
        image = decode(path.read_bytes(), limits)
        crop = main_face(image, detector)
        return None if crop is None else network.embed(crop[None])[0]

    return embed


def main_face(image: NDArray[np.uint8], detector: YuNetDetector) -> NDArray[np.uint8] | None:
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
    networks: Sequence[Network], detector: YuNetDetector, pictures: Sequence[Path], *, label: str = "embedding"
) -> list[Embed]:
    """What `serving_embed` would say of each picture, for several networks at once, faster.

    A picture is decoded, searched and aligned once for all of them. Crops are not kept: what stays in memory are the
    embeddings. The callables know the pictures given here and no others.

    Raises:
        ContractError: a picture is no picture.
    """
    known: list[dict[Path, Vectors | None]] = [dict.fromkeys(pictures) for _ in networks]
    batch: list[tuple[Path, Crop]] = []

    def run() -> None:
        crops = np.stack([crop for _, crop in batch])
        for network, found in zip(networks, known, strict=True):
            found.update(zip([picture for picture, _ in batch], network.embed(crops), strict=True))
        batch.clear()

    bar = track(_crops(pictures, detector), description=label, total=len(pictures), console=Console(stderr=True))
    for picture, crop in bar:
        if crop is not None:
            batch.append((picture, crop))
        if len(batch) == _BATCH:
            run()
    if batch:
        run()
    return [found.__getitem__ for found in known]


def _crops(pictures: Sequence[Path], detector: YuNetDetector) -> Iterator[tuple[Path, Crop | None]]:
    """Each picture's main face, in order; a few are cut out ahead of the networks."""
    limits = ImageLimits()
    # Each worker has a core already.
    cv2.setNumThreads(1)
    ahead: deque[tuple[Path, Future[Crop | None]]] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        for picture in pictures:
            ahead.append(
                (picture, pool.submit(lambda path: main_face(decode(path.read_bytes(), limits), detector), picture))
            )
            if len(ahead) > 2 * _BATCH:
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()
