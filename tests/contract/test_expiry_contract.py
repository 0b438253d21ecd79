"""What every `Gallery` promises of faces that expire."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from service.domain import CropNotKept, FaceNotFound, NewFace, PersonNotFound
from service.ports import Gallery
from tests.contract.conftest import OpenGallery
from tests.contract.test_gallery_contract import face, opened, unit

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


def expiring(new: NewFace, after: timedelta) -> NewFace:
    return replace(new, expires_at=datetime.now(UTC) + after)


async def until(moment: datetime) -> None:
    """Wait until a moment has passed, by the clock that decides."""
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()) + 0.01)
    assert datetime.now(UTC) > moment


async def searched(gallery: Gallery, name: str) -> list[str]:
    """Faces that a search finds, and a search in which nobody is missed."""
    seen = []
    for exact in (False, True):
        (result,) = await gallery.search(name, unit(1)[np.newaxis], 50, exact=exact)
        seen.append([match.face_id for match in result.matches])
    assert seen[0] == seen[1]
    return seen[0]


async def check_seen(gallery: Gallery, name: str, person_id: str, face_ids: list[str]) -> None:
    """Every call that tells of somebody's faces tells of these."""
    assert list((await gallery.person(name, person_id)).face_ids) == face_ids
    assert [p.face_ids for p in await gallery.persons(name, after=None, limit=50) if p.person_id == person_id] == [
        tuple(face_ids)
    ]
    assert [each.face_id for each in await gallery.faces(name, person_id)] == face_ids
    assert [f.face_id for f in (await gallery.person_record(name, person_id)).faces] == face_ids
    exported = await gallery.export_persons(name, after=None, limit=50)
    assert [f.face_id for record in exported if record.person_id == person_id for f in record.faces] == face_ids
    assert sorted(m.face_id for m in await gallery.similarities_to(name, person_id, unit(1))) == sorted(face_ids)
    (among,) = await gallery.search(name, unit(1)[np.newaxis], 5, among=[person_id])
    assert (len(among.matches), among.gallery_size) == (min(1, len(face_ids)), len(face_ids))


