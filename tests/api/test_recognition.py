from __future__ import annotations

import base64

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.contract import TEMPLATE
from service.vision.pose import head_pose
from tests.api.conftest import DIMENSION, photo


def enrol(client: TestClient, person: int, **fields: str) -> dict:
    response = client.post("/enroll", files={"image": photo(person)}, data={"person_id": f"p{person}", **fields})
    assert response.status_code == 201, response.text
    return response.json()


def test_enrolled_people_are_identified_among_others(client: TestClient) -> None:
    for person in (1, 2, 3):
        enrol(client, person, name=f"Person {person}")
    answer = client.post("/identify", files={"image": photo(2)}).json()
    (face,) = answer["faces"]
    assert face["decision"]["identified"] is True
    assert face["decision"]["person_id"] == "p2"
    assert face["matches"][0]["name"] == "Person 2"
    assert face["matches"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert [m["person_id"] for m in face["matches"]] != sorted(["p1", "p2", "p3"]) or len(face["matches"]) == 3
    assert answer["gallery_size"] == 3
    assert answer["model"]["space_id"] == "sf1-fake"
    assert set(answer["timings_ms"]) == {"cache", "decode", "detect", "align", "embed", "search"}


def test_the_time_of_every_stage_is_a_metric(client: TestClient) -> None:
    enrol(client, 1)
    client.post("/identify", files={"image": photo(1)}).raise_for_status()
    text = client.get("/metrics").text
    for stage in ("cache", "decode", "detect", "align", "embed", "search", "store", "serialise"):
        assert f'shrinkface_stage_seconds_count{{stage="{stage}"}}' in text, stage


def test_a_stranger_is_nobody_and_the_answer_says_at_which_threshold(client: TestClient) -> None:
    enrol(client, 1)
    answer = client.post("/identify", files={"image": photo(9)}).json()
    assert answer["faces"][0]["decision"]["identified"] is False
    assert answer["faces"][0]["decision"]["person_id"] is None
    assert answer["fpir"] == pytest.approx(0.001, rel=1e-3)
    assert answer["faces"][0]["matches"][0]["similarity"] < answer["threshold"]


def test_every_face_of_a_group_is_answered_for(client: TestClient) -> None:
    enrol(client, 1)
    enrol(client, 2)
    answer = client.post("/identify", files={"image": photo(1, 7, 2)}).json()
    by_place = sorted(answer["faces"], key=lambda face: face["box"]["x"])
    assert [face["decision"]["person_id"] for face in by_place] == ["p1", None, "p2"]
    few = client.post("/identify", files={"image": photo(1, 7, 2)}, data={"max_faces": "1"}).json()
    assert (len(few["faces"]), few["faces_total"]) == (1, 3)


def test_json_base64_and_multipart_give_the_same(client: TestClient) -> None:
    body = {"image": base64.b64encode(photo(1)).decode(), "person_id": "p1", "metadata": {"floor": 3}}
    assert client.post("/enroll", json=body).json()["person"]["metadata"] == {"floor": 3}
    by_json = client.post("/identify", json={"image": body["image"], "top_k": 1}).json()
    url = "data:image/png;base64," + body["image"]
    by_url = client.post("/identify", json={"image": url, "top_k": 1}).json()
    by_form = client.post("/identify", files={"image": photo(1)}, data={"top_k": "1"}).json()
    assert by_json["faces"] == by_form["faces"] == by_url["faces"]


def test_an_exact_search_is_a_field_like_any_other(client: TestClient) -> None:
    client.post("/enroll", files={"image": photo(1)}, data={"person_id": "p1"})
    plain = client.post("/identify", files={"image": photo(1)}).json()
    exact = client.post("/identify", files={"image": photo(1)}, data={"exact": "true"}).json()
    assert exact["faces"] == plain["faces"]
    refused = client.post("/identify", files={"image": photo(1)}, data={"exact": "perhaps"})
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("invalid-request")


def test_several_pictures_of_one_person(client: TestClient) -> None:
    answer = client.post("/enroll", files=[("images", photo(1)), ("images", photo(2))], data={"person_id": "two"})
    assert len(answer.json()["faces"]) == 2
    assert client.get(answer.headers["location"]).json()["face_ids"] == [f["face_id"] for f in answer.json()["faces"]]
    for person in (1, 2):
        found = client.post("/identify", files={"image": photo(person)}).json()
        assert found["faces"][0]["decision"]["person_id"] == "two"


def test_an_existing_person_is_kept_unless_asked_to_be_extended(client: TestClient) -> None:
    enrol(client, 1)
    refused = client.post("/enroll", files={"image": photo(2)}, data={"person_id": "p1"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:shrinkface:problem:person-exists")
    extended = client.post("/enroll", files={"image": photo(2)}, data={"person_id": "p1", "on_existing": "extend"})
    assert extended.status_code == 201
    assert len(client.get("/v1/galleries/default/persons/p1").json()["face_ids"]) == 2


def test_a_lookalike_is_reported_as_a_conflict(client: TestClient) -> None:
    enrol(client, 1)
    answer = client.post("/enroll", files={"image": photo(1)}, data={"person_id": "twin"}).json()
    assert [c["person_id"] for c in answer["conflicts"]] == ["p1"]
    assert enrol(client, 5)["conflicts"] == []


def test_galleries_do_not_see_each_other(client: TestClient) -> None:
    enrol(client, 1, gallery="here")
    there = client.post("/identify", files={"image": photo(1)}, data={"gallery": "there"}).json()
    assert (there["gallery_size"], there["faces"][0]["matches"]) == (0, [])
    here = client.post("/identify", files={"image": photo(1)}, data={"gallery": "here"}).json()
    assert here["faces"][0]["decision"]["person_id"] == "p1"


def test_verify_two_pictures_and_a_person(client: TestClient) -> None:
    enrol(client, 1)
    same = client.post("/v1/verify", files={"image": photo(1), "reference": photo(1)}).json()
    other = client.post("/v1/verify", files={"image": photo(1), "reference": photo(2)}).json()
    assert (same["same"], other["same"]) == (True, False)
    assert same["similarity"] == pytest.approx(1.0, abs=1e-5)
    person = client.post("/v1/verify", files={"image": photo(1)}, data={"person_id": "p1"}).json()
    assert person["same"] is True
    assert person["face_id"] is not None
    both = client.post("/v1/verify", files={"image": photo(1), "reference": photo(1)}, data={"person_id": "p1"})
    assert both.status_code == 422
    unknown = client.post("/v1/verify", files={"image": photo(1)}, data={"person_id": "nobody"})
    assert unknown.json()["type"].endswith(":person-not-found")


def test_detect_takes_a_picture_without_faces(client: TestClient) -> None:
    assert client.post("/v1/detect", files={"image": photo()}).json()["faces"] == []
    (face,) = client.post("/v1/detect", files={"image": photo(4)}).json()["faces"]
    assert face["box"] == {"x": 0.0, "y": 0.0, "width": 112.0, "height": 112.0}


def test_a_face_tells_how_its_head_is_held(client: TestClient) -> None:
    (face,) = client.post("/v1/detect", files={"image": photo(4)}).json()["faces"]
    (found,) = client.post("/identify", files={"image": photo(4)}).json()["faces"]
    assert found["quality"] == face["quality"]
    # Its landmarks are the template's.
    pose = head_pose(TEMPLATE)
    told = [face["quality"][name] for name in ("yaw_deg", "pitch_deg", "roll_deg")]
    assert told == [round(angle, 1) for angle in (pose.yaw_deg, pose.pitch_deg, pose.roll_deg)]
    (stored,) = enrol(client, 4)["faces"]
    (kept,) = client.get("/v1/galleries/default/persons/p4/faces").json()["faces"]
    assert kept["quality"] == stored["quality"] == face["quality"]


def test_embeddings_are_unit_vectors(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", files={"image": photo(4, 5)}).json()
    vectors = np.array([face["embedding"] for face in answer["faces"]])
    assert vectors.shape == (2, DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert vectors[0] @ vectors[1] < 0.9


def test_persons_are_listed_by_pages_read_and_erased(client: TestClient) -> None:
    for person in (1, 2, 3):
        enrol(client, person)
    url = "/v1/galleries/default/persons"
    first = client.get(url, params={"limit": 2}).json()
    assert [p["person_id"] for p in first["persons"]] == ["p1", "p2"]
    second = client.get(url, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([p["person_id"] for p in second["persons"]], second["next_cursor"]) == (["p3"], None)
    receipt = client.delete(f"{url}/p2").json()
    assert (receipt["persons"], receipt["faces"], receipt["index_entries"]) == (1, 1, 1)
    assert client.get(f"{url}/p2").status_code == 404
    assert client.delete(f"{url}/p2").status_code == 404
    found = client.post("/identify", files={"image": photo(2)}).json()
    assert "p2" not in [m["person_id"] for m in found["faces"][0]["matches"]]
    assert client.get("/v1/galleries").json()["galleries"][0]["faces"] == 2
    bad = client.get(url, params={"cursor": "bm9wZQ"})
    assert (bad.status_code, bad.json()["type"]) == (400, "urn:shrinkface:problem:cursor-invalid")


def test_health_metrics_and_docs(client: TestClient) -> None:
    enrol(client, 1)
    assert client.get("/health/live").json()["status"] == "ok"
    assert client.get("/health/ready").json()["model"]["space_id"] == "sf1-fake"
    text = client.get("/metrics").text
    assert 'shrinkface_gallery_faces{gallery="default"} 1.0' in text
    assert 'route="/enroll",status="201"' in text
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/enroll", "/identify", "/v1/verify", "/v1/detect", "/v1/embeddings"} <= set(paths)
    assert set(paths["/enroll"]["post"]["requestBody"]["content"]) == {"multipart/form-data", "application/json"}


def test_a_request_id_is_kept_or_made(client: TestClient) -> None:
    assert client.get("/health/live", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    problem = client.get("/nowhere", headers={"X-Request-ID": "bad id!"})
    assert problem.json()["request_id"] == problem.headers["x-request-id"] != "bad id!"
