"""What every `Gallery` promises of galleries as such: their beginning, settings and revisions, and their end."""

from __future__ import annotations

import numpy as np
import pytest

from service.domain import (
    GalleryExists,
    GalleryNotFound,
    GallerySettings,
    InvalidRequest,
    PersonNotFound,
    PersonRecord,
    RevisionMismatch,
)
from service.ports import GallerySummary, SearchResult
from tests.contract.conftest import OpenGallery
from tests.contract.test_gallery_contract import face, opened, unit

pytestmark = pytest.mark.anyio
STRICT = GallerySettings(target_fpir=0.003, quality_gate="strict")
OFF = GallerySettings(quality_gate="off")


async def test_a_gallery_begins_empty_and_keeps_its_settings(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        made = await gallery.create_gallery("g", STRICT)
        assert made == GallerySummary("g", 0, 0, made.revision, STRICT)
        assert made.revision > 0
        assert await gallery.galleries() == [made]
        assert await gallery.settings("g") == STRICT
        assert await gallery.persons("g", after=None, limit=5) == []
        assert await gallery.search("g", unit(1)[np.newaxis], 1) == [SearchResult((), 0)]
        ann = await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        assert await gallery.summary("g") == GallerySummary("g", 1, 1, ann.revision, STRICT)
    async with opened(open_gallery) as gallery:
        assert await gallery.settings("g") == STRICT
        assert await gallery.summary("g") == GallerySummary("g", 1, 1, ann.revision, STRICT)


async def test_a_gallery_that_nobody_configured_follows_the_defaults(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        for name in ("g", "nowhere", "a/b", "\ud800"):
            assert await gallery.settings(name) == GallerySettings()
        assert [summary.settings for summary in await gallery.galleries()] == [GallerySettings()]


async def test_a_taken_or_unacceptable_name_begins_nothing(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.create_gallery("made", STRICT)
        await gallery.enrol("enrolled", "ann", None, {}, [face("f1", 1)])
        before = await gallery.galleries()
        for name in ("made", "enrolled"):
            with pytest.raises(GalleryExists):
                await gallery.create_gallery(name, OFF)
        for name in ("", "a/b", "x" * 65, "\ud800"):
            with pytest.raises(InvalidRequest):
                await gallery.create_gallery(name, OFF)
        assert await gallery.galleries() == before
        assert await gallery.settings("made") == STRICT


async def test_settings_are_replaced_as_a_whole(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        made = await gallery.create_gallery("g", STRICT)
        ann = await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        changed = await gallery.configure_gallery("g", OFF)
        assert changed == GallerySummary("g", 1, 1, changed.revision, OFF)
        assert changed.revision > ann.revision > made.revision
        assert await gallery.settings("g") == OFF
        # Nobody in it has changed.
        assert await gallery.person("g", "ann") == ann
        for name in ("nowhere", "a/b"):
            with pytest.raises(GalleryNotFound):
                await gallery.configure_gallery(name, OFF)
    async with opened(open_gallery) as gallery:
        assert await gallery.settings("g") == OFF
        assert await gallery.summary("g") == changed


async def test_who_has_seen_another_revision_changes_no_gallery(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        made = await gallery.create_gallery("g", STRICT)
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        now = await gallery.summary("g")
        for seen in (made.revision, now.revision + 1, 0):
            with pytest.raises(RevisionMismatch):
                await gallery.configure_gallery("g", OFF, expected_revision=seen)
            with pytest.raises(RevisionMismatch):
                await gallery.drop_gallery("g", expected_revision=seen)
        assert await gallery.summary("g") == now
        assert await gallery.settings("g") == STRICT
        # Another gallery's change is not this one's.
        await gallery.create_gallery("h", OFF)
        changed = await gallery.configure_gallery("g", OFF, expected_revision=now.revision)
        assert (await gallery.drop_gallery("g", expected_revision=changed.revision)).persons == 1


async def test_dropping_a_gallery_erases_everybody_in_it(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.create_gallery("g", STRICT)
        crowd = [
            PersonRecord(f"p{i:02}", f"P {i}", {}, tuple(face(f"f{i:02}-{j}", 1, 0.1 * i, j) for j in range(i % 3)))
            for i in range(40)
        ]
        await gallery.import_persons("g", crowd)
        kept = await gallery.enrol("h", "p01", None, {}, [face("f01-0", 1)])
        before = await gallery.summary("h")
        removal = await gallery.drop_gallery("g")
        assert (removal.persons, removal.faces, removal.index_entries, removal.crops) == (40, 39, 39, 0)
        assert sorted(removal.crop_digests) == sorted(f.crop_digest for person in crowd for f in person.faces)
        assert removal.revision > before.revision
        assert await gallery.galleries() == [before]
        assert await gallery.settings("g") == GallerySettings()
        for reading in (
            gallery.summary("g"),
            gallery.persons("g", after=None, limit=5),
            gallery.person("g", "p01"),
            gallery.drop_gallery("g"),
            gallery.drop_gallery("a/b"),
        ):
            with pytest.raises(GalleryNotFound):
                await reading
        for among in (None, ["p01", "p02"]):
            assert await gallery.search("g", unit(1)[np.newaxis], 5, among=among) == [SearchResult((), 0)]
        assert await gallery.person("h", "p01") == kept
        assert (await gallery.search("h", unit(1)[np.newaxis], 5))[0].gallery_size == 1
    async with opened(open_gallery) as gallery:
        assert await gallery.galleries() == [before]
        assert await gallery.search("g", unit(1)[np.newaxis], 5) == [SearchResult((), 0)]


async def test_a_dropped_gallerys_name_begins_anew(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.create_gallery("g", STRICT)
        old = await gallery.enrol("g", "ann", "Ann", {"a": 1}, [face("f1", 1), face("f2", 0, 1)])
        removal = await gallery.drop_gallery("g")
    async with opened(open_gallery) as gallery:
        # The revisions of the old gallery are behind those of the new one, so none of them can be taken for another.
        made = await gallery.create_gallery("g", GallerySettings())
        assert made == GallerySummary("g", 0, 0, made.revision)
        assert made.revision > removal.revision > old.revision
        assert await gallery.persons("g", after=None, limit=5) == []
        assert await gallery.search("g", unit(1)[np.newaxis], 5) == [SearchResult((), 0)]
        new = await gallery.enrol("g", "ann", None, {}, [face("f2", 1)])
        assert (new.name, new.metadata, new.face_ids) == (None, {}, ("f2",))
        (result,) = await gallery.search("g", unit(1)[np.newaxis], 5)
        assert [(m.face_id, m.similarity) for m in result.matches] == [("f2", 1.0)]
        assert result.gallery_size == 1
        await gallery.drop_gallery("g")
        # And once more by an enrolment, in the same breath.
        await gallery.enrol("g", "bob", None, {}, [face("f1", 0, 1)])
        (result,) = await gallery.search("g", unit(1)[np.newaxis], 5)
        assert [m.person_id for m in result.matches] == ["bob"]
        assert result.gallery_size == 1
        with pytest.raises(PersonNotFound):
            await gallery.person("g", "ann")
