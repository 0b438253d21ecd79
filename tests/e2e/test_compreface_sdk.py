"""CompreFace's own Python client, unchanged, against a real service with the shipped models."""

from __future__ import annotations

import base64
import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from service.access import KeyFile, Scope
from service.demo import VERSIONS, Portrait, jpeg, load_faceless, load_portraits
from tests.attribute_networks import gender_and_age
from tests.e2e.conftest import Service

NOBODY = {"code": 28, "message": "No face is found in the given image"}


@pytest.fixture
def compreface() -> Any:
    """The package. The requests-toolbelt that it pins imports a module for App Engine that urllib3 2 has no more."""
    absent = "urllib3.contrib.appengine"
    sys.modules.setdefault(absent, ModuleType(absent))
    import compreface

    return compreface


@pytest.fixture
def service(new_service: Callable[..., Service], tmp_path: Path) -> tuple[Service, str]:
    """A service that asks for keys, and one to the gallery `staff`."""
    running = new_service(SHRINKFACE_AUTH="on")
    _, token = KeyFile(running.data_dir / "api-keys.json").create(Scope.ENROLL, galleries=["staff"])
    running.start()
    return running, token


def client(compreface: Any, service: tuple[Service, str], **options: object) -> tuple[Any, str]:
    running, token = service
    host, _, port = running.url.rpartition(":")
    return compreface.CompreFace(host, port, options), token


def pictures() -> list[tuple[Portrait, bytes]]:
    return [(portrait, jpeg(portrait.pixels)) for portrait in load_portraits()]


def test_a_collection_is_filled_searched_and_emptied(
    compreface: Any, service: tuple[Service, str], tmp_path: Path
) -> None:
    face_api, key = client(compreface, service)
    recognition = face_api.init_face_recognition(key)
    subjects, faces = recognition.get_subjects(), recognition.get_face_collection()
    assert subjects.list() == {"subjects": []}
    assert faces.list()["faces"] == []
    (collins, collins_picture), (hopper, hopper_picture) = pictures()

    assert subjects.add(collins.name) == {"subject": collins.name}
    assert subjects.add(collins.name)["code"] == 43
    added = faces.add(image_path=collins_picture, subject=collins.name)
    assert added["subject"] == collins.name
    uuid.UUID(added["image_id"])
    # From a file, and with an option.
    file = tmp_path / "hopper.jpg"
    file.write_bytes(hopper_picture)
    other = faces.add(str(file), hopper.name, {"det_prob_threshold": 0.7})
    assert sorted(subjects.list()["subjects"]) == sorted([collins.name, hopper.name])
    listed = faces.list()
    assert (listed["total_elements"], listed["page_number"], listed["page_size"]) == (2, 0, 20)
    assert {face["image_id"]: face["subject"] for face in listed["faces"]} == {
        added["image_id"]: collins.name,
        other["image_id"]: hopper.name,
    }

    for portrait, _ in pictures():
        for version, make in VERSIONS.items():
            (face,) = recognition.recognize(
                make(portrait.pixels), {"limit": 0, "prediction_count": 2, "face_plugins": "landmarks,calculator"}
            )["result"]
            best, stranger = face["subjects"]
            assert best["subject"] == portrait.name, version
            # CompreFace's advice for a threshold holds: the right one well above 0.5, anybody else well below.
            assert best["similarity"] > 0.9, version
            assert stranger["similarity"] < 0.4, version
            assert len(face["landmarks"]) == 5
            assert len(face["embedding"]) == 128
    (face,) = faces.verify(hopper_picture, other["image_id"])["result"]
    assert (face["subject"], face["similarity"] > 0.99) == (hopper.name, True)
    (face,) = faces.verify(hopper_picture, added["image_id"], {"status": "true"})["result"]
    assert face["similarity"] < 0.25
    assert faces.verify(hopper_picture, str(uuid.uuid4()))["code"] == 44
    assert recognition.recognize(jpeg(load_faceless())) == NOBODY

    assert subjects.update(hopper.name, "Amazing Grace") == {"updated": True}
    assert subjects.update(hopper.name, "Grace") == {"message": f"Subject {hopper.name} not found", "code": 42}
    (face,) = recognition.recognize(hopper_picture)["result"]
    assert face["subjects"][0]["subject"] == "Amazing Grace"
    assert faces.delete(other["image_id"]) == {"image_id": other["image_id"], "subject": "Amazing Grace"}
    assert faces.delete(other["image_id"])["code"] == 44
    assert subjects.delete("Amazing Grace") == {"subject": "Amazing Grace"}
    assert faces.delete_all(collins.name) == {"deleted": 1}
    subjects.add("somebody")
    assert subjects.delete_all() == {"deleted": 1}
    assert subjects.list() == {"subjects": []}


