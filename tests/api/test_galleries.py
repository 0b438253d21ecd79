"""Galleries over HTTP: begin, configure, list, erase, and what entity tags are for."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.api.conftest import photo


def enrol(client: TestClient, person: int, **fields: str) -> dict:
    answer = client.post("/enroll", files={"image": photo(person)}, data=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def problem(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_a_gallery_is_begun_configured_listed_and_erased(client: TestClient) -> None:
    made = client.post("/v1/galleries", json={"name": "staff", "target_fpir": 0.001, "keep_crops": True})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/galleries/staff"
    assert made.json()["settings"] == {"target_fpir": 0.001, "quality_gate": None, "keep_crops": True}
    assert problem(client.post("/v1/galleries", json={"name": "staff"})) == (409, "gallery-exists")
    changed = client.patch("/v1/galleries/staff", json={"quality_gate": "off"})
    assert changed.json()["settings"] == {"target_fpir": 0.001, "quality_gate": "off", "keep_crops": True}
    back = client.patch("/v1/galleries/staff", json={"target_fpir": None})
    assert back.json()["settings"] == {"target_fpir": None, "quality_gate": "off", "keep_crops": True}
    enrol(client, 1, gallery="staff", person_id="ada")
    (listed,) = client.get("/v1/galleries").json()["galleries"]
    assert (listed["name"], listed["persons"], listed["faces"]) == ("staff", 1, 1)
    assert listed == client.get("/v1/galleries/staff").json()
    receipt = client.delete("/v1/galleries/staff").json()
    assert (receipt["persons"], receipt["faces"], receipt["crops"], receipt["person_id"]) == (1, 1, 1, None)
    assert problem(client.get("/v1/galleries/staff")) == (404, "gallery-not-found")
    assert client.get("/v1/galleries").json() == {"galleries": []}


def test_a_stale_tag_changes_nothing(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "staff"})
    stale = client.get("/v1/galleries/staff").headers["etag"]
    enrol(client, 1, gallery="staff")
    for tag in (stale, '"r999"', '"nonsense"', f"W/{stale}"):
        answer = client.patch("/v1/galleries/staff", json={"keep_crops": True}, headers={"If-Match": tag})
        assert problem(answer) == (412, "revision-mismatch")
        assert problem(client.delete("/v1/galleries/staff", headers={"If-Match": tag})) == (412, "revision-mismatch")
    for malformed in ("", "r1", f"{stale}, {stale}"):
        answer = client.patch("/v1/galleries/staff", json={}, headers={"If-Match": malformed})
        assert problem(answer) == (422, "invalid-request")
    fresh = client.get("/v1/galleries/staff").headers["etag"]
    answer = client.patch("/v1/galleries/staff", json={"keep_crops": True}, headers={"If-Match": fresh})
    assert answer.status_code == 200
    assert answer.headers["etag"] != fresh
    assert client.delete("/v1/galleries/staff", headers={"If-Match": "*"}).status_code == 200


def test_the_gallery_s_own_rate_is_the_default_of_identify(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "lax", "target_fpir": 0.2})
    client.post("/v1/galleries", json={"name": "strict", "target_fpir": 0.00001})
    thresholds = {}
    for gallery in ("lax", "strict"):
        enrol(client, 1, gallery=gallery)
        answer = client.post("/identify", files={"image": photo(2)}, data={"gallery": gallery}).json()
        thresholds[gallery] = answer["threshold"]
    assert thresholds["lax"] < thresholds["strict"]


def test_bad_settings_are_named(client: TestClient) -> None:
    for body, field in (
        ({"name": "a/b"}, None),
        ({"name": "g", "target_fpir": 1.5}, "target_fpir"),
        ({"name": "g", "quality_gate": "some"}, "quality_gate"),
        ({"name": "g", "unknown": 1}, "unknown"),
        ({}, "name"),
    ):
        answer = client.post("/v1/galleries", json=body)
        assert problem(answer) == (422, "invalid-request")
        if field is not None:
            assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert problem(client.post("/v1/galleries", content=b"[]", headers={"content-type": "application/json"})) == (
        400,
        "body-invalid",
    )
    assert problem(client.post("/v1/galleries", data={"name": "g"})) == (415, "media-type-unsupported")
    assert client.get("/v1/galleries").json() == {"galleries": []}
