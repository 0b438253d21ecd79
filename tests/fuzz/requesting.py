"""Request bodies as a fuzzing target: multipart, base64, JSON and lines through the application, without sockets.

An input is three bytes that choose the call, the media type and the number of pieces that the body arrives in, and
then the body.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from service.api.app import create_app
from service.bootstrap import Container
from service.settings import Settings
from tests.api.conftest import build_fake, photo
from tests.fuzz import mutations
from tests.fuzz.request_seeds import CALLS, MEDIA_TYPES, PIECES, REPEATABLE, seeds, tokens

__all__ = ["MAX_BYTES", "MAX_GROWTH_MB", "NAME", "check", "mutated", "seeds", "tokens"]

NAME = "requests"
MAX_BYTES = 64_000
MAX_GROWTH_MB = 160

_COMPREFACE = "/api/v1/"


class _Failures:
    """A log processor that keeps what the application's last net caught."""

    def __init__(self) -> None:
        self.last: BaseException | None = None

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> Any:
        if event.get("exc_info"):
            self.last = sys.exc_info()[1]
        raise structlog.DropEvent


class _Application:
    """The application over a folder in memory, with one person enrolled, as before every request."""

    def __init__(self) -> None:
        self.failures = _Failures()
        structlog.configure(processors=[self.failures])
        logging.disable()
        self._loop = asyncio.new_event_loop()
        shared = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        settings = Settings(
            data_dir=self._folder / "data",
            default_gallery="known",
            auth="off",
            max_body_bytes=200_000,
            max_image_bytes=100_000,
            max_image_pixels=1_000_000,
            body_timeout_s=1.0,
            _env_file=None,
        )
        self._app = create_app(settings, self._build)
        # Kept: what is collected is ended.
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._state = self._loop.run_until_complete(self._lifespan.__aenter__())
        self._known: set[tuple[str, int]] = set()
        self._loop.run_until_complete(self._restore())

    async def _build(self, settings: Settings, stack: AsyncExitStack) -> Container:
        self._container = await build_fake(settings, stack)
        return self._container

    def answer(
        self, method: str, target: str, headers: list[tuple[bytes, bytes]], pieces: list[bytes]
    ) -> tuple[int, bytes, bytes]:
        """Status, media type and body of the answer to a request."""
        self.failures.last = None
        return self._loop.run_until_complete(self._answer(method, target, headers, pieces))

    async def _answer(
        self, method: str, target: str, headers: list[tuple[bytes, bytes]], pieces: list[bytes]
    ) -> tuple[int, bytes, bytes]:
        path, _, query = target.partition("?")
        arriving = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        arriving.append({"type": "http.request", "body": b"", "more_body": False})
        arriving.reverse()
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return arriving.pop() if arriving else {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("latin-1", "replace"),
            "query_string": query.encode("latin-1", "replace"),
            "root_path": "",
            "headers": [(b"host", b"fuzz"), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": dict(self._state),
        }
        await self._app(scope, receive, send)
        await self._restore()
        told = dict(sent[0]["headers"])
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], told.get(b"content-type", b""), body

    async def _restore(self) -> None:
        """Have one gallery with one person, so that an input does the same whatever came before it."""
        gallery = self._container.gallery
        there = {(each.name, each.revision) for each in await gallery.galleries()}
        if there == self._known and there:
            return
        for name, _ in there:
            await gallery.drop_gallery(name)
        await self._container.enrolment.enrol([photo(1)], gallery="known", person_id="ann", name="Ann", actor="fuzz")
        self._known = {(each.name, each.revision) for each in await gallery.galleries()}


_application: _Application | None = None


def check(data: bytes) -> None:
    """Send a request. Raises AssertionError when the answer is none that a service should give."""
    global _application  # noqa: PLW0603 - it takes a while to start
    if _application is None:
        _application = _Application()
    if len(data) < 3:
        return
    method, target = CALLS[data[0] % len(CALLS)]
    media_type = MEDIA_TYPES[data[1] % len(MEDIA_TYPES)]
    body = data[3:]
    if media_type is None:
        media_type, _, body = body.partition(b"\n")
    if method in ("GET", "DELETE"):
        rest, _, body = body.partition(b"\n")
        target += rest.decode("latin-1")
    count = data[2] % PIECES + 1
    size = max(1, -(-len(body) // count))
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    headers = [(b"content-type", media_type)]
    if data[1] & REPEATABLE:
        headers.append((b"idempotency-key", hashlib.sha256(data).hexdigest().encode()))
    status, answered, content = _application.answer(method, target, headers, pieces)
    if status >= 500:
        raise AssertionError(
            f"{method} {target} was answered {status}: {content[:300]!r}"
        ) from _application.failures.last
    assert status >= 200
    if status >= 400:
        told = json.loads(content)
        if target.startswith(_COMPREFACE) and answered == b"application/json":
            assert set(told) == {"message", "code"}
        else:
            assert answered == b"application/problem+json", answered
            assert told["type"].startswith("urn:shrinkface:problem:")
            assert told["status"] == status
    elif answered == b"application/json":
        json.loads(content)


def mutated(data: bytes, max_size: int, seed: int, mutate: mutations.Mutate) -> bytes:
    """Another request; most of the time to the same call."""
    if seed % 8 == 0:
        return mutate(data, max_size)
    return data[:3] + mutate(data[3:], max_size - 3)
