"""What the Milvus gallery does where the contract does not look: failures, leftovers, crowds, long pages."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from service.domain import (
    GalleryNotFound,
    GallerySettings,
    GalleryUnavailable,
    InvalidRequest,
    NewFace,
    Overloaded,
    Person,
    PersonRecord,
    SpaceMismatch,
    StorageUnusable,
)
from service.gallery.milvus import erasing, pages, recent, search, tables
from service.gallery.milvus.gallery import MilvusGallery
from service.gallery.milvus.recent import Recent
from service.gallery.milvus.rows import GalleryRow, fields_of_people
from service.gallery.milvus.tables import Tables
from service.ports import SearchResult

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


async def test_collections_of_an_older_release_are_refused_with_the_way_out(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    client = MilvusClient(str(tmp_path / "gallery.db"))
    stated = json.dumps({"space_id": "sf1-a", "dimension": DIMENSION, "layout": 1})
    client.upsert("shrinkface_people", [fields_of_people("space", "space", "", "", stated)])
    client.close()
    with pytest.raises(StorageUnusable, match="export"):
        await opened(tmp_path)


def crowd(number: int) -> list[PersonRecord]:
    return [PersonRecord(f"p{i:02}", None, {}, (face(f"a{i:02}", 1, i), face(f"b{i:02}", 0, 1))) for i in range(number)]


async def test_a_drop_that_is_cut_off_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "_ROWS_AT_ONCE", 7)
    gallery = await opened(tmp_path)
    await gallery.import_persons("g", crowd(20))
    before = await gallery.summary("g")
    with monkeypatch.context() as broken:
        erase = Tables.delete_people

        def twice(self: Tables, keys: list[str]) -> None:
            if len(self.some_person_keys("g", 100)) <= 6:
                raise GalleryUnavailable("gone")
            erase(self, keys)

        broken.setattr(Tables, "delete_people", twice)
        with pytest.raises(GalleryUnavailable):
            await gallery.drop_gallery("g")
    for reopened in range(2):
        with pytest.raises(GalleryNotFound):
            await gallery.summary("g")
        assert await gallery.galleries() == []
        for among in (None, ["p00", "p19"]):
            assert await gallery.search("g", unit(1)[np.newaxis], 5, among=among) == [SearchResult((), 0)]
        # Its name is not free while there is something left, and nobody else's write makes it exist again.
        for change in (gallery.create_gallery("g", GallerySettings()), gallery.import_persons("g", crowd(1))):
            with pytest.raises(Overloaded):
                await change
        late = Tables(str(tmp_path / "gallery.db"), "", prefix="shrinkface", timeout_s=10)
        await asyncio.to_thread(late.store_people, [], {"g": GalleryRow(before.revision)}, {})
        late.close()
        # Somebody may still be at work on it.
        assert await gallery.erase_expired() == []
        if not reopened:
            await gallery.close()
            gallery = await opened(tmp_path)
    monkeypatch.setattr(erasing, "_ABANDONED_US", 0)
    monkeypatch.setattr(erasing, "_MOST_PORTIONS", 4)
    for _ in range(3):
        assert await gallery.erase_expired() == []
    made = await gallery.create_gallery("g", GallerySettings())
    assert (made.persons, made.faces) == (0, 0)
    assert made.revision > before.revision
    person = await gallery.enrol("g", "p00", None, {}, [face("b00", 1)])
    assert person.face_ids == ("b00",)
    assert (await gallery.search("g", unit(1)[np.newaxis], 5))[0].gallery_size == 1
    assert await gallery.persons("g", after=None, limit=9) == [person]
    await gallery.close()


async def test_a_drop_in_portions_tells_of_all_and_stands_between_enrolments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_ROWS_AT_ONCE", 7)
    gallery = await opened(tmp_path)
    await gallery.import_persons("g", crowd(20))
    removal, *rivals = await asyncio.gather(
        gallery.drop_gallery("g"),
        *(gallery.enrol("g", f"late{i}", None, {}, [face(f"late{i}", 1)]) for i in range(5)),
        return_exceptions=True,
    )
    enrolled = [outcome for outcome in rivals if isinstance(outcome, Person)]
    assert all(isinstance(outcome, Person | Overloaded) for outcome in rivals)
    # Those who came before it went with it.
    assert (removal.persons, removal.faces) == (20 + len(enrolled), 40 + len(enrolled))
    assert len(set(removal.crop_digests)) == removal.faces
    assert await gallery.galleries() == []
    assert await gallery.search("g", unit(1)[np.newaxis], 5) == [SearchResult((), 0)]
    await gallery.enrol("g", "p00", None, {}, [face("a00", 1)])
    (result,) = await gallery.search("g", unit(1)[np.newaxis], 5)
    assert ([match.face_id for match in result.matches], result.gallery_size) == (["a00"], 1)
    await gallery.close()


def test_a_gallery_that_begins_anew_is_searched_strongly_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Recent()
    assert noted.view("g")[0].consistency == "Eventually"
    noted.drop("g")
    assert (noted.view("g")[0].consistency, noted.size("g")[0]) == ("Strong", 0)
    noted.settle(time.monotonic())
    assert noted.view("g")[0].consistency == "Strong"
    monkeypatch.setattr(recent, "_KEPT_S", 0.0)
    noted.settle(time.monotonic())
    assert noted.view("g")[0].consistency == "Eventually"


async def test_settings_cost_no_round_trip_and_follow_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict, off = GallerySettings(quality_gate="strict"), GallerySettings(quality_gate="off")
    one = await opened(tmp_path)
    await one.create_gallery("g", strict)
    other = await opened(tmp_path)
    assert await other.settings("g") == strict
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise GalleryUnavailable("gone")

        broken.setattr(Tables, "people_and_galleries", fail)
        await asyncio.sleep(1.1)
        assert [await other.settings("g") for _ in range(100)] == [strict] * 100
    await one.configure_gallery("g", off)
    assert await one.settings("g") == off
    deadline = time.monotonic() + 10
    while await other.settings("g") != off:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await one.drop_gallery("g")
    assert await one.settings("g") == GallerySettings()
    while await other.settings("g") != GallerySettings():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await one.close()
    await other.close()


async def test_what_has_expired_goes_in_portions_and_nobodys_faces_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_EXPIRED_AT_ONCE", 4)
    gallery = await opened(tmp_path)
    past = datetime.now(UTC) - timedelta(hours=1)
    # Before there were computers.
    long_past = datetime(1901, 1, 1, tzinfo=UTC)
    faces = [replace(face(f"f{i}", 1), expires_at=long_past if i % 2 else past) for i in range(6)]
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise GalleryUnavailable("gone")

        broken.setattr(Tables, "store_people", fail)
        broken.setattr(Tables, "delete_faces", fail)
        with pytest.raises(GalleryUnavailable):
            await gallery.enrol("g", "nobody", None, {}, [replace(face("orphan", 1), expires_at=past)])
    await gallery.enrol("g", "ann", None, {}, faces)
    assert (await gallery.person("g", "ann")).face_ids == ()
    erased = []
    for _ in range(3):
        some = await gallery.erase_expired()
        assert sum(expiry.removal.faces for expiry in some) <= 4
        erased += some
    assert sum(expiry.removal.faces for expiry in erased) == 6
    assert [expiry.removal.persons for expiry in erased][-1] == 1
    assert {expiry.person_id for expiry in erased} == {"ann"}
    left = Tables(str(tmp_path / "gallery.db"), "", prefix="shrinkface", timeout_s=10)
    assert await asyncio.to_thread(left.some_face_keys, "g", 100) == {}
    left.close()
    await gallery.close()


async def test_a_record_that_milvus_cannot_hold_is_refused(tmp_path: Path) -> None:
    gallery = await opened(tmp_path)
    ann = await gallery.enrol("g", "ann", None, {"a": 1}, [face("f1", 1)])
    with pytest.raises(InvalidRequest):
        await gallery.enrol("g", "bob", None, {"a": "x" * 70_000}, [face("f2", 1)])
    with pytest.raises(InvalidRequest):
        await gallery.enrol("g", "ann", None, {"a": "x" * 70_000}, [], extend=True)
    assert await gallery.persons("g", after=None, limit=9) == [ann]
    await gallery.close()
