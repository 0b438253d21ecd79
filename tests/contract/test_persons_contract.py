"""What every `Gallery` promises of persons beside their faces: changes, revisions, lists that are filtered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.domain import (
    MAX_METADATA_DEPTH,
    UNCHANGED,
    GalleryNotFound,
    InvalidRequest,
    Person,
    PersonChange,
    PersonFilter,
    PersonRecord,
    RevisionMismatch,
)
from service.ports import Gallery, SearchResult
from tests.contract.conftest import OpenGallery
from tests.contract.test_gallery_contract import face, opened, unit

pytestmark = pytest.mark.anyio


async def test_an_update_changes_what_it_names(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        first = await gallery.enrol("g", "ann", "Ann", {"a": 1}, [face("f2", 1), face("f1", 0, 1)])
        renamed = await gallery.update_person("g", "ann", PersonChange(name="Anna"))
        assert renamed == Person(
            "g", "ann", "Anna", {"a": 1}, first.created_at, ("f2", "f1"), revision=renamed.revision
        )
        assert await gallery.person("g", "ann") == renamed
        (result,) = await gallery.search("g", unit(1)[np.newaxis], 1)
        assert [(m.face_id, m.name) for m in result.matches] == [("f2", "Anna")]
        told = await gallery.update_person("g", "ann", PersonChange(UNCHANGED, {"b": [None]}))
        assert (told.name, told.metadata) == ("Anna", {"b": [None]})
        nameless = await gallery.update_person("g", "ann", PersonChange(name=None))
        assert (nameless.name, nameless.metadata) == (None, {"b": [None]})
        bare = await gallery.update_person("g", "ann", PersonChange(name="A", metadata={}))
        assert (bare.name, bare.metadata, bare.face_ids) == ("A", {}, ("f2", "f1"))
        assert first.revision < renamed.revision < told.revision < nameless.revision < bare.revision
        assert (await gallery.summary("g")).revision == bare.revision
        # What stays as it was is not a change.
        assert await gallery.update_person("g", "ann", PersonChange()) == bare
        assert (await gallery.summary("g")).revision == bare.revision
    async with opened(open_gallery) as gallery:
        assert await gallery.person("g", "ann") == bare


async def test_an_update_that_cannot_be_stored_changes_nothing(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        ann = await gallery.enrol("g", "ann", "Ann", {"a": 1}, [face("f1", 1)])
        for change in (PersonChange(name="\ud800"), PersonChange(name="B", metadata={"x": float("nan")})):
            with pytest.raises(InvalidRequest):
                await gallery.update_person("g", "ann", change)
        assert await gallery.person("g", "ann") == ann


async def test_a_persons_revision_changes_with_them_alone(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        ann = await gallery.enrol("g", "ann", "Ann", {}, [face("f1", 1)])
        assert ann.revision == (await gallery.summary("g")).revision
        bob = await gallery.enrol("g", "bob", None, {}, [face("f2", 0, 1)])
        assert bob.revision > ann.revision
        assert await gallery.person("g", "ann") == ann
        seen = [bob.revision]
        for change in (
            gallery.enrol("g", "ann", None, {}, [face("f3", 1, 1)], extend=True),
            gallery.update_person("g", "ann", PersonChange(metadata={"a": 1})),
            gallery.import_persons("g", [PersonRecord("ann", None, {}, (face("f4", 1),))]),
            gallery.forget_face("g", "ann", "f1"),
        ):
            await change
            seen.append((await gallery.person("g", "ann")).revision)
        assert sorted(set(seen)) == seen
        assert (await gallery.summary("g")).revision == seen[-1]
        await gallery.import_persons("g", [PersonRecord("ann", "Else", {}, (face("f4", 1),))])
        await gallery.enrol("g", "eve", None, {}, [])
        await gallery.forget_person("g", "eve")
        ann = await gallery.person("g", "ann")
        assert ann.revision == seen[-1]
        assert await gallery.persons("g", after=None, limit=9) == [ann, bob]
    async with opened(open_gallery) as gallery:
        assert await gallery.persons("g", after=None, limit=9) == [ann, bob]


async def test_who_has_seen_another_revision_changes_no_person(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        first = await gallery.enrol("g", "ann", "Ann", {}, [face("f1", 1), face("f2", 0, 1)])
        now = await gallery.enrol("g", "ann", None, {}, [face("f3", 1, 1)], extend=True)
        before = await gallery.summary("g")
        for seen in (first.revision, now.revision + 1, 0):
            for change in (
                gallery.update_person("g", "ann", PersonChange(name="B"), expected_revision=seen),
                gallery.forget_face("g", "ann", "f1", expected_revision=seen),
                gallery.forget_person("g", "ann", expected_revision=seen),
            ):
                with pytest.raises(RevisionMismatch):
                    await change
        assert await gallery.person("g", "ann") == now
        assert await gallery.summary("g") == before
        assert len(await gallery.similarities_to("g", "ann", unit(1))) == 3
        # Somebody else's change stands in nobody's way.
        await gallery.enrol("g", "bob", None, {}, [face("f4", 1)])
        now = await gallery.update_person("g", "ann", PersonChange(name="B"), expected_revision=now.revision)
        removal = await gallery.forget_face("g", "ann", "f1", expected_revision=now.revision)
        gone = await gallery.forget_person("g", "ann", expected_revision=removal.revision)
        assert (gone.persons, gone.faces) == (1, 2)


async def test_a_person_may_have_no_face(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        ann = await gallery.enrol("g", "ann", "Ann", {"a": 1}, [])
        assert ann.face_ids == ()
        assert await gallery.persons("g", after=None, limit=5) == [ann]
        summary = await gallery.summary("g")
        assert (summary.persons, summary.faces) == (1, 0)
        for among in (None, ["ann"]):
            assert await gallery.search("g", unit(1)[np.newaxis], 5, among=among) == [SearchResult((), 0)]
        assert await gallery.similarities_to("g", "ann", unit(1)) == []
        assert await gallery.faces("g", "ann") == []
        records = await gallery.export_persons("g", after=None, limit=5)
        assert [(r.person_id, r.name, r.metadata, r.faces) for r in records] == [("ann", "Ann", {"a": 1}, ())]
        await gallery.import_persons("h", records)
    async with opened(open_gallery) as gallery:
        assert await gallery.person("g", "ann") == ann
        copy = await gallery.person("h", "ann")
        assert (copy.name, copy.metadata, copy.face_ids) == ("Ann", {"a": 1}, ())
        assert copy.created_at == ann.created_at
        await gallery.enrol("h", "ann", None, {}, [face("f1", 1)], extend=True)
        (result,) = await gallery.search("h", unit(1)[np.newaxis], 5)
        assert [(m.person_id, m.face_id) for m in result.matches] == [("ann", "f1")]
        assert (await gallery.forget_person("g", "ann")).faces == 0


async def found(gallery: Gallery, wanted: PersonFilter, limit: int) -> list[Person]:
    """All who fit, page by page."""
    persons: list[Person] = []
    after: str | None = None
    for _ in range(200):
        page = await gallery.find_persons("g", wanted, after=after, limit=limit)
        assert len(page.persons) <= limit
        persons += page.persons
        if page.next_after is None:
            return persons
        assert page.next_after > (after or "")
        after = page.next_after
    raise AssertionError("the list has no end")


async def test_persons_are_found_by_name_and_metadata(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        ids = [f"p{i:02}" for i in range(60)]
        records = [
            PersonRecord(
                person_id,
                None if i % 4 == 0 else f"Ann Strauß {i}" if i % 4 == 1 else f"Bob {i}",
                {"team": "red" if i % 3 else "blue", "n": i, "on": i % 2 == 0, "deep": {"a": [i % 5, None]}},
                (face(f"f{i}", 1),) if i % 7 else (),
            )
            for i, person_id in enumerate(ids)
        ]
        await gallery.import_persons("g", records)
        for limit in (1, 7, 100):
            assert await found(gallery, PersonFilter(), limit) == await gallery.persons("g", after=None, limit=100)
        for wanted, fitting in (
            (PersonFilter("STRAUSS"), [i for i in range(60) if i % 4 == 1]),
            (PersonFilter("b 1"), [10, 11, 14, 15, 18, 19]),
            (PersonFilter("nobody"), []),
            (PersonFilter(metadata={"team": "blue"}), list(range(0, 60, 3))),
            (PersonFilter(metadata={"n": "17"}), [17]),
            (PersonFilter(metadata={"on": "true"}), list(range(0, 60, 2))),
            (PersonFilter(metadata={"deep": '{"a":[3,null]}'}), list(range(3, 60, 5))),
            (PersonFilter(metadata={"other": "null"}), []),
            (PersonFilter("ann", {"team": "red", "on": "false"}), [i for i in range(60) if i % 4 == 1 and i % 3]),
        ):
            assert [person.person_id for person in await found(gallery, wanted, 6)] == [ids[i] for i in fitting]
        with pytest.raises(GalleryNotFound):
            await gallery.find_persons("h", PersonFilter(), after=None, limit=5)


def nested(levels: int) -> dict[str, Any]:
    """Metadata of so many levels, objects and arrays in turn."""
    inner: Any = "leaf"
    for level in range(levels - 1):
        inner = [inner] if level % 2 else {"k": inner}
    return {"outermost": inner}


async def test_metadata_is_only_so_deep(open_gallery: OpenGallery) -> None:
    deepest, too_deep = nested(MAX_METADATA_DEPTH), nested(MAX_METADATA_DEPTH + 1)
    async with opened(open_gallery) as gallery:
        assert (await gallery.enrol("g", "ann", None, deepest, [])).metadata == deepest
        changed = await gallery.update_person("g", "ann", PersonChange(metadata=nested(2)))
        assert (await gallery.update_person("g", "ann", PersonChange(metadata=deepest))).metadata == deepest
        assert changed.metadata == nested(2)
        for deeper in (too_deep, nested(100_000)):
            with pytest.raises(InvalidRequest, match="too deeply"):
                await gallery.enrol("g", "bob", None, deeper, [])
            with pytest.raises(InvalidRequest, match="too deeply"):
                await gallery.update_person("g", "ann", PersonChange(metadata=deeper))
            refused, stored = await gallery.import_persons(
                "g", [PersonRecord("eve", None, deeper, ()), PersonRecord("zoe", None, deepest, ())]
            )
            assert isinstance(refused.error, InvalidRequest)
            assert stored.error is None
        assert [person.person_id for person in await gallery.persons("g", after=None, limit=9)] == ["ann", "zoe"]
        assert (await gallery.person("g", "ann")).metadata == deepest
