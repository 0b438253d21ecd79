from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from service.gallery.embedded import EmbeddedGallery
from service.ports import Gallery
from tests.contract.reference import ReferenceGallery, ReferenceState
from tests.milvus_fixture import drop_collections

DIMENSION = 8
SPACE = "sf1-contract"

OpenGallery = Callable[[], Awaitable[Gallery]]
# Each change on a server waits for its clock.
_SERVER = pytest.param("milvus-server", marks=[pytest.mark.milvus, pytest.mark.timeout(600)])


@pytest.fixture(params=["reference", "embedded", "embedded-sieved", "milvus-lite", _SERVER])
def open_gallery(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenGallery]:
    """Opens a gallery; called again after a close, it opens the same one. Another backend joins as another param."""
    state = ReferenceState()

    async def reference() -> Gallery:
        return ReferenceGallery(state, DIMENSION)

    async def embedded(exact_up_to: int = 20_000) -> Gallery:
        return await asyncio.to_thread(
            EmbeddedGallery.open,
            tmp_path / "data",
            space_id=SPACE,
            dimension=DIMENSION,
            threads=2,
            exact_up_to=exact_up_to,
        )

    if not request.param.startswith("milvus"):
        yield {
            "reference": reference,
            "embedded": embedded,
            # Few enough that the histories below cross it: the compressed search keeps the same promises.
            "embedded-sieved": lambda: embedded(40),
        }[request.param]
        return

    from service.gallery.milvus.gallery import MilvusGallery

    uri = str(tmp_path / "gallery.db")
    if request.param == "milvus-server":
        uri = request.getfixturevalue("milvus_server")
    prefix = f"test_{uuid.uuid4().hex}"

    async def milvus() -> Gallery:
        return await asyncio.to_thread(
            MilvusGallery.open, uri, prefix=prefix, space_id=SPACE, dimension=DIMENSION, threads=4, timeout_s=30
        )

    yield milvus
    if request.param == "milvus-server":
        drop_collections(uri, prefix)
