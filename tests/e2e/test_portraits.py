"""Real photos through a real service with the shipped models."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

import service as service_package
from service.demo import VERSIONS, jpeg, load_faceless, load_portraits
from tests.e2e.conftest import Service
from tests.redis_fixture import RedisServer


def enrol_portraits(url: str) -> None:
    for portrait in load_portraits():
        response = httpx.post(
            f"{url}/enroll", files={"image": jpeg(portrait.pixels)}, data={"person_id": portrait.person_id}, timeout=30
        )
        assert response.status_code == 201, response.text


def test_two_people_are_told_apart_in_every_version_and_after_a_restart(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.start()
    enrol_portraits(service.url)
    for restarted in (False, True):
        if restarted:
            # uvicorn drains, then lets the signal take its course.
            assert service.stop() in (0, -signal.SIGTERM)
            service.start()
        for portrait in load_portraits():
            for version, make in VERSIONS.items():
                answer = httpx.post(f"{service.url}/identify", files={"image": make(portrait.pixels)}, timeout=30)
                (face,) = answer.json()["faces"]
                assert face["decision"]["person_id"] == portrait.person_id, (version, answer.text)
                # The other one must stay well under the threshold, not merely behind.
                assert face["matches"][1]["similarity"] < face["decision"]["threshold"]


def test_tilted_and_small_portraits_are_identified(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.start()
    enrol_portraits(service.url)
    for portrait in load_portraits():
        height, width = portrait.pixels.shape[:2]
        for degrees in (30, 45, -45, 90):
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 0.7)
            picture = jpeg(cv2.warpAffine(portrait.pixels, turn, (width, height)))
            (face,) = httpx.post(f"{service.url}/identify", files={"image": picture}, timeout=30).json()["faces"]
            assert face["decision"]["person_id"] == portrait.person_id, degrees
            assert abs(face["quality"]["roll_deg"] - degrees) < 15
        whole = httpx.post(f"{service.url}/v1/detect", files={"image": jpeg(portrait.pixels)}, timeout=30).json()
        scale = 20 / whole["faces"][0]["box"]["width"]
        small = cv2.resize(portrait.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        answer = httpx.post(f"{service.url}/v1/detect", files={"image": jpeg(small)}, timeout=30).json()
        assert [round(face["box"]["width"]) for face in answer["faces"]] == [pytest.approx(20, abs=4)]


def test_the_network_in_8_bits_that_comes_along_tells_them_apart(new_service: Callable[..., Service]) -> None:
    network = Path(service_package.__file__).parent / "models" / "student-int8.onnx"
    service = new_service(SHRINKFACE_EMBEDDER_PATH=str(network))
    service.start()
    enrol_portraits(service.url)
    for portrait in load_portraits():
        answer = httpx.post(
            f"{service.url}/identify", files={"image": jpeg(portrait.pixels[:, ::-1])}, timeout=30
        ).json()
        (face,) = answer["faces"]
        assert face["decision"]["person_id"] == portrait.person_id
        assert face["matches"][1]["similarity"] < face["decision"]["threshold"]
        assert answer["model"]["embedder"].endswith("-int8")


def test_a_photo_without_a_face_is_refused(new_service: Callable[..., Service]) -> None:
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    flower = cv2.imread(str(Path(spec.origin).parent / "datasets" / "images" / "flower.jpg"))
    service = new_service()
    service.start()
    for picture in (load_faceless(), np.asarray(flower, dtype=np.uint8)):
        for version, make in {"original": jpeg, **VERSIONS}.items():
            detected = httpx.post(f"{service.url}/v1/detect", files={"image": make(picture)}, timeout=30)
            assert detected.json()["faces"] == [], version
        refused = httpx.post(f"{service.url}/enroll", files={"image": jpeg(picture)}, timeout=30)
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:shrinkface:problem:no-face")


@pytest.mark.redis
def test_redis_is_used_and_its_death_changes_no_answer(
    new_service: Callable[..., Service], redis_server: RedisServer
) -> None:
    # A busy machine may keep a healthy Redis waiting for longer than the default allows; that would be a miss.
    service = new_service(SHRINKFACE_REDIS_URL=redis_server.url, SHRINKFACE_REDIS_TIMEOUT_S="2")
    service.start()
    enrol_portraits(service.url)
    picture = jpeg(load_portraits()[0].pixels)

    def identify() -> dict:
        return httpx.post(f"{service.url}/identify", files={"image": picture}, timeout=30).json()["faces"][0]

    def counted(name: str) -> float:
        metrics = httpx.get(f"{service.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in metrics if line.startswith(f'{name}{{outcome="hit"}}'))

    def hits() -> float:
        return counted("shrinkface_cache_lookups_total")

    def picture_hits() -> float:
        return counted("shrinkface_cache_picture_lookups_total")

    before = hits()
    with_cache = identify()
    # The enrolment had embedded the crop.
    assert hits() == before + 1
    assert picture_hits() == 0
    assert identify() == with_cache
    assert picture_hits() == 1
    erased = httpx.delete(f"{service.url}/v1/galleries/default/persons/{with_cache['decision']['person_id']}").json()
    # The embedding, and the picture that was identified.
    assert erased["cache_entries"] == 2
    assert identify()["decision"]["identified"] is False
    assert picture_hits() == 1
    enrol_again = httpx.post(
        f"{service.url}/enroll", files={"image": picture}, data={"person_id": "eileen-collins"}, timeout=30
    )
    assert enrol_again.status_code == 201
    redis_server.process.kill()
    redis_server.process.wait()
    without = identify()
    assert without["decision"] == with_cache["decision"]
    assert without["matches"][0]["similarity"] == pytest.approx(with_cache["matches"][0]["similarity"], abs=1e-4)


def test_a_second_process_on_the_same_folder_is_refused(new_service: Callable[..., Service]) -> None:
    first = new_service()
    first.start()
    with pytest.raises(AssertionError, match=r"another process|in use"):
        new_service().start()
