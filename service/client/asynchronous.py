"""The client for code that runs in an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread
import httpx

from service.client import recognition, stored
from service.client.calls import Call, Page, connection, error_of
from service.client.models import ImportOutcome, ImportSummary
from service.client.retrying import Attempts, unreachable
from service.client.synchronous import described
from service.client.transfers import Download, Upload, pieces_async

P = ParamSpec("P")
T = TypeVar("T")


def _answered(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncShrinkFace, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncShrinkFace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(await _built(partial(build, *args, **kwargs)))

    return described(method, build)


def _listed(build: Callable[P, Call[Page[T]] | None]) -> Callable[Concatenate[AsyncShrinkFace, P], AsyncIterator[T]]:
    def method(self: AsyncShrinkFace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._walk(partial(build, *args, **kwargs))

    return described(method, build)


async def _built(build: Callable[[], T]) -> T:
    """Make a call in a thread: its pictures may have to be read from a file, or fetched from an address."""
    return await anyio.to_thread.run_sync(build, abandon_on_cancel=True)


class AsyncShrinkFace:
    """As `ShrinkFace`, with methods to await, and lists to loop over by `async for`.

    Files are read and addresses fetched in threads.

    Args:
        base_url, api_key, timeout_s, retries, transport: see `ShrinkFace`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**connection(base_url, api_key, timeout_s), transport=transport)
        self._timeout_s = timeout_s
        self._retries = retries

    enrol = _answered(recognition.enrol)
    identify = _answered(recognition.identify)
    verify = _answered(recognition.verify)
    detect = _answered(recognition.detect)
    embeddings = _answered(recognition.embeddings)
    identify_many = _listed(recognition.identify_many)
    enrol_many = _listed(recognition.enrol_many)

    galleries = _answered(stored.galleries)
    gallery = _answered(stored.gallery)
    create_gallery = _answered(stored.create_gallery)
    configure_gallery = _answered(stored.configure_gallery)
    delete_gallery = _answered(stored.delete_gallery)

    persons = _listed(stored.persons)
    person = _answered(stored.person)
    add_person = _answered(stored.add_person)
    update_person = _answered(stored.update_person)
    delete_person = _answered(stored.delete_person)
    export_person = _answered(stored.export_person)

    faces = _answered(stored.faces)
    delete_face = _answered(stored.delete_face)
    crop = _answered(stored.crop)

    journal = _listed(stored.journal)
    ready = _answered(stored.ready)

    async def export_gallery(self, gallery: str, *, after: str | None = None) -> AsyncIterator[bytes]:
        """See `ShrinkFace.export_gallery`."""
        download = Download(gallery, after)
        attempts = Attempts(self._retries, repeatable=True)
        while True:
            try:
                async with self._http.stream(**download.request()) as response:
                    if response.is_success:
                        async for piece in response.aiter_bytes():
                            for line in download.lines(piece):
                                yield line
                        download.end()
                        return
                    await response.aread()
                pause_s = attempts.after_answer(response)
                if pause_s is None:
                    raise error_of(response)
            except httpx.RequestError as error:
                if download.moved:
                    attempts = Attempts(self._retries, repeatable=True)
                pause_s = attempts.after_error(error)
            await anyio.sleep(pause_s)

    async def import_gallery(
        self,
        gallery: str,
        lines: Iterable[bytes] | AsyncIterable[bytes],
        *,
        on_outcome: Callable[[ImportOutcome], object] | None = None,
    ) -> ImportSummary:
        """See `ShrinkFace.import_gallery`."""
        upload = Upload(gallery)
        try:
            async with self._http.stream(**upload.request(pieces_async(lines), self._timeout_s)) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                async for piece in response.aiter_bytes():
                    for outcome in upload.outcomes(piece):
                        if on_outcome is not None:
                            on_outcome(outcome)
        except httpx.RequestError as error:
            raise unreachable(error) from error
        return upload.summary()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _walk(self, build: Callable[[], Call[Page[T]] | None]) -> AsyncIterator[T]:
        while (call := await _built(build)) is not None:
            page = await self._send(call)
            for item in page.items:
                yield item
            build = page.following

    async def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._retries, repeatable=call.repeatable)
        while True:
            try:
                response = await self._http.request(**call.request())
            except httpx.RequestError as error:
                pause_s = attempts.after_error(error)
            else:
                answered = attempts.after_answer(response)
                if answered is None:
                    return call.result(response)
                pause_s = answered
            await anyio.sleep(pause_s)
