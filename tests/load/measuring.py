"""One structure, one gallery: build it, search it, say what it took. To be run in a process of its own."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.load import machine
from tests.load.drawing import Rows, source
from tests.load.structures import STRUCTURES, Structure, make
from tests.load.truth import Agreement, Truth, agreement, find

GOOD_AGREEMENT = 0.999
_WARM_UP = 20
_FEWEST_TIMED = 50
_PROBES_A_BATCH = 1_000
# A process that had a core for less of its time than this waited for others, or the machine stood still. Building
# may wait for the disk, but seconds are needed before a share of them says anything.
_BUSY_BUILDING = 0.7
_BUSY_SEARCHING = 0.95
_TELLING_S = 1.0


class Job(NamedTuple):
    """What is measured.

    Attributes:
        structure: a key of `STRUCTURES`.
        data: one of `drawing.DATA`.
        dimension, size: of the gallery.
        probes: for the figures.
        tuning_probes: other ones, by which the effort of a search is chosen: of 1,000 so few may disagree that an
            effort was taken which misses 9 of 3,000.
        threads: for building and for searches on all cores.
        seconds: for the timing of single probes, and again for each way of using all cores.
        seed: of the data.
    """

    structure: str
    data: str
    dimension: int
    size: int
    probes: int = 2_000
    tuning_probes: int = 4_000
    threads: int = 1
    seconds: float = 30.0
    seed: int = 0

    def rows(self) -> Rows:
        """The gallery."""
        return Rows(source(self.data, self.dimension), self.size, seed=self.seed)

    def truth_name(self) -> str:
        """File name of the exact answers, the same for all structures."""
        probes = self.probes + self.tuning_probes
        return f"{self.data}-{self.dimension}-{self.size}-{probes}-{self.seed}.npz"


def disturbed(record: dict[str, Any]) -> list[str]:
    """Which figures of a record, `build` or `search`, something else on the machine has spoilt."""
    if record["status"] != "ok":
        return []
    figures = []
    if record["build_s"] > _TELLING_S and record["build_busy"] < _BUSY_BUILDING:
        figures.append("build")
    if record["single_busy"] < _BUSY_SEARCHING:
        figures.append("search")
    return figures


def prepare(job: Job, folder: Path) -> None:
    """Write the probes and their exact answers."""
    find(job.rows(), job.probes + job.tuning_probes).save(folder / job.truth_name())


def measure(job: Job, folder: Path) -> dict[str, Any]:
    """Build and search.

    Args:
        job: what to measure.
        folder: where `prepare` wrote the exact answers.

    Returns:
        A record that fits JSON; `status` is `ok` or `not installed`.
    """
    entry = STRUCTURES[job.structure]
    versions = {package: machine.version(package) for package in entry.needs}
    record: dict[str, Any] = {**job._asdict(), "versions": versions}
    try:
        structure = make(job.structure)
    except ImportError as error:
        return record | {"status": "not installed", "detail": str(error)}
    rows = job.rows()
    truth = Truth.load(folder / job.truth_name())
    try:
        record |= {"described": source(job.data, job.dimension).described, "load_before": round(os.getloadavg()[0], 2)}
        record |= _built(structure, rows, job)
        tuning, asked = truth.part(job.probes, None), truth.part(0, job.probes)
        record |= _tuned(structure, rows, tuning, job.threads)
        record |= _single(structure, asked, job.seconds)
        record |= _lone(structure, asked, job)
        record |= _all_cores(structure, asked, job)
        record |= _agreeing(structure, rows, asked, job.threads)
    finally:
        structure.close()
    return record | {"status": "ok"}


def _built(structure: Structure, rows: Rows, job: Job) -> dict[str, Any]:
    # Libraries take memory at their first product, which is none of the structure's.
    rows.sample(1)
    before = machine.resident_mib()
    machine.forget_peak()
    base_mib = machine.peak_mib()
    rows.drawn_s = 0.0
    started, busy = time.perf_counter(), time.process_time()
    structure.build(rows, job.threads)
    elapsed_s, busy_s = time.perf_counter() - started, time.process_time() - busy
    # Taken now: the rows go on counting when more are drawn.
    build_s = elapsed_s - rows.drawn_s
    peak_mib = machine.peak_mib()
    structure.search(rows.sample(_WARM_UP), 1, job.threads)
    after = machine.resident_mib()
    return {
        "build_s": build_s,
        "build_busy": busy_s / elapsed_s,
        "memory_mib": after["anonymous"] - before["anonymous"],
        "file_mib": after["file"] - before["file"],
        "peak_mib": peak_mib - base_mib,
    }


def _tuned(structure: Structure, rows: Rows, tuning: Truth, threads: int) -> dict[str, Any]:
    """Choose the least effort that agrees well enough, or the most there is."""
    tried = {}
    for effort in structure.efforts:
        structure.set_effort(effort)
        tried[effort] = _compared(structure, rows, tuning, threads).share
        if tried[effort] >= GOOD_AGREEMENT:
            break
    return {"effort": effort, "efforts_tried": tried} if tried else {"effort": None}


def _single(structure: Structure, asked: Truth, seconds: float) -> dict[str, Any]:
    with machine.one_core():
        began, busy = time.perf_counter(), time.process_time()
        p50, p99, timed = _one_by_one(structure, asked, seconds, 1)
        single_busy = (time.process_time() - busy) / (time.perf_counter() - began)
    return {"p50_ms": p50, "p99_ms": p99, "timed": timed, "single_busy": single_busy}


def _lone(structure: Structure, asked: Truth, job: Job) -> dict[str, Any]:
    """One probe at a time, all cores at its service: what a quiet machine's users wait for."""
    p50, p99, _ = _one_by_one(structure, asked, job.seconds, job.threads)
    return {"lone_p50_ms": p50, "lone_p99_ms": p99}


