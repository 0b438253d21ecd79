"""Requests and bytes in progress: what finds no room, and who makes room."""

from __future__ import annotations

import asyncio

import pytest

from service.api import admission
from service.api.admission import Admission, Admitted, Slot
from service.api.problems import BodyTimeout, problem_response
from service.domain import Overloaded

pytestmark = pytest.mark.anyio


def bounds(max_requests=2, max_bodies_bytes=100):
    return Admission(max_requests=max_requests, max_bodies_bytes=max_bodies_bytes)


async def arriving(slot: Slot, size: int, timeout_s: float = 5.0) -> str:
    """Of the body `size` bytes come, and then nothing; how that ends."""
    try:
        async with slot.arriving(timeout_s):
            slot.hold(size)
            await asyncio.Event().wait()
    except (Overloaded, BodyTimeout) as error:
        return error.code
    finally:
        slot.leave()
    return "arrived"


async def test_a_request_more_than_allowed_is_refused_until_one_has_left():
    bounded = bounds()
    first, _ = bounded.enter(), bounded.enter()
    with pytest.raises(Overloaded) as refused:
        bounded.enter()
    assert refused.value.details["retry_after_s"] >= 1
    first.leave()
    first.leave()
    bounded.enter()
    with pytest.raises(Overloaded):
        bounded.enter()


async def test_bytes_are_counted_until_the_request_leaves():
    bounded = bounds()
    first, second = bounded.enter(), bounded.enter()
    first.hold(60)
    second.hold(40)
    with pytest.raises(Overloaded):
        second.hold(41)
    first.hold(50)
    second.hold(50)
    first.leave()
    second.hold(100)


async def test_a_body_that_takes_too_long_is_timed_out():
    assert await arriving(bounds().enter(), 1, timeout_s=0.01) == "body-timeout"


async def test_the_slowest_body_makes_room_for_a_newcomer(monkeypatch):
    monkeypatch.setattr(admission, "_PATIENCE_S", 0.05)
    bounded = bounds()
    slow = [asyncio.create_task(arriving(bounded.enter(), 1)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        bounded.enter()
    await asyncio.sleep(0.06)
    newcomer = bounded.enter()
    assert await slow[0] == "overloaded"
    assert not slow[1].done()
    newcomer.leave()
    slow[1].cancel()
    # What gave up its slot is not counted a second time when it leaves.
    await asyncio.gather(*slow, return_exceptions=True)
    bounded.enter()
    bounded.enter()
    with pytest.raises(Overloaded):
        bounded.enter()


async def test_the_slowest_body_makes_room_for_the_bytes_of_another_but_not_for_its_own(monkeypatch):
    monkeypatch.setattr(admission, "_PATIENCE_S", 0.05)
    bounded = bounds(max_requests=5)
    slow = asyncio.create_task(arriving(bounded.enter(), 80))
    await asyncio.sleep(0.06)
    quick = bounded.enter()
    async with quick.arriving(5):
        quick.hold(90)
    assert await slow == "overloaded"
    alone = bounded.enter()
    async with alone.arriving(5):
        await asyncio.sleep(0.06)
        with pytest.raises(Overloaded):
            alone.hold(11)
    quick.leave()
    alone.hold(100)


async def test_a_request_that_has_all_of_its_body_keeps_its_slot(monkeypatch):
    monkeypatch.setattr(admission, "_PATIENCE_S", 0.0)
    bounded = bounds(max_requests=1)
    slot = bounded.enter()
    async with slot.arriving(5):
        slot.hold(10)
    with pytest.raises(Overloaded):
        bounded.enter()


async def served(app, path):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    await app({"type": "http", "path": path, "method": "GET", "headers": [], "state": {}}, receive, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def test_the_middleware_refuses_and_lets_watchers_through():
    bounded = bounds(max_requests=1)
    inside, leave = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            inside.set()
            await leave.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    admitted = Admitted(app, bounded, lambda _, error: problem_response("r", error.code, error.message, error.details))
    slow = asyncio.create_task(served(admitted, "/slow"))
    await inside.wait()
    status, headers = await served(admitted, "/identify")
    assert (status, headers["content-type"]) == (503, "application/problem+json")
    assert int(headers["retry-after"]) >= 1
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert (await served(admitted, path))[0] == 200
    leave.set()
    assert (await slow)[0] == 200
    assert (await served(admitted, "/identify"))[0] == 200


async def test_a_request_that_fails_leaves_its_slot():
    bounded = bounds(max_requests=1)

    async def app(scope, receive, send):
        raise RuntimeError("as it happens")

    admitted = Admitted(app, bounded, lambda _, error: problem_response("r", error.code, error.message))
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await served(admitted, "/identify")
