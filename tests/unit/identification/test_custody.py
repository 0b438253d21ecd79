"""Changing and erasing over ports that are dictionaries."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from service.domain import GallerySettings, NewFace, PersonChange, PersonNotFound, RevisionMismatch
from service.ports import Replay
from tests.unit.identification.world import ADA, EVE, GALLERY, at, digest

pytestmark = pytest.mark.anyio


class TestForget:
    async def test_forgetting_a_person_clears_what_was_cached_of_them(self, world, service):
        await service.enrolment.enrol([b"1", b"3"], gallery=GALLERY, person_id="ada")
        await service.enrolment.enrol([b"2"], gallery=GALLERY, person_id="eve")
        receipt = await service.custody.forget_person(GALLERY, "ada", actor="k1")
        assert (receipt.removal.persons, receipt.removal.faces, receipt.cache_entries) == (1, 2, 2)
        assert world.cache.entries.keys() == {digest(EVE)}
        with pytest.raises(PersonNotFound):
            await world.gallery.person(GALLERY, "ada")

    async def test_forgetting_nobody_leaves_the_cache_alone(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        with pytest.raises(PersonNotFound):
            await service.custody.forget_person(GALLERY, "eve", actor="k1")
        assert world.cache.entries.keys() == {digest(ADA)}

    async def test_a_cache_that_does_not_answer_is_said_to_be_open(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")

        async def silent(_):
            return None

        world.cache.remove = silent
        receipt = await service.custody.forget_person(GALLERY, "ada", actor="k1")
        assert receipt.cache_entries is None

    async def test_one_face_goes_and_the_person_stays(self, world, service):
        enrolment = await service.enrolment.enrol([b"1", b"3"], gallery=GALLERY, person_id="ada")
        receipt = await service.custody.forget_face(GALLERY, "ada", enrolment.faces[0].face_id, actor="k1")
        assert (receipt.removal.persons, receipt.removal.faces, receipt.cache_entries) == (0, 1, 1)
        assert (await world.gallery.person(GALLERY, "ada")).face_ids == (enrolment.faces[1].face_id,)
        assert digest(ADA) not in world.cache.entries

    async def test_a_whole_gallery_goes(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        await service.enrolment.enrol([b"2"], gallery=GALLERY, person_id="eve")
        receipt = await service.custody.drop_gallery(GALLERY, expected_revision=None, actor="k1")
        assert (receipt.removal.persons, receipt.removal.faces, receipt.cache_entries) == (2, 2, 2)
        assert await world.gallery.galleries() == []

    async def test_answers_that_told_of_the_person_go_too(self, world, service):
        await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        for key, person in (("a", "ada"), ("b", "eve")):
            await world.journal.keep(key, Replay("fingerprint", GALLERY, person, b"{}"))
        assert (await service.custody.forget_person(GALLERY, "ada", actor="k1")).answers == 1
        assert (await world.journal.replay("a")).answer is None
        assert (await world.journal.replay("b")).answer == b"{}"

    async def test_what_has_expired_goes_by_itself(self, world, service):
        soon = datetime.now(UTC) + timedelta(milliseconds=60)
        face = NewFace("brief", at(1.0), None, digest(ADA), expires_at=soon)
        await world.gallery.enrol(GALLERY, "ada", "Ada", {}, [face])
        await world.cache.put({digest(ADA): at(1.0)})
        assert await service.custody.erase_expired() == 0
        while datetime.now(UTC) <= soon:
            pass
        with capture_logs() as lines:
            assert await service.custody.erase_expired() == 1
        assert world.cache.entries == {}
        assert [(line["actor"], line["action"], line["person_id"]) for line in lines] == [
            ("system", "person.expire", "ada")
        ]


class TestChange:
    async def test_every_change_is_noted_with_its_actor_and_without_a_name(self, world, service):
        with capture_logs() as lines:
            await service.custody.create_gallery("g", GallerySettings(), actor="k1")
            await service.custody.configure_gallery(
                "g", lambda _: GallerySettings(0.1), expected_revision=None, actor="k2"
            )
            await service.custody.add_person("g", "ada", PersonChange("Ada", {"a": 1}), actor="k3")
            change = PersonChange(name="Ada Lovelace")
            await service.custody.update_person("g", "ada", change, expected_revision=None, actor="k4")
            await service.custody.dossier("g", "ada", actor="k5")
            await service.custody.forget_person("g", "ada", actor="k6")
            await service.custody.drop_gallery("g", expected_revision=None, actor="k7")
        assert [(line["actor"], line["action"]) for line in lines] == [
            ("k1", "gallery.create"),
            ("k2", "gallery.configure"),
            ("k3", "person.add"),
            ("k4", "person.update"),
            ("k5", "person.export"),
            ("k6", "person.erase"),
            ("k7", "gallery.erase"),
        ]
        assert "Ada" not in str(lines)

    async def test_settings_that_are_changed_at_the_same_time_are_both_changed(self, world, service):
        await service.custody.create_gallery("g", GallerySettings(), actor="k1")
        real = world.gallery.summary

        async def slow(gallery):
            found = await real(gallery)
            await asyncio.sleep(0.01)
            return found

        world.gallery.summary = slow
        changes = ({"target_fpir": 0.1}, {"quality_gate": "off"}, {"keep_crops": True})
        await asyncio.gather(
            *(
                service.custody.configure_gallery(
                    "g", lambda known, given=given: replace(known, **given), expected_revision=None, actor="k1"
                )
                for given in changes
            )
        )
        assert (await real("g")).settings == GallerySettings(0.1, "off", True)

    async def test_a_stale_change_is_refused_and_not_noted(self, world, service):
        enrolment = await service.enrolment.enrol([b"1"], gallery=GALLERY, person_id="ada")
        seen = enrolment.person.revision
        await service.custody.update_person(
            GALLERY, "ada", PersonChange(name="Ada"), expected_revision=seen, actor="k1"
        )
        with capture_logs() as lines, pytest.raises(RevisionMismatch):
            await service.custody.update_person(
                GALLERY, "ada", PersonChange(name="Eve"), expected_revision=seen, actor="k1"
            )
        assert lines == []
        assert (await world.gallery.person(GALLERY, "ada")).name == "Ada"
