"""The processes of a load test: the service, Redis, and a look at what the service uses."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

_START_S = 180.0
_STOP_S = 60.0
_EVERY_S = 0.5


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    answers: Callable[[], bool],
    environment: Mapping[str, str] = {},
    *,
    start_s: float = _START_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process from when it answers until the end, when it is told to end (SIGTERM) and, too slow, killed.

    Raises:
        RuntimeError: it ended before it answered, or did not answer within `start_s`; the end of its log says why.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env={**os.environ, **environment}
        )
    try:
        until = time.monotonic() + start_s
        while not answers():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{' '.join(command[:4])} did not start:\n{log.read_text()[-2_000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers_http(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _answers_redis(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis server that keeps nothing on disk; its URL.

    Raises:
        RuntimeError: redis-server is not installed or does not start.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        raise RuntimeError("this scenario needs redis-server, which is not installed")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running(command, folder / "redis.log", lambda: _answers_redis(port)):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def our_service(data_dir: Path, log: Path, environment: Mapping[str, str] = {}) -> Iterator[tuple[int, int]]:
    """`shrinkface serve` as anybody runs it; its port and process id."""
    port = free_port()
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--data-dir", str(data_dir)]
    ready = f"http://127.0.0.1:{port}/health/ready"
    with running(command, log, lambda: answers_http(ready), environment) as process:
        yield port, process.pid


@dataclass
class Usage:
    """What a process and its children used: a row each half second.

    Attributes:
        at: `time.time`. cpu_s: of user and system since their start. resident, anonymous: bytes of memory in RAM, with
            and without pages of files, which the system may drop. machine_s: processor time of everything that ran.
    """

    at: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    machine_s: list[float] = field(default_factory=list)


@contextmanager
def watched(process_id: int) -> Iterator[Usage]:
    """Note what a process uses while the block runs."""
    usage, stop = Usage(), threading.Event()
    parent = psutil.Process(process_id)

    def look() -> None:
        while not stop.wait(_EVERY_S):
            try:
                family = [parent, *parent.children(recursive=True)]
                memory = [each.memory_info() for each in family]
                spent = [each.cpu_times() for each in family]
            except psutil.NoSuchProcess:
                continue
            every = psutil.cpu_times()
            usage.at.append(time.time())
            usage.machine_s.append(sum(every) - every.idle - getattr(every, "iowait", 0.0))
            usage.cpu_s.append(sum(each.user + each.system for each in spent))
            usage.resident.append(sum(each.rss for each in memory))
            # Where the system tells no pages of files, all of them count.
            usage.anonymous.append(sum(each.rss - getattr(each, "shared", 0) for each in memory))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield usage
    finally:
        stop.set()
        watcher.join()
