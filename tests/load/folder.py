"""What a data folder of a million faces costs: import, memory, starts, single enrolments, searches under change.

    python -m tests.load.folder --faces 1000000

Everything goes through `EmbeddedGallery`, as in the service. Starts are those of the whole service with the shipped
networks, from the launch of Python to the first 200 of /health/ready.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer
from tqdm import tqdm

from model_training.protocols.density import Vectors
from service.contract import read_manifest
from service.demo import jpeg, load_portraits
from service.domain import NewFace, PersonRecord
from service.gallery.embedded import EmbeddedGallery
from service.gallery.snapshot import INDEX_FOLDER
from service.settings import Settings

# Of the shipped student, so that the service opens the folder too.
_MANIFEST = read_manifest(Settings().embedder_path)
_SPACE = str(_MANIFEST.space_id)
_RECORDS_AT_ONCE = 4_096


def directions(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    """(count, dimension) float32, unit length, every direction as likely."""
    drawn = rng.standard_normal((count, dimension), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def near(rng: np.random.Generator, rows: Vectors, cosine: float) -> Vectors:
    """Unit vectors at about this cosine to the rows."""
    moved = cosine * rows + (1 - cosine**2) ** 0.5 * directions(rng, *rows.shape)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


def resident_mib(process: int) -> float:
    """Memory of a process that is in RAM, mapped files included, MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def opened(folder: Path, dimension: int) -> EmbeddedGallery:
    """The folder's gallery."""
    return EmbeddedGallery.open(folder, space_id=_SPACE, dimension=dimension)


def percentiles(seconds: list[float]) -> str:
    """p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


async def import_all(folder: Path, faces: int, dimension: int) -> float:
    """Import drawn faces, one a person; seconds from the first record to the last acknowledgement."""
    rng = np.random.default_rng(0)
    gallery = opened(folder, dimension)
    spent = 0.0
    for start in tqdm(range(0, faces, _RECORDS_AT_ONCE), desc="importing", leave=False):
        rows = directions(rng, min(_RECORDS_AT_ONCE, faces - start), dimension)
        records = [
            PersonRecord(f"p{start + i}", None, {}, (NewFace(f"f-{start + i:032x}", row, None),))
            for i, row in enumerate(rows)
        ]
        started = time.perf_counter()
        outcomes = await gallery.import_persons("g", records)
        spent += time.perf_counter() - started
        assert all(outcome.added == 1 for outcome in outcomes)
    await gallery.close()
    return spent


async def enrol_singly(gallery: EmbeddedGallery, faces: int, threads: int, dimension: int) -> float:
    """Enrol from several threads, each of which waits for every acknowledgement; enrolments a second."""
    rows = directions(np.random.default_rng(1), faces, dimension)
    loop = asyncio.get_running_loop()

    def enrol(number: int) -> None:
        face = NewFace(f"s-{number:032x}", rows[number], None)
        asyncio.run_coroutine_threadsafe(gallery.enrol("g", f"s{number}", None, {}, [face]), loop).result()

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        await asyncio.to_thread(lambda: list(pool.map(enrol, range(faces))))
    return faces / (time.perf_counter() - started)


class Steady:
    """Runs a coroutine function at a fixed rate until the end; `lag_s` says how far it fell behind."""

    def __init__(self, rate: float) -> None:
        self.rate, self.done, self.lag_s = rate, 0, 0.0

    async def run(self, call, seconds: float) -> None:
        """Start a call every 1 / rate seconds, whether or not those before have ended."""
        started, tasks = time.perf_counter(), set()
        while (now := time.perf_counter()) - started < seconds:
            due = started + self.done / self.rate
            if due > now:
                await asyncio.sleep(due - now)
                continue
            self.lag_s = max(self.lag_s, now - due)
            tasks.add(asyncio.create_task(call(self.done)))
            self.done += 1
        await asyncio.gather(*tasks)


async def search_under_change(gallery: EmbeddedGallery, seconds: float, dimension: int) -> tuple[list[float], str]:
    """Search one probe after the other while 500 faces a second come and 50 persons go; search times in seconds."""
    rng = np.random.default_rng(2)
    rows = directions(rng, int(500 * seconds) + 1_000, dimension)
    probes = near(rng, rows, 0.5)
    enrolments, deletions = Steady(500), Steady(50)
    spent: list[float] = []
    stop = threading.Event()

    async def enrol(number: int) -> None:
        await gallery.enrol("g", f"c{number}", None, {}, [NewFace(f"c-{number:032x}", rows[number], None)])

    async def forget(number: int) -> None:
        await gallery.forget_person("g", f"p{number * 7}")

    async def search() -> None:
        while not stop.is_set():
            started = time.perf_counter()
            await gallery.search("g", probes[len(spent) % len(probes)][np.newaxis], 1)
            spent.append(time.perf_counter() - started)

    searching = asyncio.create_task(search())
    await asyncio.gather(enrolments.run(enrol, seconds), deletions.run(forget, seconds))
    stop.set()
    await searching
    return spent, f"{enrolments.done / seconds:.0f} enrolments/s and {deletions.done / seconds:.0f} deletions/s"


def served(folder: Path) -> tuple[float, float, float]:
    """Run the service on the folder: seconds from launch to ready, and MiB resident then and after 300 requests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--data-dir", str(folder)]
    url, launched = f"http://127.0.0.1:{port}", time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, "the service ended"
            try:
                if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.02)
        ready_s = time.perf_counter() - launched
        at_start = resident_mib(process.pid)
        pictures = [jpeg(portrait.pixels) for portrait in load_portraits()]
        with httpx.Client(timeout=30) as client:
            for number in range(300):
                answer = client.post(
                    f"{url}/identify",
                    files={"image": pictures[number % 2]},
                    data={"gallery": "g", "exact": number % 9 == 0},
                )
                assert answer.status_code == 200, answer.text
        return ready_s, at_start, resident_mib(process.pid)
    finally:
        process.terminate()
        process.wait()


