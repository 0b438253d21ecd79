"""The running service before clients who hold on to it, and told to end while it is busy."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.demo import jpeg, load_portraits
from tests.e2e.conftest import Service

# Small bounds, so that few clients reach them.
BOUNDS = {
    "SHRINKFACE_MAX_CONNECTIONS": "48",
    "SHRINKFACE_MAX_REQUESTS": "8",
    "SHRINKFACE_MAX_BODY_BYTES": "400000",
    "SHRINKFACE_MAX_BODIES_BYTES": "1000000",
    "SHRINKFACE_HEADER_TIMEOUT_S": "3",
    "SHRINKFACE_BODY_TIMEOUT_S": "4",
}


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("bounded") / "data", BOUNDS)
    service.start()
    yield service
    service.kill()


@pytest.fixture(scope="module")
def picture() -> bytes:
    return jpeg(load_portraits()[0].pixels, 60)


def connected(service: Service, sent: bytes = b"") -> socket.socket:
    address = urlsplit(service.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=15)
    connection.sendall(sent)
    return connection


def begun(size: int, sent: int) -> bytes:
    """A request to identify of whose body only some is there."""
    head = f"POST /identify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b" " * sent


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status and kind of problem."""
    content = b""
    while piece := connection.recv(65_536):
        content += piece
        head, end, body = content.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if end and len(body) >= int(lengths[0]):
            return int(head.split(b" ")[1]), json.loads(body)["type"].rpartition(":")[2]
    raise AssertionError(f"no whole answer: {content!r}")


def identified(service: Service, picture: bytes) -> httpx.Response:
    return httpx.post(f"{service.url}/identify", files={"image": picture}, timeout=15)


def test_more_idle_connections_than_allowed_keep_nobody_out(bounded: Service, picture: bytes) -> None:
    with ExitStack() as held:
        for _ in range(300):
            held.enter_context(connected(bounded))
        assert identified(bounded, picture).status_code == 200
        samples = httpx.get(f"{bounded.url}/metrics").text.splitlines()
        (open_now,) = (line for line in samples if line.startswith("shrinkface_connections "))
        assert float(open_now.split()[1]) <= 48


def test_slow_bodies_make_room_once_they_had_their_time(bounded: Service, picture: bytes) -> None:
    with ExitStack() as held:
        slow = [held.enter_context(connected(bounded, begun(1000, 10))) for _ in range(8)]
        time.sleep(0.3)
        refused = identified(bounded, picture)
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        told_as_compreface = httpx.get(f"{bounded.url}/api/v1/recognition/subjects")
        assert (told_as_compreface.status_code, told_as_compreface.json()["code"]) == (503, 41)
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert httpx.get(bounded.url + path).status_code == 200
        time.sleep(2)
        assert identified(bounded, picture).status_code == 200
        answers = sorted(answer(connection) for connection in slow)
        assert answers == [(408, "body-timeout")] * 7 + [(503, "overloaded")]


def test_bodies_in_memory_are_bounded(bounded: Service, picture: bytes) -> None:
    with ExitStack() as held:
        big = [held.enter_context(connected(bounded, begun(400_000, 390_000))) for _ in range(2)]
        time.sleep(0.3)
        with connected(bounded, begun(399_000, 399_000)) as third:
            assert answer(third) == (503, "overloaded")
        assert identified(bounded, picture).status_code == 200
        assert [answer(connection) for connection in big] == [(408, "body-timeout")] * 2


def load(service: Service, picture: bytes, stop: threading.Event, outcomes: list[str]) -> None:
    """Requests one after another on a connection of its own, opened anew now and then; what became of each."""
    client = httpx.Client(timeout=30)
    number = 0
    while not stop.is_set():
        number += 1
        try:
            outcomes.append(str(client.post(f"{service.url}/identify", files={"image": picture}).status_code))
        except httpx.ConnectError:
            # Nobody listens any more: nothing was sent.
            break
        except httpx.TransportError as error:
            outcomes.append(repr(error))
        if number % 5 == 0:
            client.close()
            client = httpx.Client(timeout=30)
    client.close()


@pytest.mark.parametrize("settle_s", ["0", pytest.param("1.5", marks=pytest.mark.slow)])
def test_sigterm_under_load_drops_no_request(
    new_service: Callable[..., Service], picture: bytes, settle_s: str
) -> None:
    service = new_service(SHRINKFACE_SETTLE_S=settle_s)
    service.start()
    outcomes: list[str] = []
    stop = threading.Event()
    with ThreadPoolExecutor(12) as pool, ExitStack() as held:
        for _ in range(12):
            pool.submit(load, service, picture, stop, outcomes)
        idle = held.enter_context(httpx.Client(timeout=30))
        idle.get(f"{service.url}/health/live")
        time.sleep(1)
        assert service.process is not None
        before, asked = len(outcomes), time.monotonic()
        service.process.terminate()
        if float(settle_s):
            time.sleep(0.3)
            unready = httpx.get(f"{service.url}/health/ready")
            assert (unready.status_code, unready.json()["type"].rpartition(":")[2]) == (503, "not-ready")
            assert identified(service, picture).status_code == 200
        else:
            time.sleep(0.3)
            # A connection that was idle when the end began.
            assert idle.get(f"{service.url}/health/live").status_code == 200
        service.process.wait(timeout=30)
        assert time.monotonic() - asked < 10 + float(settle_s)
        stop.set()
    assert before > 0
    assert len(outcomes) > before
    assert set(outcomes) == {"200"}


def test_what_outlasts_the_drain_is_told_so(new_service: Callable[..., Service]) -> None:
    service = new_service(SHRINKFACE_DRAIN_S="1")
    service.start()
    with connected(service, begun(1000, 10)) as stuck, connected(service) as silent:
        time.sleep(0.2)
        assert service.process is not None
        asked = time.monotonic()
        service.process.terminate()
        assert answer(stuck) == (503, "not-ready")
        service.process.wait(timeout=30)
        assert 1 <= time.monotonic() - asked < 8
        with suppress(ConnectionError):
            assert silent.recv(1) == b""


@pytest.mark.slow
def test_the_drained_service_has_kept_what_it_acknowledged(
    new_service: Callable[..., Service], tmp_path: Path, picture: bytes
) -> None:
    service = new_service()
    service.start()
    acknowledged: list[str] = []
    failed: list[str] = []

    def enrol(worker: int) -> None:
        for number in range(10_000):
            person_id = f"w{worker}-{number}"
            try:
                answered = httpx.post(
                    f"{service.url}/enroll", files={"image": picture}, data={"person_id": person_id}, timeout=30
                )
            except httpx.ConnectError:
                return
            except httpx.TransportError as error:
                failed.append(repr(error))
                return
            (acknowledged if answered.status_code == 201 else failed).append(person_id)

    with ThreadPoolExecutor(8) as pool:
        for worker in range(8):
            pool.submit(enrol, worker)
        time.sleep(1)
        service.stop()
    assert not failed
    service.start()
    found = httpx.get(f"{service.url}/v1/galleries/default/persons", params={"limit": 500}).json()["persons"]
    assert len(acknowledged) > 8
    assert {person["person_id"] for person in found} == set(acknowledged)
