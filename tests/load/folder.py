"""What a data folder of a million faces costs: import, memory, starts, single enrolments, searches under change.

    python -m tests.load.folder --faces 1000000

Everything goes through `EmbeddedGallery`, as in the service. Each start is a process of its own, so that its memory and
its time are its own; the time counts from the launch of Python.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from service.domain import NewFace, PersonRecord
from service.gallery.embedded import EmbeddedGallery
from service.gallery.snapshot import INDEX_FOLDER
from tests.load.gallery import directions, near, resident_mib

_SPACE = "sf1-load"
_RECORDS_AT_ONCE = 4_096

app = typer.Typer(help="Measure a data folder.")


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


@app.command()
def start(folder: Path, dimension: int, started: float) -> None:
    """One start: open, search, and print a line of JSON."""

    async def run() -> None:
        gallery = opened(folder, dimension)
        probe = directions(np.random.default_rng(3), 1, dimension)
        await gallery.search("g", probe, 1)
        typer.echo(json.dumps({"ready_s": time.time() - started, "rss_mib": resident_mib()}))
        await gallery.close()

    asyncio.run(run())


def started(folder: Path, dimension: int) -> dict[str, float]:
    """What `start` prints, run in a process of its own."""
    command = [sys.executable, "-m", "tests.load.folder", "start", str(folder), str(dimension), repr(time.time())]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


@app.command()
def measure(
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
    for name in ("from the snapshot", "from SQLite alone"):
        if name == "from SQLite alone":
            shutil.rmtree(folder / INDEX_FOLDER)
        seen = started(folder, dimension)
        typer.echo(f"gallery ready {name}: {seen['ready_s']:.1f} s, {seen['rss_mib']:.0f} MiB resident")
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
    app()
