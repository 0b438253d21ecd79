"""Pictures at addresses, fetched by the client: the service itself calls nobody.

A fetch is bounded in bytes, time and redirects, follows http and https only, and knows nothing of the service: neither
its API key nor its connections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version

import anyio
import httpx
from anyio.from_thread import start_blocking_portal

from service.client.errors import InvalidArgument, PictureNotFetched

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_MAX_REDIRECTS = 5
# What servers call files whose kind they do not know.
_UNNAMED = ("", "application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may take: bytes of the picture, and seconds from looking up the name to the last byte."""

    max_bytes: int = 64_000_000
    total_s: float = 30.0


def is_address(picture: str) -> bool:
    """Whether a picture is named by an address rather than a path.

    Raises:
        InvalidArgument: by one that is neither http nor https.
    """
    scheme = _SCHEME.match(picture)
    if scheme is None:
        return False
    if scheme[1].lower() not in ("http", "https"):
        raise InvalidArgument(f"pictures are fetched by http and https, not {scheme[1]}")
    return True


def fetched(address: str, limits: FetchLimits | None = None) -> bytes:
    """The picture at an http or https address. Blocks; may be called with or without an event loop in this thread.

    Raises:
        InvalidArgument: it is no such address.
        PictureNotFetched: it is not there, is no picture, or takes more bytes, time or redirects than it may.
    """
    limits = limits or FetchLimits()
    # In an event loop of its own, for only there one deadline holds for everything: a name that is not resolved, a
    # server that sends a byte now and then.
    with start_blocking_portal() as portal:
        return portal.call(_fetched, address, limits)


async def _fetched(address: str, limits: FetchLimits) -> bytes:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise InvalidArgument(f"{address!r} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidArgument(f"{address!r} is no address of a picture")
    try:
        with anyio.fail_after(limits.total_s):
            return await _followed(url, limits)
    except TimeoutError:
        raise PictureNotFetched(f"{_shown(url)} takes longer than {limits.total_s:g} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PictureNotFetched(f"{_shown(url)} cannot be fetched: {error or type(error).__name__}") from error


async def _followed(url: httpx.URL, limits: FetchLimits) -> bytes:
    headers = {
        "User-Agent": f"shrinkface/{version('shrinkface')}",
        "Accept": "image/*",
        # What is packed may unpack to any size.
        "Accept-Encoding": "identity",
    }
    async with httpx.AsyncClient(headers=headers, timeout=limits.total_s) as client:
        request: httpx.Request | None = client.build_request("GET", url)
        for _ in range(_MAX_REDIRECTS + 1):
            assert request is not None
            if request.url.scheme not in ("http", "https"):
                raise PictureNotFetched(f"{_shown(url)} redirects to {request.url.scheme}, which is not followed")
            response = await client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    return await _content(response, url, limits.max_bytes)
            finally:
                await response.aclose()
            request = response.next_request
    raise PictureNotFetched(f"{_shown(url)} redirects more than {_MAX_REDIRECTS} times")


async def _content(response: httpx.Response, url: httpx.URL, max_bytes: int) -> bytes:
    if not response.is_success:
        raise PictureNotFetched(f"{_shown(url)} answers with status {response.status_code}")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type.startswith("image/") and media_type not in _UNNAMED:
        raise PictureNotFetched(f"{_shown(url)} is {media_type}, no picture")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise PictureNotFetched(f"{_shown(url)} answers compressed, which was not asked for")
    announced = response.headers.get("content-length", "")
    content = bytearray()
    if not announced.isdecimal() or int(announced) <= max_bytes:
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > max_bytes:
                break
        else:
            return bytes(content)
    raise PictureNotFetched(f"{_shown(url)} has more than {max_bytes:,} bytes")


def _shown(url: httpx.URL) -> str:
    """An address for people to read: without password and query, which may hold secrets."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))
