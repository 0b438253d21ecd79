"""Enrolling over ports that are dictionaries."""

import pytest

from service.domain import (
    GallerySettings,
    ImageDamaged,
    InvalidRequest,
    LooksLikeAnother,
    NoFaceFound,
    PersonExists,
    QualityTooLow,
    SeveralFacesFound,
)
from tests.unit.identification.world import ADA, GALLERY, VECTORS, World, at

pytestmark = pytest.mark.anyio


class TestEnrol:
    async def test_a_person_is_stored_with_a_face_for_each_picture(self, world, service):
        enrolment = await service.enrolment.enrol(
            [b"1", b"3"], gallery=GALLERY, person_id="ada", name="Ada", metadata={"badge": 7}
        )
        stored = await world.gallery.person(GALLERY, "ada")
        assert enrolment.person == stored
        assert (stored.name, stored.metadata) == ("Ada", {"badge": 7})
        assert stored.face_ids == tuple(each.face_id for each in enrolment.faces)
        matches = await world.gallery.similarities_to(GALLERY, "ada", at(1.0))
        assert [match.similarity for match in matches] == pytest.approx([1.0, 0.9])
        assert enrolment.timings_ms["detect"] == 4.0

    async def test_without_an_id_each_person_gets_a_fresh_one(self, service):
        first = await service.enrolment.enrol([b"1"], gallery=GALLERY)
        second = await service.enrolment.enrol([b"2"], gallery=GALLERY)
        assert first.person.person_id != second.person.person_id

    async def test_somebody_else_who_looks_alike_is_a_conflict(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        await service.enrolment.enrol([b"2"], gallery=GALLERY, person_id="eve")
        enrolment = await service.enrolment.enrol([b"3"], gallery=GALLERY, person_id="twin")
        assert [match.person_id for match in enrolment.conflicts] == ["ada"]
        assert enrolment.conflicts[0].similarity == pytest.approx(0.9)

    @pytest.mark.parametrize("lost_after", ["search", "faces"])
    @pytest.mark.parametrize("person_id", ["ada", "other", None])
    async def test_whose_picture_it_was_may_be_erased_meanwhile(
        self, world, service, monkeypatch, lost_after, person_id
    ):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        called = getattr(world.gallery, lost_after)

        async def called_and_erased(*args, **kwargs):
            answer = await called(*args, **kwargs)
            monkeypatch.undo()
            await world.gallery.forget_person(GALLERY, "ada")
            return answer

        monkeypatch.setattr(world.gallery, lost_after, called_and_erased)
        enrolment = await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id=person_id, extend=True)
        assert enrolment.stored
        assert not enrolment.faces[0].already
        if person_id is None:
            assert enrolment.person.person_id != "ada"
        else:
            assert enrolment.person.person_id == person_id
        (stored,) = await world.gallery.persons(GALLERY, after=None, limit=10)
        assert stored == enrolment.person

    async def test_a_conflict_is_named_once_by_its_best_face(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        enrolment = await service.enrolment.enrol([b"3", b"1", b"3"], gallery=GALLERY, person_id="twin")
        assert [(match.person_id, match.similarity) for match in enrolment.conflicts] == [("ada", 1.0)]

    async def test_a_conflict_needs_the_threshold_of_the_gallery(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        above = await service.enrolment.enrol(
            [b"5"], gallery=GALLERY, person_id="above"
        )  # 0.25 against 0.2326, one face
        assert [match.person_id for match in above.conflicts] == ["ada"]
        other = World().services()
        await other.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        below = await other.enrolment.enrol([b"6"], gallery=GALLERY, person_id="below")  # 0.20
        assert below.conflicts == ()

    async def test_one_is_no_conflict_with_oneself(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        enrolment = await service.enrolment.enrol([b"3"], gallery=GALLERY, person_id="ada", extend=True)
        assert enrolment.conflicts == ()
        assert len(enrolment.person.face_ids) == 2

    async def test_another_gallery_is_another_world(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        assert (await service.enrolment.enrol([b"1"], gallery="visitors", person_id="ada")).conflicts == ()

    async def test_a_taken_id_is_refused_and_changes_nothing(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        with pytest.raises(PersonExists):
            await service.enrolment.enrol([b"2"], gallery=GALLERY, person_id="ada")
        assert (await world.gallery.summary(GALLERY)).faces == 1

    @pytest.mark.parametrize(
        ("bad", "error", "details"),
        [
            (b"", NoFaceFound, {}),
            (b"1 2 3", SeveralFacesFound, {"faces": 3}),
            (b"1!", QualityTooLow, {"issues": ["face-blurred"]}),
        ],
        ids=["no face", "several", "blurred"],
    )
    @pytest.mark.parametrize("index", [0, 1, 2])
    async def test_one_bad_picture_is_named_and_nothing_is_stored(self, world, service, bad, error, details, index):
        pictures = [b"1", b"3", b"1"]
        pictures[index] = bad
        with pytest.raises(error) as caught:
            await service.enrolment.enrol(pictures, gallery=GALLERY, person_id="ada")
        assert caught.value.details == {"picture": index, **details}
        assert await world.gallery.galleries() == []
        assert world.cache.entries == {}

    async def test_a_damaged_picture_stores_nothing(self, world, service):
        with pytest.raises(ImageDamaged):
            await service.enrolment.enrol([b"1", b"damaged"], gallery=GALLERY)
        assert await world.gallery.galleries() == []

    async def test_the_gate_can_be_opened(self, world):
        enrolment = await world.services(quality_gate="off").enrolment.enrol([b"1!"], gallery=GALLERY, person_id="ada")
        assert enrolment.faces[0].face.quality.issues == ("face-blurred",)
        assert (await world.gallery.summary(GALLERY)).faces == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            {"pictures": []},
            {"gallery": "no/slash"},
            {"gallery": ""},
            {"person_id": "../ada"},
            {"person_id": ""},
            {"person_id": "x" * 129},
        ],
    )
    async def test_malformed_requests_are_refused_before_any_picture_is_read(self, world, service, arguments):
        with pytest.raises(InvalidRequest):
            await service.enrolment.enrol(**{"pictures": [b"1"], "gallery": GALLERY, **arguments})
        assert world.analyser.asked == []


class TestTheSamePicture:
    async def test_without_an_id_it_answers_with_the_person_who_has_it(self, world, service):
        first = await service.enrolment.enrol([b"1", b"2"], gallery=GALLERY, person_id="ada")
        again = await service.enrolment.enrol([b"2"], gallery=GALLERY)
        assert (again.person.person_id, again.stored) == ("ada", False)
        assert [(each.face_id, each.already) for each in again.faces] == [(first.faces[1].face_id, True)]
        assert again.conflicts == ()
        assert (await world.gallery.summary(GALLERY)).faces == 2

    async def test_of_one_who_is_extended_it_is_not_stored_again(self, world, service):
        first = await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        more = await service.enrolment.enrol([b"1", b"3"], gallery=GALLERY, person_id="ada", extend=True, name="Ada")
        assert [each.already for each in more.faces] == [True, False]
        assert more.faces[0].face_id == first.faces[0].face_id
        assert more.person.name == "Ada"
        assert (await world.gallery.summary(GALLERY)).faces == 2
        renamed = await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada", extend=True, name="Ada L.")
        assert (renamed.stored, renamed.person.name) == (False, "Ada L.")

    async def test_under_another_id_it_is_stored_and_a_conflict(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        twin = await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="twin")
        assert twin.stored
        assert [(match.person_id, match.similarity) for match in twin.conflicts] == [("ada", 1.0)]

    async def test_twice_in_one_request_it_is_one_face(self, service):
        enrolment = await service.enrolment.enrol([b"1", b"3", b"1"], gallery=GALLERY, person_id="ada")
        assert [each.already for each in enrolment.faces] == [False, False, True]
        assert enrolment.faces[0].face_id == enrolment.faces[2].face_id
        assert len(enrolment.person.face_ids) == 2

    async def test_a_face_that_only_looks_the_same_is_another(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        VECTORS[7] = VECTORS[ADA]
        try:
            other = await service.enrolment.enrol([b"7"], gallery=GALLERY)
        finally:
            del VECTORS[7]
        assert other.stored
        assert other.person.person_id != "ada"


class TestConflicts:
    async def test_they_can_be_refused(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        with pytest.raises(LooksLikeAnother) as caught:
            await service.enrolment.enrol([b"3"], gallery=GALLERY, person_id="twin", on_conflict="reject")
        assert caught.value.details == {"conflicts": [{"person_id": "ada", "similarity": pytest.approx(0.9)}]}
        assert (await world.gallery.summary(GALLERY)).persons == 1
        await service.enrolment.enrol([b"2"], gallery=GALLERY, person_id="eve", on_conflict="reject")

    async def test_the_rate_is_the_gallery_s_own(self, world, service):
        # A cosine of 0.2 reaches the threshold of one comparison at 5 %, 0.1645.
        await world.gallery.create_gallery(GALLERY, GallerySettings(target_fpir=0.05))
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        enrolment = await service.enrolment.enrol([b"6"], gallery=GALLERY, person_id="other")
        assert [match.person_id for match in enrolment.conflicts] == ["ada"]


class TestGallerySettings:
    async def test_the_gate_is_the_gallery_s_own(self, world, service):
        await world.gallery.create_gallery("lax", GallerySettings(quality_gate="off"))
        await world.gallery.create_gallery("strict", GallerySettings(quality_gate="strict"))
        assert (await service.enrolment.enrol([b"1!"], gallery="lax")).stored
        with pytest.raises(QualityTooLow) as caught:
            await service.enrolment.enrol([b"1"], gallery="strict")
        assert caught.value.details == {"picture": 0, "issues": ["face-too-small"]}
        assert (await service.enrolment.enrol([b"1*"], gallery="strict")).stored

    async def test_crops_are_kept_where_the_gallery_keeps_them(self, world, service):
        await world.gallery.create_gallery("kept", GallerySettings(keep_crops=True))
        kept = await service.enrolment.enrol([b"1"], gallery="kept", person_id="ada")
        assert await world.gallery.crop("kept", "ada", kept.faces[0].face_id) == b"PNG of 1"
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        assert [each.crop_kept for each in await world.gallery.faces(GALLERY, "ada")] == [False]


class TestRepetition:
    @staticmethod
    def new_id(kind, index):
        return f"{kind}-of-this-request-{index}"

    @pytest.mark.parametrize("person_id", [None, "ada"])
    async def test_a_request_whose_answer_was_lost_finds_what_it_stored(self, world, service, person_id):
        arguments = {"gallery": GALLERY, "person_id": person_id, "new_id": self.new_id}
        first = await service.enrolment.enrol([b"1", b"2"], **arguments)
        again = await service.enrolment.enrol([b"1", b"2"], **arguments)
        assert again.person == first.person
        assert [each.face_id for each in again.faces] == [each.face_id for each in first.faces]
        assert (await world.gallery.summary(GALLERY)).faces == 2

    async def test_somebody_else_under_the_same_id_is_still_refused(self, service):
        await service.enrolment.enrol([b"2"], gallery=GALLERY, person_id="ada")
        with pytest.raises(PersonExists):
            await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada", new_id=self.new_id)
