"""What surrounds every request: an id, a metric, a log line, and a last net for what nobody caught."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from urllib.parse import quote

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.telemetry import REQUEST_SECONDS, REQUESTS

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{1,64}$")

_ASCII = bytes(range(128))

_log = structlog.get_logger()


class RequestContext:
    """ASGI middleware: request id in state, logs and `X-Request-ID`; metrics by route; 500 as a problem.

    Bytes of a query that no URL may have are percent-encoded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not scope["query_string"].isascii():
            # A server lets such bytes pass, the framework takes them for UTF-8 and fails where they are not.
            scope["query_string"] = quote(scope["query_string"], safe=_ASCII).encode()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, tagged)
            except asyncio.CancelledError:
                # The server ends and could wait no longer.
                if status == 0:
                    answer = problem_response(request_id, "not-ready", "the service ended before the request was done")
                    await answer(scope, receive, tagged)
                raise
            except Exception:  # noqa: BLE001 - the last net: the caller gets a problem, the log the traceback
                _log.exception("request failed")
                if status == 0:
                    answer = problem_response(request_id, "internal-error", "the failure has been logged")
                    await answer(scope, receive, tagged)
            finally:
                seconds = time.perf_counter() - started
                # The template, not the path: a label for every person id would grow without bound.
                route = getattr(scope.get("route"), "path", "unmatched")
                REQUESTS.labels(scope["method"] if route != "unmatched" else "any", route, str(status)).inc()
                REQUEST_SECONDS.labels(route).observe(seconds)
                _log.info("request", method=scope["method"], route=route, status=status, ms=round(seconds * 1e3, 1))


def _request_id(scope: Scope) -> str:
    """The client's id where it is harmless, or a fresh one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex
