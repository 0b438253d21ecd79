"""What the gallery benchmark compares, behind one small interface."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.density import Vectors
from tests.load.drawing import Rows

Found = tuple[NDArray[np.int64], Vectors]

# Graphs are built alike in every library: M and efConstruction of Malkov and Yashunin. By the rule of hnswlib's authors
# the latter is high enough when a search of the same effort finds 90 % of the nearest.
LINKS = 32
BUILD_EFFORT = 100
# Nodes a graph search keeps in mind.
SEARCH_EFFORTS = (16, 32, 64, 128, 256, 512, 1_024)


class Structure(Protocol):
    """Holds a gallery and searches it by inner product of float32 values.

    Attributes:
        efforts: settings of the search, cheapest first; the benchmark takes the first that agrees well enough with
            an exact search. Empty where there is nothing to choose.
    """

    efforts: tuple[int, ...]

    def build(self, rows: Rows, threads: int) -> None:
        """Take in all rows, numbered from 0. May ask for them several times and keeps what it needs."""

    def set_effort(self, effort: int) -> None:
        """Search with one of `efforts` from now on."""

    def search(self, probes: Vectors, k: int, threads: int) -> Found:
        """The rows most similar to each of (n, d) probes: numbers (n, k) int64 and similarities (n, k) float32."""

    def close(self) -> None:
        """Give back what is outside this process's memory."""


class Entry(NamedTuple):
    """A structure by name.

    Attributes:
        title: what tables call it.
        module: where its class is; imported in the measuring process alone.
        make: name of the class or function in that module.
        arguments: for it.
        needs: packages whose absence makes it `not installed`; their versions are stated.
        grows: seconds of building for n rows, up to a constant factor.
        variant: for the second table.
    """

    title: str
    module: str
    make: str
    arguments: tuple[object, ...]
    needs: tuple[str, ...]
    grows: Callable[[float], float]
    variant: bool = False


def _linear(rows: float) -> float:
    return rows


def _graph(rows: float) -> float:
    return rows * float(np.log(rows))


def _lists(rows: float) -> float:
    # As many lists as the square root of the rows, and each row is compared with all of them.
    return rows**1.5


def _faiss(title: str, recipe: str, grows: Callable[[float], float] = _linear, *, variant: bool = True) -> Entry:
    return Entry(title, "faiss_structures", "FaissStructure", (recipe,), ("faiss-cpu",), grows, variant)


# In a recipe {d} is the dimension, {half}, {quarter} shares of it and {lists} the number of inverted lists.
STRUCTURES: dict[str, Entry] = {
    "ours": Entry("**ShrinkFace**", "own_structures", "Sifted", (), ("faiss-cpu",), _linear),
    "ours-exact": Entry("ShrinkFace, exact=true", "own_structures", "Exact", (), ("faiss-cpu",), _linear),
    "faiss-flat": _faiss("FAISS Flat", "Flat", variant=False),
    "faiss-hnsw": _faiss("FAISS HNSW", f"HNSW{LINKS}", _graph, variant=False),
    "usearch": Entry("usearch", "graph_structures", "Usearch", (), ("usearch",), _graph),
    "hnswlib": Entry("hnswlib", "graph_structures", "Hnswlib", (), ("hnswlib",), _graph),
    "milvus-lite": Entry(
        "Milvus Lite, AUTOINDEX", "milvus_structure", "MilvusLite", ("AUTOINDEX",), ("milvus-lite", "pymilvus"), _graph
    ),
    "pq-quarter": _faiss("PQ, 4 values a code", "PQ{quarter}x4fs,RFlat"),
    "pq-half": _faiss("PQ, 2 values a code (our sieve)", "PQ{half}x4fs,RFlat"),
    "pq-half-64": _faiss("PQ, 2 values a code, blocks of 64 rows", "PQ{half}x4fs_64,RFlat"),
    "pq-full": _faiss("PQ, 1 value a code", "PQ{d}x4fs,RFlat"),
    "pca-pq-half": _faiss("PCA and rotation, PQ, 2 values a code", "PCAR{d},PQ{half}x4fs,RFlat"),
    "rabitq": _faiss("RaBitQ, 1 bit a value", "RR{d},RaBitQfs,RFlat"),
    "rabitq-2": _faiss("RaBitQ, 2 bits a value", "RR{d},RaBitQfs2,RFlat"),
    "sq8": _faiss("8 bits a value", "SQ8,RFlat"),
    "ivf-flat": _faiss("IVF", "IVF{lists},Flat", _lists),
    "ivf-pq-half": _faiss("IVF, PQ, 2 values a code", "IVF{lists},PQ{half}x4fs,RFlat", _lists),
    "ivf-pq-residual": _faiss("IVF, PQ of residuals, 2 values a code", "IVF{lists},PQ{half}x4fsr,RFlat", _lists),
    "ivf-rabitq": _faiss("IVF, RaBitQ, 1 bit a value", "RR{d},IVF{lists},RaBitQfs,RFlat", _lists),
}
PEERS = tuple(name for name, entry in STRUCTURES.items() if not entry.variant)
VARIANTS = ("ours", *(name for name, entry in STRUCTURES.items() if entry.variant))


def make(name: str) -> Structure:
    """A structure without rows.

    Raises:
        ImportError: what it needs is not installed.
    """
    entry = STRUCTURES[name]
    module = importlib.import_module(f"tests.load.{entry.module}")
    made: Structure = getattr(module, entry.make)(*entry.arguments)
    return made
