"""Structures of FAISS by its own recipes."""

from __future__ import annotations

import faiss
import numpy as np

from model_training.protocols.density import Vectors
from tests.load.drawing import Rows
from tests.load.structures import BUILD_EFFORT, SEARCH_EFFORTS, Found

_TRAINING_ROWS = 65_536
_TRAINING_ROWS_A_LIST = 40
_FEWEST_LISTS = 64
# Rows that are scored exactly after a search in codes.
_RESCORED = (16, 32, 64, 128, 256, 512, 1_024)
_RESCORED_OF_LISTS = 256
_PROBED_LISTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)


class FaissStructure:
    """An index by its recipe: a string of `faiss.index_factory` with the dimension left open.

    What is set per search is, in this order: for inverted lists how many of them are looked through, for a graph its
    `efSearch`, for codes how many rows are scored exactly afterwards.
    """

    def __init__(self, recipe: str) -> None:
        self._recipe = recipe
        self._kind = "lists" if "IVF" in recipe else "graph" if "HNSW" in recipe else "codes"
        self._index: faiss.Index | None = None
        self.efforts: tuple[int, ...] = ()
        if self._kind == "graph":
            self.efforts = SEARCH_EFFORTS
        elif "RFlat" in recipe and self._kind == "codes":
            self.efforts = _RESCORED

    def build(self, rows: Rows, threads: int) -> None:
        """See `Structure`."""
        faiss.omp_set_num_threads(threads)
        # Four square roots of the rows is what FAISS's authors advise.
        lists = max(_FEWEST_LISTS, 2 ** int(np.log2(4 * rows.count**0.5)))
        d = rows.dimension
        recipe = self._recipe.format(d=d, half=d // 2, quarter=d // 4, lists=lists)
        index = faiss.index_factory(d, recipe, faiss.METRIC_INNER_PRODUCT)
        if self._kind == "lists":
            self.efforts = tuple(effort for effort in _PROBED_LISTS if effort <= lists)
        if self._kind == "graph":
            index.hnsw.efConstruction = BUILD_EFFORT
        if not index.is_trained:
            index.train(rows.sample(max(_TRAINING_ROWS, _TRAINING_ROWS_A_LIST * lists)))
        for _, faces in rows.chunks():
            index.add(faces)
        self._index = index
        if "RFlat" in self._recipe:
            index.k_factor = _RESCORED_OF_LISTS
        if self.efforts:
            self.set_effort(self.efforts[0])

    def set_effort(self, effort: int) -> None:
        """See `Structure`."""
        if self._kind == "graph":
            self._index.hnsw.efSearch = effort
        elif self._kind == "lists":
            faiss.extract_index_ivf(self._coded()).nprobe = effort
        else:
            self._index.k_factor = effort

    def search(self, probes: Vectors, k: int, threads: int) -> Found:
        """See `Structure`."""
        faiss.omp_set_num_threads(threads)
        scores, rows = self._index.search(probes, k)
        return rows, scores

    def close(self) -> None:
        """See `Structure`."""
        self._index = None

    def _coded(self) -> faiss.Index:
        """The index without the exact scoring."""
        return self._index.base_index if isinstance(self._index, faiss.IndexRefine) else self._index
