"""Identifying, verifying, detecting and embedding over ports that are dictionaries."""

import numpy as np
import pytest

from service.domain import (
    InvalidRequest,
    NoFaceFound,
    PersonNotFound,
)
from service.identification import crop_digest
from tests.unit.identification.world import ADA, EVE, GALLERY, NEAR_ADA, VECTORS, digest, face

pytestmark = pytest.mark.anyio


class TestIdentify:
    @pytest.fixture(autouse=True)
    async def enrolled(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada", name="Ada")
        await service.enrolment.enrol([b"2"], gallery=GALLERY, person_id="eve")

    async def test_every_face_gets_its_own_candidates_and_decision(self, service):
        answer = await service.identification.identify(b"3 2 6", gallery=GALLERY)
        assert [found.decision.person_id for found in answer.faces] == ["ada", "eve", None]
        assert [found.decision.identified for found in answer.faces] == [True, True, False]
        # The third is listed with candidates all the same: 0.2 to Ada, 0 to Eve.
        assert [(m.person_id, m.name) for m in answer.faces[2].matches] == [("ada", "Ada"), ("eve", None)]
        assert answer.faces[2].matches[0].similarity == pytest.approx(0.2)
        assert (answer.gallery_size, answer.faces_total, answer.width) == (2, 3, 640)

    async def test_the_default_threshold_follows_from_the_target_rate_and_the_size(self, service):
        answer = await service.identification.identify(b"1", gallery=GALLERY)
        # 1 - sqrt(0.99) = 0.00501256, whose upper quantile is 2.57495 deviations.
        assert answer.threshold == pytest.approx(0.257495, abs=1e-5)
        assert answer.fpir == pytest.approx(0.01, rel=1e-9)

    async def test_a_stricter_rate_raises_the_threshold_over_a_match(self, service):
        loose = await service.identification.identify(b"4", gallery=GALLERY, fpir=0.01)
        strict = await service.identification.identify(b"4", gallery=GALLERY, fpir=1e-4)
        assert (loose.faces[0].decision.person_id, strict.faces[0].decision.person_id) == ("ada", None)
        assert strict.fpir == pytest.approx(1e-4, rel=1e-6)

    async def test_a_similarity_at_the_threshold_is_accepted_and_one_below_is_not(self, service):
        similarity = (await service.identification.identify(b"3", gallery=GALLERY)).faces[0].matches[0].similarity
        at_it = await service.identification.identify(b"3", gallery=GALLERY, threshold=similarity)
        above = await service.identification.identify(
            b"3", gallery=GALLERY, threshold=float(np.nextafter(similarity, 1))
        )
        assert at_it.faces[0].decision.person_id == "ada"
        assert above.faces[0].decision.person_id is None
        assert at_it.faces[0].decision.threshold == similarity

    async def test_a_threshold_given_is_answered_with_the_rate_it_means(self, service):
        answer = await service.identification.identify(b"1", gallery=GALLERY, threshold=0.2)
        # Two comparisons, each reaching two deviations with 0.0227501.
        assert answer.fpir == pytest.approx(1 - (1 - 0.0227501) ** 2, abs=1e-6)

    async def test_top_k_bounds_the_candidates(self, service):
        assert len((await service.identification.identify(b"1", gallery=GALLERY, top_k=1)).faces[0].matches) == 1

    async def test_nobody_is_enrolled_in_a_gallery_that_does_not_exist(self, service):
        answer = await service.identification.identify(b"1", gallery="nowhere")
        assert answer.gallery_size == 0
        assert answer.faces[0].matches == ()
        assert not answer.faces[0].decision.identified
        assert answer.fpir == 0.0

    async def test_probes_are_not_held_to_the_enrolment_gate(self, service):
        answer = await service.identification.identify(b"1!", gallery=GALLERY)
        assert answer.faces[0].decision.person_id == "ada"
        assert answer.faces[0].face.quality.issues == ("face-blurred",)

    async def test_no_face_is_an_error(self, service):
        with pytest.raises(NoFaceFound) as caught:
            await service.identification.identify(b"", gallery=GALLERY)
        assert caught.value.details == {"picture": 0}

    async def test_max_faces_bounds_the_faces_answered_but_not_those_counted(self, service):
        answer = await service.identification.identify(b"1 2 3 4 5 6 1", gallery=GALLERY)
        assert (len(answer.faces), answer.faces_total) == (5, 7)
        assert len((await service.identification.identify(b"1 2 3", gallery=GALLERY, max_faces=2)).faces) == 2

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"fpir": 0.01, "threshold": 0.3}, "threshold"),
            ({"fpir": 0.0}, "fpir"),
            ({"fpir": 1.0}, "fpir"),
            ({"fpir": float("nan")}, "fpir"),
            ({"threshold": 1.01}, "threshold"),
            ({"threshold": -1.01}, "threshold"),
            ({"threshold": float("nan")}, "threshold"),
            ({"top_k": 0}, "top_k"),
            ({"top_k": 101}, "top_k"),
            ({"max_faces": 0}, "max_faces"),
            ({"max_faces": 6}, "max_faces"),
            ({"gallery": "a b"}, "gallery"),
        ],
    )
    async def test_values_out_of_range_are_refused_by_name(self, world, service, arguments, named):
        world.analyser.asked.clear()
        with pytest.raises(InvalidRequest) as caught:
            await service.identification.identify(**{"picture": b"1", "gallery": GALLERY, **arguments})
        assert caught.value.details == {"field": named}
        assert world.analyser.asked == []


