"""Two services on one Milvus server: neither keeps anything, both answer for all."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import cv2
import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Service
from tests.milvus_fixture import drop_collections


def portrait() -> bytes:
    astronaut = pytest.importorskip("skimage.data").astronaut()
    encoded, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(astronaut[..., ::-1]))
    assert encoded
    return jpeg.tobytes()


@pytest.mark.milvus
@pytest.mark.timeout(300)
def test_replicas_see_each_others_changes_within_a_second(
    milvus_server: str, new_service: Callable[..., Service]
) -> None:
    prefix = f"test_{uuid.uuid4().hex}"
    environment = {"SHRINKFACE_MILVUS_URI": milvus_server, "SHRINKFACE_MILVUS_PREFIX": prefix}
    one, other = new_service(**environment), new_service(**environment)
    one.start()
    other.start()
    picture = {"image": ("astronaut.jpg", portrait(), "image/jpeg")}

    def identified(service: Service) -> str | None:
        answer = httpx.post(f"{service.url}/identify", files=picture, timeout=30)
        assert answer.status_code == 200, answer.text
        found = answer.json()["faces"][0]["decision"]["person_id"]
        return None if found is None else str(found)

    def delay_s(service: Service, expected: str | None) -> float:
        acknowledged = time.monotonic()
        while identified(service) != expected:
            assert time.monotonic() - acknowledged < 5
        return time.monotonic() - acknowledged

    delays = []
    try:
        for number, (writer, reader) in enumerate([(one, other), (other, one), (one, other)]):
            name = f"eileen-{number}"
            answer = httpx.post(f"{writer.url}/enroll", files=picture, data={"person_id": name}, timeout=30)
            assert answer.status_code == 201, answer.text
            face_ids = answer.json()["person"]["face_ids"]
            # Its own process waits for nothing.
            assert identified(writer) == name
            delays.append(delay_s(reader, name))
            # The same picture, known there too.
            again = httpx.post(f"{reader.url}/enroll", files=picture, data={"person_id": name}, timeout=30)
            assert (again.status_code, again.json()["person"]["face_ids"]) == (200, face_ids)
            answer = httpx.delete(f"{writer.url}/v1/galleries/default/persons/{name}", timeout=30)
            assert answer.status_code == 200, answer.text
            assert identified(writer) is None
            delays.append(delay_s(reader, None))
        one.kill()
        one.start()
        assert identified(one) is None
    finally:
        drop_collections(milvus_server, prefix)
    print("seen by the other service after", [f"{delay:.2f} s" for delay in delays])
    assert max(delays) <= 1.0
