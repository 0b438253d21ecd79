"""The service's own index as the gallery benchmark sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import faiss
import numpy as np

from model_training.protocols.density import Vectors
from service.gallery.index import FaceIndex, search_on_one_core
from service.gallery.search import Hit
from service.gallery.snapshot import SnapshotFolder
from service.gallery.team import Team
from tests.load.drawing import Rows
from tests.load.structures import Found

_R = TypeVar("_R")


class OnDemand(Team):
    """A team that helps only while `wanted`, so that one index answers on one core and on all."""

    wanted = False

    def run(self, parts: Sequence[Callable[[], _R]]) -> list[_R]:
        """See `Team`."""
        return super().run(parts) if self.wanted else [part() for part in parts]


def empty_index(rows: Rows, folder: Path, team: Team | None = None) -> FaceIndex:
    """An index with room for all rows; past the limit of exact searches its matrix is mapped from the folder."""
    home = SnapshotFolder(folder, space_id="sf1-load", dimension=rows.dimension, dtype=np.dtype(np.float32))
    return FaceIndex(rows.dimension, capacity=rows.count, home=home, team=team)


class Sifted:
    """The index as `/identify` asks it. Every face is a person of its own, so that no answer hides another."""

    efforts: tuple[int, ...] = ()
    _exact = False

    def __init__(self) -> None:
        self._index: FaceIndex | None = None
        self._team = OnDemand(0)
        self._folder = TemporaryDirectory(prefix="shrinkface-load-")

    def build(self, rows: Rows, threads: int) -> None:
        """See `Structure`. The ids are the numbers of rows, as text."""
        faiss.omp_set_num_threads(threads)
        self._team = OnDemand(threads - 1, search_on_one_core)
        index = empty_index(rows, Path(self._folder.name), self._team)
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
        lone = len(probes) == 1
        # As the service does it: a lone probe's shards go to several threads, each of which has one core.
        faiss.omp_set_num_threads(1 if lone else threads)
        self._team.wanted = lone and threads > 1
        found, _ = self._index.search(probes, k, exact=self._exact)
        return (
            np.array([[int(hit.face_id) for hit in _filled(hits, k)] for hits in found], dtype=np.int64),
            np.array([[hit.similarity for hit in _filled(hits, k)] for hits in found], dtype=np.float32),
        )

    def close(self) -> None:
        """See `Structure`."""
        self._index = None
        self._team.close()
        self._folder.cleanup()


class Exact(Sifted):
    """The same index with `exact=true`."""

    _exact = True


def _filled(hits: list[Hit], k: int) -> list[Hit]:
    return hits + [Hit(-1, "-1", -1.0)] * (k - len(hits))
