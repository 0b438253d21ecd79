"""What every `Gallery` promises of importing and exporting in bulk."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from service.domain import (
    GalleryNotFound,
    ImportOutcome,
    InvalidEmbedding,
    InvalidRequest,
    NewFace,
    NotReady,
    PersonRecord,
)
from tests.contract.conftest import DIMENSION, OpenGallery
from tests.contract.test_gallery_contract import QUALITY, face, opened, unit

pytestmark = pytest.mark.anyio
LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


def record(person_id: str, *faces: NewFace, name: str | None = None) -> PersonRecord:
    return PersonRecord(person_id, name, {"of": person_id}, faces)


async def test_records_become_persons(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        ann = PersonRecord("ann", "Ann", {"badge": 7}, (face("f1", 1), face("f2", 0, 1)), LONG_AGO)
        bob = record("bob", NewFace("f3", unit(0, 0, 1), None))
        outcomes = await gallery.import_persons("g", [ann, bob])
        assert outcomes == [ImportOutcome(added=2), ImportOutcome(added=1)]
        stored = await gallery.person("g", "ann")
        assert (stored.name, stored.metadata, stored.face_ids) == ("Ann", {"badge": 7}, ("f1", "f2"))
        assert stored.created_at == LONG_AGO
        assert abs(((await gallery.person("g", "bob")).created_at - datetime.now(UTC)).total_seconds()) < 60
        (result,) = await gallery.search("g", unit(0, 0, 1)[np.newaxis], 1)
        assert [(m.person_id, m.similarity) for m in result.matches] == [("bob", 1.0)]
        summary = await gallery.summary("g")
        assert (summary.persons, summary.faces) == (2, 3)


async def test_importing_again_changes_nothing_and_more_faces_are_added(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.import_persons("g", [record("ann", face("f1", 1), name="Ann"), record("bob", face("f2", 0, 1))])
        before, persons = await gallery.summary("g"), await gallery.persons("g", after=None, limit=9)
        again = await gallery.import_persons("g", [record("ann", face("f1", 1), name="Else"), record("bob")])
        assert again == [ImportOutcome(present=1), ImportOutcome()]
        assert await gallery.summary("g") == before
        assert await gallery.persons("g", after=None, limit=9) == persons
        (more,) = await gallery.import_persons("g", [record("ann", face("f3", 1, 1), face("f1", 1), name="Else")])
        assert more == ImportOutcome(added=1, present=1)
        ann = await gallery.person("g", "ann")
        assert (ann.name, ann.metadata, ann.face_ids) == ("Ann", {"of": "ann"}, ("f1", "f3"))


async def test_a_bad_record_is_refused_alone(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        wrong = [
            (record("a/b", face("g1", 1)), InvalidRequest),
            (record("twice", face("g2", 1), face("g2", 0, 1)), InvalidRequest),
            (record("short", NewFace("g3", unit(1)[:-1], QUALITY)), InvalidEmbedding),
            (
                record("nan", face("g4", 1), NewFace("g5", np.full(DIMENSION, np.nan, np.float32), QUALITY)),
                InvalidEmbedding,
            ),
            (record("zero", NewFace("g6", np.zeros(DIMENSION, np.float32), QUALITY)), InvalidEmbedding),
            (record("thief", face("f1", 0, 1), face("g7", 1)), InvalidRequest),
            (record("nameless", face("", 1)), InvalidRequest),
            (replace(record("infinite", face("g8", 1)), metadata={"x": float("nan")}), InvalidRequest),
            (record("lonely", face("g9", 1), name="\ud800"), InvalidRequest),
        ]
        right = [record("ann", face("f1", 1)), *(bad for bad, _ in wrong), record("bob", face("f2", 0, 1))]
        outcomes = await gallery.import_persons("g", right)
        assert [type(outcome.error) for outcome in outcomes[1:-1]] == [error for _, error in wrong]
        assert {(outcome.added, outcome.present) for outcome in outcomes[1:-1]} == {(0, 0)}
        assert outcomes[0] == outcomes[-1] == ImportOutcome(added=1)
        assert [p.person_id for p in await gallery.persons("g", after=None, limit=99)] == ["ann", "bob"]
        assert (await gallery.summary("g")).faces == 2
        # What was refused took no id.
        assert (await gallery.import_persons("g", [record("eve", face("g7", 1))]))[0].added == 1


async def test_records_see_those_before_them(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        outcomes = await gallery.import_persons(
            "g", [record("ann", face("f1", 1)), record("ann", face("f2", 0, 1)), record("bob", face("f2", 1))]
        )
        assert outcomes[:2] == [ImportOutcome(added=1), ImportOutcome(added=1)]
        assert isinstance(outcomes[2].error, InvalidRequest)
        assert (await gallery.person("g", "ann")).face_ids == ("f1", "f2")


async def test_an_import_of_nothing_makes_no_gallery(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        assert await gallery.import_persons("g", []) == []
        (outcome,) = await gallery.import_persons("g", [record("a/b")])
        assert isinstance(outcome.error, InvalidRequest)
        assert await gallery.galleries() == []
        with pytest.raises(InvalidRequest):
            await gallery.import_persons("a/b", [record("ann", face("f1", 1))])


async def test_an_export_is_what_an_import_needs(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", "Änn", {"x": [1, None]}, [face("f2", 1), face("f1", 0, 1)])
        await gallery.enrol("g", "bob", None, {}, [NewFace("f3", unit(1, 1, 1), None)])
        with pytest.raises(GalleryNotFound):
            await gallery.export_persons("h", after=None, limit=1)
        first = await gallery.export_persons("g", after=None, limit=1)
        rest = await gallery.export_persons("g", after="ann", limit=9)
        assert [r.person_id for r in first + rest] == ["ann", "bob"]
        assert await gallery.export_persons("g", after="bob", limit=9) == []
        await gallery.import_persons("h", first + rest)
        for before, after in zip(first + rest, await gallery.export_persons("h", after=None, limit=9), strict=True):
            assert (before.person_id, before.name, before.metadata) == (after.person_id, after.name, after.metadata)
            assert before.created_at == after.created_at is not None
            for one, other in zip(before.faces, after.faces, strict=True):
                assert (one.face_id, one.quality, one.crop_digest) == (other.face_id, other.quality, other.crop_digest)
                assert one.embedding.dtype == other.embedding.dtype == np.float32
                assert np.array_equal(one.embedding, other.embedding)


async def test_a_closed_gallery_imports_and_exports_nothing(open_gallery: OpenGallery) -> None:
    gallery = await open_gallery()
    await gallery.close()
    with pytest.raises(NotReady):
        await gallery.import_persons("g", [record("ann", face("f1", 1))])
    with pytest.raises(NotReady):
        await gallery.export_persons("g", after=None, limit=1)
