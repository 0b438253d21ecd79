"""Kept crops to embeddings, in the background of a service that answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import CROP_SIDE_PX, ContractError, normalise_embeddings
from service.vision.embedding import OnnxNetwork

Vector = NDArray[np.float32]

BATCH = 8

# Whatever answers a request goes first.
_NICENESS = 10
# Of the time that a batch took, how much to rest afterwards.
_REST = 0.5


class CropEmbedder:
    """A model on one thread of low priority, which rests between small batches.

    Args:
        model: ONNX file with its manifest.

    Raises:
        ContractError: it is missing, damaged or no embedder.
    """

    def __init__(self, model: Path) -> None:
        self._network = OnnxNetwork(model, threads=1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="migration", initializer=_low_priority)

    async def embed(
        self, crops: Sequence[bytes], *, mirrored: bool = False, in_haste: bool = False
    ) -> list[Vector | None]:
        """Embed aligned crops.

        Args:
            crops: PNG files of 112 x 112 pixels.
            mirrored: embed their mirror images instead.
            in_haste: do not rest in between.

        Returns:
            (dimension,) float32 of unit length for each; None for one that is no such file or has no direction.
        """
        found: list[Vector | None] = []
        for start in range(0, len(crops), BATCH):
            loop, began = asyncio.get_running_loop(), time.perf_counter()
            batch = crops[start : start + BATCH]
            found += await loop.run_in_executor(self._thread, self._run, batch, mirrored)
            if not in_haste:
                await asyncio.sleep(_REST * (time.perf_counter() - began))
        return found

    async def close(self) -> None:
        """Wait for the batch that runs, and end the thread."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _run(self, crops: Sequence[bytes], mirrored: bool) -> list[Vector | None]:
        decoded = [_decoded(crop) for crop in crops]
        pixels = [each[:, ::-1] if mirrored else each for each in decoded if each is not None]
        rows = iter(self._network.raw(np.stack(pixels)) if pixels else ())
        return [None if each is None else _unit(next(rows)) for each in decoded]


def _low_priority() -> None:
    # Linux gives each thread a priority of its own; elsewhere the rests have to do.
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _decoded(crop: bytes) -> NDArray[np.uint8] | None:
    if not crop:
        return None
    pixels = cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None or pixels.shape != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
        return None
    return np.asarray(pixels, dtype=np.uint8)


def _unit(row: Vector) -> Vector | None:
    try:
        unit: Vector = normalise_embeddings(row[None])[0]
    except ContractError:
        return None
    return unit
