"""The client against servers that misbehave, over real sockets."""

from __future__ import annotations

import inspect
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from service.client import (
    AsyncShrinkFace,
    ImportStopped,
    InvalidArgument,
    NewPerson,
    ProblemError,
    ShrinkFace,
    UnexpectedAnswer,
    Unreachable,
    retrying,
)
from service.client.retrying import Attempts
from tests.blocking_client import blocking_client
from tests.misbehaving_server import BUSY, RESET, Reply, Server, answer, chunked, problem, servers

READY = {
    "status": "ok",
    "version": "1",
    "model": {"embedder": "e", "detector": "d", "space_id": "s", "dimension": 4},
}
PERSON = {
    "gallery": "g", "person_id": "ann", "name": None, "metadata": {}, "created_at": "2026-01-02T03:04:05Z",
    "face_ids": [], "revision": 7,
}  # fmt: skip
ENROLMENT = {"person": PERSON, "faces": [], "conflicts": [], "model": READY["model"], "timings_ms": {}}
RECEIPT = {
    "gallery": "g", "person_id": "ann", "face_id": None, "persons": 1, "faces": 0, "index_entries": 0, "crops": 0,
    "cache_entries": 0, "kept_answers": 0, "revision": 8, "erased_at": "2026-01-02T03:04:05Z",
}  # fmt: skip

Connect = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    with servers() as start:
        yield start


