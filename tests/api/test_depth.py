"""JSON that is nested deeply: refused with a 4xx, never stored where nobody could read it any more."""

from __future__ import annotations

import base64
import json

import pytest
from fastapi.testclient import TestClient

from service.domain import MAX_METADATA_DEPTH
from tests.api.conftest import photo

JSON = {"content-type": "application/json"}
PICTURE = base64.b64encode(photo(1)).decode()
BRACKETS = {"arrays": ("[", "]"), "objects": ('{"a":', "}")}
# Around our own limit, those of the parsers and writers on the way, and that of Python's stack.
LEVELS = [65, 127, 200, 201, 254, 255, 256, 1_000, 1_023, 1_024, 1_025, 3_000, 200_000]


def nested(levels: int, kind: str = "arrays") -> str:
    opening, closing = BRACKETS[kind]
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize("kind", BRACKETS)
@pytest.mark.parametrize("levels", LEVELS)
def test_no_body_is_too_deep_for_a_refusal(client: TestClient, levels: int, kind: str) -> None:
    deep = nested(levels, kind)
    client.post("/enroll", json={"image": PICTURE, "person_id": "ann"})
    for method, path, body in (
        ("POST", "/v1/galleries/default/persons", f'{{"metadata": {{"x": {deep}}}}}'),
        ("POST", "/enroll", f'{{"image": "{PICTURE}", "metadata": {{"x": {deep}}}}}'),
        ("PATCH", "/v1/galleries/default/persons/ann", f'{{"metadata": {{"x": {deep}}}}}'),
        ("POST", "/identify", f'{{"image": "{PICTURE}", "person_ids": {deep}}}'),
        ("POST", "/identify", f'{{"image": {deep}}}'),
        ("POST", "/v1/batch/enroll", f'{{"items": {deep}}}'),
        ("POST", "/v1/batch/identify", f'{{"images": {deep}}}'),
        ("PATCH", "/v1/galleries/default", f'{{"target_fpir": {deep}}}'),
        ("POST", "/v1/galleries", deep),
        ("POST", "/api/v1/recognition/subjects", f'{{"subject": {deep}}}'),
        ("POST", "/api/v1/recognition/faces/delete", deep),
    ):
        for headers in (JSON, {**JSON, "idempotency-key": "k"}):
            answer = client.request(method, path, content=body, headers=headers)
            assert 400 <= answer.status_code < 500, (method, path, answer.status_code)
    multipart = client.post("/enroll", files={"image": photo(2)}, data={"metadata": f'{{"x": {deep}}}'})
    assert 400 <= multipart.status_code < 500
    line = f'{{"person_id": "eve", "space_id": "sf1-fake", "faces": [], "metadata": {{"x": {deep}}}}}'
    imported = client.post(
        "/v1/galleries/default/import", content=line, headers={"content-type": "application/x-ndjson"}
    )
    outcome = json.loads(imported.text.splitlines()[0])
    assert (outcome["status"], outcome["problem"]) == ("failed", "invalid-request")
    batch = client.post(
        "/v1/batch/enroll",
        content=f'{{"items": [{{"image": "{PICTURE}", "metadata": {{"x": {deep}}}}}]}}',
        headers=JSON,
    )
    assert batch.status_code in (400, 422) or batch.json()["items"][0]["status"] == 422
    listed = client.get("/v1/galleries/default/persons").json()["persons"]
    assert [person["person_id"] for person in listed] == ["ann"]


@pytest.mark.parametrize("kind", BRACKETS)
def test_metadata_of_the_deepest_kind_is_kept_and_told(client: TestClient, kind: str) -> None:
    metadata = {"x": json.loads(nested(MAX_METADATA_DEPTH - 1, kind))}
    as_json = client.post("/enroll", json={"image": PICTURE, "person_id": "ann", "metadata": metadata})
    as_text = client.post(
        "/enroll", files={"image": photo(2)}, data={"person_id": "bob", "metadata": json.dumps(metadata)}
    )
    assert (as_json.status_code, as_text.status_code) == (201, 201)
    listed = client.get("/v1/galleries/default/persons").json()["persons"]
    assert [person["metadata"] for person in listed] == [metadata, metadata]
    exported = client.get("/v1/galleries/default/export").text.splitlines()
    assert [json.loads(line)["metadata"] for line in exported] == [metadata, metadata]
    refused = client.post("/enroll", json={"image": PICTURE, "person_id": "eve", "metadata": {"x": metadata}})
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:shrinkface:problem:invalid-request")
    assert (refused.json()["field"], refused.json()["limit_levels"]) == ("metadata", MAX_METADATA_DEPTH)
