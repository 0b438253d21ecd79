from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.gallery.embedded import EmbeddedGallery
from service.ports import Gallery
from tests.contract.reference import ReferenceGallery, ReferenceState

DIMENSION = 8
SPACE = "sf1-contract"

OpenGallery = Callable[[], Awaitable[Gallery]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["reference", "embedded"])
def open_gallery(request: pytest.FixtureRequest, tmp_path: Path) -> OpenGallery:
    """Opens a gallery; called again after a close, it opens the same one. Another backend joins as another param."""
    state = ReferenceState()

    async def reference() -> Gallery:
        return ReferenceGallery(state, DIMENSION)

    async def embedded() -> Gallery:
        return await asyncio.to_thread(
            EmbeddedGallery.open, tmp_path / "data", space_id=SPACE, dimension=DIMENSION, threads=2
        )

    return {"reference": reference, "embedded": embedded}[request.param]