@pytest.fixture(params=[ShrinkFace, blocking_client], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.param


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_FIRST_PAUSE_S", 0.01)


@pytest.mark.parametrize(
    "trouble",
    [
        BUSY,
        problem(503, "not-ready"),
        answer(502, b"<html>", "text/html"),
        answer(504, b"", "text/html"),
        problem(429, "rate-limited"),
        RESET,
        Reply(answer(200, READY).content[:-20], reset=True),
        Reply(answer(200, READY).content[:-20]),
    ],
    ids=["503", "503 starting", "502 of a proxy", "504 of a proxy", "429", "reset", "reset within", "closed within"],
)
def test_what_reads_is_asked_again_until_there_is_an_answer(
    connect: Connect, serving: Callable[..., Server], trouble: Reply
) -> None:
    server = serving(trouble, trouble, answer(200, READY))
    with connect(server.url) as client:
        assert client.ready().model.dimension == 4
    assert len(server.requests) == 3


@pytest.mark.parametrize("retries", [0, 2])
def test_there_are_never_more_attempts_than_asked_for(
    connect: Connect, serving: Callable[..., Server], retries: int
) -> None:
    busy, resetting, slow = serving(BUSY), serving(RESET), serving(Reply(wait_s=0.4))
    with connect(busy.url, retries=retries) as client, pytest.raises(ProblemError, match="so it is") as refused:
        client.identify(b"x")
    assert (refused.value.code, refused.value.status, refused.value.request_id) == ("overloaded", 503, "r-1")
    assert refused.value.extra == {"more": 3}
    with connect(resetting.url, retries=retries) as client, pytest.raises(Unreachable):
        client.galleries()
    with connect(slow.url, retries=retries, timeout_s=0.1) as client, pytest.raises(Unreachable, match="127"):
        client.detect(b"x")
    assert [len(server.requests) for server in (busy, resetting)] == [retries + 1] * 2
    # The server takes its requests one by one, the last ones after the client has gone.
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and len(slow.requests) < retries + 1:
        time.sleep(0.02)
    assert len(slow.requests) == retries + 1


def test_retry_after_is_waited_for(connect: Connect, serving: Callable[..., Server]) -> None:
    server = serving(problem(503, "overloaded", Retry_After="1"), answer(200, READY))
    started = time.monotonic()
    with connect(server.url) as client:
        client.ready()
    assert 1.0 <= time.monotonic() - started < 3.0
    patient = serving(problem(429, "rate-limited", Retry_After="3600"), answer(200, READY))
    with connect(patient.url) as client, pytest.raises(ProblemError) as refused:
        client.ready()
    assert (refused.value.code, len(patient.requests)) == ("rate-limited", 1)


@pytest.mark.parametrize(
    ("text", "least_s", "most_s"),
    [("7", 7, 7.1), ("+30", 25, 31), ("-86400", 0, 0.1), ("soon", 0, 0.1), ("-5", 0, 0.1), ("", 0, 0.1)],
)
def test_retry_after_is_a_number_or_a_date(text: str, least_s: float, most_s: float) -> None:
    if text in ("+30", "-86400"):
        text = format_datetime(datetime.now(UTC) + timedelta(seconds=int(text)), usegmt=True)
    response = httpx.Response(503, headers={"Retry-After": text}, request=httpx.Request("GET", "http://127.0.0.1/"))
    pause_s = Attempts(1, repeatable=True).after_answer(response)
    assert pause_s is not None
    assert least_s <= pause_s <= most_s


def test_pauses_grow_and_have_an_end() -> None:
    attempts = Attempts(20, repeatable=True)
    response = httpx.Response(503, request=httpx.Request("GET", "http://127.0.0.1/"))
    pauses = [attempts.after_answer(response) for _ in range(21)]
    assert pauses.pop() is None
    for number, pause_s in enumerate(pauses):
        longest_s = min(0.01 * 2**number, 8.0)
        assert longest_s / 2 <= pause_s <= longest_s


def test_an_enrolment_keeps_its_key_when_it_is_sent_again(connect: Connect, serving: Callable[..., Server]) -> None:
    replies = (RESET, BUSY, problem(409, "idempotency-in-progress", Retry_After="0"), answer(201, ENROLMENT))
    server, again = serving(*replies), serving(answer(201, ENROLMENT))
    with connect(server.url) as client:
        assert client.enrol(b"picture", name="Ann").person.revision == 7
    keys = server.header("Idempotency-Key")
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert all(b"picture" in request and b"Ann" in request for request in server.requests)
    with connect(again.url) as client:
        client.enrol(b"picture", name="Ann")
        client.enrol(b"picture", idempotency_key="mine")
    fresh, mine = again.header("Idempotency-Key")
    assert fresh not in (*keys, None)
    assert mine == "mine"


def test_a_batch_is_enrolled_again_only_if_that_stores_nothing_twice(
    connect: Connect, serving: Callable[..., Server]
) -> None:
    item = {"index": 0, "status": 201, "problem": None, "result": ENROLMENT}
    server = serving(RESET, answer(200, {"items": [item]}), answer(200, {"items": [item]}))
    with connect(server.url) as client:
        first, second = client.enrol_many([NewPerson(b"x"), NewPerson(b"y")], batch=1)
    assert (first.index, second.index, len(server.requests)) == (0, 1, 3)
    fussy = serving(RESET)
    people = [NewPerson(b"x"), NewPerson(b"y", on_existing="reject")]
    with connect(fussy.url) as client, pytest.raises(Unreachable):
        list(client.enrol_many(people))
    assert len(fussy.requests) == 1


@pytest.mark.parametrize("trouble", [BUSY, RESET, answer(502, b"", "text/html")], ids=["503", "reset", "502"])
def test_what_changes_something_is_not_sent_again_when_it_may_have_been_done(
    connect: Connect, serving: Callable[..., Server], trouble: Reply
) -> None:
    calls: list[Callable[[Any], object]] = [
        lambda client: client.delete_person("g", "ann"),
        lambda client: client.delete_gallery("g"),
        lambda client: client.update_person("g", "ann", name="Ann"),
        lambda client: client.add_person("g", "ann"),
        lambda client: client.create_gallery("g"),
        lambda client: client.import_gallery("g", [b"{}"]),
    ]
    for call in calls:
        server = serving(trouble, answer(200, RECEIPT))
        with connect(server.url) as client, pytest.raises((ProblemError, Unreachable, UnexpectedAnswer)):
            call(client)
        assert len(server.requests) == 1


def test_what_changes_something_is_sent_again_when_it_cannot_have_been_done(
    connect: Connect, serving: Callable[..., Server]
) -> None:
    refusing = serving(problem(429, "rate-limited"), answer(200, RECEIPT))
    with connect(refusing.url) as client:
        assert client.delete_person("g", "ann").persons == 1
    assert len(refusing.requests) == 2
    # Nobody listens yet.
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    late = Server([answer(200, RECEIPT)])
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def open_late() -> None:
        time.sleep(0.3)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        late.serve(listener)

    thread = threading.Thread(target=open_late)
    thread.start()
    try:
        with connect(f"http://127.0.0.1:{port}", retries=10) as client:
            assert client.delete_gallery("g").persons == 1
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=10)
    assert len(late.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 412, 422, 500, 507])
