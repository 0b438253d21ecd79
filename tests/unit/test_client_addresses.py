"""Pictures at addresses, fetched by the clients from real servers that behave, or do not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.client import AsyncShrinkFace, InvalidArgument, NewPerson, PictureNotFetched, ShrinkFace
from service.client.addresses import FetchLimits, fetched, is_address
from tests.misbehaving_server import Server, answer, servers

PICTURE = bytes(range(256)) * 40
SMALL = FetchLimits(max_bytes=20_000, total_s=1.0)
NOTHING_FOUND = {"faces": [], "faces_total": 0, "width": 1, "height": 1, "timings_ms": {}}


class _Site(BaseHTTPRequestHandler):
    """Serves what its path says, and notes the headers of every request."""

    seen: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        name, _, rest = self.path.lstrip("/").partition("?")
        page: Callable[[str], None] = getattr(self, f"_{name.partition('.')[0]}")
        try:
            page(rest)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _ada(self, _: str) -> None:
        self._head(200, Content_Type="image/jpeg", Content_Length=len(PICTURE))
        self.wfile.write(PICTURE)

    def _nameless(self, _: str) -> None:
        self._head(200)
        self.wfile.write(PICTURE)

    def _announced(self, _: str) -> None:
        self._head(200, Content_Type="image/jpeg", Content_Length=10**12)

    def _endless(self, _: str) -> None:
        self._head(200, Content_Type="image/jpeg")
        while True:
            self.wfile.write(PICTURE)

    def _trickle(self, _: str) -> None:
        self._head(200, Content_Type="image/jpeg", Content_Length=1_000)
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def _page(self, _: str) -> None:
        self._head(200, Content_Type="text/html; charset=utf-8")
        self.wfile.write(b"<p>Sign in first</p>")

    def _packed(self, _: str) -> None:
        self._head(200, Content_Type="image/jpeg", Content_Encoding="gzip")
        self.wfile.write(PICTURE)

    def _gone(self, _: str) -> None:
        self._head(404, Content_Type="image/png")

    def _moved(self, to: str) -> None:
        self._head(302, Location=to)

    def _loop(self, count: str) -> None:
        self._head(302, Location=f"/loop?{int(count or 0) + 1}")

    def _head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def seen() -> list[tuple[str, dict[str, str]]]:
    """Paths and headers of the requests that the site got."""
    return []


@pytest.fixture
def site(seen: list[tuple[str, dict[str, str]]]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Site", (_Site,), {"seen": seen}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers that stand for the service."""
    with servers() as begin:
        yield begin


@pytest.mark.parametrize("path", ["/ada.jpg", "/nameless", "/moved?/ada.jpg", "/moved?/moved?/ada.jpg"])
def test_what_is_at_an_address_is_fetched(site: str, path: str) -> None:
    assert fetched(site + path, SMALL) == PICTURE


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/announced", "more than 20,000 bytes"),
        ("/endless", "more than 20,000 bytes"),
        ("/trickle", "longer than 1 seconds"),
        ("/page", "is text/html, no picture"),
        ("/packed", "compressed"),
        ("/gone", "status 404"),
        ("/loop", "redirects more than 5 times"),
        ("/moved?file:///etc/passwd", "cannot be fetched|redirects to file"),
        ("/moved?ftp://127.0.0.1/ada.jpg", "redirects to ftp"),
    ],
)
def test_what_is_no_picture_or_takes_too_much_is_told_of(site: str, path: str, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(PictureNotFetched, match=why) as told:
        fetched(f"{site}{path}", SMALL)
    assert time.monotonic() - started < 3
    assert site in str(told.value)


def test_a_loop_ends_after_six_requests(site: str, seen: list[tuple[str, dict[str, str]]]) -> None:
    with pytest.raises(PictureNotFetched):
        fetched(f"{site}/loop", SMALL)
    assert [path for path, _ in seen] == ["/loop", *(f"/loop?{count}" for count in range(1, 6))]


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/ada.jpg"
        with pytest.raises(PictureNotFetched, match="longer than"):
            fetched(address, FetchLimits(total_s=0.3))
    # Nobody listens there any more.
    with pytest.raises(PictureNotFetched, match="cannot be fetched"):
        fetched(address, SMALL)


def test_passwords_and_signatures_are_not_repeated(site: str) -> None:
    address = site.replace("http://", "http://ada:lovelace@") + "/gone?signature=secret"
    with pytest.raises(PictureNotFetched) as told:
        fetched(address, SMALL)
    assert "lovelace" not in str(told.value)
    assert "secret" not in str(told.value)


def test_the_address_hears_nothing_of_the_service(
    site: str, seen: list[tuple[str, dict[str, str]]], start: Callable[..., Server]
) -> None:
    server = start(answer(200, NOTHING_FOUND))
    with ShrinkFace(server.url, "sf_secret") as service:
        service.detect(f"{site}/moved?/ada.jpg")
    assert len(seen) == 2
    for _, headers in seen:
        assert "sf_secret" not in str(headers)
        assert set(headers) == {"host", "accept", "accept-encoding", "connection", "user-agent"}
    (request,) = server.requests
    assert b"sf_secret" in request
    assert PICTURE in request
    assert site.encode() not in request


def test_nothing_is_sent_where_the_picture_cannot_be_had(site: str, start: Callable[..., Server]) -> None:
    server = start(answer(200, NOTHING_FOUND))
    with ShrinkFace(server.url) as service:
        with pytest.raises(PictureNotFetched):
            service.verify(f"{site}/ada.jpg", f"{site}/gone")
        with pytest.raises(InvalidArgument, match="http and https, not ftp"):
            service.detect("ftp://127.0.0.1/ada.jpg")
        with pytest.raises(InvalidArgument):
            service.detect("http://")
    assert server.requests == []


def test_many_are_fetched_batch_by_batch(
    site: str, seen: list[tuple[str, dict[str, str]]], start: Callable[..., Server], tmp_path: Path
) -> None:
    file = tmp_path / "ada.jpg"
    file.write_bytes(PICTURE)
    item = {"index": 0, "status": 422, "problem": {"type": "urn:shrinkface:problem:no-face"}, "result": None}
    server = start(answer(200, {"items": [item]}))
    with ShrinkFace(server.url) as service:
        list(service.identify_many([f"{site}/ada.jpg", file, PICTURE], batch=1))
        list(service.enrol_many([NewPerson([f"{site}/ada.jpg", file], "ada")]))
    assert len(seen) == 2
    assert len(server.requests) == 4


def test_the_event_loop_goes_on_while_a_picture_is_fetched(site: str, start: Callable[..., Server]) -> None:
    async def work(url: str) -> int:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        beating = asyncio.create_task(beat())
        async with AsyncShrinkFace(url) as service:
            assert (await service.detect(f"{site}/ada.jpg")).faces == ()
            fetching = asyncio.create_task(service.detect(f"{site}/trickle"))
            await asyncio.sleep(0.5)
            fetching.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert time.monotonic() - began < 0.3
            with pytest.raises(PictureNotFetched):
                await anext(service.identify_many([f"{site}/gone"]))
        beating.cancel()
        return beats

    assert asyncio.run(work(start(answer(200, NOTHING_FOUND)).url)) >= 20


@pytest.mark.parametrize("path", ["ada.jpg", "/pictures/ada.jpg", r"C:\pictures\ada.jpg", "http:ada.jpg", "//ada.jpg"])
def test_paths_are_no_addresses(path: str) -> None:
    assert not is_address(path)


@pytest.mark.parametrize("address", ["http://a/b", "HTTPS://a/b"])
def test_addresses_are(address: str) -> None:
    assert is_address(address)