def main(
    faces: Annotated[int, typer.Option(min=1_000)] = 1_000_000,
    dimension: Annotated[int, typer.Option(min=64, max=1024)] = 128,
    seconds: Annotated[float, typer.Option(help="Of searches under change.")] = 30.0,
    parent: Annotated[
        Path | None, typer.Option(help="Where the folder is made; by default the temporary folder.")
    ] = None,
) -> None:
    """Fill a folder and measure it."""
    folder = Path(tempfile.mkdtemp(prefix="shrinkface-load-", dir=parent))
    try:
        asyncio.run(_measure(folder, faces, dimension, seconds))
    finally:
        shutil.rmtree(folder)


async def _measure(folder: Path, faces: int, dimension: int, seconds: float) -> None:
    spent = await import_all(folder, faces, dimension)
    typer.echo(f"{faces} faces of {dimension} values, one a person")
    typer.echo(f"bulk import, committed {_RECORDS_AT_ONCE} at a time: {faces / spent:.0f} faces/s")
    if dimension == _MANIFEST.dimension:
        for name in ("a snapshot", "SQLite alone"):
            if name == "SQLite alone":
                shutil.rmtree(folder / INDEX_FOLDER)
            ready_s, at_start, used = await asyncio.to_thread(served, folder)
            typer.echo(
                f"service ready from {name}: {ready_s:.1f} s, {at_start:.0f} MiB resident, "
                f"{used:.0f} MiB after 300 requests, every ninth with exact=true"
            )
    gallery = opened(folder, dimension)
    rng = np.random.default_rng(4)
    spent_s: list[float] = []
    for probe in directions(rng, 1_000, dimension):
        begun = time.perf_counter()
        await gallery.search("g", probe[np.newaxis], 1)
        spent_s.append(time.perf_counter() - begun)
    typer.echo(f"one search at a time, through the gallery: {percentiles(spent_s)}")
    rate = await enrol_singly(gallery, 20_000, 32, dimension)
    typer.echo(f"single enrolments from 32 threads: {rate:.0f}/s, each on disk when acknowledged")
    changed, load = await search_under_change(gallery, seconds, dimension)
    typer.echo(f"searches beside {load}: {percentiles(changed)}, {len(changed) / seconds:.0f}/s")
    await gallery.close()


if __name__ == "__main__":
    typer.run(main)