def test_other_problems_are_raised_at_once(connect: Connect, serving: Callable[..., Server], status: int) -> None:
    server = serving(problem(status, "some-code"))
    with connect(server.url) as client, pytest.raises(ProblemError) as raised:
        client.ready()
    assert (raised.value.code, raised.value.status, len(server.requests)) == ("some-code", status, 1)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (again.code, again.detail, str(again)) == ("some-code", "so it is", "so it is (some-code)")


@pytest.mark.parametrize(
    "strange",
    [
        answer(200, b"<html>Welcome</html>", "text/html"),
        answer(200, {**READY, "model": {"embedder": "Ann Secret"}}),
        answer(200, b"[1, 2"),
        answer(302, b"", Location="http://127.0.0.1:9/"),
        answer(404, b"nothing here", "text/plain"),
        answer(500, b"[]", "application/problem+json"),
        answer(500, b'{"status": "many"}', "application/problem+json"),
    ],
)
def test_an_answer_of_something_else_is_told_apart(
    connect: Connect, serving: Callable[..., Server], strange: Reply
) -> None:
    server = serving(strange)
    with connect(server.url) as client, pytest.raises(UnexpectedAnswer) as raised:
        client.ready()
    assert "Secret" not in str(raised.value)
    assert len(server.requests) == 1


def test_a_list_that_leads_back_to_itself_ends(connect: Connect, serving: Callable[..., Server]) -> None:
    page = answer(200, {"persons": [PERSON], "next_cursor": "same"})
    server = serving(page)
    with connect(server.url) as client, pytest.raises(UnexpectedAnswer):
        list(client.persons("g"))
    assert server.targets()[1:] == ["/v1/galleries/g/persons?limit=500&cursor=same"]


def person_line(person_id: str) -> bytes:
    return json.dumps({"person_id": person_id, "faces": []}).encode()


def test_an_export_that_breaks_off_goes_on_behind_the_last_line(
    connect: Connect, serving: Callable[..., Server]
) -> None:
    a, b, c, d = map(person_line, "abcd")
    server = serving(
        BUSY,
        chunked(a[:9], a[9:] + b"\n" + b + b"\n" + c[:5], whole=False),
        BUSY,
        chunked(c + b"\n" + d[:1], whole=False),
        RESET,
        chunked(d, b"\n"),
    )
    # Two for each pause in which nothing came, and five in all.
    with connect(server.url, retries=2) as client:
        assert list(client.export_gallery("g")) == [a, b, c, d]
    path = "/v1/galleries/g/export"
    assert server.targets() == [path, path, *[f"{path}?after=b"] * 2, *[f"{path}?after=c"] * 2]


def test_an_export_without_an_end_or_progress_is_given_up(connect: Connect, serving: Callable[..., Server]) -> None:
    stuck = serving(chunked(person_line("a")[:5], whole=False))
    with connect(stuck.url, retries=2) as client, pytest.raises(Unreachable):
        list(client.export_gallery("g"))
    assert len(stuck.requests) == 3
    for strange in (chunked(person_line("a")), chunked(b"<html>\n"), chunked(b"[]\n")):
        with connect(serving(strange).url) as client, pytest.raises(UnexpectedAnswer):
            list(client.export_gallery("g"))


