"""Synchronising: the target comes to hold what the source holds, embedded by its own model, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.domain import GalleryNotFound, GallerySettings, NewFace, PersonChange, PersonNotFound
from service.gallery.embedded import EmbeddedGallery
from service.migration.guard import Shadow
from service.migration.synchronising import Synchroniser
from tests.unit.migration.common import NEW, CountingEmbedder, face, old_and_new, person, unit

pytestmark = pytest.mark.anyio

Both = tuple[EmbeddedGallery, EmbeddedGallery]


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    old, new = old_and_new(tmp_path)
    yield old, new
    await old.close()
    await new.close()


async def test_everything_but_the_embedding_is_carried_over(both: Both) -> None:
    old, new = both
    later = datetime(2190, 1, 1, tzinfo=UTC)
    settings = GallerySettings(0.001, "strict", keep_crops=True)
    await old.create_gallery("staff", settings)
    records = [
        person("ann", face("a1"), face("a2", expires_at=later), name="Ann"),
        person("bob", face("b1")),
        person("eve"),
    ]
    await old.import_persons("staff", records)
    told: list[int] = []
    await Synchroniser(old, Shadow(new), erase=True).round(CountingEmbedder(), told.append)

    assert (await new.summary("staff")).settings == settings
    assert sum(told) == 3
    before = await old.export_persons("staff", after=None, limit=10)
    after = await new.export_persons("staff", after=None, limit=10)
    told_of = [
        [(each.person_id, each.name, each.metadata, each.created_at) for each in side] for side in (before, after)
    ]
    assert told_of[0] == told_of[1] != []
    for was, now in zip(before, after, strict=True):
        assert len(was.faces) == len(now.faces)
        for old_face, new_face in zip(was.faces, now.faces, strict=True):
            assert all(
                getattr(old_face, name) == getattr(new_face, name)
                for name in ("face_id", "quality", "crop_digest", "expires_at", "crop")
            )
            np.testing.assert_allclose(new_face.embedding, unit(old_face.crop or b"", NEW), atol=1e-6)


async def test_a_further_round_embeds_only_what_is_new(both: Both) -> None:
    old, new = both
    await old.import_persons("g", [person(f"p{i:03}", face(f"f{i}")) for i in range(150)])
    embed, synchroniser = CountingEmbedder(), Synchroniser(old, Shadow(new), erase=True)
    await synchroniser.round(embed)
    assert len(embed.crops) == 150
    await old.import_persons("g", [person("p007", face("more")), person("zoe", face("z"))])
    await synchroniser.round(embed)
    assert embed.crops[150:] == [b"crop of more", b"crop of z"]
    # Another process that goes on where this one ended embeds nothing at all.
    again = CountingEmbedder()
    await Synchroniser(old, Shadow(new), erase=True).round(again)
    assert again.crops == []
    assert (await new.summary("g")).faces == 152


async def test_what_the_source_lost_or_changed_follows(both: Both) -> None:
    old, new = both
    for gallery in ("g", "gone"):
        await old.import_persons(gallery, [person("ann", face("a1"), face("a2"), name="Ann"), person("bob", face("b"))])
    synchroniser = Synchroniser(old, Shadow(new), erase=True)
    await synchroniser.round(CountingEmbedder())
    await old.drop_gallery("gone")
    await old.forget_face("g", "ann", "a1")
    await old.update_person("g", "ann", PersonChange(name="Anna"))
    await old.forget_person("g", "bob")
    # The id is given to somebody else.
    await old.enrol("g", "bob", "Another Bob", {}, [face("b2")])
    await synchroniser.round(CountingEmbedder())
    with pytest.raises(GalleryNotFound):
        await new.summary("gone")
    ann, bob = await new.persons("g", after=None, limit=10)
    assert (ann.name, ann.face_ids) == ("Anna", ("a2",))
    assert (bob.name, bob.face_ids, bob.metadata) == ("Another Bob", ("b2",), {})


async def test_what_the_target_had_before_stays_on_the_way_back(both: Both) -> None:
    old, new = both
    await new.enrol("g", "only-here", None, {}, [NewFace("f", unit(b"f", NEW), None)])
    await old.import_persons("g", [person("ann", face("a"))])
    await Synchroniser(old, Shadow(new), erase=False).round(CountingEmbedder())
    assert [each.person_id for each in await new.persons("g", after=None, limit=10)] == ["ann", "only-here"]


async def test_faces_without_usable_crops_are_told_of_and_their_persons_kept(both: Both) -> None:
    old, new = both
    damaged = replace(face("d"), crop=b"damaged")
    await old.import_persons(
        "g",
        [
            person("none", face("n1", kept=False), face("n2", kept=False)),
            person("some", face("s1"), face("s2", kept=False)),
            person("torn", damaged),
            person("well", face("w")),
        ],
    )
    synchroniser = Synchroniser(old, Shadow(new), erase=True)
    await synchroniser.round(CountingEmbedder())
    found = {each.person_id: (each.faces, each.carried) for each in synchroniser.lacking}
    assert found == {"none": (2, 0), "some": (1, 1), "torn": (1, 0)}
    assert [each.face_ids for each in await new.persons("g", after=None, limit=10)] == [(), ("s1",), (), ("w",)]
    # Who is enrolled anew is told of no more.
    await old.forget_person("g", "none")
    await synchroniser.round(CountingEmbedder())
    assert "none" not in {each.person_id for each in synchroniser.lacking}


async def test_who_is_erased_while_their_faces_are_embedded_is_not_copied(both: Both) -> None:
    old, new = both
    await old.import_persons("g", [person("ann", face("a")), person("bob", face("b"))])
    shadow = Shadow(new)

    class Erasing(CountingEmbedder):
        async def __call__(self, crops: Sequence[bytes]) -> list[NDArray[np.float32] | None]:
            await old.forget_person("g", "ann")
            await shadow.erased(lambda beside: beside.forget_person("g", "ann"))
            return await super().__call__(crops)

    await Synchroniser(old, shadow, erase=True).round(Erasing())
    with pytest.raises(PersonNotFound):
        await new.person("g", "ann")
    assert (await new.person("g", "bob")).face_ids == ("b",)


async def test_revisions_and_the_journal_go_on(both: Both) -> None:
    old, new = both
    await old.import_persons("g", [person("ann", face("a"))])
    for name in ("Ann", "Anna", "Annette"):
        await old.update_person("g", "ann", PersonChange(name=name))
    last = (await old.person("g", "ann")).revision
    await new.take_over(old)
    await Synchroniser(old, Shadow(new), erase=True).round(CountingEmbedder())
    # An ETag of before the change of model must never fit a later state by chance.
    assert (await new.person("g", "ann")).revision > last
