"""A target with known faults, to see that a campaign finds each kind and keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable

NAME = "planted"
MAX_BYTES = 64
MAX_GROWTH_MB = 32


def check(data: bytes) -> None:
    """Fails, hangs or swells on inputs that begin so."""
    if data[:1] == b"F" and data[1:2] == b"A":
        raise ValueError("planted")
    if data[:1] == b"H" and data[1:2] == b"A":
        started = time.process_time()
        while time.process_time() < started + 3:
            pass
    if data[:1] == b"S" and data[1:2] == b"W":
        bytearray(b"x") * 450_000_000


def seeds() -> dict[str, bytes]:
    """One that does nothing."""
    return {"nothing": b"F_H_S_"}


def tokens() -> list[bytes]:
    """What the faults look for."""
    return [b"FA", b"HA", b"SW"]


def mutated(data: bytes, max_size: int, seed: int, mutate: Callable[[bytes, int], bytes]) -> bytes:
    """As libFuzzer would."""
    return mutate(data, max_size)
