"""How many faces a second networks take in onnxruntime, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from model_training.bench.tables import show
from service.contract import CROP_SIDE_PX
from service.vision.runtime import onnxruntime

# Threads of a run and faces in it: a request that is alone, and a busy service.
MODES = ((1, 1), (2, 8))


@dataclass(frozen=True)
class Speed:
    """One network in one mode; `faces_per_second` is the median over rounds."""

    model: Path
    threads: int
    batch: int
    faces_per_second: float


def compare(models: Sequence[Path], *, rounds: int = 15, seconds_a_round: float = 0.4) -> list[Speed]:
    """Time networks in turns, so that whatever else the machine does is shared fairly among them.

    Args:
        models: ONNX files with one input (n, 3, 112, 112) float32.
        rounds: turns that each network gets in each mode.
        seconds_a_round: length of a turn.
    """
    found = []
    for threads, batch in MODES:
        sessions = [_session(model, threads) for model in models]
        pixels = np.random.default_rng(0).uniform(-1, 1, (batch, 3, CROP_SIDE_PX, CROP_SIDE_PX)).astype(np.float32)
        rates: list[list[float]] = [[] for _ in models]
        # The first round warms up.
        for number in range(rounds + 1):
            for session, seen in zip(sessions, rates, strict=True):
                rate = _rate(session, pixels, seconds_a_round)
                if number:
                    seen.append(rate)
        found += [
            Speed(model, threads, batch, float(np.median(seen))) for model, seen in zip(models, rates, strict=True)
        ]
    return found


def _session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _rate(session: onnxruntime.InferenceSession, pixels: np.ndarray, seconds: float) -> float:
    feed = {session.get_inputs()[0].name: pixels}
    runs, started = 0, time.perf_counter()
    while True:
        session.run(None, feed)
        runs += 1
        spent = time.perf_counter() - started
        if spent >= seconds:
            return runs * len(pixels) / spent


def run_speed(
    models: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="ONNX networks.")],
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each network gets.")] = 15,
) -> None:
    """Faces a second in onnxruntime, networks taking turns; ratios to the first."""
    table = Table("network", "MB", "threads", "batch", "faces/s", "ratio")
    found = compare(models, rounds=rounds)
    for speed in found:
        first = next(other for other in found if (other.threads, other.batch) == (speed.threads, speed.batch))
        table.add_row(
            speed.model.name, f"{speed.model.stat().st_size / 1e6:.2f}", str(speed.threads), str(speed.batch),
            f"{speed.faces_per_second:,.0f}", f"{speed.faces_per_second / first.faces_per_second:.2f}",
        )  # fmt: skip
    show(table)
