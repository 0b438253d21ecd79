"""Servers that answer, or fail to, as they are told: over real sockets."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What a server does with one request: so many bytes of this answer, or all; then it closes or resets."""

    content: bytes = b""
    reset: bool = False
    wait_s: float = 0.0


def answer(status: int, body: Any = b"", media_type: str = "application/json", **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Some", f"Content-Type: {media_type}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Reply("\r\n".join([*lines, "Connection: close", "", ""]).encode() + content)


def problem(status: int, code: str, **headers: str) -> Reply:
    body = {
        "type": f"urn:shrinkface:problem:{code}", "title": "t", "status": status, "detail": "so it is",
        "request_id": "r-1", "more": 3,
    }  # fmt: skip
    return answer(status, body, "application/problem+json; charset=utf-8", **headers)


def chunked(*pieces: bytes, whole: bool = True) -> Reply:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return Reply(head + body + (b"0\r\n\r\n" if whole else b""), reset=not whole)


RESET = Reply(reset=True)
BUSY = problem(503, "overloaded")


@dataclass
class Server:
    """Answers the requests it gets as it was told, one after another, and the last reply from then on."""

    replies: Sequence[Reply]
    requests: list[bytes] = field(default_factory=list)
    url: str = ""

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            # A client that has given up is no failure of the server's.
            with connection, suppress(OSError):
                connection.settimeout(5)
                self.requests.append(_request(connection))
                reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
                time.sleep(reply.wait_s)
                connection.sendall(reply.content)
                if reply.reset:
                    if reply.content:
                        # What was sent is to arrive before the reset.
                        time.sleep(0.05)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def header(self, name: str) -> list[str | None]:
        found = []
        for request in self.requests:
            lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
            headers = dict(line.split(": ", 1) for line in lines)
            found.append({key.lower(): value for key, value in headers.items()}.get(name.lower()))
        return found

    def targets(self) -> list[str]:
        return [request.split(b" ", 2)[1].decode() for request in self.requests]


def _request(connection: socket.socket) -> bytes:
    """Headers and body, of a given length or in chunks; what there is of them when the client goes away."""
    content = b""
    while not _whole(content):
        piece = connection.recv(65_536)
        if not piece:
            break
        content += piece
    return content


def _whole(content: bytes) -> bool:
    head, end, body = content.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= int(lengths[0] if lengths else 0)


@contextmanager
def servers() -> Iterator[Callable[..., Server]]:
    """Starts servers that answer as they are told."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(*replies: Reply) -> Server:
        listener = socket.create_server(("127.0.0.1", 0))
        server = Server(replies, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=server.serve, args=(listener,))
        thread.start()
        listeners.append(listener)
        threads.append(thread)
        return server

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
