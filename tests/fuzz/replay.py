"""Tries known inputs of a target in this process: `python -m tests.fuzz.replay decoder [FILE...]`.

Prints a line of JSON: which inputs broke a promise, took too long or too much memory, and how the memory grew while
all of them were tried again and again.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.targets import Target, inputs, target

LIMIT_S = 2.0
# Rounds after which caches and the allocator's pools are as large as they get.
_WARM_ROUNDS = 4
_STATUS = Path("/proc/self/status")


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("files", nargs="*", type=Path, help="these instead of the seeds and the kept findings")
    parser.add_argument("--rounds", type=int, default=0, help="how often all are tried again, to see memory grow")
    arguments = parser.parse_args()
    tried = target(arguments.target)
    chosen = {path.name: path.read_bytes() for path in arguments.files} or inputs(tried)
    failures = replayed(tried, chosen)
    grown_mb = growth_mb(tried, chosen, arguments.rounds) if arguments.rounds and not failures else 0.0
    print(json.dumps({"inputs": len(chosen), "failures": failures, "grown_mb": round(grown_mb, 2)}))
    sys.exit(bool(failures))


def replayed(tried: Target, chosen: Mapping[str, bytes]) -> dict[str, str]:
    """What is wrong with each input that something is wrong with."""
    # The first input pays for what is loaded when it is first needed.
    first = next(iter(chosen.values()), b"")
    _outcome(tried, first)
    failures = {}
    for name, data in chosen.items():
        wrong = _outcome(tried, data)
        if wrong is not None:
            failures[name] = wrong
    return failures


def growth_mb(tried: Target, chosen: Mapping[str, bytes], rounds: int) -> float:
    """By how much the resident memory grows over so many rounds, once it should not any more."""

    def run(count: int) -> float:
        for _ in range(count):
            for data in chosen.values():
                tried.check(data)
        gc.collect()
        return _memory_mb("VmRSS")

    before = run(_WARM_ROUNDS)
    return run(rounds) - before


def _outcome(tried: Target, data: bytes) -> str | None:
    _forget_peak()
    before = _memory_mb("VmRSS")
    # Of all threads, and not by the clock on the wall: a busy machine is nobody's fault.
    started = time.process_time()
    try:
        tried.check(data)
    except Exception:  # noqa: BLE001 - whatever it is, it is the finding
        return traceback.format_exc(limit=-6)
    took_s, grown_mb = time.process_time() - started, _memory_mb("VmHWM") - before
    if took_s > LIMIT_S:
        return f"took {took_s:.1f} s"
    if grown_mb > tried.MAX_GROWTH_MB:
        return f"took {grown_mb:.0f} MB"
    return None


def _forget_peak() -> None:
    try:
        # The kernel then counts the peak anew.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _memory_mb(kind: str) -> float:
    lines: list[Any] = [line.split() for line in _STATUS.read_text().splitlines()]
    return next(int(line[1]) / 1024 for line in lines if line[0] == f"{kind}:")


if __name__ == "__main__":
    main()
