"""The service as a process of its own, that may be killed and started again at the same address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.redis_fixture import free_port

START_S = 60.0
_STOP_S = 60.0


@dataclass
class ServiceProcess:
    """`shrinkface serve` on a data folder.

    Attributes:
        log: where its standard output and error go.
        environment: beside that of this process.
    """

    data_dir: Path
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "service.cli",
                    "serve",
                    "--port",
                    str(self.port),
                    "--data-dir",
                    str(self.data_dir),
                ],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        if wait and not self.ready_within(START_S):
            raise RuntimeError(f"the service did not become ready; its log ends:\n{self.log.read_text()[-2000:]}")

    def ready_within(self, seconds: float) -> bool:
        """Whether it is ready before it ends and the time is over."""
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        return False

    def kill(self) -> None:
        """SIGKILL; nothing if it does not run."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def terminate(self) -> None:
        """SIGTERM, and wait until it has ended."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=_STOP_S)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command of the service on the same data folder."""
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments, "--data-dir", str(self.data_dir)],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
