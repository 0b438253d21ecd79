"""CompreFace's calls: paths, parameters, answers and errors as its clients know them."""

from __future__ import annotations

import base64
import uuid
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.access import KeyFile, Scope
from service.api.app import create_app
from service.api.compreface.ids import face_ids_of, image_id_of, moved_face_id, person_id_of, subject_of
from service.api.compreface.similarity import similarity_of
from service.domain import Overloaded, RevisionMismatch, StorageUnusable
from service.identification import CustodyService
from service.settings import Settings
from tests.api.conftest import build_fake, face_tile, photo
from tests.api.test_galleries import enrol

RECOGNITION = "/api/v1/recognition"
FACES, SUBJECTS = f"{RECOGNITION}/faces", f"{RECOGNITION}/subjects"
VERIFY, DETECT = "/api/v1/verification/verify", "/api/v1/detection/detect"
ADA = "Ada Lovelace, née Byron"


def add(client: TestClient, person: int, subject: str) -> str:
    answer = client.post(FACES, params={"subject": subject}, files={"file": photo(person)})
    assert answer.status_code == 201, answer.text
    assert answer.json()["subject"] == subject
    return answer.json()["image_id"]


def told(answer: Any) -> tuple[int, int]:
    """Status and CompreFace's code of an error."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"message", "code"}
    assert body["message"]
    return answer.status_code, body["code"]


def coded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def subjects(client: TestClient) -> list[str]:
    return client.get(SUBJECTS).json()["subjects"]


def test_subjects_are_added_listed_and_erased(client: TestClient) -> None:
    assert subjects(client) == []
    assert client.delete(SUBJECTS).json() == {"deleted": 0}
    for name in (ADA, "eve", "a/b"):
        added = client.post(SUBJECTS, json={"subject": name, "api_endpoint": "ignored"})
        assert (added.status_code, added.json()) == (201, {"subject": name})
    assert told(client.post(SUBJECTS, json={"subject": ADA})) == (400, 43)
    assert sorted(subjects(client)) == sorted([ADA, "eve", "a/b"])
    assert client.get(f"{SUBJECTS}/").json() == client.get(SUBJECTS).json()
    for name in (ADA, "a/b"):
        assert client.delete(f"{SUBJECTS}/{name}").json() == {"subject": name}
        missing = client.delete(f"{SUBJECTS}/{name}")
        assert told(missing) == (404, 42)
        assert missing.json()["message"] == f"Subject {name} not found"
    client.post(SUBJECTS, json={"subject": "bob"})
    assert client.delete(SUBJECTS).json() == {"deleted": 2}
    assert subjects(client) == []


@pytest.mark.parametrize("name", ["a/b", "two\nlines", "ends\n", "\n starts", "a\r\u2028b", "50%?#&"])
def test_a_subject_of_any_text_is_renamed_and_erased(client: TestClient, name: str) -> None:
    path = f"{SUBJECTS}/{quote(name, safe='')}"
    assert told(client.put(path, json={"subject": "eve"})) == (404, 42)
    assert told(client.delete(path)) == (404, 42)
    client.post(SUBJECTS, json={"subject": name})
    assert client.put(path, json={"subject": "eve"}).json() == {"updated": True}
    assert client.put(f"{SUBJECTS}/eve", json={"subject": name}).json() == {"updated": True}
    assert client.delete(path).json() == {"subject": name}


@pytest.mark.parametrize("name", ["", "  ", "x" * 256, "\ud800", 7, None])
def test_what_cannot_be_a_subject_is_refused(client: TestClient, name: object) -> None:
    # The client's own encoder would not send a lone surrogate.
    body = b'{"subject": "\\ud800"}' if name == "\ud800" else None
    sent = {"content": body, "headers": {"content-type": "application/json"}} if body else {"json": {"subject": name}}
    answer = client.post(SUBJECTS, **sent)
    assert told(answer) == (400, 0 if body else 26)
    assert client.get(SUBJECTS).json() == {"subjects": []}


def test_an_empty_path_erases_nobody(client: TestClient) -> None:
    client.post(SUBJECTS, json={"subject": "eve"})
    assert told(client.delete(f"{SUBJECTS}/")) == (400, 26)
    assert told(client.delete(FACES, params={"subject": ""})) == (400, 26)
    assert subjects(client) == ["eve"]


def test_more_subjects_than_one_page_are_all_listed(client: TestClient) -> None:
    names = [f"s{number:04}" for number in range(1203)]
    lines = b"".join(b'{"space_id": "sf1-fake", "person_id": "%s", "faces": []}\n' % name.encode() for name in names)
    headers = {"content-type": "application/x-ndjson"}
    assert client.post("/v1/galleries/default/import", content=lines, headers=headers).status_code == 200
    assert subjects(client) == names
    assert client.delete(SUBJECTS).json() == {"deleted": 1203}


def test_an_example_makes_its_subject_and_is_recognised(client: TestClient) -> None:
    image_id = add(client, 1, ADA)
    assert str(uuid.UUID(image_id)) == image_id
    second = client.post(FACES, params={"subject": ADA}, json={"file": coded(photo(2))})
    assert second.status_code == 201
    add(client, 3, "eve")
    # The very same picture is the same example.
    assert add(client, 1, ADA) == image_id
    (person,) = client.get("/v1/galleries/default/persons", params={"name": "ada"}).json()["persons"]
    assert person["person_id"] == person_id_of(ADA) != ADA
    assert (person["name"], len(person["face_ids"])) == (ADA, 2)
    for body in ({"files": {"file": photo(1, 3)}}, {"json": {"file": coded(photo(1, 3))}}):
        answer = client.post(f"{RECOGNITION}/recognize", **body).json()
        assert set(answer) == {"result"}
        ada, eve = answer["result"]
        assert set(ada) == {"box", "subjects"}
        assert ada["box"] == {"probability": 0.9, "x_min": 0, "y_min": 0, "x_max": 112, "y_max": 112}
        assert (eve["box"]["x_min"], eve["box"]["x_max"]) == (112, 224)
        (match,) = ada["subjects"]
        assert (match["subject"], eve["subjects"][0]["subject"]) == (ADA, "eve")
        assert match["similarity"] > 0.999


def test_recognise_answers_what_is_asked_for(client: TestClient) -> None:
    for person, name in enumerate(("ada", "bob", "eve"), 1):
        add(client, person, name)

    def recognise(*people: int, **params: object) -> Any:
        answer = client.post(f"{RECOGNITION}/recognize", params=params, files={"file": photo(*people)})
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert len(recognise(1, 2)["result"]) == 2
    assert len(recognise(1, 2, limit=1, detect_faces=False)["result"]) == 1
    assert len(recognise(1, 2, limit=1, det_prob_threshold=0.9)["result"]) == 1
    assert len(recognise(1, limit=10**12)["result"]) == 1
    matches = recognise(4, prediction_count=1000)["result"][0]["subjects"]
    assert sorted(match["subject"] for match in matches) == ["ada", "bob", "eve"]
    assert all(one["similarity"] >= other["similarity"] for one, other in pairwise(matches))
    assert matches[0]["similarity"] < 0.5
    full = recognise(1, face_plugins="landmarks, Calculator,age,mask,pose", status="True")
    (face,) = full["result"]
    assert set(face) == {"box", "subjects", "landmarks", "embedding", "mask", "pose", "execution_time"}
    assert [len(point) for point in face["landmarks"]] == [2] * 5
    assert all(isinstance(value, int) for point in face["landmarks"] for value in point)
    assert len(face["embedding"]) == 32
    assert face["pose"] == {
        "pitch": pytest.approx(0, abs=10),
        "roll": pytest.approx(0, abs=0.5),
        "yaw": pytest.approx(0, abs=3),
    }
    assert set(face["execution_time"]) == {"detector", "calculator", "mask"}
    assert full["plugins_versions"] == {"detector": "tiles", "calculator": "fake", "mask": "reds"}


def test_nobody_enrolled_is_nobody_recognised(client: TestClient) -> None:
    answer = client.post(f"{RECOGNITION}/recognize", files={"file": photo(1)}).json()
    assert answer["result"][0]["subjects"] == []


def test_faces_are_listed_in_pages(client: TestClient) -> None:
    assert client.get(FACES).json() == {
        "faces": [], "page_number": 0, "page_size": 20, "total_pages": 0, "total_elements": 0,
    }  # fmt: skip
    ids = [add(client, person, name) for person, name in enumerate(("ada", "ada", "bob", "eve", "eve"), 1)]
    client.post(SUBJECTS, json={"subject": "carl"})
    everything = client.get(FACES).json()["faces"]
    assert [face["image_id"] for face in everything] == ids
    assert [face["subject"] for face in everything] == ["ada", "ada", "bob", "eve", "eve"]
    pages = [client.get(FACES, params={"page": page, "size": 2}).json() for page in range(4)]
    assert [face for page in pages for face in page["faces"]] == everything
    assert [len(page["faces"]) for page in pages] == [2, 2, 1, 0]
    assert {(page["page_size"], page["total_pages"], page["total_elements"]) for page in pages} == {(2, 3, 5)}
    of_eve = client.get(FACES, params={"subject": "eve", "size": 1, "page": 1}).json()
    assert (of_eve["faces"], of_eve["total_elements"]) == ([everything[4]], 2)
    assert client.get(FACES, params={"subject": "nobody"}).json()["total_elements"] == 0
    assert client.get(FACES, params={"size": 10**9}).json()["page_size"] == 2000
    for wrong in ({"page": -1}, {"size": 0}, {"page": "x"}, {"page": 10_000, "size": 20}):
        assert told(client.get(FACES, params=wrong)) == (400, 26)


def test_faces_are_erased_one_by_one_several_or_all(client: TestClient) -> None:
    ids = [add(client, person, name) for person, name in enumerate(("ada", "ada", "bob", "eve", "eve", "eve"), 1)]
    assert client.delete(f"{FACES}/{ids[0].upper()}").json() == {"image_id": ids[0].upper(), "subject": "ada"}
    missing = client.delete(f"{FACES}/{ids[0]}")
    assert told(missing) == (404, 44)
    assert missing.json()["message"] == f"Image {ids[0]} not found"
    several = client.post(f"{FACES}/delete", json=[ids[1], str(uuid.uuid4()), "nonsense", ids[3], ids[1]])
    assert several.json() == [{"image_id": ids[1], "subject": "ada"}, {"image_id": ids[3], "subject": "eve"}]
    # Ada stays without a face, as a subject.
    assert subjects(client) == ["ada", "bob", "eve"]
    assert client.delete(FACES, params={"subject": "eve"}).json() == {"deleted": 2}
    assert client.delete(FACES, params={"subject": "eve"}).json() == {"deleted": 0}
    assert client.delete(FACES).json() == {"deleted": 1}
    assert subjects(client) == []
    for wrong, code in (({}, 0), ([1], 26)):
        assert told(client.post(f"{FACES}/delete", json=wrong)) == (400, code)


def test_an_enrolled_face_is_verified(client: TestClient) -> None:
    image_id = add(client, 1, ADA)
    add(client, 2, ADA)
    answer = client.post(f"{FACES}/{image_id}/verify", files={"file": photo(2, 1)}, params={"status": "true"}).json()
    other, same = answer["result"]
    assert set(same) == {"box", "similarity", "subject", "execution_time"}
    # It is that image which counts, not whatever else the subject has.
    assert other["similarity"] < 0.5
    assert same["similarity"] > 0.999
    assert (same["subject"], "plugins_versions" in answer) == (ADA, True)
    again = client.post(f"{FACES}/{image_id}/verify", json={"file": coded(photo(2, 1))}, params={"limit": 1}).json()
    assert [face["similarity"] for face in again["result"]] == [other["similarity"]]
    assert told(client.post(f"{FACES}/{uuid.uuid4()}/verify", files={"file": photo(1)})) == (404, 44)


def test_two_pictures_are_compared(client: TestClient) -> None:
    files = {"source_image": photo(1), "target_image": photo(2, 1)}
    (result,) = client.post(VERIFY, files=files, params={"face_plugins": "calculator"}).json()["result"]
    assert set(result) == {"source_image_face", "face_matches"}
    assert set(result["source_image_face"]) == {"box", "embedding"}
    stranger, mate = result["face_matches"]
    assert set(mate) == {"box", "embedding", "similarity"}
    assert stranger["similarity"] < 0.5
    assert mate["similarity"] > 0.999
    body = {name: coded(picture) for name, picture in files.items()}
    assert len(client.post(VERIFY, json=body).json()["result"][0]["face_matches"]) == 2
    swapped = {"source_image": files["target_image"], "target_image": files["source_image"]}
    several = client.post(VERIFY, files=swapped)
    assert told(several) == (400, 31)
    assert several.json()["message"] == "More than one face in the source image"
    assert client.post(VERIFY, files=swapped, params={"limit": 1}).status_code == 200
    for files in (
        {"source_image": photo(), "target_image": photo(1)},
        {"source_image": photo(1), "target_image": photo()},
    ):
        assert told(client.post(VERIFY, files=files)) == (400, 28)


def test_faces_are_detected(client: TestClient) -> None:
    plain = client.post(DETECT, files={"file": photo(1, 2)}).json()
    assert [set(face) for face in plain["result"]] == [{"box"}, {"box"}]
    timed = client.post(DETECT, files={"file": photo(1)}, params={"status": "true"}).json()["result"][0]
    assert set(timed["execution_time"]) == {"detector"}
    params = {"face_plugins": "calculator", "limit": 1}
    (face,) = client.post(DETECT, json={"file": coded(photo(1, 2))}, params=params).json()["result"]
    assert len(face["embedding"]) == 32


def test_errors_are_those_of_compreface(client: TestClient) -> None:
    recognise = f"{RECOGNITION}/recognize"
    for path in (recognise, DETECT, f"{FACES}?subject=ada"):
        nobody = client.post(path, files={"file": photo()})
        assert told(nobody) == (400, 28)
        assert nobody.json()["message"] == "No face is found in the given image"
        assert told(client.post(path, files={"other": photo(1)})) == (400, 26)
        doubtful = {"det_prob_threshold": 0.95, "subject": "ada"}
        assert told(client.post(path, files={"file": photo(1)}, params=doubtful)) == (400, 28)
        assert told(client.post(path, data={"x": "1"})) == (415, 0)
        assert told(client.post(path, json={"x": 1})) == (400, 5)
        assert told(client.post(path, json={"file": "@@@"})) == (400, 21)
        assert told(client.post(path, files={"file": b"GIF89a"})) == (400, 21)
        assert told(client.post(path, files={"file": photo(1)[:200]})) == (400, 21)
        assert told(client.post(path, content=b"[", headers={"content-type": "application/json"})) == (400, 0)
        assert told(client.post(path, files={"file": b"x" * 3_000_001})) == (413, 0)
    without = {"content-type": "multipart/form-data; boundary=b"}
    part = client.post(
        recognise, content=b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n', headers=without
    )
    assert told(part) == (400, 34)
    assert part.json()["message"] == "Required part file is missing"
    assert told(client.post(FACES, files={"file": photo(1)})) == (400, 33)
    assert told(client.post(FACES, params={"subject": " "}, files={"file": photo(1)})) == (400, 26)
    assert told(client.post(FACES, params={"subject": "ada"}, files={"file": photo(1, 2)})) == (400, 31)
    for wrong in ({"limit": -1}, {"prediction_count": 0}, {"det_prob_threshold": 1.5}, {"status": "perhaps"}):
        assert told(client.post(recognise, params=wrong, files={"file": photo(1)})) == (400, 26)
    assert subjects(client) == []


def test_a_face_that_is_not_good_enough_is_refused(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "default", "quality_gate": "strict"})
    small = cv2.imencode(".png", cv2.GaussianBlur(face_tile(1), (0, 0), 9))[1].tobytes()
    refused = client.post(FACES, params={"subject": "ada"}, files={"file": small})
    assert told(refused) == (400, 26)
    assert "face-blurred" in refused.json()["message"]


def test_a_kept_crop_is_read(client: TestClient) -> None:
    plain = add(client, 1, "ada")
    assert told(client.get(f"{FACES}/{plain}/img")) == (404, 11)
    assert told(client.get(f"{FACES}/{uuid.uuid4()}/img")) == (404, 44)
    client.patch("/v1/galleries/default", json={"keep_crops": True})
    kept = client.get(f"{FACES}/{add(client, 2, 'ada')}/img")
    assert kept.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(kept.content, np.uint8), cv2.IMREAD_COLOR), face_tile(2))


def test_who_was_enrolled_otherwise_is_a_subject_too(client: TestClient) -> None:
    enrol(client, 1, person_id="ada", name="Ada Lovelace")
    nameless = enrol(client, 2)["person"]["person_id"]
    assert sorted(subjects(client)) == sorted(["ada", nameless])
    add(client, 3, "ada")
    person = client.get("/v1/galleries/default/persons/ada").json()
    assert (person["name"], len(person["face_ids"])) == ("Ada Lovelace", 2)
    assert client.post(f"{RECOGNITION}/recognize", files={"file": photo(1)}).json()["result"][0]["subjects"][0][
        "subject"
    ] == "ada"  # fmt: skip
    assert client.delete(f"{SUBJECTS}/ada").json() == {"subject": "ada"}


def test_a_key_opens_its_gallery(settings: Settings) -> None:
    keys = KeyFile(settings.keys_path)
    staff = {"x-api-key": keys.create(Scope.ENROLL, galleries=["staff"])[1]}
    anywhere = {"x-api-key": keys.create(Scope.ENROLL)[1]}
    reader = {"x-api-key": keys.create(Scope.IDENTIFY, galleries=["staff"])[1]}
    several = {"x-api-key": keys.create(Scope.ENROLL, galleries=["staff", "visitors"])[1]}
    with TestClient(create_app(settings.model_copy(update={"auth": "on"}), build_fake)) as locked:
        none = locked.get(SUBJECTS)
        assert (told(none), none.json()["message"]) == ((401, 20), "Missing header: x-api-key")
        assert told(locked.get(SUBJECTS, headers={"x-api-key": f"sf_00000000_{'A' * 43}"})) == (401, 10)
        assert locked.post(SUBJECTS, json={"subject": "ada"}, headers=staff).status_code == 201
        assert locked.get(SUBJECTS, headers=reader).json() == {"subjects": ["ada"]}
        assert locked.get(SUBJECTS, headers=anywhere).json() == {"subjects": []}
        assert told(locked.get(SUBJECTS, headers=several)) == (403, 1)
        assert told(locked.post(SUBJECTS, json={"subject": "eve"}, headers=reader)) == (403, 1)
        for path in (f"{RECOGNITION}/recognize", DETECT):
            assert locked.post(path, files={"file": photo(1)}, headers=reader).status_code == 200
        for method, path in (
            ("DELETE", SUBJECTS),
            ("DELETE", FACES),
            ("GET", f"{FACES}/x/img"),
            ("POST", f"{FACES}/delete"),
        ):
            assert told(locked.request(method, path, headers=reader)) == (403, 1)


def test_every_call_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described = {path: set(calls) for path, calls in paths.items() if path.startswith("/api/v1/")}
    assert described == {
        SUBJECTS: {"get", "post", "delete"},
        f"{SUBJECTS}/{{subject}}": {"put", "delete"},
        FACES: {"get", "post", "delete"},
        f"{FACES}/delete": {"post"},
        f"{FACES}/{{image_id}}": {"delete"},
        f"{FACES}/{{image_id}}/img": {"get"},
        f"{FACES}/{{image_id}}/verify": {"post"},
        f"{RECOGNITION}/recognize": {"post"},
        VERIFY: {"post"},
        DETECT: {"post"},
    }
    assert {tag for path in described for call in paths[path].values() for tag in call["tags"]} == {"compreface"}


def test_names_lead_there_and_back() -> None:
    for subject in ("ada", "José", " x", "a b", "-x", "x" * 200):
        person_id = person_id_of(subject)
        assert person_id_of(person_id) == person_id
        assert subject_of(person_id, subject) == subject
        # A name from elsewhere, from which another id would follow, is not shown: by it nobody would be found.
        assert subject_of(person_id, "Somebody Else") == person_id
        assert subject_of(person_id, None) == person_id
    digits = uuid.uuid4().hex
    for face_id in (f"f-{digits}", str(uuid.UUID(hex=digits))):
        assert image_id_of(face_id) == str(uuid.UUID(hex=digits))
        moved = moved_face_id(face_id)
        assert moved != face_id
        assert image_id_of(moved) == image_id_of(face_id)
        assert {face_id, moved, moved_face_id(moved)} <= set(face_ids_of(image_id_of(face_id)))
    assert image_id_of("mine") == "mine"
    assert face_ids_of("mine") == ("mine",)
    assert str(uuid.UUID(image_id_of(moved_face_id("mine")))) == image_id_of(moved_face_id("mine"))


def test_similarity_grows_with_the_cosine_and_is_a_half_at_the_threshold() -> None:
    for threshold in (0.2, 0.4, 0.8):
        assert similarity_of(threshold, threshold) == 0.5
        values = [similarity_of(cosine, threshold) for cosine in np.linspace(-1, 1, 201)]
        assert values == sorted(values)
        assert 0 <= values[0] < 0.01
        assert values[-1] <= 1
    # A cosine may be past 1 by rounding.
    assert similarity_of(1.0000001, 0.4) == similarity_of(1.0, 0.4) > 0.999


def test_what_compreface_has_no_answer_for_keeps_its_status(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, answer in (
        (RevisionMismatch("changed"), (412, 0)),
        (Overloaded("full", retry_after_s=2), (503, 41)),
        (StorageUnusable("the disk is gone"), (500, 0)),
    ):

        async def fails(*_: object, failure: Exception = error, **__: object) -> None:
            raise failure

        monkeypatch.setattr(CustodyService, "add_person", fails)
        told_of = client.post(SUBJECTS, json={"subject": "ada"})
        assert told(told_of) == answer
        assert told_of.headers.get("retry-after") == ("2" if answer[0] == 503 else None)
        # What is wrong with the storage is for the log.
        assert "disk" not in told_of.text
