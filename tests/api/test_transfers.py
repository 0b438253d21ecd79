"""Whole galleries over HTTP: out, and in again."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

from fastapi.testclient import TestClient

from tests.api.conftest import photo
from tests.api.test_galleries import enrol, problem

NDJSON = {"content-type": "application/x-ndjson"}


def lines(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


def test_a_gallery_goes_out_and_comes_in_again(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "old", "keep_crops": True})
    later = (datetime.now(UTC) + timedelta(days=9)).isoformat()
    for person in range(1, 6):
        enrol(client, person, gallery="old", person_id=f"p{person}", name=f"N {person}", expires_at=later)
    client.post("/v1/galleries/old/persons", json={"person_id": "empty", "metadata": {"a": [1]}})
    exported = client.get("/v1/galleries/old/export").content
    *outcomes, last = lines(client.post("/v1/galleries/new/import", content=exported, headers=NDJSON))
    assert last["summary"] == {"persons": 6, "failed": 0, "added": 5, "present": 0, "pictures_skipped": 0}
    assert last["problem"] is None
    assert [each["item"] for each in outcomes] == [f"line {n}" for n in range(1, 7)]
    assert client.get("/v1/galleries/new/export").content == exported
    answer = client.post("/identify", files={"image": photo(3)}, data={"gallery": "new"}).json()
    assert answer["faces"][0]["decision"]["person_id"] == "p3"
    again = lines(client.post("/v1/galleries/new/import", content=exported, headers=NDJSON))[-1]
    assert (again["summary"]["added"], again["summary"]["present"]) == (0, 5)
    behind = lines(client.get("/v1/galleries/old/export", params={"after": "p3"}))
    assert [each["person_id"] for each in behind] == ["p4", "p5"]


def test_pictures_come_in_by_the_same_demands_as_an_enrolment(client: TestClient) -> None:
    text = [base64.b64encode(photo(*people)).decode() for people in ((1,), (), (2,))]
    body = "\n".join(
        [
            json.dumps({"person_id": "ada", "name": "Ada", "images": [text[0], text[1]]}),
            json.dumps({"person_id": "none", "images": [text[1]]}),
            "",
            json.dumps({"person_id": "eve", "images": [text[2]]}),
        ]
    )
    *outcomes, last = lines(client.post("/v1/galleries/g/import", content=body, headers=NDJSON))
    assert [(each.get("person_id"), each["status"]) for each in outcomes] == [
        ("ada", "stored"),
        ("none", "failed"),
        ("eve", "stored"),
    ]
    assert outcomes[0]["skipped"] == [{"picture": "image 1", "problem": "no-face", "detail": "picture 0 shows no face"}]
    assert last["summary"] == {"persons": 3, "failed": 1, "added": 2, "present": 0, "pictures_skipped": 2}


def test_bad_lines_are_told_of_and_the_others_go_on(client: TestClient) -> None:
    enrol(client, 1, person_id="ada")
    (good,) = lines(client.get("/v1/galleries/default/export"))
    nan = base64.b64encode(b"\xff\xff\xff\x7f" * 32).decode()
    short = base64.b64encode(b"\0\0\x80\x3f").decode()
    bad = [
        "{",
        json.dumps({**good, "space_id": "sf1-other"}),
        json.dumps({**good, "person_id": "a/b"}),
        json.dumps({**good, "person_id": "x", "faces": [{**good["faces"][0], "face_id": "n", "embedding": nan}]}),
        json.dumps({**good, "person_id": "y", "faces": [{**good["faces"][0], "face_id": "s", "embedding": short}]}),
        json.dumps({**good, "surprise": 1}),
        json.dumps(good)[:-20],
    ]
    body = "\n".join([*bad, json.dumps({**good, "person_id": "eve"})])
    *outcomes, last = lines(client.post("/v1/galleries/g/import", content=body, headers=NDJSON))
    assert [each["status"] for each in outcomes] == ["failed"] * 7 + ["stored"]
    assert [each.get("problem") for each in outcomes[:5]] == [
        "invalid-request",
        "space-mismatch",
        "invalid-request",
        "embedding-invalid",
        "embedding-invalid",
    ]
    assert last["summary"]["failed"] == 7


def test_what_is_no_import_is_refused(client: TestClient) -> None:
    assert problem(client.post("/v1/galleries/g/import", content=b"{}")) == (415, "media-type-unsupported")
    assert problem(client.post("/v1/galleries/a b/import", content=b"{}", headers=NDJSON)) == (422, "invalid-request")
    assert problem(client.get("/v1/galleries/none/export")) == (404, "gallery-not-found")
    assert lines(client.post("/v1/galleries/g/import", content=b"\n\n", headers=NDJSON))[-1]["summary"]["persons"] == 0


def test_a_line_without_end_is_cut_short(client: TestClient, monkeypatch) -> None:
    monkeypatch.setattr("service.api.routes.transfers.MAX_LINE_BYTES", 1_000)
    enrol(client, 1, person_id="ada")
    (good,) = client.get("/v1/galleries/default/export").content.splitlines()
    body = good.replace(b'"ada"', b'"eve"') + b"\n" + b"x" * 5_000
    monkeypatch.setattr("service.api.routes.transfers._PERSONS_AT_ONCE", 1)

    def pieces():
        for start in range(0, len(body), 700):
            yield body[start : start + 700]

    *outcomes, last = lines(client.post("/v1/galleries/g/import", content=pieces(), headers=NDJSON))
    assert last["problem"] is None or last["problem"]["type"].endswith(":invalid-request")
    assert [each["status"] for each in outcomes] == ["stored"]
