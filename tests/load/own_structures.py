"""The service's own index as the gallery benchmark sees it."""

from __future__ import annotations

import faiss
import numpy as np

from service.gallery.index import FaceIndex, Hit
from tests.load.drawing import Rows
from tests.load.embedding_model import Vectors
from tests.load.structures import Found


def empty_index(rows: Rows) -> FaceIndex:
    """An index with room for all rows; an index whose matrix lies on disk would be made here."""
    return FaceIndex(rows.dimension, capacity=rows.count)


class Sifted:
    """The index as `/identify` asks it. Every face is a person of its own, so that no answer hides another."""

    efforts: tuple[int, ...] = ()
    _exact = False

    def __init__(self) -> None:
        self._index: FaceIndex | None = None

    def build(self, rows: Rows, threads: int) -> None:
        """See `Structure`. The ids are the numbers of rows, as text."""
        faiss.omp_set_num_threads(threads)
        index = empty_index(rows)
        for start, faces in rows.chunks():
            keys = np.arange(start, start + len(faces))
            index.add(keys, keys, [str(key) for key in keys.tolist()], faces)
        index.tend()
        self._index = index

    def set_effort(self, effort: int) -> None:
        """See `Structure`: there is nothing to set."""

    def search(self, probes: Vectors, k: int, threads: int) -> Found:
        """See `Structure`."""
        assert self._index is not None
        faiss.omp_set_num_threads(threads)
        found, _ = self._index.search(probes, k, exact=self._exact)
        return (
            np.array([[int(hit.face_id) for hit in _filled(hits, k)] for hits in found], dtype=np.int64),
            np.array([[hit.similarity for hit in _filled(hits, k)] for hits in found], dtype=np.float32),
        )

    def close(self) -> None:
        """See `Structure`."""
        self._index = None


class Exact(Sifted):
    """The same index with `exact=true`."""

    _exact = True


def _filled(hits: list[Hit], k: int) -> list[Hit]:
    return hits + [Hit(-1, "-1", -1.0)] * (k - len(hits))
