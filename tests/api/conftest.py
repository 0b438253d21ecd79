"""The application over a fake detector and embedder: everything else is real."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from service.access import Access, FailureTable, KeyFile, LocalLimiter, NullLimiter
from service.api.app import create_app
from service.bootstrap import Container
from service.cache import NullCache
from service.calibration import ImpostorCurve
from service.contract import TEMPLATE
from service.domain import Box, Detection, ServiceIdentity
from service.gallery.embedded import EmbeddedGallery
from service.identification import CustodyService, EnrolmentService, FaceReader, IdentificationService
from service.settings import Settings
from service.vision.analysis import ThreadedAnalyser
from service.vision.attributes.reader import BatchedAttributes, load_networks
from service.vision.imaging import ImageLimits
from service.vision.quality import QualityGate
from tests.attribute_networks import red_masks

DIMENSION = 32
TILE = 112


class TileDetector:
    """Finds a face in every 112 x 112 tile of a picture that is not uniform: pictures of known content."""

    identity = "tiles"

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        found = []
        for top in range(0, image.shape[0] - TILE + 1, TILE):
            for left in range(0, image.shape[1] - TILE + 1, TILE):
                if image[top : top + TILE, left : left + TILE].std() > 8:
                    landmarks = (TEMPLATE + np.array([left, top])).astype(np.float32)
                    found.append(Detection(Box(left, top, TILE, TILE), landmarks, 0.9))
        return found


class HashEmbedder:
    """A direction that follows from a crop's coarse content, so that re-encoding a picture hardly moves it."""

    dimension = DIMENSION
    space_id = "sf1-fake"

    async def embed(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.stack([self._one(crop) for crop in crops])

    def _one(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        coarse = (cv2.resize(crop, (4, 4), interpolation=cv2.INTER_AREA) // 64).tobytes()
        seed = int.from_bytes(hashlib.sha256(coarse).digest()[:8], "little")
        vector = np.random.default_rng(seed).normal(size=DIMENSION)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def face_tile(person: int) -> NDArray[np.uint8]:
    """(112, 112, 3) uint8: a blocky picture that stands for a person, its levels far from the embedder's borders."""
    levels = np.random.default_rng(person).integers(0, 4, (4, 4, 3)) * 64 + 32
    return np.kron(levels, np.ones((28, 28, 1))).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def photo(*people: int) -> bytes:
    """A PNG of these people side by side; of nobody, a grey one."""
    if not people:
        return png(np.full((TILE, TILE, 3), 127, np.uint8))
    return png(np.concatenate([face_tile(person) for person in people], axis=1))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_images_per_request=4, max_body_bytes=3_000_000, _env_file=None)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, build_fake), raise_server_exceptions=False) as running:
        yield running


async def build_fake(
    settings: Settings, stack: AsyncExitStack, *, networks: Callable[[Path], Sequence[Path]] = red_masks
) -> Container:
    """The application; `networks` writes attribute networks to a folder, which the real code then loads."""
    gallery = EmbeddedGallery.open(settings.data_dir, space_id="sf1-fake", dimension=DIMENSION)
    stack.push_async_callback(gallery.close)
    analyser = ThreadedAnalyser(
        TileDetector(),
        limits=ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.min_image_side_px),
        gate=QualityGate(min_sharpness=0.0),
    )
    stack.push_async_callback(analyser.close)
    # Random directions in 32 dimensions: mean 0, deviation 1 / sqrt(32).
    curve = ImpostorCurve(0.0, 32**-0.5)
    cache = NullCache()
    written = networks(settings.data_dir.parent)
    attributes = BatchedAttributes(load_networks(None, written, ["CPUExecutionProvider"]))
    stack.push_async_callback(attributes.close)
    reader = FaceReader(analyser, HashEmbedder(), cache, max_faces=settings.max_faces, attributes=attributes)
    journal = gallery.journal(kept_days=settings.journal_days)
    rates = {"target_fpir": 0.001, "quality_gate": settings.quality_gate}
    identity = ServiceIdentity(
        embedder="fake",
        detector="tiles",
        space_id="sf1-fake",
        dimension=DIMENSION,
        attributes=attributes.networks_of,
    )
    limiter = NullLimiter()
    if settings.rate_limit_per_s is not None:
        limiter = LocalLimiter(rate_per_s=settings.rate_limit_per_s, burst_s=settings.rate_limit_burst_s)
    access = Access(
        required=settings.auth_required,
        keys=KeyFile(settings.keys_path),
        limiter=limiter,
        # Tests try more wrong keys than a caller may.
        failures=FailureTable(limit=1_000_000),
    )
    stack.push_async_callback(access.close)
    return Container(
        settings=settings,
        identity=identity,
        access=access,
        enrolment=EnrolmentService(reader, gallery, journal, curve, **rates),
        identification=IdentificationService(reader, gallery, curve, **rates),
        custody=CustodyService(gallery, cache, journal),
        gallery=gallery,
        journal=journal,
    )
