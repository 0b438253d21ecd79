"""Encoded pictures to aligned crops, by the service's decoder, detector and contract, in one process or several."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from model_training.data.pictures import MAX_PICTURE_BYTES
from service.contract import CROP_SIDE_PX, ContractError, align
from service.domain import Detection, DomainError
from service.vision.imaging import ImageLimits, decode
from service.vision.second_look import open_detector

_LIMITS = ImageLimits(max_bytes=MAX_PICTURE_BYTES)
# Blocks that are given out ahead of the one waited for: enough to keep every process busy, few enough for memory.
_BLOCKS_AHEAD = 3


class Lost(StrEnum):
    """Why a picture gives no crop."""

    UNREADABLE = "unreadable"
    WITHOUT_FACE = "without_face"


Crop = NDArray[np.uint8]


class Detector(Protocol):
    """What alignment asks of a detector."""

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces of (height, width, 3) uint8 BGR pixels."""


@dataclass(frozen=True)
class Alignment:
    """How pictures become crops.

    Attributes:
        detector: a network with YuNet's outputs; None for pictures that are aligned already, which are scaled to the
            contract's size where they have another.
        score_threshold: of the detector.
    """

    detector: Path | None
    score_threshold: float = 0.5


class Aligner:
    """Crops of one process.

    Raises:
        ContractError: the detector cannot be loaded.
    """

    def __init__(self, alignment: Alignment, detector: Detector | None = None) -> None:
        self._detector = detector
        if detector is None and alignment.detector is not None:
            self._detector = open_detector(alignment.detector, score_threshold=alignment.score_threshold)

    def crop_of(self, data: bytes) -> Crop | Lost:
        """The crop (112, 112, 3) uint8 BGR of the largest face in an encoded picture."""
        try:
            image = decode(data, _LIMITS)
        except DomainError:
            return Lost.UNREADABLE
        if self._detector is None:
            return _as_crop(image)
        faces = self._detector.detect(image)
        if not faces:
            return Lost.WITHOUT_FACE
        main = max(faces, key=lambda face: face.box.width * face.box.height)
        try:
            return align(image, main.landmarks)
        except ContractError:
            return Lost.WITHOUT_FACE


def _as_crop(image: NDArray[np.uint8]) -> Crop | Lost:
    """A picture of an aligned face at the contract's size; one that is not square is not such a picture."""
    height, width = image.shape[:2]
    if height != width:
        return Lost.UNREADABLE
    if height == CROP_SIDE_PX:
        return image
    shrinks = height > CROP_SIDE_PX
    resampling = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (CROP_SIDE_PX, CROP_SIDE_PX), interpolation=resampling), dtype=np.uint8)


def align_blocks(
    blocks: Iterable[Sequence[bytes]], alignment: Alignment, jobs: int, detector: Detector | None = None
) -> Iterator[list[Crop | Lost]]:
    """What becomes of each block's pictures, in the order of the blocks.

    Args:
        blocks: encoded pictures; read only as far ahead as the processes can work.
        jobs: processes; 1 for this one alone.
        detector: instead of the alignment's, in this process.

    Raises:
        ContractError: the detector cannot be loaded.
        BrokenProcessPool: a process was killed.
    """
    # A detector that cannot be loaded shall be named here, not in a process that others then wait for.
    aligner = Aligner(alignment, detector)
    if jobs == 1:
        for block in blocks:
            yield [aligner.crop_of(data) for data in block]
        return
    # Started anew: a fork would take over the locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_process, (alignment,)) as pool:
        waiting: deque[Future[list[Crop | Lost]]] = deque()
        try:
            for block in blocks:
                waiting.append(pool.submit(_align_block, list(block)))
                if len(waiting) >= jobs * _BLOCKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_of_this_process: Aligner | None = None


def _start_process(alignment: Alignment) -> None:
    global _of_this_process  # noqa: PLW0603 - a process of a pool has no other place for what it is started with
    # One thread a process: the processes are as many as the cores.
    cv2.setNumThreads(1)
    _of_this_process = Aligner(alignment)


def _align_block(block: list[bytes]) -> list[Crop | Lost]:
    assert _of_this_process is not None
    return [_of_this_process.crop_of(data) for data in block]
