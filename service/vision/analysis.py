"""The way of a picture from bytes to aligned faces, in one hop to a worker thread."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import ContractError, align, magnification
from service.domain import Detection, NotReady, Overloaded
from service.ports import AnalysedPicture, BoxView, Detector, FoundFace
from service.vision.attributes.views import box_view
from service.vision.imaging import Decoded, ImageLimits, decode, decode_reduced, png
from service.vision.quality import STRICT, QualityGate, assess

# To be raised with every change of what is told of a picture or a face, here, in `imaging`, `quality` or `pose`.
_REVISION = 1


class ThreadedAnalyser:
    """PictureAnalyser port: a fixed number of worker threads and a bounded queue before them.

    Args:
        gate, strict_gate: decide which shortcomings of a face are named.
        search_side_px: the detector sees no more than this of a picture's longer side. Larger pictures may be decoded
            smaller, as far as neither it nor the crops of the faces need more.
        workers: pictures worked on at once, which bounds the memory that decoded pixels take.
        max_pending: pictures that may wait; more are refused.
        deadline_s: how long a picture may wait for a worker.

    Attributes:
        identity: see the port.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        limits: ImageLimits,
        gate: QualityGate,
        strict_gate: QualityGate = STRICT,
        search_side_px: int = 640,
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
        self._search_side_px = search_side_px
        decisive = [_REVISION, detector.identity, limits, gate, strict_gate, search_side_px]
        self.identity = hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]
        self._closed = False
        # The workers are the parallelism; OpenCV's own threads would only get in their way.
        cv2.setNumThreads(1)

    async def analyse(self, picture: bytes, *, max_faces: int, views: Collection[BoxView] = ()) -> AnalysedPicture:
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
            work = asyncio.get_running_loop().run_in_executor(self._threads, self._analyse, picture, max_faces, views)
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

    def _analyse(self, picture: bytes, max_faces: int, views: Collection[BoxView]) -> AnalysedPicture:
        started = time.perf_counter()
        seen = decode_reduced(picture, self._limits, least_side_px=self._search_side_px)
        decoded = time.perf_counter()
        detections = self._detector.detect(seen.pixels)
        detections.sort(key=lambda found: found.box.width * found.box.height, reverse=True)
        detected = time.perf_counter()
        source = _Source(picture, self._limits, seen)
        found_faces = (self._cut_out(source, found, views) for found in detections[:max_faces])
        faces = [face for face in found_faces if face is not None]
        aligned = time.perf_counter()
        return AnalysedPicture(
            width=seen.width,
            height=seen.height,
            faces=tuple(faces),
            faces_total=len(detections),
            timings_ms={
                "decode": (decoded - started + source.spent_s) * 1e3,
                "detect": (detected - decoded) * 1e3,
                "align": (aligned - detected - source.spent_s) * 1e3,
            },
        )

    def _cut_out(self, source: _Source, found: Detection, views: Collection[BoxView]) -> FoundFace | None:
        try:
            face, crop = source.cut_out(found)
        except ContractError:
            # Landmarks in one point are a detector's error, not a face.
            return None
        quality = assess(face, crop, self._gate)
        strict = self._strict_gate.issues(quality.side_px, quality.detection_score, quality.sharpness, quality.yaw)
        return FoundFace(
            detection=face,
            quality=quality,
            crop=crop,
            strict_issues=strict,
            views={view: source.view(face, view) for view in views},
        )


class _Source:
    """A picture as faces are cut out of it: from the pixels that were searched, if those show the face finely enough.

    Which pixels a face is cut out of depends on the picture and the face alone, so that its crop is always the same.

    Attributes:
        spent_s: on decoding the whole picture.
    """

    def __init__(self, picture: bytes, limits: ImageLimits, seen: Decoded) -> None:
        self._picture, self._limits, self._seen = picture, limits, seen
        self._whole: NDArray[np.uint8] | None = None
        self.spent_s = 0.0

    def cut_out(self, found: Detection) -> tuple[Detection, NDArray[np.uint8]]:
        """A face that was found, in pixels of the whole picture, and its aligned crop. Raises ContractError."""
        seen = self._seen
        if not seen.reduced:
            return found, align(seen.pixels, found.landmarks)
        face = found.magnified(seen.width / seen.pixels.shape[1], seen.height / seen.pixels.shape[0])
        if magnification(found.landmarks) <= 1.0:
            return face, align(seen.pixels, found.landmarks)
        return face, align(self._pixels(), face.landmarks)

    def view(self, face: Detection, view: BoxView) -> NDArray[np.uint8]:
        """A face of `cut_out` with its surroundings, always from the whole picture: liveness is told by its grain."""
        return box_view(self._pixels() if self._seen.reduced else self._seen.pixels, face.box, view)

    def _pixels(self) -> NDArray[np.uint8]:
        if self._whole is None:
            started = time.perf_counter()
            self._whole = decode(self._picture, self._limits)
            self.spent_s += time.perf_counter() - started
        return self._whole
