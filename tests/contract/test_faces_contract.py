"""What every `Gallery` promises of single faces: listed, erased one by one, with their crops where those are kept."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.domain import (
    CropNotKept,
    Face,
    FaceNotFound,
    GalleryNotFound,
    GallerySettings,
    InvalidRequest,
    NewFace,
)
from service.ports import Gallery, SearchResult
from tests.contract.conftest import OpenGallery
from tests.contract.test_gallery_contract import QUALITY, face, opened, unit

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


async def test_faces_are_listed_in_the_order_of_enrolment(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        begun = datetime.now(UTC)
        # To the microsecond, and in any time zone.
        never, later = None, (begun + timedelta(days=3)).replace(microsecond=123457)
        await gallery.enrol("g", "ann", None, {}, [replace(face("f9", 1), expires_at=later), face("f1", 0, 1)])
        await gallery.enrol("g", "ann", None, {}, [NewFace("f5", unit(1, 1), None)], extend=True)
        await gallery.enrol("g", "bob", None, {}, [face("f3", 1)])
        faces = await gallery.faces("g", "ann")
        assert faces == [
            Face("f9", QUALITY, faces[0].created_at, later, "crop-of-f9"),
            Face("f1", QUALITY, faces[1].created_at, never, "crop-of-f1"),
            Face("f5", None, faces[2].created_at, never),
        ]
        times = [each.created_at for each in faces]
        assert times == sorted(times)
        assert all(abs((time - begun).total_seconds()) < 60 and time.tzinfo is not None for time in times)
        assert times[2] > times[1]
    async with opened(open_gallery) as gallery:
        assert await gallery.faces("g", "ann") == faces


async def test_a_face_tells_whose_it_is(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        with pytest.raises(GalleryNotFound):
            await gallery.owner_of("g", "f1")
        past = datetime.now(UTC) - timedelta(seconds=1)
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1), replace(face("f2", 0, 1), expires_at=past)])
        await gallery.enrol("g", "bob", None, {}, [face("f3", 1)])
        await gallery.enrol("h", "eve", None, {}, [face("f1", 1)])
        assert [await gallery.owner_of(*named) for named in (("g", "f1"), ("g", "f3"), ("h", "f1"))] == [
            "ann",
            "bob",
            "eve",
        ]
        await gallery.forget_face("g", "bob", "f3")
        for nobodys in ("f2", "f3", "f4", "", "\ud800"):
            with pytest.raises(FaceNotFound):
                await gallery.owner_of("g", nobodys)


async def test_one_face_goes_and_the_others_stay(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        before = await gallery.enrol("g", "ann", "Ann", {}, [face("f1", 1), face("f2", 0, 1), face("f3", 0, 0, 1)])
        removal = await gallery.forget_face("g", "ann", "f2")
        assert (removal.persons, removal.faces, removal.index_entries, removal.crops) == (0, 1, 1, 0)
        assert removal.crop_digests == ("crop-of-f2",)
        assert removal.revision > before.revision
        after = await gallery.person("g", "ann")
        assert after == replace(before, face_ids=("f1", "f3"), revision=removal.revision)
        assert [each.face_id for each in await gallery.faces("g", "ann")] == ["f1", "f3"]
        (result,) = await gallery.search("g", unit(0, 1)[np.newaxis], 5)
        assert [(m.face_id, m.similarity) for m in result.matches] == [("f1", 0.0)]
        assert result.gallery_size == 2
        summary = await gallery.summary("g")
        assert (summary.persons, summary.faces, summary.revision) == (1, 2, removal.revision)
        # Its id is free again.
        await gallery.enrol("g", "bob", None, {}, [face("f2", 0, 1)])
    async with opened(open_gallery) as gallery:
        assert await gallery.person("g", "ann") == after
        (result,) = await gallery.search("g", unit(0, 1)[np.newaxis], 5)
        assert [(m.person_id, m.face_id) for m in result.matches] == [("bob", "f2"), ("ann", "f1")]


async def test_who_has_lost_the_last_face_stays_and_matches_nobody(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", "Ann", {"a": 1}, [face("f1", 1)])
        removal = await gallery.forget_face("g", "ann", "f1")
        ann = await gallery.person("g", "ann")
        assert (ann.name, ann.metadata, ann.face_ids, ann.revision) == ("Ann", {"a": 1}, (), removal.revision)
        for among in (None, ["ann"]):
            assert await gallery.search("g", unit(1)[np.newaxis], 5, among=among) == [SearchResult((), 0)]
    async with opened(open_gallery) as gallery:
        assert await gallery.person("g", "ann") == ann
        assert await gallery.search("g", unit(1)[np.newaxis], 5) == [SearchResult((), 0)]


async def test_a_face_that_is_not_the_persons_is_not_found(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        await gallery.enrol("g", "bob", None, {}, [face("f2", 0, 1)])
        before = await gallery.summary("g")
        for face_id in ("f2", "f3", "", "\ud800", "x" * 500):
            calls: list[Awaitable[object]] = [
                gallery.forget_face("g", "ann", face_id),
                gallery.crop("g", "ann", face_id),
            ]
            for call in calls:
                with pytest.raises(FaceNotFound):
                    await call
        assert await gallery.summary("g") == before


async def keeps_crops(gallery: Gallery) -> bool:
    """Begin `g` with crops kept; False where this gallery cannot, which says so and keeps none that it is given."""
    keeping = GallerySettings(keep_crops=True)
    try:
        await gallery.create_gallery("g", keeping)
    except InvalidRequest as refusal:
        assert refusal.details["field"] == "keep_crops"
    else:
        return True
    await gallery.create_gallery("g", GallerySettings())
    with pytest.raises(InvalidRequest, match="crops"):
        await gallery.configure_gallery("g", keeping)
    assert await gallery.settings("g") == GallerySettings()
    await gallery.enrol("g", "ann", None, {}, [replace(face("f1", 1), crop=PNG)])
    with pytest.raises(CropNotKept):
        await gallery.crop("g", "ann", "f1")
    assert [each.crop_kept for each in await gallery.faces("g", "ann")] == [False]
    assert (await gallery.forget_person("g", "ann")).crops == 0
    return False


async def test_crops_are_kept_and_go_with_their_faces(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        if not await keeps_crops(gallery):
            return
        faces = [replace(face(f"f{i}", 1, i), crop=PNG + bytes([i])) for i in range(4)] + [face("f4", 1)]
        await gallery.enrol("g", "ann", None, {}, faces)
        await gallery.enrol("g", "bob", None, {}, [replace(face("f9", 1), crop=PNG)])
    async with opened(open_gallery) as gallery:
        for i in range(4):
            assert await gallery.crop("g", "ann", f"f{i}") == PNG + bytes([i])
        assert [each.crop_kept for each in await gallery.faces("g", "ann")] == [True] * 4 + [False]
        with pytest.raises(CropNotKept):
            await gallery.crop("g", "ann", "f4")
        assert (await gallery.forget_face("g", "ann", "f4")).crops == 0
        assert (await gallery.forget_face("g", "ann", "f0")).crops == 1
        with pytest.raises(FaceNotFound):
            await gallery.crop("g", "ann", "f0")
        # What an export gives, an import takes.
        await gallery.create_gallery("h", GallerySettings(keep_crops=True))
        await gallery.import_persons("h", await gallery.export_persons("g", after=None, limit=9))
        assert await gallery.crop("h", "ann", "f2") == PNG + bytes([2])
        assert (await gallery.forget_person("g", "ann")).crops == 3
        assert (await gallery.drop_gallery("g")).crops == 1
        assert (await gallery.drop_gallery("h")).crops == 4
