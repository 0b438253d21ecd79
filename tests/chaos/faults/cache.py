"""Redis, the cache of embeddings: dead, frozen, or answering what nobody asked."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress

import httpx

from tests.chaos.fault import Fault, NotRunnableError, Scene
from tests.redis_fixture import free_port

_GARBAGE = b"$5\r\n\x00\xff\xfe\r\n*3\r\n:notanumber\r\n+\r\n-\r\n" * 50
_START_S = 10.0


class _WithRedis(Fault):
    """Requests are to go on as if nothing had happened."""

    def __init__(self) -> None:
        self.port = free_port()
        self.server: subprocess.Popen[bytes] | None = None

    def prepare(self, scene: Scene) -> None:
        if shutil.which("redis-server") is None:
            raise NotRunnableError("redis-server is not installed")
        self.start(scene)
        scene.service.environment["SHRINKFACE_REDIS_URL"] = f"redis://127.0.0.1:{self.port}/0"

    def start(self, scene: Scene) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.server = subprocess.Popen(
            ["redis-server", *options, "--dir", str(scene.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def kill(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.server = None

    def felt(self, scene: Scene) -> bool:
        samples = httpx.get(f"{scene.service.url}/metrics", timeout=10).text.splitlines()
        given_up, hits = (
            next(float(line.split()[1]) for line in samples if line.startswith(name))
            for name in ("shrinkface_cache_trouble_total", 'shrinkface_cache_lookups_total{outcome="hit"}')
        )
        return given_up > 0 and hits > 0

    def clean(self, scene: Scene) -> None:
        self.kill()


class RedisKilled(_WithRedis):
    name = "redis-killed"
    what = "Redis gets SIGKILL; later it is started again, empty"

    def begin(self, scene: Scene) -> None:
        self.kill()

    def end(self, scene: Scene) -> None:
        self.start(scene)


class RedisFrozen(_WithRedis):
    name = "redis-frozen"
    what = "Redis gets SIGSTOP: it keeps its connections and answers nothing; later SIGCONT"

    def begin(self, scene: Scene) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGSTOP)

    def end(self, scene: Scene) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGCONT)


class RedisGarbage(_WithRedis):
    name = "redis-garbage"
    what = "another server at Redis's port answers everything with bytes that mean nothing"

    def __init__(self) -> None:
        super().__init__()
        self.listener: socket.socket | None = None

    def begin(self, scene: Scene) -> None:
        self.kill()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self.listener,), daemon=True).start()

    def end(self, scene: Scene) -> None:
        self._close()
        self.start(scene)

    def clean(self, scene: Scene) -> None:
        self._close()
        super().clean(scene)

    def _close(self) -> None:
        if self.listener is not None:
            # Closing alone would leave the thread in `accept`.
            with suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while connection.recv(4096):
            connection.sendall(_GARBAGE)


FAULTS: tuple[type[Fault], ...] = (RedisKilled, RedisFrozen, RedisGarbage)