def _one_by_one(structure: Structure, asked: Truth, seconds: float, threads: int) -> tuple[float, float, int]:
    """Median and 99th percentile of a probe's milliseconds, and how many were timed."""
    for probe in asked.probes[:_WARM_UP]:
        structure.search(probe[np.newaxis], 1, threads)
    spent_ms = []
    deadline = time.perf_counter() + seconds
    for probe in asked.probes:
        started = time.perf_counter()
        structure.search(probe[np.newaxis], 1, threads)
        ended = time.perf_counter()
        spent_ms.append((ended - started) * 1e3)
        if ended > deadline and len(spent_ms) >= _FEWEST_TIMED:
            break
    p50, p99 = np.percentile(spent_ms, [50, 99])
    return float(p50), float(p99), len(spent_ms)


def _all_cores(structure: Structure, asked: Truth, job: Job) -> dict[str, Any]:
    """Probes a second in both ways to use all cores: libraries differ in which one suits them."""

    def alone(probe: NDArray[np.float32]) -> None:
        structure.search(probe[np.newaxis], 1, 1)

    def together(batch: NDArray[np.float32]) -> None:
        structure.search(batch, 1, job.threads)

    with ThreadPoolExecutor(job.threads) as pool:
        batches = [asked.probes[start : start + _PROBES_A_BATCH] for start in range(0, job.probes, _PROBES_A_BATCH)]
        few = np.array_split(asked.probes, max(1, job.probes // (16 * job.threads)))
        return {
            "batch_qps": _rate(batches, job.seconds, together),
            "threads_qps": _rate(few, job.seconds, lambda some: list(pool.map(alone, some))),
        }


def _rate(parts: list[NDArray[np.float32]], seconds: float, ask: Any) -> float:
    """Probes a second over rounds of all parts, for a tenth of the time at least and all of it at most."""
    answered, started = 0, time.perf_counter()
    while True:
        for part in parts:
            ask(part)
            answered += len(part)
            spent = time.perf_counter() - started
            if spent > seconds:
                return answered / spent
        if spent > seconds / 10:
            return answered / spent


def _agreeing(structure: Structure, rows: Rows, asked: Truth, threads: int) -> dict[str, Any]:
    compared = _compared(structure, rows, asked, threads)
    return {"agreement": compared.share, "score_error": compared.score_error}


def _compared(structure: Structure, rows: Rows, truth: Truth, threads: int) -> Agreement:
    found, scores = structure.search(truth.probes, 1, threads)
    return agreement(rows, truth, found[:, 0], scores[:, 0])
