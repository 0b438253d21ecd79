"""Clients who hold on to the service: heads that never end, bodies that never end, and connections without a word."""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from contextlib import suppress

from tests.chaos.fault import Fault, NotRunnableError, Scene

_STEP_S = 0.5
_OTHER_FILES = 500


class _Holders(Fault):
    """Connections to the service that say a little now and then, and are opened anew when they are closed."""

    count: int
    first: bytes = b""
    more: bytes = b""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None
        self.opened = 0

    def prepare(self, scene: Scene) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.count + _OTHER_FILES
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise NotRunnableError(f"a process may open {hard} files, which is too few for {self.count} connections")
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    def begin(self, scene: Scene) -> None:
        self.thread = threading.Thread(target=self._hold, args=(scene.service.port,), daemon=True)
        self.thread.start()

    def end(self, scene: Scene) -> None:
        self.clean(scene)

    def felt(self, scene: Scene) -> bool:
        return self.opened >= self.count

    def clean(self, scene: Scene) -> None:
        self.ended.set()
        if self.thread is not None:
            self.thread.join(timeout=30)

    def _hold(self, port: int) -> None:
        held: set[socket.socket] = set()
        closed = selectors.DefaultSelector()
        try:
            while not self.ended.is_set():
                began = time.monotonic()
                while len(held) < self.count and not self.ended.is_set():
                    connection = self._opened(port)
                    if connection is None:
                        break
                    held.add(connection)
                    closed.register(connection, selectors.EVENT_READ)
                for connection in [*held] if self.more else ():
                    with suppress(OSError):
                        connection.send(self.more)
                # Answers are not read: whoever is answered or closed is replaced.
                for key, _ in closed.select(timeout=0):
                    closed.unregister(key.fileobj)
                    held.discard(key.fileobj)
                    key.fileobj.close()
                self.ended.wait(max(0.0, _STEP_S - (time.monotonic() - began)))
        finally:
            for connection in held:
                connection.close()
            closed.close()

    def _opened(self, port: int) -> socket.socket | None:
        # A loopback address of its own for every 20,000, since each has so many ports.
        source = f"127.0.0.{2 + self.opened // 20_000 % 200}"
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))
            connection.setblocking(False)
            connection.send(self.first)
        except OSError:
            return None
        self.opened += 1
        return connection


class Slowloris(_Holders):
    name = "slowloris"
    what = "500 clients each send a byte of a request's head every half second"
    count = 500
    first = b"POST /identify HTTP/1.1\r\nHost: a\r\nX-Slow: "
    more = b"a"
    during_s = 15.0


class IdleConnections(_Holders):
    name = "idle-connections"
    what = "10,000 connections are opened and say nothing; those that are closed are opened again"
    count = 10_000
    during_s = 12.0


class EndlessBodies(_Holders):
    name = "endless-bodies"
    what = "700 clients each send a few bytes of a body every half second, and never its end"
    # More than requests are taken on at once: until the slowest have had two seconds, newcomers are refused.
    allowed = frozenset(("overloaded",))
    count = 700
    first = (
        b"POST /identify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    more = b"8\r\n        \r\n"
    during_s = 15.0


FAULTS: tuple[type[Fault], ...] = (Slowloris, IdleConnections, EndlessBodies)
