"""What every `Gallery` promises, in the words of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from service.domain import (
    FaceQuality,
    GalleryNotFound,
    GallerySettings,
    InvalidEmbedding,
    InvalidRequest,
    NewFace,
    NotReady,
    PersonChange,
    PersonExists,
    PersonFilter,
    PersonNotFound,
)
from service.ports import Gallery, GallerySummary
from tests.contract.conftest import DIMENSION, OpenGallery
from tests.contract.reference import ReferenceGallery, ReferenceState

pytestmark = pytest.mark.anyio
QUALITY = FaceQuality(side_px=120.0, detection_score=0.9, sharpness=30.0, yaw=0.1, roll_deg=-2.0)


@asynccontextmanager
async def opened(open_gallery: OpenGallery) -> AsyncIterator[Gallery]:
    gallery = await open_gallery()
    try:
        yield gallery
    finally:
        await gallery.close()


def unit(*values: float) -> np.ndarray:
    vector = np.zeros(DIMENSION)
    vector[: len(values)] = values
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def face(face_id: str, *values: float) -> NewFace:
    return NewFace(face_id, unit(*values), QUALITY, crop_digest=f"crop-of-{face_id}")


async def test_enrol_answers_with_the_person_and_reading_gives_the_same(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        before = datetime.now(UTC)
        person = await gallery.enrol("g", "ann", "Ann", {"badge": [1, None]}, [face("f2", 1), face("f1", 0, 1)])
        assert (person.gallery, person.person_id, person.name) == ("g", "ann", "Ann")
        assert person.metadata == {"badge": [1, None]}
        assert person.face_ids == ("f2", "f1")
        assert person.created_at.tzinfo is not None
        assert abs((person.created_at - before).total_seconds()) < 60
        assert await gallery.person("g", "ann") == person
        assert await gallery.persons("g", after=None, limit=10) == [person]


async def test_a_taken_id_is_refused_and_changes_nothing(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        first = await gallery.enrol("g", "ann", "Ann", {}, [face("f1", 1)])
        before = await gallery.summary("g")
        with pytest.raises(PersonExists):
            await gallery.enrol("g", "ann", "Other", {}, [face("f2", 0, 1)])
        assert await gallery.person("g", "ann") == first
        assert await gallery.summary("g") == before
        # The same id elsewhere is somebody else.
        await gallery.enrol("h", "ann", None, {}, [face("f1", 1)])


async def test_extend_adds_faces_and_replaces_only_what_is_given(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        new = await gallery.enrol("g", "ann", "Ann", {"a": 1}, [face("f1", 1)], extend=True)
        assert new.face_ids == ("f1",)
        more = await gallery.enrol("g", "ann", None, {}, [face("f2", 0, 1)], extend=True)
        assert (more.name, more.metadata, more.face_ids) == ("Ann", {"a": 1}, ("f1", "f2"))
        assert more.created_at == new.created_at
        renamed = await gallery.enrol("g", "ann", "Anna", {"b": 2}, [], extend=True)
        assert (renamed.name, renamed.metadata, renamed.face_ids) == ("Anna", {"b": 2}, ("f1", "f2"))
        assert (await gallery.summary("g")).persons == 1


async def test_a_face_id_is_unique_in_its_gallery_and_a_refusal_stores_nothing(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        for faces in ([face("f2", 1), face("f1", 1)], [face("f3", 1), face("f3", 0, 1)]):
            with pytest.raises(InvalidRequest):
                await gallery.enrol("g", "bob", None, {}, faces)
        with pytest.raises(PersonNotFound):
            await gallery.person("g", "bob")
        assert (await gallery.search("g", unit(1)[np.newaxis], 5))[0].gallery_size == 1
        await gallery.enrol("g", "bob", None, {}, [face("f2", 1), face("f3", 1)])


async def test_search_ranks_persons_by_their_nearest_face(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        crowd = [face(f"a{i:02}", 1, 0.001 * i) for i in range(60)]
        await gallery.enrol("g", "crowd", "Crowd", {}, crowd)
        await gallery.enrol("g", "near", None, {}, [face("b1", 1, 1), face("b2", -1)])
        await gallery.enrol("g", "far", None, {}, [face("c1", -1, 0.1)])
        (result,) = await gallery.search("g", unit(1)[np.newaxis], 3)
        assert [m.person_id for m in result.matches] == ["crowd", "near", "far"]
        assert [m.face_id for m in result.matches] == ["a00", "b1", "c1"]
        assert [m.name for m in result.matches] == ["Crowd", None, None]
        assert result.matches[0].similarity == 1.0
        assert result.matches[1].similarity == pytest.approx(0.5**0.5, abs=1e-6)
        assert -1 <= result.matches[2].similarity < 0
        assert result.gallery_size == 63
        (one,) = await gallery.search("g", unit(1)[np.newaxis], 1)
        assert one.matches == result.matches[:1]
        (all_of_them,) = await gallery.search("g", unit(1)[np.newaxis], 100)
        assert all_of_them.matches == result.matches


async def test_ties_break_by_face_id(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        for face_id in ("f3", "f1", "f4", "f2"):
            await gallery.enrol("g", f"of-{face_id}", None, {}, [face(face_id, 3, 1, 2)])
        (result,) = await gallery.search("g", unit(1)[np.newaxis], 3)
        assert [m.face_id for m in result.matches] == ["f1", "f2", "f3"]


async def test_a_batch_answers_probe_by_probe(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        for i in range(DIMENSION):
            await gallery.enrol(
                "g", f"p{i}", None, {}, [NewFace(f"f{i}", np.eye(DIMENSION, dtype=np.float32)[i], QUALITY)]
            )
        results = await gallery.search("g", np.eye(DIMENSION, dtype=np.float32)[::-1].copy(), 1)
        assert [r.matches[0].person_id for r in results] == [f"p{i}" for i in reversed(range(DIMENSION))]
        assert await gallery.search("g", np.empty((0, DIMENSION), dtype=np.float32), 1) == []


async def test_nobody_is_enrolled_in_a_gallery_that_does_not_exist(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        for _ in range(2):
            for result in await gallery.search("g", np.stack([unit(1), unit(0, 1)]), 5):
                assert (result.matches, result.gallery_size) == ((), 0)
            # Once more on one that is empty.
            await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
            await gallery.forget_person("g", "ann")
        assert await gallery.persons("g", after=None, limit=5) == []
        assert (await gallery.summary("g")).faces == 0


def of_a_person(gallery: Gallery, name: str, person_id: str) -> list[Awaitable[object]]:
    """Every call that is about one person who has to be there."""
    return [
        gallery.person(name, person_id),
        gallery.person_record(name, person_id),
        gallery.similarities_to(name, person_id, unit(1)),
        gallery.update_person(name, person_id, PersonChange(name="x")),
        gallery.forget_person(name, person_id),
        gallery.faces(name, person_id),
        gallery.crop(name, person_id, "f1"),
        gallery.forget_face(name, person_id, "f1"),
    ]


async def test_reading_what_does_not_exist_says_so(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        assert await gallery.galleries() == []
        for reading in (
            gallery.summary("g"),
            gallery.persons("g", after=None, limit=1),
            gallery.find_persons("g", PersonFilter(), after=None, limit=1),
            *of_a_person(gallery, "g", "ann"),
            *of_a_person(gallery, "a/b", "ann"),
        ):
            with pytest.raises(GalleryNotFound):
                await reading
        await gallery.enrol("g", "bob", None, {}, [face("f1", 1)])
        for reading in (*of_a_person(gallery, "g", "ann"), *of_a_person(gallery, "g", "\ud800")):
            with pytest.raises(PersonNotFound):
                await reading


@pytest.mark.parametrize(
    "vector",
    [
        np.ones(DIMENSION - 1),
        np.ones((1, DIMENSION)),
        np.full(DIMENSION, np.nan),
        np.full(DIMENSION, np.inf),
        np.zeros(DIMENSION),
        np.full(DIMENSION, 1e30),
        unit(1) * 1.01,
    ],
)
async def test_a_vector_that_is_no_embedding_is_refused(open_gallery: OpenGallery, vector: np.ndarray) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        wrong = vector.astype(np.float32)
        with pytest.raises(InvalidEmbedding):
            await gallery.enrol("g", "bob", None, {}, [face("f2", 1), NewFace("f3", wrong, QUALITY)])
        with pytest.raises(InvalidEmbedding):
            await gallery.search("g", wrong[np.newaxis], 1)
        with pytest.raises(InvalidEmbedding):
            await gallery.similarities_to("g", "ann", wrong)
        assert (await gallery.summary("g")).faces == 1


async def test_names_that_are_not_acceptable_are_refused_on_write(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        for name, person_id in (("a/b", "ann"), ("", "ann"), ("g", "a b"), ("g", ""), ("g", "x" * 129)):
            with pytest.raises(InvalidRequest):
                await gallery.enrol(name, person_id, None, {}, [face("f1", 1)])
        assert await gallery.galleries() == []


async def test_similarities_to_one_person(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", "Ann", {}, [face("f3", 0, 1), face("f2", 1), face("f1", 0, 1)])
        matches = await gallery.similarities_to("g", "ann", unit(1))
        assert [(m.face_id, m.similarity) for m in matches] == [("f2", 1.0), ("f1", 0.0), ("f3", 0.0)]
        assert {(m.person_id, m.name) for m in matches} == {("ann", "Ann")}


async def test_persons_come_in_pages_by_id(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        ids = ["b", "B", "a", "a.1", "10", "9"]
        for i, person_id in enumerate(ids):
            await gallery.enrol("g", person_id, None, {}, [face(f"f{i}", 1)])
        seen: list[str] = []
        while page := await gallery.persons("g", after=seen[-1] if seen else None, limit=4):
            seen += [person.person_id for person in page]
        assert seen == sorted(ids)


async def test_summaries_count_and_revisions_grow(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("h", "bob", None, {}, [face("f1", 1)])
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1), face("f2", 1)])
        g, h = await gallery.galleries()
        assert (g.name, g.persons, g.faces) == ("g", 1, 2)
        assert (h.name, h.persons, h.faces) == ("h", 1, 1)
        assert g.revision > h.revision
        removal = await gallery.forget_person("h", "bob")
        assert removal.revision > g.revision
        assert await gallery.summary("h") == GallerySummary("h", 0, 0, removal.revision)


async def test_forgetting_says_what_went_and_leaves_the_others(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1), face("f2", 1, 0.1)])
        await gallery.enrol("g", "bob", None, {}, [face("f3", 0, 1)])
        removal = await gallery.forget_person("g", "ann")
        assert (removal.persons, removal.faces, removal.index_entries) == (1, 2, 2)
        assert removal.crop_digests == ("crop-of-f1", "crop-of-f2")
        (result,) = await gallery.search("g", unit(1)[np.newaxis], 5)
        assert [m.person_id for m in result.matches] == ["bob"]
        assert result.gallery_size == 1
        with pytest.raises(PersonNotFound):
            await gallery.forget_person("g", "ann")
        # Both ids are free again.
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])


async def test_what_was_acknowledged_is_there_after_reopening(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        kept = await gallery.enrol("g", "ann", "Änn\x00", {"x": {"y": 1.5}}, [face("f1", 1), face("f2", 0, 1)])
        await gallery.enrol("g", "bob", None, {}, [face("f3", 1)])
        removal = await gallery.forget_person("g", "bob")
        await gallery.enrol("h", "bob", None, {}, [face("f3", 1)])
    async with opened(open_gallery) as gallery:
        assert await gallery.persons("g", after=None, limit=9) == [kept]
        assert await gallery.summary("g") == GallerySummary("g", 1, 2, removal.revision)
        (result,) = await gallery.search("g", unit(0, 1)[np.newaxis], 9)
        assert [(m.face_id, m.similarity) for m in result.matches] == [("f2", 1.0)]
        later = await gallery.forget_person("h", "bob")
        assert later.revision == removal.revision + 2


async def test_a_closed_gallery_says_so(open_gallery: OpenGallery) -> None:
    gallery = await open_gallery()
    await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
    await gallery.close()
    await gallery.close()
    for call in (
        gallery.enrol("g", "bob", None, {}, [face("f2", 1)]),
        gallery.create_gallery("h", GallerySettings()),
        gallery.configure_gallery("g", GallerySettings()),
        gallery.drop_gallery("g"),
        gallery.settings("g"),
        gallery.search("g", unit(1)[np.newaxis], 1),
        gallery.search("g", unit(1)[np.newaxis], 1, among=["ann"]),
        gallery.galleries(),
        gallery.summary("g"),
        gallery.persons("g", after=None, limit=1),
        gallery.find_persons("g", PersonFilter(), after=None, limit=1),
        gallery.erase_expired(),
        *of_a_person(gallery, "g", "ann"),
    ):
        with pytest.raises(NotReady):
            await call


async def test_one_of_many_rivals_for_an_id_wins(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        rivals = [gallery.enrol("g", "ann", f"rival {i}", {}, [face(f"f{i}", 1, i)]) for i in range(30)]
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert sum(isinstance(outcome, PersonExists) for outcome in outcomes) == 29
        assert await gallery.person("g", "ann") == winner
        assert (await gallery.summary("g")).faces == 1


async def test_searches_see_acknowledged_changes_and_whole_states_only(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "base", None, {}, [face("base", 0, 1)])

        async def come_and_go(number: int) -> None:
            person_id, axis = f"p{number}", unit(1, 0.01 * number)
            for round_ in range(8):
                faces = [NewFace(f"{person_id}-{round_}-{i}", axis, QUALITY) for i in range(2)]
                await gallery.enrol("g", person_id, None, {}, faces)
                (seen,) = await gallery.search("g", axis[np.newaxis], 50)
                assert person_id in {m.person_id for m in seen.matches}
                await gallery.forget_person("g", person_id)
                (seen,) = await gallery.search("g", axis[np.newaxis], 50)
                assert person_id not in {m.person_id for m in seen.matches}
                # Two faces a person, one of the base: an even size would be half a person.
                assert seen.gallery_size % 2 == 1
                assert "base" in {m.person_id for m in seen.matches}

        await asyncio.gather(*(come_and_go(number) for number in range(6)))
        assert (await gallery.summary("g")).persons == 1


async def history_step(
    gallery: Gallery, step: int, name: str, person_id: str, faces: list[NewFace], *, extend: bool
) -> object:
    if step == 80:
        removal = await gallery.drop_gallery(name)
        # Of a whole gallery they come in no order.
        return replace(removal, crop_digests=tuple(sorted(removal.crop_digests)))
    match step % 8:
        case 3:
            return await gallery.forget_person(name, person_id)
        case 5:
            person = await gallery.update_person(name, person_id, PersonChange(name=f"name {step}"))
        case 7:
            person = await gallery.person(name, person_id)
            for face_id in person.face_ids[:1]:
                return await gallery.forget_face(name, person_id, face_id, expected_revision=person.revision)
        case _:
            person = await gallery.enrol(name, person_id, None, {}, faces, extend=extend)
    return person.name, person.face_ids, person.revision


async def test_a_long_random_history_matches_the_reference(open_gallery: OpenGallery) -> None:
    rng = np.random.default_rng(7)
    oracle = ReferenceGallery(ReferenceState(), DIMENSION)
    gallery = await open_gallery()
    for step in range(150):
        name, person_id = f"g{rng.integers(2)}", f"p{rng.integers(25):02}"
        # A coarse grid, so that many faces coincide and many scores tie.
        faces = [face(f"{rng.integers(10**9):09}", *rng.integers(-1, 2, 3), 1) for _ in range(rng.integers(0, 4))]
        extend = bool(rng.integers(2))
        outcomes = []
        for one in (gallery, oracle):
            try:
                outcomes.append(await history_step(one, step, name, person_id, faces, extend=extend))
            except (PersonExists, PersonNotFound, GalleryNotFound) as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]
        if step % 50 == 49:
            await gallery.close()
            gallery = await open_gallery()
        if step % 10 == 9:
            probes = np.stack([unit(*rng.integers(-1, 2, 3), 1) for _ in range(3)])
            assert await gallery.search(name, probes, 4) == await oracle.search(name, probes, 4)
            some = [f"p{number:02}" for number in rng.choice(25, 8, replace=False)]
            assert await gallery.search(name, probes, 4, among=some) == await oracle.search(name, probes, 4, among=some)
            assert await gallery.galleries() == await oracle.galleries()
    await gallery.close()
