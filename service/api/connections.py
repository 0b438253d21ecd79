"""One HTTP connection, within bounds of time and size, and all of them, within a bound of number.

uvicorn bounds neither how long a request's head may take nor how large it may be. Here a connection that has no
request in progress is one that others may displace: the service stays reachable however many are held open.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.problems import problem_response
from service.telemetry import CONNECTIONS, TURNED_AWAY

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
_MAX_PIPELINED = 16
# So long an answer may find its way when the connection is closed before all of the request was read.
_LINGER_S = 1.0
# So long a client may let an answer lie, which does not fit into what the system buffers.
_UNREAD_S = 30.0


class Connections:
    """All connections of a server. Belongs to one event loop.

    Args:
        limit: how many may be open; beyond it idle ones are closed, those first that never sent a request.
        header_timeout_s: how long the head of a request may take to arrive, from the connection or its first byte.

    Attributes:
        draining: every answer is the last one of its connection.
    """

    def __init__(self, *, limit: int, header_timeout_s: float) -> None:
        self.header_timeout_s = header_timeout_s
        self.draining = False
        self._limit = limit
        self._open: set[BoundedConnection] = set()
        # Without a request in progress, each by the time since when: before their first one, and after an answer.
        self._new: dict[BoundedConnection, None] = {}
        self._kept: dict[BoundedConnection, None] = {}

    def admit(self, connection: BoundedConnection) -> bool:
        """Count a new connection; False where all others are busy."""
        if len(self._open) >= self._limit:
            oldest = next(iter(self._new), None) or next(iter(self._kept), None)
            if oldest is None:
                return False
            TURNED_AWAY.labels("idle").inc()
            oldest.displace()
        self._open.add(connection)
        self._new[connection] = None
        CONNECTIONS.set(len(self._open))
        return True

    def busy(self, connection: BoundedConnection) -> None:
        """A request's head has arrived whole."""
        self._new.pop(connection, None)
        self._kept.pop(connection, None)

    def idle(self, connection: BoundedConnection) -> None:
        """All requests have been answered."""
        if connection in self._open:
            self._kept[connection] = None

    def forget(self, connection: BoundedConnection) -> None:
        """It is closed, or as good as that."""
        self.busy(connection)
        self._open.discard(connection)
        CONNECTIONS.set(len(self._open))

    def close_idle(self, before: float) -> None:
        """Close those that have been idle since before a time of the event loop, and of whom no request has begun."""
        for connection in [*self._new, *self._kept]:
            if connection.idle_since <= before and not connection.begun:
                connection.end()

    def abort(self) -> None:
        """Close all at once, whatever they are at."""
        for connection in [*self._open]:
            connection.displace()


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, parsed by llhttp, with the bounds of `Connections`.

    Attributes:
        begun: some of a request's head has arrived.
        idle_since: time of the event loop when it was opened or the last request answered.
    """

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._all = connections
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        # Between the end of a request's head and the end of its body.
        self._inside = False
        # Whether the latest bytes said anything, and how many did not: of a head, a trailer, an extension of a chunk.
        self._said = False
        self._unsaid = 0
        self._too_large = False
        # Nothing more is read.
        self._ended = False
        self.begun = False
        self.idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        if self._all.admit(self):
            self._expect_head()
            return
        TURNED_AWAY.labels("connections").inc()
        self._answer("overloaded", "all connections that are taken on at once are busy", retry_after_s=1)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whom ever."""
        self._ended = True
        self._all.forget(self)
        for timer in (self._timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client, any number of them."""
        if self._ended:
            return
        self._said = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Answered as the plain request that it is besides.
            return
        except httptools.HttpParserError:
            if self._too_large:
                self._refuse_head()
            else:
                TURNED_AWAY.labels("malformed").inc()
                self._refuse("request-malformed", "the bytes are no HTTP/1.1 request")
            return
        self._unsaid = 0 if self._said else self._unsaid + len(data)
        if self._unsaid > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """The first byte of a request's head."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._too_large = True
            raise ValueError("too many requests ahead of their answers")
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self.begun = True
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which nobody asked for and which is dropped."""
        if self._inside:
            return
        if len(self.headers) >= MAX_HEADERS:
            self._too_large = True
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has arrived, and the request is handed on."""
        earlier = self.cycle
        super().on_headers_complete()
        self._said = self._inside = True
        self.begun = False
        self._stop_timer()
        self._all.busy(self)
        if self._all.draining:
            # The last of those that are queued closes the connection.
            self.cycle.keep_alive = False
            if earlier is not None and not earlier.response_started:
                earlier.keep_alive = True

    def on_body(self, body: bytes) -> None:
        """Some of a body."""
        self._said = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._said = True
        self._inside = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The whole answer has been handed to the transport.

        Where some of the body has not been read, it is from now on read and dropped, for as long as the connection
        would be kept open: who still sends gets to read the answer.
        """
        super().on_response_complete()
        if self.begun:
            self._unset_keepalive_if_required()
        if self.cycle.response_complete and not self.pipeline and not self.transport.is_closing():
            self.idle_since = self.loop.time()
            self._all.idle(self)
        elif self.transport.is_closing():
            self._close_in_time()

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(_UNREAD_S, self._unread)

    def resume_writing(self) -> None:
        """It has taken enough of it."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came after an answer."""
        self.end()

    def shutdown(self) -> None:
        """Close after the answers that are due; at once if there are none."""
        if self.cycle is None or self.cycle.response_complete:
            self.end()
        else:
            self.cycle.keep_alive = False

    def end(self) -> None:
        """Close once all that was written has been sent, or has had its time."""
        if not self.transport.is_closing():
            self.transport.close()
            self._close_in_time()

    def displace(self) -> None:
        """Close at once."""
        self._ended = True
        self._all.forget(self)
        self.transport.abort()

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._all.header_timeout_s, self._head_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_late(self) -> None:
        self._timer = None
        if not self.begun:
            self.end()
            return
        TURNED_AWAY.labels("slow-head").inc()
        self._refuse(
            "headers-timeout", f"the head of the request did not arrive within {self._all.header_timeout_s:g} s"
        )

    def _refuse_head(self) -> None:
        TURNED_AWAY.labels("large-head").inc()
        self._refuse(
            "headers-too-large",
            f"the head of a request may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers",
            limit_bytes=MAX_HEAD_BYTES,
        )

    def _refuse(self, code: str, detail: str, **details: Any) -> None:
        """Answer with a problem and close; after the answers that are due to earlier requests, only close."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self._answer(code, detail, **details)
        elif self._inside and not cycle.response_started and not self.pipeline:
            # It was the body of the request in progress that went wrong: nobody else will answer it.
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer(code, detail, **details)
        elif self._inside:
            self.end()
        else:
            self._ended = True
            self._stop_timer()
            cycle.keep_alive = False

    def _answer(self, code: str, detail: str, **details: Any) -> None:
        """Write a problem as the last of this connection."""
        self._ended = True
        self._stop_timer()
        self._all.forget(self)
        request_id = uuid.uuid4().hex
        response = problem_response(request_id, code, detail, details)
        headers = [*self.server_state.default_headers, *response.raw_headers]
        headers += [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)]))
        if self.transport.can_write_eof():
            # Closed later: with input unread, the system would throw the answer away.
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _unread(self) -> None:
        TURNED_AWAY.labels("slow-reader").inc()
        self.displace()

    def _close_in_time(self) -> None:
        """A transport closes when all has been sent, which a client that reads nothing would put off for ever."""
        if self.transport.get_write_buffer_size() > 0 and self._unread_timer is None:
            self._unread_timer = self.loop.call_later(_UNREAD_S, self._unread)
