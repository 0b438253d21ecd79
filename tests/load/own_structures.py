"""The service's own index as the gallery benchmark sees it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np

from service.gallery.index import FaceIndex
from service.gallery.search import Hit
from service.gallery.snapshot import SnapshotFolder
from tests.load.drawing import Rows
from tests.load.embedding_model import Vectors
from tests.load.structures import Found


def empty_index(rows: Rows, folder: Path) -> FaceIndex:
    """An index with room for all rows; past the limit of exact searches its matrix is mapped from the folder."""
    home = SnapshotFolder(folder, space_id="sf1-load", dimension=rows.dimension, dtype=np.dtype(np.float32))
    return FaceIndex(rows.dimension, capacity=rows.count, home=home)


class Sifted:
    """The index as `/identify` asks it. Every face is a person of its own, so that no answer hides another."""

    efforts: tuple[int, ...] = ()
    _exact = False

    def __init__(self) -> None:
        self._index: FaceIndex | None = None
        self._folder = TemporaryDirectory(prefix="shrinkface-load-")

    def build(self, rows: Rows, threads: int) -> None:
        """See `Structure`. The ids are the numbers of rows, as text."""
        faiss.omp_set_num_threads(threads)
        index = empty_index(rows, Path(self._folder.name))
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
        self._folder.cleanup()


class Exact(Sifted):
    """The same index with `exact=true`."""

    _exact = True


def _filled(hits: list[Hit], k: int) -> list[Hit]:
    return hits + [Hit(-1, "-1", -1.0)] * (k - len(hits))
