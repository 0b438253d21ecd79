"""A disk that takes no more: 507 for what needs room, everything else goes on, and nothing is lost."""

from __future__ import annotations

import resource
from collections.abc import Callable

import httpx

from service.demo import jpeg, load_portraits
from tests.e2e.conftest import Service


def test_a_full_disk_refuses_enrolments_and_nothing_else(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.start()
    ann, bob = (jpeg(portrait.pixels) for portrait in load_portraits())

    def enrol(person_id: str, picture: bytes) -> httpx.Response:
        return httpx.post(f"{service.url}/enroll", files={"image": picture}, data={"person_id": person_id}, timeout=30)

    def identified(picture: bytes) -> str | None:
        answer = httpx.post(f"{service.url}/identify", files={"image": picture}, timeout=30)
        assert answer.status_code == 200
        return answer.json()["faces"][0]["decision"]["person_id"]

    assert enrol("ann", ann).status_code == 201
    assert service.process is not None
    unlimited = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    # Writes past a file size limit fail as on a full disk: the write-ahead log may not grow any more.
    size = max(path.stat().st_size for path in service.data_dir.iterdir())
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    for number in range(3):
        refused = enrol(f"bob{number}", bob)
        assert refused.status_code == 507
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"].endswith("storage-full")
        assert identified(ann) == "ann"
        assert identified(bob) is None
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
    assert enrol("bob", bob).status_code == 201
    service.kill()
    service.start()
    assert (identified(ann), identified(bob)) == ("ann", "bob")
    assert httpx.get(f"{service.url}/v1/galleries/default").json()["persons"] == 2
