"""Persons and their faces over HTTP: list, filter, change, erase, export."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
from fastapi.testclient import TestClient

from tests.api.conftest import face_tile, photo
from tests.api.test_galleries import enrol, problem

PERSONS = "/v1/galleries/default/persons"


def test_a_person_without_faces_is_added_and_gets_them_later(client: TestClient) -> None:
    added = client.post(PERSONS, json={"person_id": "ada", "name": "Ada", "metadata": {"team": "engines"}})
    assert added.status_code == 201
    assert added.headers["location"] == f"{PERSONS}/ada"
    assert added.json()["face_ids"] == []
    assert problem(client.post(PERSONS, json={"person_id": "ada"})) == (409, "person-exists")
    assert client.post(PERSONS, json={}).json()["person_id"].startswith("p-")
    extended = enrol(client, 1, person_id="ada", on_existing="extend")["person"]
    assert (extended["name"], extended["metadata"], len(extended["face_ids"])) == ("Ada", {"team": "engines"}, 1)


def test_name_and_metadata_are_changed_one_by_one(client: TestClient) -> None:
    enrol(client, 1, person_id="ada", name="Ada", metadata='{"team": "engines"}')
    assert client.patch(f"{PERSONS}/ada", json={"name": "Ada Lovelace"}).json()["metadata"] == {"team": "engines"}
    assert client.patch(f"{PERSONS}/ada", json={"metadata": {}}).json()["name"] == "Ada Lovelace"
    assert client.patch(f"{PERSONS}/ada", json={"name": None}).json()["name"] is None
    assert problem(client.patch(f"{PERSONS}/eve", json={"name": "Eve"})) == (404, "person-not-found")
    assert problem(client.patch(f"{PERSONS}/ada", json={"face_ids": []})) == (422, "invalid-request")


def test_a_stale_tag_changes_nothing_of_a_person(client: TestClient) -> None:
    made = client.post("/enroll", files={"image": photo(1)}, data={"person_id": "ada"})
    tag = made.headers["etag"]
    # Somebody else's change is not theirs.
    enrol(client, 2, person_id="eve")
    assert client.get(f"{PERSONS}/ada").headers["etag"] == tag
    changed = client.patch(f"{PERSONS}/ada", json={"name": "Ada"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    for call in (
        client.patch(f"{PERSONS}/ada", json={"name": "Eve"}, headers={"If-Match": tag}),
        client.delete(f"{PERSONS}/ada", headers={"If-Match": tag}),
        client.delete(f"{PERSONS}/ada/faces/{made.json()['faces'][0]['face_id']}", headers={"If-Match": tag}),
    ):
        assert problem(call) == (412, "revision-mismatch")
    assert client.delete(f"{PERSONS}/ada", headers={"If-Match": changed.headers["etag"]}).status_code == 200


def test_persons_are_filtered_by_name_and_metadata_over_pages(client: TestClient) -> None:
    for number in range(12):
        client.post(
            PERSONS,
            json={
                "person_id": f"p{number:02}",
                "name": f"{'Ann' if number % 2 else 'Bob'} {number}",
                "metadata": {"floor": number % 3, "badge": f"b{number}", "guest": number > 8, "left": None},
            },
        )

    def found(**query: str) -> list[str]:
        ids, cursor = [], None
        for _ in range(20):
            page = client.get(PERSONS, params={"limit": "2", **query, **({"cursor": cursor} if cursor else {})}).json()
            ids += [person["person_id"] for person in page["persons"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return ids
        raise AssertionError("the list does not end")

    assert len(found()) == 12
    assert found(name="ann") == [f"p{number:02}" for number in range(1, 12, 2)]
    assert found(**{"metadata.floor": "1"}) == ["p01", "p04", "p07", "p10"]
    assert found(**{"metadata.floor": "1", "name": "bob"}) == ["p04", "p10"]
    assert found(**{"metadata.guest": "true"}) == ["p09", "p10", "p11"]
    assert found(**{"metadata.badge": "b5"}) == ["p05"]
    assert found(**{"metadata.left": "null", "metadata.floor": "0"}) == ["p00", "p03", "p06", "p09"]
    assert found(**{"metadata.nothing": "1"}) == []
    many = {f"metadata.k{number}": "1" for number in range(9)}
    assert problem(client.get(PERSONS, params=many)) == (422, "invalid-request")


def test_cursors_of_another_list_or_nobody_are_refused(client: TestClient) -> None:
    enrol(client, 1)
    foreign = base64.urlsafe_b64encode(b"j1:12").decode()
    for cursor in ("x", "!!", foreign, base64.urlsafe_b64encode(b"p1:").decode(), "cDE6YQ=="):
        assert problem(client.get(PERSONS, params={"cursor": cursor})) == (400, "cursor-invalid")


def test_faces_are_listed_read_and_erased_one_by_one(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "default", "keep_crops": True})
    later = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    answer = client.post(
        "/enroll", files=[("images", photo(1)), ("images", photo(2))], data={"person_id": "ada", "expires_at": later}
    ).json()
    first, second = (face["face_id"] for face in answer["faces"])
    faces = client.get(f"{PERSONS}/ada/faces").json()["faces"]
    assert [face["face_id"] for face in faces] == [first, second]
    assert [datetime.fromisoformat(face["expires_at"]).isoformat() for face in faces] == [later] * 2
    assert faces[0] == client.get(f"{PERSONS}/ada/faces/{first}").json()
    crop = client.get(f"{PERSONS}/ada/faces/{first}/crop")
    assert crop.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(crop.content, np.uint8), cv2.IMREAD_COLOR), face_tile(1))
    receipt = client.delete(f"{PERSONS}/ada/faces/{first}").json()
    assert (receipt["persons"], receipt["faces"], receipt["crops"], receipt["face_id"]) == (0, 1, 1, first)
    for path in (f"{PERSONS}/ada/faces/{first}", f"{PERSONS}/ada/faces/{first}/crop"):
        assert problem(client.get(path)) == (404, "face-not-found")
    assert problem(client.delete(f"{PERSONS}/ada/faces/{first}")) == (404, "face-not-found")
    assert client.get(f"{PERSONS}/ada").json()["face_ids"] == [second]


def test_a_crop_that_was_not_kept_is_said_to_be_missing(client: TestClient) -> None:
    face_id = enrol(client, 1, person_id="ada")["faces"][0]["face_id"]
    assert problem(client.get(f"{PERSONS}/ada/faces/{face_id}/crop")) == (404, "crop-not-kept")


def test_a_person_is_told_all_that_is_known_of_them(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "default", "keep_crops": True})
    enrol(client, 1, person_id="ada", name="Ada")
    enrol(client, 2, person_id="eve")
    dossier = client.get(f"{PERSONS}/ada/export").json()
    assert dossier["person"]["name"] == "Ada"
    (face,) = dossier["faces"]
    vector = np.frombuffer(base64.b64decode(face["embedding"]), "<f4")
    assert float(np.linalg.norm(vector)) == np.float32(1) or abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    assert base64.b64decode(face["crop"]).startswith(b"\x89PNG")
    assert [entry["action"] for entry in dossier["journal"]] == ["person.export", "person.enrol"]
    assert {entry["person_id"] for entry in dossier["journal"]} == {"ada"}


def test_an_expiry_in_the_past_is_refused(client: TestClient) -> None:
    answer = client.post("/enroll", files={"image": photo(1)}, data={"expires_at": "2020-01-01T00:00:00Z"})
    assert problem(answer) == (422, "invalid-request")
    answer = client.post("/enroll", files={"image": photo(1)}, data={"expires_at": "2031-01-01T00:00:00"})
    assert problem(answer) == (422, "invalid-request")


def test_identify_looks_among_the_persons_named(client: TestClient) -> None:
    for person in (1, 2, 3):
        enrol(client, person, person_id=f"p{person}")

    def found(person_ids: str | None) -> tuple[list[str], int]:
        fields = {} if person_ids is None else {"person_ids": person_ids}
        answer = client.post("/identify", files={"image": photo(1)}, data=fields).json()
        return [match["person_id"] for match in answer["faces"][0]["matches"]], answer["gallery_size"]

    assert found(None)[0][0] == "p1"
    assert found(None)[1] == 3
    assert (sorted(found("p2, p3")[0]), found("p2, p3")[1]) == (["p2", "p3"], 2)
    assert found('["p1", "nobody", "../x"]') == (["p1"], 1)
    assert found("[]") == ([], 0)
    repeated = client.post("/identify", files={"image": photo(1)}, data={"person_ids": ["p2", "p1"]}).json()
    assert repeated["gallery_size"] == 2
    answer = client.post("/identify", files={"image": photo(1)}, data={"person_ids": ",".join(["p1"] * 1001)})
    assert problem(answer) == (422, "invalid-request")
    assert problem(client.post("/identify", files={"image": photo(1)}, data={"person_ids": "[1,"})) == (
        422,
        "invalid-request",
    )
