"""Graphs of libraries that are made for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from model_training.protocols.density import Vectors
from tests.load.drawing import Rows
from tests.load.structures import BUILD_EFFORT, LINKS, SEARCH_EFFORTS, Found


class Usearch:
    """usearch's HNSW over float32 values; both its answers to one probe and to many come from its own threads."""

    efforts = SEARCH_EFFORTS

    def __init__(self) -> None:
        # Imported here, so that one library does without the other.
        from usearch.index import Index

        self._make = Index
        self._index: Any = None

    def build(self, rows: Rows, threads: int) -> None:
        """See `Structure`."""
        index = self._make(
            ndim=rows.dimension,
            metric="ip",
            dtype="f32",
            connectivity=LINKS,
            expansion_add=BUILD_EFFORT,
            expansion_search=SEARCH_EFFORTS[0],
        )
        for start, faces in rows.chunks():
            index.add(np.arange(start, start + len(faces)), faces, threads=threads)
        self._index = index

    def set_effort(self, effort: int) -> None:
        """See `Structure`."""
        self._index.expansion_search = effort

    def search(self, probes: Vectors, k: int, threads: int) -> Found:
        """See `Structure`."""
        # One row of a matrix is answered as a single probe: without its dimension it saves some microseconds.
        found = self._index.search(probes[0] if len(probes) == 1 else probes, k, threads=threads)
        rows = np.asarray(found.keys).astype(np.int64).reshape(len(probes), k)
        return rows, 1 - np.asarray(found.distances, dtype=np.float32).reshape(len(probes), k)

    def close(self) -> None:
        """See `Structure`."""
        self._index = None


class Hnswlib:
    """hnswlib, by the authors of HNSW."""

    efforts = SEARCH_EFFORTS

    def __init__(self) -> None:
        import hnswlib

        self._make = hnswlib.Index
        self._index: Any = None

    def build(self, rows: Rows, threads: int) -> None:
        """See `Structure`."""
        index = self._make(space="ip", dim=rows.dimension)
        index.init_index(max_elements=rows.count, M=LINKS, ef_construction=BUILD_EFFORT)
        for start, faces in rows.chunks():
            index.add_items(faces, np.arange(start, start + len(faces)), num_threads=threads)
        self._index = index

    def set_effort(self, effort: int) -> None:
        """See `Structure`."""
        self._index.set_ef(effort)

    def search(self, probes: Vectors, k: int, threads: int) -> Found:
        """See `Structure`."""
        rows, distances = self._index.knn_query(probes, k, num_threads=threads)
        return rows.astype(np.int64), np.asarray(1 - distances, dtype=np.float32)

    def close(self) -> None:
        """See `Structure`."""
        self._index = None
