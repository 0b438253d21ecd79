"""Whether a mask is worn, and what else a service has networks for: on every call that answers with faces."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from tests.api.conftest import build_fake, face_tile, photo, png
from tests.api.test_galleries import problem

FOUND = ("/identify", "/v1/detect", "/v1/embeddings")


def masked(person: int) -> bytes:
    """A picture of somebody whom the classifier of these tests takes for masked, beside somebody whom it does not."""
    red = face_tile(person).copy()
    red[..., 2] = 255
    bare = face_tile(person + 100) // 2
    return png(np.concatenate([red, bare], axis=1))


@pytest.fixture
def without_classifier(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings, partial(build_fake, networks=lambda _: []))
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running


@pytest.mark.parametrize("path", FOUND)
def test_each_face_is_told_of_where_it_is_asked_for(client: TestClient, path: str) -> None:
    answer = client.post(path, files={"image": masked(1)}, data={"attributes": "mask"}).json()
    told = sorted((face["mask"] for face in answer["faces"]), key=lambda mask: mask["probability"])
    assert [mask["worn"] for mask in told] == [False, True]
    assert told[1]["probability"] == 1.0
    assert 0 < told[0]["probability"] < 0.5
    assert answer["timings_ms"]["mask"] >= 0
    for face in answer["faces"]:
        probability = face["mask"]["probability"]
        scored = {"kind": "score", "value": probability >= 0.5, "probability": probability, "threshold": 0.5}
        assert face["attributes"] == {"mask": scored}


@pytest.mark.parametrize("path", FOUND)
def test_otherwise_it_is_null_and_takes_no_time(client: TestClient, path: str) -> None:
    answer = client.post(path, files={"image": masked(1)}).json()
    assert [(face["mask"], face["attributes"]) for face in answer["faces"]] == [(None, {})] * 2
    assert "mask" not in answer["timings_ms"]


def test_json_takes_an_array_and_multipart_the_field_twice(client: TestClient) -> None:
    picture = masked(2)
    by_json = client.post(
        "/v1/detect", json={"image": base64.b64encode(picture).decode(), "attributes": ["mask"]}
    ).json()["faces"]
    assert by_json[0]["mask"] is not None
    for spelt in (["mask", "mask"], '["mask"]', " mask "):
        answer = client.post("/v1/detect", files={"image": picture}, data={"attributes": spelt})
        assert answer.json()["faces"] == by_json
    none = client.post("/v1/detect", files={"image": picture}, data={"attributes": ""}).json()["faces"]
    assert none[0]["mask"] is None


@pytest.mark.parametrize("attributes", ["Mask", "mask,Age", "ma sk", '{"mask": true}', ",".join(["mask"] * 17)])
def test_what_names_no_attribute_is_refused(client: TestClient, attributes: str) -> None:
    answer = client.post("/identify", files={"image": photo(1)}, data={"attributes": attributes})
    assert problem(answer) == (422, "invalid-request")
    assert "attributes" in answer.text


def test_an_enrolment_and_its_repetition_tell_it_and_store_nothing_of_it(client: TestClient) -> None:
    red = face_tile(5).copy()
    red[..., 2] = 255
    request = {
        "files": {"image": png(red)},
        "data": {"person_id": "ada", "attributes": "mask"},
        "headers": {"Idempotency-Key": "once"},
    }
    first, again = client.post("/enroll", **request), client.post("/enroll", **request)
    assert first.status_code == 201, first.text
    assert first.json()["faces"][0]["mask"] == {"worn": True, "probability": 1.0}
    assert again.json()["faces"] == first.json()["faces"]
    assert "mask" not in client.get("/v1/galleries/default/persons/ada/export").text


def test_batches_take_it_too(client: TestClient) -> None:
    answer = client.post("/v1/batch/identify", files=[("images", masked(1))], data={"attributes": "mask"}).json()
    assert {face["mask"]["worn"] for face in answer["items"][0]["result"]["faces"]} == {True, False}
    item = {"image": base64.b64encode(png(face_tile(7) // 2)).decode(), "person_id": "p7", "attributes": ["mask"]}
    stored = client.post("/v1/batch/enroll", json={"items": [item]}).json()["items"][0]["result"]
    assert stored["faces"][0]["mask"]["worn"] is False


@pytest.mark.parametrize("path", [*FOUND, "/enroll"])
def test_without_a_classifier_the_problem_says_so(without_classifier: TestClient, path: str) -> None:
    answer = without_classifier.post(path, files={"image": photo(1)}, data={"attributes": "mask"})
    assert problem(answer) == (422, "attribute-unavailable")
    assert (answer.json()["attributes"], answer.json()["available"]) == (["mask"], [])
    assert without_classifier.post(path, files={"image": photo(1)}).status_code in (200, 201)


class TestCompreFace:
    RECOGNIZE, DETECT = "/api/v1/recognition/recognize", "/api/v1/detection/detect"

    @pytest.mark.parametrize("path", [RECOGNIZE, DETECT])
    def test_the_plugin_has_its_values(self, client: TestClient, path: str) -> None:
        answer = client.post(path, params={"face_plugins": "age, mask"}, files={"file": masked(1)}).json()
        told = {face["mask"]["value"]: face["mask"]["probability"] for face in answer["result"]}
        assert told["with_mask"] == 1.0
        assert 0.5 < told["without_mask"] < 1.0
        assert "mask" not in client.post(path, files={"file": masked(1)}).json()["result"][0]

    def test_its_version_and_its_time_are_told(self, client: TestClient) -> None:
        params = {"face_plugins": "mask", "status": "true"}
        answer = client.post(self.DETECT, params=params, files={"file": masked(1)}).json()
        assert answer["plugins_versions"]["mask"] == "reds"
        assert "mask" in answer["result"][0]["execution_time"]

    def test_without_a_classifier_it_says_nothing(self, without_classifier: TestClient) -> None:
        params = {"face_plugins": "mask", "status": "true"}
        answer = without_classifier.post(self.DETECT, params=params, files={"file": masked(1)}).json()
        assert "mask" not in answer["result"][0]
        assert "mask" not in answer["plugins_versions"]


def test_a_folder_without_the_model_is_no_error(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", mask_path=tmp_path / "none.onnx", _env_file=None)
    with TestClient(create_app(settings)) as running:
        answer = running.post("/v1/detect", files={"image": photo()}, data={"attributes": "mask"})
        assert problem(answer) == (422, "attribute-unavailable")
        assert running.post("/v1/detect", files={"image": photo()}).json()["faces"] == []
