"""The HTTP server: uvicorn with bounded connections, which ends without dropping a request.

Told to end by SIGTERM, it is no longer ready and closes each connection after an answer, but for a settling time still
takes new ones: whoever distributes requests needs a moment to notice. Then it answers what is in progress and ends. A
connection that is idle may have a request under way to it, so that it is closed only when none has come for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from functools import partial
from types import FrameType
from typing import Any, cast

import structlog
import uvicorn

from service.api.admission import Admission
from service.api.app import admission_of, create_app
from service.api.connections import BoundedConnection, Connections
from service.settings import Settings

_KEEP_ALIVE_S = 10
# So long a connection has to be idle before it is closed while the server drains.
_IDLE_S = 2.0
# For answers to requests that were cancelled.
_CANCELLED_S = 1.0
_STEP_S = 0.05
# Of the process, beside connections: models, databases, mapped indexes, the cache's connections.
_OTHER_FILES = 512

_log = structlog.get_logger()


class Server(uvicorn.Server):
    """One server of the application that settings describe; `run` returns when it has ended.

    Args:
        settings: of this process.
        log_level: of uvicorn itself.
    """

    def __init__(self, settings: Settings, *, log_level: str = "warning") -> None:
        self._admission: Admission = admission_of(settings)
        self._connections = Connections(
            limit=_within_open_files(settings.max_connections), header_timeout_s=settings.header_timeout_s
        )
        self._settle_s = settings.settle_s
        self._drain_s = settings.drain_s
        self._idle_s = _IDLE_S
        super().__init__(
            uvicorn.Config(
                create_app(settings, admission=self._admission),
                host=settings.host,
                port=settings.port,
                http=cast(type[asyncio.Protocol], partial(BoundedConnection, connections=self._connections)),
                ws="none",
                log_level=log_level,
                access_log=False,
                lifespan="on",
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end. After SIGINT, which a person sends, idle connections are closed at once."""
        self._admission.draining = True
        if sig == signal.SIGINT:
            self._settle_s = self._idle_s = 0.0
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end the application, which closes the galleries."""
        loop = asyncio.get_running_loop()
        self._admission.draining = self._connections.draining = True
        told = loop.time()
        # Signals change what is asked for here.
        while loop.time() < told + self._settle_s and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(_STEP_S)
        until = loop.time() + self._drain_s
        await self._stop_listening()
        for sock in sockets or []:
            sock.close()
        while self._serving and loop.time() < until and not self.force_exit:
            self._connections.close_idle(loop.time() - self._idle_s)
            await asyncio.sleep(_STEP_S)
        await self._cut_off()
        if not self.force_exit:
            await self.lifespan.shutdown()

    @property
    def _serving(self) -> bool:
        # A request in progress may outlive its connection: what it began to store it finishes.
        return bool(self.server_state.connections or self.server_state.tasks)

    async def _stop_listening(self) -> None:
        """Close the listening sockets, and take on every client who had got through to them."""
        queues = [_duplicate(each) for server in self.servers for each in server.sockets]
        for queue in queues:
            # Whoever comes from now on is refused rather than queued.
            queue.listen(0)
        for server in self.servers:
            server.close()
        # The loop has let go of its own descriptors then, and only the duplicates keep the queues alive.
        await asyncio.sleep(_STEP_S)
        accepted: list[socket.socket] = []
        for queue in queues:
            with queue, contextlib.suppress(OSError):
                # Ends with BlockingIOError, an OSError, when the queue is empty.
                while True:
                    accepted.append(queue.accept()[0])
        for connection in accepted:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def _cut_off(self) -> None:
        """Cancel what has had its time; those who wait for it are told."""
        tasks = [*self.server_state.tasks]
        if tasks:
            _log.warning("requests were cut off", requests=len(tasks), drain_s=self._drain_s)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCELLED_S)
        self._connections.abort()
        await asyncio.sleep(0)


def _duplicate(listening: socket.socket) -> socket.socket:
    # Event loops hand out stand-ins for sockets that know no `listen`.
    copy = socket.socket(fileno=listening.dup().detach())
    copy.setblocking(False)
    return copy


def _within_open_files(connections: int) -> int:
    """As many connections as the process may have files for, once it has asked for as many as it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    possible = max(1, max(soft, wanted) - _OTHER_FILES)
    if possible < connections:
        _log.warning("fewer connections than set: the process may have so many files", connections=possible)
    return min(connections, possible)
