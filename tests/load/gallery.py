"""How fast one process searches a large gallery, and how often it agrees with an exact search.

    python -m tests.load.gallery --faces 1000000 --dimension 128

Faces are unit vectors: `isotropic` ones, with probes at a given cosine to their mates, are the hard case, since nobody
is near anybody; `clustered` ones come several a person, closer to how a network's embeddings lie.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import faiss
import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from service.gallery.index import FaceIndex, search_on_one_core

Vectors = NDArray[np.float32]
_DRAWN_AT_ONCE = 65_536
_FACES_A_PERSON = 4


def directions(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    """(count, dimension) float32, unit length, every direction as likely."""
    rows = np.empty((count, dimension), dtype=np.float32)
    for start in range(0, count, _DRAWN_AT_ONCE):
        drawn = rng.standard_normal((min(_DRAWN_AT_ONCE, count - start), dimension), dtype=np.float32)
        rows[start : start + len(drawn)] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return rows


def near(rng: np.random.Generator, rows: Vectors, cosine: float) -> Vectors:
    """Unit vectors at about this cosine to the rows."""
    moved = cosine * rows + (1 - cosine**2) ** 0.5 * directions(rng, *rows.shape)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


def resident_mib(process: int | str = "self") -> float:
    """Memory of a process that is in RAM, mapped files included, MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(index: FaceIndex, probes: Vectors, *, exact: bool) -> tuple[list[str], NDArray[np.float64]]:
    """The first face of every probe, and milliseconds of every single search."""
    first, spent = [], []
    for probe in tqdm(probes, desc="exact" if exact else "sifted", leave=False):
        started = time.perf_counter()
        (hits,), _ = index.search(probe[np.newaxis], 1, exact=exact)
        spent.append((time.perf_counter() - started) * 1e3)
        first.append(hits[0].face_id)
    return first, np.array(spent)


def main(
    faces: Annotated[int, typer.Option(min=20_001)] = 1_000_000,
    dimension: Annotated[int, typer.Option(min=64, max=1024)] = 128,
    data: Annotated[Literal["isotropic", "clustered"], typer.Option()] = "isotropic",
    cosine: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of a probe to its mate.")] = 0.5,
    probes: Annotated[int, typer.Option(min=10)] = 2_000,
    exact_probes: Annotated[int, typer.Option(min=10, help="Single exact searches that are timed.")] = 200,
) -> None:
    """Fill an index, search it one probe at a time on one core, and print what was measured."""
    rng = np.random.default_rng(0)
    persons = np.arange(faces) if data == "isotropic" else np.arange(faces) // _FACES_A_PERSON
    rows = directions(rng, faces, dimension)
    if data == "clustered":
        rows = near(rng, directions(rng, int(persons[-1]) + 1, dimension)[persons], 0.7)
    queries = near(rng, rows[rng.integers(0, faces, probes)], cosine)
    base_mib = resident_mib()
    index = FaceIndex(dimension, capacity=faces)
    started = time.perf_counter()
    for start in tqdm(range(0, faces, _DRAWN_AT_ONCE), desc="adding", leave=False):
        keys = np.arange(start, min(start + _DRAWN_AT_ONCE, faces))
        index.add(keys, persons[keys], [f"f-{key}" for key in keys.tolist()], rows[keys])
    added_s = time.perf_counter() - started
    index.tend()
    fitted_s = time.perf_counter() - started - added_s
    search_on_one_core()
    timed(index, queries[:20], exact=False)
    first, sifted_ms = timed(index, queries, exact=False)
    few, exact_ms = timed(index, queries[:exact_probes], exact=True)
    truth, _ = index.search(queries, 1, exact=True)
    agree = np.mean([one == hits[0].face_id for one, hits in zip(first, truth, strict=True)])
    assert few == [hits[0].face_id for hits in truth[:exact_probes]]
    typer.echo(f"{faces} faces of {dimension} values, {data}, probes at cosine {cosine}; faiss {faiss.__version__}")
    typer.echo(f"adding {added_s:.1f} s, fitting and encoding {fitted_s:.1f} s, {resident_mib() - base_mib:.0f} MiB")
    medians = []
    for name, spent in (("sifted", sifted_ms), ("exact", exact_ms)):
        p50, p99 = np.percentile(spent, [50, 99])
        medians.append(p50)
        typer.echo(f"{name}, one core: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    typer.echo(f"{medians[1] / medians[0]:.1f} times faster; the first face is the exact search's for {agree:.4f}")


if __name__ == "__main__":
    typer.run(main)
