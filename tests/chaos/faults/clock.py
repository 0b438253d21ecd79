"""The clock of the machine, set forward and back under the service. Its monotonic clock goes on, as a real one does."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from tests.chaos.fault import Fault, NotRunnableError, Scene

_LIBRARIES = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")
_DAYS = 3
_NOTICED_WITHIN_S = 5.0


class ClockJumps(Fault):
    name = "clock-jumps"
    what = f"the clock jumps {_DAYS} days forward, then {_DAYS} days behind the truth, then back to it (libfaketime)"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def prepare(self, scene: Scene) -> None:
        library = next((path for path in _LIBRARIES if Path(path).exists()), None)
        if library is None:
            raise NotRunnableError("libfaketime is not installed (Debian's package faketime)")
        self.offset = scene.folder / "offset"
        self.offset.write_text("+0d")
        scene.service.environment |= {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def begin(self, scene: Scene) -> None:
        self.offset.write_text(f"+{_DAYS}d")
        time.sleep(self.during_s / 2)
        self.seen.append(_days_off(scene, _DAYS))
        self.offset.write_text(f"-{_DAYS}d")

    def end(self, scene: Scene) -> None:
        self.seen.append(_days_off(scene, -_DAYS))
        self.offset.write_text("+0d")
        self.seen.append(_days_off(scene, 0))

    def felt(self, scene: Scene) -> bool:
        return self.seen == [_DAYS, -_DAYS, 0]


def _days_off(scene: Scene, expected: int) -> int:
    """By how many days the service's clock is ahead of the truth, as soon as that is as expected.

    The library looks into the file once a second, and the server writes a new date into its answers now and then only,
    which under load may take it some seconds.
    """
    deadline = time.monotonic() + _NOTICED_WITHIN_S
    while True:
        told = parsedate_to_datetime(httpx.get(f"{scene.service.url}/health/live", timeout=10).headers["date"])
        days = round((told - datetime.now(UTC)).total_seconds() / 86_400)
        if days == expected or time.monotonic() > deadline:
            return days
        time.sleep(0.1)


FAULTS: tuple[type[Fault], ...] = (ClockJumps,)