def test_an_import_that_the_service_stopped_says_what_was_stored(
    connect: Connect, serving: Callable[..., Server]
) -> None:
    summary = {"persons": 1, "failed": 0, "added": 2, "present": 0, "pictures_skipped": 0}
    outcome = {"item": "line 1", "person_id": "ann", "status": "stored", "added": 2, "present": 0}
    full = {"type": "urn:shrinkface:problem:storage-full", "title": "t", "status": 507, "detail": "full"}
    lines = [outcome, {"summary": summary, "problem": full}]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    seen: list[Any] = []
    with connect(serving(chunked(content[:70], content[70:])).url) as client, pytest.raises(ImportStopped) as stopped:
        client.import_gallery("g", [person_line("ann")], on_outcome=seen.append)
    assert (stopped.value.code, stopped.value.summary["added"]) == ("storage-full", 2)
    assert [(each.item, each.added) for each in seen] == [("line 1", 2)]
    for cut in (content[:70], json.dumps(outcome).encode() + b"\n", b""):
        with connect(serving(chunked(cut)).url) as client, pytest.raises(UnexpectedAnswer):
            client.import_gallery("g", [])


def test_nothing_secret_is_in_a_message() -> None:
    with (
        ShrinkFace("http://user:hush@127.0.0.1:9", "sf_hush", retries=0) as client,
        pytest.raises(Unreachable) as raised,
    ):
        client.ready()
    assert "127.0.0.1:9" in str(raised.value)
    assert "hush" not in str(raised.value) + repr(raised.value) + repr(client)


@pytest.mark.parametrize("base_url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "", "http://h:port", "/v1"])
def test_an_address_that_is_none_is_refused(connect: Connect, base_url: str) -> None:
    with pytest.raises(InvalidArgument), connect(base_url):
        pass


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_lead_elsewhere_is_never_sent(
    connect: Connect, serving: Callable[..., Server], name: str
) -> None:
    server = serving(answer(200, RECEIPT))
    with connect(server.url) as client:
        for call in (
            lambda: client.delete_person("g", name),
            lambda: client.delete_face("g", "ann", name),
            lambda: client.delete_gallery(name),
            lambda: list(client.persons(name)),
            lambda: list(client.export_gallery(name)),
        ):
            with pytest.raises(ValueError, match="names nothing"):
                call()
        client.delete_person("g", "a/../b?c#d")
    assert server.targets() == ["/v1/galleries/g/persons/a%2F..%2Fb%3Fc%23d"]


def test_a_service_may_be_below_a_path_and_gets_the_key(connect: Connect, serving: Callable[..., Server]) -> None:
    server = serving(answer(200, READY))
    with connect(f"{server.url}/faces/", "sf_x") as client:
        client.ready()
    assert server.targets() == ["/faces/health/ready"]
    assert server.header("X-API-Key") == ["sf_x"]


def test_both_clients_offer_the_same() -> None:
    def methods(of: type) -> dict[str, tuple[list[str], str | None]]:
        return {
            name: ([*inspect.signature(method).parameters], method.__doc__)
            for name, method in vars(of).items()
            if not name.startswith("_") and name not in ("close", "aclose")
        }

    both, other = methods(ShrinkFace), methods(AsyncShrinkFace)
    assert both.keys() == other.keys()
    assert len(both) >= 24
    for name, (parameters, doc) in both.items():
        assert parameters == other[name][0], name
        assert parameters[0] == "self"
        assert doc and other[name][1], name
    assert [*inspect.signature(ShrinkFace("http://127.0.0.1").verify).parameters][:2] == ["image", "reference"]


def test_the_client_alone_is_light() -> None:
    code = "import sys, service.client; print([m for m in ('fastapi', 'numpy', 'faiss', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