def test_pictures_are_verified_and_detected(compreface: Any, service: tuple[Service, str]) -> None:
    face_api, key = client(compreface, service, status="true", face_plugins="landmarks,mask", det_prob_threshold=0.7)
    (collins, collins_picture), (_, hopper_picture) = pictures()
    verification = face_api.init_face_verification(key)
    (same,) = verification.verify(collins_picture, VERSIONS["half size"](collins.pixels))["result"]
    (match,) = same["face_matches"]
    assert match["similarity"] > 0.9
    assert len(same["source_image_face"]["landmarks"]) == len(match["landmarks"]) == 5
    assert set(same["plugins_versions"]) == {"detector", "calculator", "mask"}
    assert match["mask"]["value"] == "without_mask"
    assert 0.5 < match["mask"]["probability"] <= 1.0
    (different,) = verification.verify(collins_picture, hopper_picture)["result"]
    assert different["face_matches"][0]["similarity"] < 0.25
    detection = face_api.init_face_detection(key)
    (face,) = detection.detect(collins_picture)["result"]
    box = face["box"]
    assert 0 <= box["x_min"] < box["x_max"] <= collins.pixels.shape[1]
    assert 0 <= box["y_min"] < box["y_max"] <= collins.pixels.shape[0]
    for x, y in face["landmarks"]:
        assert box["x_min"] <= x <= box["x_max"]
        assert box["y_min"] <= y <= box["y_max"]
    assert detection.detect(jpeg(load_faceless())) == NOBODY


def test_age_and_gender_are_told_by_networks_that_were_brought(
    compreface: Any, new_service: Callable[..., Service], tmp_path: Path
) -> None:
    network = gender_and_age(tmp_path)
    running = new_service(SHRINKFACE_AUTH="on", SHRINKFACE_ATTRIBUTE_MODELS=json.dumps([str(network)]))
    _, token = KeyFile(running.data_dir / "api-keys.json").create(Scope.ENROLL, galleries=["staff"])
    running.start()
    face_api, key = client(compreface, (running, token), status="true", face_plugins="age,gender")
    (_, picture), _ = pictures()
    (face,) = face_api.init_face_detection(key).detect(picture)["result"]
    # The network's ages are mean levels of green, its genders those of red against blue: skin is red.
    assert 0 < face["age"]["low"] <= face["age"]["high"] < 256
    assert face["gender"]["value"] == "female"
    assert 0.5 < face["gender"]["probability"] < 1
    recognition = face_api.init_face_recognition(key)
    recognition.get_face_collection().add(picture, "Eileen")
    answer = recognition.recognize(picture)
    (recognised,) = answer["result"]
    assert (recognised["age"], recognised["gender"]) == (face["age"], face["gender"])
    assert recognised["subjects"][0]["subject"] == "Eileen"
    assert answer["plugins_versions"]["age"] == "genderage"
    assert {"age", "gender"} <= set(recognised["execution_time"])


def test_a_key_is_asked_for_and_is_for_one_gallery(compreface: Any, service: tuple[Service, str]) -> None:
    face_api, key = client(compreface, service)
    refused = face_api.init_face_recognition(f"sf_00000000_{'A' * 43}").get_subjects().list()
    assert refused["code"] == 10
    (_, picture), _ = pictures()
    added = face_api.init_face_recognition(key).get_face_collection().add(picture, "Eileen")
    running, token = service
    persons = httpx.get(f"{running.url}/v1/galleries/staff/persons", headers={"x-api-key": token}).json()["persons"]
    assert [(person["person_id"], person["name"]) for person in persons] == [("Eileen", "Eileen")]
    # As clients without the package do it.
    coded = {"file": base64.b64encode(picture).decode()}
    answer = httpx.post(
        f"{running.url}/api/v1/recognition/faces/{added['image_id']}/verify", json=coded, headers={"x-api-key": token}
    )
    assert answer.json()["result"][0]["similarity"] > 0.99
