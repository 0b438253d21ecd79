"""Single connections over real sockets, before an application that echoes, streams without end, or waits."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.api import connections
from service.api.connections import BoundedConnection, Connections

pytestmark = pytest.mark.anyio

HELLO = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


async def application(scope, receive, send):
    path, size = scope["path"], 0
    if path == "/body":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message["more_body"]
    if path == "/slow":
        await asyncio.sleep(0.3)
    answer = json.dumps({"path": path, "size": size, "headers": len(scope["headers"])}).encode()
    headers = [] if path == "/endless" else [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(10_000 if path == "/endless" else 0):
        await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def listening(limit=10, header_timeout_s=5.0, keep_alive_s=5):
    bounds = Connections(limit=limit, header_timeout_s=header_timeout_s)
    config = uvicorn.Config(
        application, ws="none", lifespan="off", log_level="critical", timeout_keep_alive=keep_alive_s
    )
    config.load()
    make = partial(BoundedConnection, config=config, server_state=ServerState(), app_state={}, connections=bounds)
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield bounds, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        bounds.abort()
        await asyncio.sleep(0)


async def opened(port, data=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def rest(reader, writer=None, timeout_s=5.0):
    """All that comes until the connection is closed; that it is closed."""
    async with asyncio.timeout(timeout_s):
        content = await reader.read()
    if writer is not None:
        writer.close()
    return content


async def until(reader, what, timeout_s=5.0):
    async with asyncio.timeout(timeout_s):
        return await reader.readuntil(what)


def problem(content):
    head, _, body = content.rpartition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    told = json.loads(body)
    assert head.splitlines()[-0].split()[1] == b"%d" % told["status"]
    assert f"x-request-id: {told['request_id']}".encode() in head
    return told["status"], told["type"].rpartition(":")[2]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "request-malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "request-malformed"),
        (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request-malformed"),
        (CHUNKED + b"XYZ\r\n", 400, "request-malformed"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "request-malformed"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431, "headers-too-large"),
        (b"GET /" + b"a" * 70_000, 431, "headers-too-large"),
        (b"\r\n" * 40_000, 431, "headers-too-large"),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 101 + b"\r\n", 431, "headers-too-large"),
        (CHUNKED + b"1;" + b"a" * 400_000, 431, "headers-too-large"),
        (CHUNKED + b"0\r\nX: " + b"a" * 400_000, 431, "headers-too-large"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_acceptable_request_is_told_so(sent, status, code):
    async with listening() as (_, port):
        assert problem(await rest(*await opened(port, sent))) == (status, code)


async def test_as_many_headers_as_allowed_are_taken_and_trailers_dropped():
    async with listening() as (_, port):
        reader, writer = await opened(port, b"GET /a HTTP/1.1\r\n" + b"X: a\r\n" * 100 + b"\r\n")
        assert b'"headers": 100' in await until(reader, b"}")
        writer.write(CHUNKED + b"3\r\nabc\r\n0\r\nTrailer: a\r\n\r\n" + HELLO)
        assert b'"size": 3, "headers": 2' in await until(reader, b"}")
        assert b"/hello" in await until(reader, b"}")
        writer.close()


async def test_a_head_that_dawdles_is_timed_out_and_a_silent_connection_closed():
    async with listening(header_timeout_s=0.2) as (bounds, port):
        loop = asyncio.get_running_loop()
        began = loop.time()
        slow, silent = await opened(port, b"GET / HT"), await opened(port)
        # Also on a connection that has had an answer.
        again = await opened(port, HELLO)
        await until(again[0], b"}")
        again[1].write(b"GET / HT")
        assert await rest(*silent) == b""
        assert problem(await rest(*slow)) == (408, "headers-timeout")
        assert problem(await rest(*again)) == (408, "headers-timeout")
        assert loop.time() - began < 1.5
        assert not bounds._open


async def test_bytes_that_begin_nothing_keep_no_connection_open():
    async with listening(keep_alive_s=1) as (_, port):
        reader, writer = await opened(port, HELLO)
        await until(reader, b"}")

        async def drip():
            while True:
                writer.write(b"\r\n")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(3):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_pipelined_requests_are_answered_in_order_up_to_a_bound():
    async with listening() as (_, port):
        reader, writer = await opened(port, SLOW + HELLO * 2)
        content = await until(reader, b"}") + await until(reader, b"}") + await until(reader, b"}")
        assert [content.count(b"/slow"), content.count(b"/hello")] == [1, 2]
        assert content.index(b"/slow") < content.index(b"/hello")
        writer.write(SLOW + HELLO * 1000)
        answered = await rest(reader, writer)
        assert 1 <= answered.count(b"/hello") <= 20


async def test_nonsense_after_a_request_takes_nothing_from_its_answer():
    async with listening() as (_, port):
        content = await rest(*await opened(port, SLOW + b"NONSENSE\r\n\r\n"))
        assert content.count(b"HTTP/1.1") == 1
        assert b"/slow" in content


async def test_idle_connections_make_room_and_busy_ones_do_not():
    async with listening(limit=3) as (bounds, port):
        kept = await opened(port, HELLO)
        await until(kept[0], b"}")
        silent = [await opened(port) for _ in range(5)]
        reader, writer = await opened(port, HELLO)
        assert b"/hello" in await until(reader, b"}")
        assert len(bounds._open) == 3
        # Those that never asked for anything go first.
        kept[1].write(HELLO)
        assert b"/hello" in await until(kept[0], b"}")
        assert await rest(*silent[0]) == b""
        busy = [await opened(port, SLOW) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert problem(await rest(*await opened(port, HELLO))) == (503, "overloaded")
        for reader, writer in busy:
            assert b"/slow" in await until(reader, b"}")
            writer.close()
        reader, writer = await opened(port, HELLO)
        assert b"/hello" in await until(reader, b"}")


async def test_a_client_that_does_not_take_its_answer_is_left(monkeypatch):
    monkeypatch.setattr(connections, "_UNREAD_S", 0.3)
    async with listening() as (bounds, port):
        reader, writer = await opened(port, ENDLESS)
        await until(reader, b"\r\n\r\n")
        async with asyncio.timeout(5):
            while bounds._open:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        writer.close()


async def test_the_rest_of_a_body_is_dropped_for_a_while_and_then_the_connection_closed():
    async with listening(keep_alive_s=1) as (_, port):
        reader, writer = await opened(port, b"POST /hello HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n")
        assert b"/hello" in await until(reader, b"}")
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionError):
            while True:
                writer.write(bytes(10_000))
                await writer.drain()
                await asyncio.sleep(0.02)
        assert 0.5 < asyncio.get_running_loop().time() - began < 4


async def test_while_it_drains_every_answer_is_the_last_of_its_connection():
    async with listening() as (bounds, port):
        busy, silent = await opened(port, SLOW + HELLO), await opened(port)
        idle = await opened(port, HELLO)
        await until(idle[0], b"}")
        bounds.draining = True
        late = await opened(port, HELLO)
        assert b"connection: close" in await rest(*late)
        loop = asyncio.get_running_loop()
        bounds.close_idle(loop.time() - 5)
        idle[1].write(HELLO)
        assert b"connection: close" in await rest(*idle)
        bounds.close_idle(loop.time())
        assert await rest(*silent) == b""
        # Queued before the end began.
        busy[1].write(HELLO)
        content = await rest(*busy)
        assert (content.count(b"/slow"), content.count(b"/hello")) == (1, 2)