class TestCache:
    async def test_what_was_embedded_once_is_not_embedded_again(self, world, service):
        await service.identification.embeddings(b"1 2")
        again = await service.identification.embeddings(b"2 1")
        assert world.embedder.embedded == [[1, 2]]
        np.testing.assert_array_equal(again.faces[0].embedding, VECTORS[EVE])
        np.testing.assert_array_equal(again.faces[1].embedding, VECTORS[ADA])

    async def test_only_what_is_missing_is_embedded_and_the_order_stays(self, world, service):
        world.cache.entries[digest(2)] = VECTORS[EVE]
        answer = await service.identification.embeddings(b"1 2 3")
        assert world.embedder.embedded == [[1, 3]]
        for found, key in zip(answer.faces, (1, 2, 3), strict=True):
            np.testing.assert_array_equal(found.embedding, VECTORS[key])
        assert world.cache.entries.keys() == {digest(key) for key in (1, 2, 3)}
        np.testing.assert_array_equal(world.cache.entries[digest(3)], VECTORS[NEAR_ADA])

    async def test_a_picture_seen_before_is_answered_without_looking_at_it(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        first = await service.identification.identify(b"3 2!", gallery=GALLERY)
        world.analyser.asked.clear()
        world.embedder.embedded.clear()
        again = await service.identification.identify(b"3 2!", gallery=GALLERY)
        assert (world.analyser.asked, world.embedder.embedded) == ([], [])
        assert [each.face.quality for each in again.faces] == [each.face.quality for each in first.faces]
        assert [each.matches for each in again.faces] == [each.matches for each in first.faces]
        assert (again.width, again.height, again.faces_total) == (640, 480, 2)
        assert set(first.timings_ms) == {"cache", "decode", "detect", "embed", "search"}
        assert set(again.timings_ms) == {"cache", "search"}
        # Another number of faces is another question, and so is another analyser.
        await service.identification.identify(b"3 2!", gallery=GALLERY, max_faces=1)
        world.analyser.identity = "another"
        await service.identification.embeddings(b"3 2!")
        assert world.analyser.asked == [1, 5]

    async def test_a_picture_of_nobody_is_known_to_be_one(self, world, service):
        for _ in range(2):
            with pytest.raises(NoFaceFound):
                await service.identification.identify(b"", gallery=GALLERY)
        assert world.analyser.asked == [5]

    async def test_after_an_erasure_the_picture_is_looked_at_again(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        await service.identification.identify(b"1 2", gallery=GALLERY)
        await service.custody.forget_person(GALLERY, "ada", actor="test")
        world.analyser.asked.clear()
        answer = await service.identification.identify(b"1 2", gallery=GALLERY)
        assert world.analyser.asked == [5]
        assert [each.matches for each in answer.faces] == [(), ()]

    async def test_large_pictures_are_told_apart_as_small_ones_are(self, world, service):
        large = [b"1" + b" " * 300_000 + word for word in (b"2", b"3")]
        for picture in [*large, *large]:
            await service.identification.embeddings(picture)
        assert world.analyser.asked == [5, 5]

    async def test_digests_tell_crops_apart_by_their_pixels(self):
        crop = face(1).crop
        other = crop.copy()
        other[111, 111, 2] += 1
        assert crop_digest(crop) == crop_digest(crop.copy())
        assert crop_digest(crop) != crop_digest(other)


class TestVerify:
    async def test_two_pictures_are_compared(self, service):
        answer = await service.identification.verify(b"1", b"3", gallery=GALLERY)
        assert answer.same
        assert answer.similarity == pytest.approx(0.9)
        # 3.090232 deviations for a false match in a thousand.
        assert answer.threshold == pytest.approx(0.3090232, abs=1e-6)
        assert answer.reference is not None
        assert answer.face_id is None

    async def test_two_people_are_not_the_same(self, service):
        answer = await service.identification.verify(b"1", b"5", gallery=GALLERY)
        assert not answer.same
        # A cosine of 0.25 is 2.5 deviations: 0.00620967.
        assert answer.false_match_rate == pytest.approx(0.00620967, abs=1e-7)

    async def test_a_person_is_compared_by_the_nearest_of_their_faces(self, service):
        enrolment = await service.enrolment.enrol([b"3", b"1"], gallery=GALLERY, person_id="ada")
        answer = await service.identification.verify(b"1", gallery=GALLERY, person_id="ada")
        assert answer.same
        assert answer.similarity == 1.0
        assert answer.face_id == enrolment.faces[1].face_id
        assert answer.reference is None

    async def test_a_person_of_several_faces_needs_a_higher_similarity(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="one")
        await service.enrolment.enrol([b"1", b"2"], gallery=GALLERY, person_id="two")
        one = await service.identification.verify(b"4", gallery=GALLERY, person_id="one")
        two = await service.identification.verify(b"4", gallery=GALLERY, person_id="two")
        # 0.32 lies between 0.3090 for one comparison and 0.3290 for two.
        assert (one.same, two.same) == (True, False)
        assert two.threshold == pytest.approx(0.32905, abs=1e-4)

    async def test_a_stricter_rate_refuses_more(self, service):
        assert (await service.identification.verify(b"1", b"4", gallery=GALLERY, fmr=1e-2)).same
        assert not (await service.identification.verify(b"1", b"4", gallery=GALLERY, fmr=1e-4)).same

    @pytest.mark.parametrize(
        "arguments",
        [{}, {"reference": b"1", "person_id": "ada"}, {"reference": b"1", "fmr": 0.0}, {"reference": b"1", "fmr": 1.0}],
        ids=["neither", "both", "rate 0", "rate 1"],
    )
    async def test_malformed_requests_are_refused(self, world, service, arguments):
        with pytest.raises(InvalidRequest):
            await service.identification.verify(b"1", gallery=GALLERY, **arguments)
        assert world.analyser.asked == []

    async def test_the_index_says_which_picture_has_no_face(self, service):
        with pytest.raises(NoFaceFound) as caught:
            await service.identification.verify(b"1", b"", gallery=GALLERY)
        assert caught.value.details == {"picture": 1}

    async def test_an_unknown_person_is_an_error(self, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        with pytest.raises(PersonNotFound):
            await service.identification.verify(b"1", gallery=GALLERY, person_id="eve")


class TestDetect:
    async def test_no_face_is_an_answer(self, service):
        answer = await service.identification.detect(b"")
        assert (answer.faces, answer.faces_total) == ((), 0)

    async def test_faces_come_without_embeddings_and_nothing_is_embedded(self, world, service):
        answer = await service.identification.detect(b"1 2", max_faces=1)
        assert [found.embedding for found in answer.faces] == [None]
        assert answer.faces_total == 2
        assert world.embedder.embedded == []
