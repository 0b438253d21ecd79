"""Faces whose time has come and whose rows still exist: searches, snapshots and audits agree that nobody sees them."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from service.domain import NewFace, PersonRecord
from service.gallery import index
from service.gallery.audit import audit
from service.gallery.embedded import EmbeddedGallery
from service.gallery.snapshot import INDEX_FOLDER
from tests.unit.gallery.common import embedding, new_face, open_embedded

pytestmark = pytest.mark.anyio
# So many that they make a compaction worth while.
KEPT, SOON = 700, 250


def kept_ids() -> list[str]:
    return [f"kept{number}" for number in range(KEPT)]


def soon_ids() -> list[str]:
    return [f"soon{number}" for number in range(SOON)]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[EmbeddedGallery, list[tuple[int, int]]]]:
    """An open gallery that sifts every search, and what its start read from the store."""
    reads: list[tuple[int, int]] = []
    gallery = open_embedded(folder, exact_up_to=0, progress=lambda done, total: reads.append((done, total)))
    try:
        yield gallery, reads
    finally:
        await gallery.close()


async def fill(gallery: EmbeddedGallery, expires_at: datetime) -> None:
    """Each of the first persons has a face that stays and one that expires; the others have one that stays."""
    records = []
    for number, face_id in enumerate(kept_ids()):
        faces = [new_face(face_id)]
        if number < SOON:
            faces.append(replace(new_face(f"soon{number}"), expires_at=expires_at))
        records.append(PersonRecord(f"p{number}", None, {}, tuple(faces)))
    await gallery.import_persons("g", records)
    await upkeep(gallery)


async def upkeep(gallery: EmbeddedGallery) -> None:
    """Wait for what is being put in order."""
    for _ in range(3):
        await asyncio.to_thread(gallery._indexes._upkeep.submit(lambda: None).result, 30)


async def check_searches(gallery: EmbeddedGallery) -> None:
    ids = kept_ids() + soon_ids()
    for exact in (False, True):
        results = await gallery.search("g", np.stack([embedding(each) for each in ids]), 1, exact=exact)
        assert [result.matches[0].face_id for result in results[:KEPT]] == kept_ids()
        assert not {match.face_id for result in results for match in result.matches} & set(soon_ids())
        assert {result.gallery_size for result in results} == {KEPT}


def check_audit(folder: Path, faces: int) -> None:
    seen = audit(folder)
    assert (seen.findings, seen.faces, seen.snapshots) == ((), faces, 1)


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=0.8)


async def until(moment: datetime) -> None:
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()) + 0.01)


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_snapshot_of_hidden_faces_is_sound_and_used(
    tmp_path: Path, compacted: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if compacted:
        monkeypatch.setattr(index, "_COMPACT_FROM", SOON)
    moment = soon()
    async with opened(tmp_path / "data") as (gallery, _):
        await fill(gallery, moment)
        await until(moment)
        await check_searches(gallery)
        await upkeep(gallery)
        await check_searches(gallery)
        index_now = gallery._indexes.get("g")
        assert index_now is not None
        assert index_now._view.rows == KEPT + (0 if compacted else SOON)
    check_audit(tmp_path / "data", KEPT + SOON)
    with caplog.at_level(logging.WARNING):
        async with opened(tmp_path / "data") as (gallery, reads):
            assert reads == []
            await check_searches(gallery)
    assert caplog.text == ""
    check_audit(tmp_path / "data", KEPT + SOON)
    async with opened(tmp_path / "data") as (gallery, reads):
        assert reads == []
        erased = await gallery.erase_expired()
        assert sum(each.removal.faces for each in erased) == SOON
        assert sum(each.removal.index_entries for each in erased) == SOON
        await check_searches(gallery)
    check_audit(tmp_path / "data", KEPT)


async def test_faces_that_expire_while_nobody_serves_them_are_hidden_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moment = soon()
    async with opened(tmp_path / "data") as (gallery, _):
        await fill(gallery, moment)
    await until(moment)
    check_audit(tmp_path / "data", KEPT + SOON)
    with caplog.at_level(logging.WARNING):
        async with opened(tmp_path / "data") as (gallery, reads):
            assert reads == []
            await check_searches(gallery)
            await gallery.erase_expired()
    assert caplog.text == ""
    check_audit(tmp_path / "data", KEPT)


async def test_a_kill_between_hiding_and_erasing_leaves_a_sound_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moment = soon()
    async with opened(tmp_path / "data") as (gallery, _):
        await fill(gallery, moment)
        await until(moment)
        await check_searches(gallery)
        # As a kill would leave it: rows blanked in the index's files, still there in the database.
        shutil.copytree(tmp_path / "data", tmp_path / "killed")
    check_audit(tmp_path / "killed", KEPT + SOON)
    with caplog.at_level(logging.WARNING):
        async with opened(tmp_path / "killed") as (gallery, reads):
            assert reads == []
            await check_searches(gallery)
    assert caplog.text == ""


async def test_a_snapshot_that_holds_the_erased_is_still_found_out(tmp_path: Path) -> None:
    """Faces may be hidden or erased; what is left of the latter is no less a finding beside the former."""
    moment = soon()
    async with opened(tmp_path / "data") as (gallery, _):
        await fill(gallery, moment)
    before = shutil.copytree(tmp_path / "data" / INDEX_FOLDER, tmp_path / "before")
    await until(moment)
    async with opened(tmp_path / "data") as (gallery, _):
        await gallery.forget_face("g", f"p{KEPT - 1}", f"kept{KEPT - 1}")
    shutil.rmtree(tmp_path / "data" / INDEX_FOLDER)
    shutil.move(before, tmp_path / "data" / INDEX_FOLDER)
    assert audit(tmp_path / "data").findings == ("the snapshot of gallery g holds 1 faces that were erased",)


async def test_a_receipt_counts_the_hidden_faces(tmp_path: Path) -> None:
    moment = soon()
    for served_throughout in (True, False):
        folder = tmp_path / str(served_throughout)
        async with opened(folder) as (gallery, _):
            await fill(gallery, moment)
            await until(moment)
            if served_throughout:
                await check_searches(gallery)
                gone = await gallery.forget_person("g", "p3")
        if not served_throughout:
            async with opened(folder) as (gallery, _):
                gone = await gallery.forget_person("g", "p3")
        assert (gone.persons, gone.faces, gone.index_entries) == (1, 2, 2)


async def test_a_face_that_expires_on_its_way_into_the_index_is_never_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search may look for expired faces between their commit and the moment the index gets them."""
    gallery = open_embedded(tmp_path / "data")
    begun = gallery._indexes.begun

    def hidden_first(name: str) -> index.FaceIndex:
        found = begun(name)
        gallery._expiry.hide()
        return found

    add = index.FaceIndex.add

    def add_late(self: index.FaceIndex, *args: object, **options: object) -> None:
        gallery._expiry.hide()
        add(self, *args, **options)

    monkeypatch.setattr(gallery._indexes, "begun", hidden_first)
    monkeypatch.setattr(index.FaceIndex, "add", add_late)
    past = datetime.now(UTC) - timedelta(hours=1)
    gone: list[NewFace] = [replace(new_face("gone"), expires_at=past), new_face("kept")]
    await gallery.enrol("g", "ann", None, {}, gone)
    await gallery.import_persons("h", [PersonRecord("ann", None, {}, tuple(gone))])
    for name in ("g", "h"):
        (result,) = await gallery.search(name, embedding("gone")[np.newaxis], 1)
        assert ([match.face_id for match in result.matches], result.gallery_size) == (["kept"], 1)
    await gallery.close()
