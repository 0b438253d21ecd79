"""Renaming a subject moves all faces and loses none, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.compreface.ids import person_id_of
from service.domain import NewFace, StorageFull
from service.identification import CustodyService
from tests.api.conftest import photo
from tests.api.test_compreface import ADA, FACES, RECOGNITION, SUBJECTS, add, subjects, told
from tests.api.test_galleries import enrol

EXPORT = "/v1/galleries/default/persons/{}/export"


def rename(client: TestClient, old: str, new: str) -> Any:
    return client.put(f"{SUBJECTS}/{old}", json={"subject": new})


def faces_of(client: TestClient, subject: str) -> list[str]:
    return [face["image_id"] for face in client.get(FACES, params={"subject": subject}).json()["faces"]]


def stored(client: TestClient, subject: str) -> list[dict[str, Any]]:
    """Faces with all that is kept of them, but for their ids."""
    dossier = client.get(EXPORT.format(person_id_of(subject))).json()
    return [{**face, "face_id": None} for face in dossier["faces"]]


def recognised(client: TestClient, person: int) -> tuple[str, float]:
    answer = client.post(f"{RECOGNITION}/recognize", files={"file": photo(person)}).json()
    match = answer["result"][0]["subjects"][0]
    return match["subject"], match["similarity"]


Meanwhile = Callable[[CustodyService], Awaitable[None]]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Meanwhile], None]:
    """Has something happen between the storing under the new name and the first erasure under the old one."""
    forget_person = CustodyService.forget_person

    def arrange(happens: Meanwhile) -> None:
        async def interrupted(self: CustodyService, *args: Any, **more: Any) -> Any:
            monkeypatch.setattr(CustodyService, "forget_person", forget_person)
            await happens(self)
            return await forget_person(self, *args, **more)

        monkeypatch.setattr(CustodyService, "forget_person", interrupted)

    return arrange


def test_a_new_name_keeps_images_embeddings_crops_and_metadata(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "default", "keep_crops": True})
    enrol(client, 1, person_id="ada", name="ada", metadata='{"team": "engines"}')
    add(client, 2, "ada")
    created = client.get("/v1/galleries/default/persons/ada").json()["created_at"]
    images, kept = faces_of(client, "ada"), stored(client, "ada")
    crops = [client.get(f"{FACES}/{image_id}/img").content for image_id in images]
    for old, new in (("ada", ADA), (ADA, "ada lovelace"), ("ada lovelace", "ada")):
        assert rename(client, old, new).json() == {"updated": True}
        assert subjects(client) == [new]
        assert (faces_of(client, new), stored(client, new)) == (images, kept)
        assert [client.get(f"{FACES}/{image_id}/img").content for image_id in images] == crops
        assert recognised(client, 2)[0] == new
        person = client.get(f"/v1/galleries/default/persons/{person_id_of(new)}").json()
        assert (person["metadata"], person["created_at"]) == ({"team": "engines"}, created)
        assert told(rename(client, old, new)) == (404, 42)
    # Nothing is left of the former names.
    assert client.get("/v1/galleries/default").json()["faces"] == 2
    assert client.delete(f"{FACES}/{images[0]}").json() == {"image_id": images[0], "subject": "ada"}


def test_a_name_that_is_taken_gets_all_faces(client: TestClient) -> None:
    ada = [add(client, 1, "ada"), add(client, 2, "ada")]
    eve = add(client, 3, "eve")
    assert rename(client, "eve", "ada").json() == {"updated": True}
    assert subjects(client) == ["ada"]
    assert faces_of(client, "ada") == [*ada, eve]
    assert recognised(client, 3)[0] == "ada"
    client.post(SUBJECTS, json={"subject": "bob"})
    assert rename(client, "bob", "ada").json() == {"updated": True}
    assert subjects(client) == ["ada"]


def test_the_same_name_changes_nothing_and_nobody_is_not_found(client: TestClient) -> None:
    assert told(rename(client, "ada", "eve")) == (404, 42)
    add(client, 1, "ada")
    assert rename(client, "ada", "ada").json() == {"updated": False}
    assert told(rename(client, "eve", "ada")) == (404, 42)
    assert told(rename(client, "ada", " ")) == (400, 26)
    assert told(client.put(f"{SUBJECTS}/ada", json={})) == (400, 26)
    assert subjects(client) == ["ada"]


def test_an_id_that_follows_from_a_name_gets_it(client: TestClient) -> None:
    enrol(client, 1, person_id=person_id_of(ADA))
    assert subjects(client) == [person_id_of(ADA)]
    assert rename(client, person_id_of(ADA), ADA).json() == {"updated": True}
    assert subjects(client) == [ADA]


def test_a_move_cut_short_loses_nothing_and_is_finished_by_the_same_call(
    client: TestClient, meanwhile: Callable[[Meanwhile], None]
) -> None:
    images = [add(client, 1, "ada"), add(client, 2, "ada")]

    async def disk_is_full(_: CustodyService) -> None:
        raise StorageFull("no space")

    meanwhile(disk_is_full)
    assert told(rename(client, "ada", "eve")) == (507, 0)
    assert faces_of(client, "ada") == faces_of(client, "eve") == images
    # To a third name it cannot go before that: the faces are eve's already.
    assert told(rename(client, "ada", "bob")) == (400, 26)
    assert rename(client, "ada", "eve").json() == {"updated": True}
    assert subjects(client) == ["eve"]
    assert faces_of(client, "eve") == images
    assert client.get("/v1/galleries/default").json()["faces"] == 2


def test_a_face_enrolled_during_a_move_goes_along(client: TestClient, meanwhile: Callable[[Meanwhile], None]) -> None:
    images = [add(client, 1, "ada"), add(client, 2, "ada")]

    async def enrolled(custody: CustodyService) -> None:
        record = await custody._gallery.person_record("default", "ada")
        late: NewFace = replace(record.faces[0], face_id="late")
        await custody._gallery.enrol("default", "ada", None, {}, [late], extend=True)

    meanwhile(enrolled)
    assert rename(client, "ada", "eve").json() == {"updated": True}
    assert subjects(client) == ["eve"]
    assert faces_of(client, "eve")[:2] == images
    assert len(faces_of(client, "eve")) == 3


def test_a_face_erased_during_a_move_does_not_come_back(
    client: TestClient, meanwhile: Callable[[Meanwhile], None]
) -> None:
    images = [add(client, 1, "ada"), add(client, 2, "ada")]

    async def erased(custody: CustodyService) -> None:
        first = (await custody._gallery.person("default", "ada")).face_ids[0]
        await custody.forget_face("default", "ada", first, actor="test")

    meanwhile(erased)
    assert rename(client, "ada", "eve").json() == {"updated": True}
    assert subjects(client) == ["eve"]
    assert faces_of(client, "eve") == images[1:]


def test_the_same_move_asked_for_twice_at_once_happens_once(
    client: TestClient, meanwhile: Callable[[Meanwhile], None]
) -> None:
    images = [add(client, 1, "ada")]

    async def ended_by_another(custody: CustodyService) -> None:
        await custody.forget_person("default", "ada", actor="test")

    meanwhile(ended_by_another)
    assert rename(client, "ada", "eve").json() == {"updated": True}
    assert faces_of(client, "eve") == images
    assert subjects(client) == ["eve"]
