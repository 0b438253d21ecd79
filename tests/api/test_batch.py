"""Many pictures in one request."""

from __future__ import annotations

import base64
import json

from fastapi.testclient import TestClient

from tests.api.conftest import photo
from tests.api.test_galleries import problem


def text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def test_people_are_enrolled_each_with_an_outcome(client: TestClient) -> None:
    items = [
        {"person_id": "ada", "name": "Ada", "image": text(photo(1))},
        {"person_id": "eve", "images": [text(photo(2)), text(photo(3))]},
        {"person_id": "none", "image": text(photo())},
        {"person_id": "../x", "image": text(photo(4))},
        {"person_id": "odd", "image": "%%%"},
        {"person_id": "elsewhere", "gallery": "other", "image": text(photo(5))},
    ]
    answer = client.post("/v1/batch/enroll", json={"gallery": "staff", "items": [*items[:4], items[5]]})
    assert answer.status_code == 200
    outcomes = answer.json()["items"]
    assert [(each["index"], each["status"]) for each in outcomes] == [(0, 201), (1, 201), (2, 422), (3, 422), (4, 201)]
    assert outcomes[0]["result"]["person"]["name"] == "Ada"
    assert outcomes[2]["problem"]["type"].endswith(":no-face")
    assert outcomes[2]["problem"]["request_id"] == answer.headers["x-request-id"]
    assert [each["name"] for each in client.get("/v1/galleries").json()["galleries"]] == ["other", "staff"]
    assert client.get("/v1/galleries/staff").json()["faces"] == 3
    assert problem(client.post("/v1/batch/enroll", json={"items": [items[4]]})) == (400, "base64-invalid")


def test_a_batch_sent_again_with_extend_stores_nothing_twice(client: TestClient) -> None:
    items = [{"person_id": f"p{n}", "on_existing": "extend", "image": text(photo(n))} for n in range(1, 5)]
    for _ in range(2):
        answer = client.post("/v1/batch/enroll", json={"items": items}).json()["items"]
    assert [each["status"] for each in answer] == [200] * 4
    assert client.get("/v1/galleries/default").json()["faces"] == 4


def test_multipart_gives_each_item_one_file(client: TestClient) -> None:
    files = [("images", photo(1)), ("images", photo(2))]
    items = json.dumps([{"person_id": "ada"}, {"person_id": "eve"}])
    answer = client.post("/v1/batch/enroll", files=files, data={"items": items})
    assert [each["result"]["person"]["person_id"] for each in answer.json()["items"]] == ["ada", "eve"]
    one_short = client.post("/v1/batch/enroll", files=files, data={"items": '[{"person_id": "x"}]'})
    assert problem(one_short) == (422, "invalid-request")


def test_pictures_are_identified_each_with_an_outcome(client: TestClient) -> None:
    for person in (1, 2):
        client.post("/enroll", files={"image": photo(person)}, data={"person_id": f"p{person}"})
    files = [("images", photo(2)), ("images", b"no picture"), ("images", photo(1)), ("images", photo(1, 2, 9))]
    answer = client.post("/v1/batch/identify", files=files, data={"top_k": "1"})
    outcomes = answer.json()["items"]
    assert [each["status"] for each in outcomes] == [200, 415, 200, 200]
    decided = [
        [face["decision"]["person_id"] for face in each["result"]["faces"]] for each in outcomes if each["result"]
    ]
    assert decided[:2] == [["p2"], ["p1"]]
    assert sorted(map(str, decided[2])) == ["None", "p1", "p2"]


def test_batches_are_bounded_and_not_empty(client: TestClient) -> None:
    too_many = [("images", photo(1))] * 65
    assert problem(client.post("/v1/batch/identify", files=too_many))[0] in (400, 422)
    items = [{"image": text(photo(1))}] * 65
    assert problem(client.post("/v1/batch/enroll", json={"items": items})) == (422, "invalid-request")
    assert problem(client.post("/v1/batch/enroll", json={"items": []})) == (422, "invalid-request")
    assert problem(client.post("/v1/batch/enroll", json={"items": ["x"]}))[0] == 422
    assert problem(client.post("/v1/batch/identify", data={"top_k": "1"}, files={"other": b""}))[0] == 422