async def test_a_face_is_seen_until_its_time_has_come(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        soon = expiring(face("soon", 1), timedelta(seconds=0.6))
        assert soon.expires_at is not None
        kept = [face("kept", 1, 1), expiring(face("later", 0, 1), HOUR)]
        await gallery.enrol("g", "ann", None, {}, [soon, *kept])
        await gallery.enrol("g", "bob", None, {}, [face("bobs", 1, 2)])
        (before,) = await gallery.search("g", unit(1)[np.newaxis], 5)
        if datetime.now(UTC) < soon.expires_at:
            assert [match.face_id for match in before.matches] == ["soon", "bobs"]
        await until(soon.expires_at)
        assert await searched(gallery, "g") == ["kept", "bobs"]
        await check_seen(gallery, "g", "ann", ["kept", "later"])
        with pytest.raises(FaceNotFound):
            await gallery.crop("g", "ann", "soon")
        with pytest.raises(FaceNotFound):
            await gallery.forget_face("g", "ann", "soon")
        # Once everybody has had a moment to notice.
        for _ in range(100):
            (result,) = await gallery.search("g", unit(1)[np.newaxis], 1)
            if result.gallery_size == 3:
                break
            await asyncio.sleep(0.05)
        assert result.gallery_size == 3
    async with opened(open_gallery) as gallery:
        assert await searched(gallery, "g") == ["kept", "bobs"]
        await check_seen(gallery, "g", "ann", ["kept", "later"])


async def test_a_face_that_comes_too_late_is_never_seen(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "bob", None, {}, [face("bobs", 0, 1)])
        ann = await gallery.enrol("g", "ann", None, {}, [expiring(face("f1", 1), -HOUR), face("f2", 1, 1)])
        assert ann.face_ids == ("f2",)
        more = await gallery.enrol("g", "ann", None, {}, [expiring(face("f3", 1), -HOUR)], extend=True)
        assert more.face_ids == ("f2",)
        assert await searched(gallery, "g") == ["f2", "bobs"]
        await check_seen(gallery, "g", "ann", ["f2"])


async def test_what_has_expired_is_erased_once(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        past = [expiring(face(f"past{i}", 1, i), -HOUR) for i in range(4)]
        ann = await gallery.enrol("g", "ann", "Ann", {"a": 1}, [past[0], face("kept", 0, 1), past[1]])
        await gallery.enrol("g", "bob", None, {}, [past[2]])
        await gallery.enrol("h", "bob", None, {}, [past[2], past[3]])
        eve = await gallery.enrol("h", "eve", None, {}, [expiring(face("later", 1), HOUR)])
        none = await gallery.enrol("h", "faceless", None, {}, [])
        before = {summary.name: summary for summary in await gallery.galleries()}
        erased = {(expiry.gallery, expiry.person_id): expiry.removal for expiry in await gallery.erase_expired()}
        assert {
            key: (gone.persons, gone.faces, gone.index_entries, gone.crops, sorted(gone.crop_digests))
            for key, gone in erased.items()
        } == {
            ("g", "ann"): (0, 2, 2, 0, ["crop-of-past0", "crop-of-past1"]),
            ("g", "bob"): (1, 1, 1, 0, ["crop-of-past2"]),
            ("h", "bob"): (1, 2, 2, 0, ["crop-of-past2", "crop-of-past3"]),
        }
        assert await gallery.erase_expired() == []
        left = await gallery.person("g", "ann")
        assert left == replace(ann, revision=left.revision)
        assert left.revision == erased["g", "ann"].revision > ann.revision
        assert await gallery.persons("h", after=None, limit=9) == [eve, none]
        for name in ("g", "h"):
            with pytest.raises(PersonNotFound):
                await gallery.person(name, "bob")
            after = await gallery.summary(name)
            revisions = [gone.revision for (gallery_name, _), gone in erased.items() if gallery_name == name]
            assert after.revision == max(revisions) > before[name].revision
        assert {(s.name, s.persons, s.faces) for s in await gallery.galleries()} == {("g", 1, 1), ("h", 2, 1)}
        assert [(await gallery.search(n, unit(1)[np.newaxis], 5))[0].gallery_size for n in ("g", "h")] == [1, 1]
        # The ids are free again.
        await gallery.enrol("g", "bob", None, {}, [face("past0", 1)])
    async with opened(open_gallery) as gallery:
        assert await gallery.erase_expired() == []
        assert await gallery.person("g", "ann") == left
        assert await searched(gallery, "g") == ["past0", "kept"]


async def test_an_expiry_survives_export_and_import(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        later = (datetime.now(UTC) + HOUR).replace(microsecond=123457)
        there = later.astimezone(timezone(timedelta(hours=-3)))
        gone = expiring(face("f3", 1), -HOUR)
        await gallery.enrol("g", "ann", None, {}, [replace(face("f1", 1), expires_at=there), face("f2", 0, 1), gone])
        (record,) = await gallery.export_persons("g", after=None, limit=9)
        assert [(f.face_id, f.expires_at) for f in record.faces] == [("f1", later), ("f2", None)]
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        await gallery.import_persons("h", [replace(record, faces=(replace(record.faces[0], expires_at=soon),))])
        await gallery.import_persons("k", [record])
        assert [f.expires_at for f in await gallery.faces("k", "ann")] == [later, None]
        await until(soon)
        assert await searched(gallery, "h") == []
        (expiry,) = [each for each in await gallery.erase_expired() if each.gallery == "h"]
        assert (expiry.person_id, expiry.removal.persons, expiry.removal.faces) == ("ann", 1, 1)
    async with opened(open_gallery) as gallery:
        assert [f.expires_at for f in await gallery.faces("k", "ann")] == [later, None]
        with pytest.raises(CropNotKept):
            await gallery.crop("k", "ann", "f1")
        assert await gallery.persons("h", after=None, limit=9) == []
