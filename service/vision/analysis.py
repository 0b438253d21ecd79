"""The way of a picture from bytes to aligned faces, in one hop to a worker thread."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from service.contract import ContractError, align
from service.domain import Detection, NotReady, Overloaded
from service.ports import AnalysedPicture, Detector, FoundFace
from service.vision.imaging import ImageLimits, decode, png
from service.vision.quality import STRICT, QualityGate, assess


class ThreadedAnalyser:
    """PictureAnalyser port: a fixed number of worker threads and a bounded queue before them.

    Args:
        gate, strict_gate: decide which shortcomings of a face are named.
        workers: pictures worked on at once, which bounds the memory that decoded pixels take.
        max_pending: pictures that may wait; more are refused.
        deadline_s: how long a picture may wait for a worker.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        limits: ImageLimits,
        gate: QualityGate,
        strict_gate: QualityGate = STRICT,
        workers: int = 2,
        max_pending: int = 64,
        deadline_s: float = 5.0,
    ) -> None:
        self._detector = detector
        self._limits = limits
        self._gate = gate
        self._strict_gate = strict_gate
        self._max_pending = max_pending
        self._deadline_s = deadline_s
        self._slots = asyncio.Semaphore(workers)
        self._pending = 0
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="vision")
        self._closed = False

    async def analyse(self, picture: bytes, *, max_faces: int) -> AnalysedPicture:
        """See the port."""
        self._check_open()
        if self._pending >= self._max_pending:
            raise Overloaded("too many pictures are waiting", retry_after_s=1)
        self._pending += 1
        try:
            await self._wait_for_slot()
            try:
                self._check_open()
            except NotReady:
                # Its turn came while the threads were ending; whoever waits behind it is told the same.
                self._slots.release()
                raise
            work = asyncio.get_running_loop().run_in_executor(self._threads, self._analyse, picture, max_faces)
            # The slot belongs to the thread, not to the caller: one who goes away must not let another thread start.
            work.add_done_callback(lambda _: self._slots.release())
            return await asyncio.shield(work)
        finally:
            self._pending -= 1

    async def encode(self, crop: NDArray[np.uint8]) -> bytes:
        """See the port."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, png, crop)

    async def close(self) -> None:
        """Refuse new pictures and wait for those in progress."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady("the service is shutting down")

    async def _wait_for_slot(self) -> None:
        try:
            await asyncio.wait_for(self._slots.acquire(), self._deadline_s)
        except TimeoutError:
            raise Overloaded("the picture waited too long", retry_after_s=1) from None

    def _analyse(self, picture: bytes, max_faces: int) -> AnalysedPicture:
        started = time.perf_counter()
        image = decode(picture, self._limits)
        decoded = time.perf_counter()
        detections = self._detector.detect(image)
        detections.sort(key=lambda found: found.box.width * found.box.height, reverse=True)
        detected = time.perf_counter()
        faces = [face for found in detections[:max_faces] if (face := self._cut_out(image, found)) is not None]
        aligned = time.perf_counter()
        return AnalysedPicture(
            width=image.shape[1],
            height=image.shape[0],
            faces=tuple(faces),
            faces_total=len(detections),
            timings_ms={
                "decode": (decoded - started) * 1e3,
                "detect": (detected - decoded) * 1e3,
                "align": (aligned - detected) * 1e3,
            },
        )

    def _cut_out(self, image: NDArray[np.uint8], found: Detection) -> FoundFace | None:
        try:
            crop = align(image, found.landmarks)
        except ContractError:
            # Landmarks in one point are a detector's error, not a face.
            return None
        quality = assess(found, crop, self._gate)
        strict = self._strict_gate.issues(quality.side_px, quality.detection_score, quality.sharpness, quality.yaw)
        return FoundFace(detection=found, quality=quality, crop=crop, strict_issues=strict)
