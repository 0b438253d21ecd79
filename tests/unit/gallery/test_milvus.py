"""What the Milvus gallery does where the contract does not look: failures, leftovers, crowds, long pages."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from service.domain import GalleryUnavailable, NewFace, SpaceMismatch
from service.gallery.milvus import pages, search, tables
from service.gallery.milvus.gallery import MilvusGallery
from service.gallery.milvus.tables import Tables

pytestmark = pytest.mark.anyio
DIMENSION = 8


def unit(*values: float) -> np.ndarray:
    vector = np.zeros(DIMENSION)
    vector[: len(values)] = values
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def face(face_id: str, *values: float) -> NewFace:
    return NewFace(face_id, unit(*values), None, crop_digest=f"crop-of-{face_id}")


async def opened(path: Path, **options: object) -> MilvusGallery:
    known = {"space_id": "sf1-a", "dimension": DIMENSION, **options}
    return await asyncio.to_thread(MilvusGallery.open, str(path / "gallery.db"), **known)


async def test_another_space_is_refused_with_the_way_out(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    for wrong in ({"space_id": "sf1-b"}, {"dimension": 16}):
        with pytest.raises(SpaceMismatch, match="export"):
            await opened(tmp_path, **wrong)
    # Another prefix is another deployment.
    await (await opened(tmp_path, space_id="sf1-b", prefix="other")).close()


async def test_a_server_that_is_not_there_is_said_so_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(GalleryUnavailable):
        await asyncio.to_thread(
            MilvusGallery.open, "http://127.0.0.1:9", space_id="sf1-a", dimension=DIMENSION, timeout_s=2
        )
    assert time.monotonic() - started < 20


async def test_a_change_that_fails_halfway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = await opened(tmp_path)
    await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise GalleryUnavailable("gone")

        broken.setattr(Tables, "store_people", fail)
        with pytest.raises(GalleryUnavailable):
            await gallery.enrol("g", "bob", None, {}, [face("f2", 0, 1)])
        # And once more without the chance to take it back.
        broken.setattr(Tables, "delete_faces", fail)
        broken.setattr(Tables, "delete_people", lambda *_: None)
        with pytest.raises(GalleryUnavailable):
            await gallery.enrol("g", "eve", None, {}, [face("f3", 0, 0, 1)])
    for reopened in range(2):
        (result,) = await gallery.search("g", unit(0, 1, 1)[np.newaxis], 5)
        assert [match.person_id for match in result.matches] == ["ann"]
        assert [person.person_id for person in await gallery.persons("g", after=None, limit=9)] == ["ann"]
        if not reopened:
            await gallery.close()
            gallery = await opened(tmp_path)
    # The id and the face id of what never was are free, and its faces do not come back with it.
    person = await gallery.enrol("g", "eve", None, {}, [face("f4", 0, 1)])
    assert person.face_ids == ("f4",)
    assert (await gallery.enrol("g", "joe", None, {}, [face("f3", 1)])).face_ids == ("f3",)
    await gallery.close()


async def test_a_crowd_of_one_hides_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limits shrink so that a search has to grow, and in the end to look at every face.
    for module in (tables, search):
        monkeypatch.setattr(module, "ROW_LIMIT", 64)
    monkeypatch.setattr(search, "_FACES_ASKED", 8)
    gallery = await opened(tmp_path)
    rng = np.random.default_rng(1)
    crowd = [face(f"c{i:03}", 1, *(0.05 * rng.standard_normal(3))) for i in range(200)]
    for start in range(0, 200, 50):
        await gallery.enrol("g", "crowd", None, {}, crowd[start : start + 50], extend=True)
    await gallery.enrol("g", "far", None, {}, [face("f1", 0, 0, 0, 1)])
    await gallery.close()
    gallery = await opened(tmp_path)
    for exact in (False, True):
        (result,) = await gallery.search("g", unit(1)[np.newaxis], 2, exact=exact)
        assert [match.person_id for match in result.matches] == ["crowd", "far"]
        assert result.gallery_size == 201
        best = max(crowd, key=lambda one: float(one.embedding[0]))
        assert result.matches[0].face_id == best.face_id
    removal = await gallery.forget_person("g", "crowd")
    assert removal.faces == 200
    (result,) = await gallery.search("g", unit(1)[np.newaxis], 2)
    assert [match.person_id for match in result.matches] == ["far"]
    await gallery.close()


async def test_pages_are_complete_and_in_order_beyond_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tables, pages):
        monkeypatch.setattr(module, "ROW_LIMIT", 60)
    monkeypatch.setattr(pages, "_SAMPLE", 24)
    gallery = await opened(tmp_path)
    rng = np.random.default_rng(2)
    ids = sorted(f"p{number:06}" for number in rng.choice(10**6, 300, replace=False))
    for start in range(0, 300, 25):
        for person_id in ids[start : start + 25]:
            await gallery.enrol("g", person_id, None, {}, [face(f"of-{person_id}", 1)])
    for limit in (7, 50, 400):
        seen: list[str] = []
        while page := await gallery.persons("g", after=seen[-1] if seen else None, limit=limit):
            assert len(page) <= limit
            seen += [person.person_id for person in page]
        assert seen == ids
    await gallery.close()
