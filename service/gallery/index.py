"""Exact search over the faces of one gallery, in memory.

Cost, for n rows of d values: a search is one pass over the matrix, O(n d), plus work on a few dozen candidates; an
addition is O(d) amortised; a removal is O(log n) amortised. Memory is 4 d + 24 bytes a face, and the face's id.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.vectors import cosines

_ALIVE = np.iinfo(np.int64).max
_PROBES_AT_ONCE = 1_024
# Past this many candidates a probe, one full pass is cheaper than a deeper heap.
_DEEPEST_FETCH = 2_048
_COMPACT_FROM = 256


def search_on_one_core() -> None:
    """Let FAISS use one core for what the calling thread asks of it, and leave other threads as they are.

    Concurrent searches fill the cores without a team of threads each. Such a team waits for its slowest member: on two
    busy cores one probe among 300,000 faces took 58 ms with it and 13 ms without.
    """
    faiss.omp_set_num_threads(1)


class Hit(NamedTuple):
    """A person found: the key and the id of their nearest face, and its cosine in [-1, 1]."""

    person: int
    face_id: str
    similarity: float


class _View(NamedTuple):
    """What one search works on. Rows below `rows` never change in the arrays it holds; only their removal is noted.

    Attributes:
        vectors: (capacity, d) float32.
        keys: (capacity,) int64, ascending: the order of commits is the order of rows.
        persons: (capacity,) int64.
        removed_at: (capacity,) int64, the version that removed the row, `_ALIVE` while none has.
        face_ids: at least `rows` long.
        rows: rows filled, removed ones included.
        live: rows not removed.
        version: number of changes before this view.
    """

    vectors: NDArray[np.float32]
    keys: NDArray[np.int64]
    persons: NDArray[np.int64]
    removed_at: NDArray[np.int64]
    face_ids: list[str]
    rows: int
    live: int
    version: int

    def visible(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        # A removal that comes later than this view is not seen by it, so a search sees one moment throughout.
        return rows[self.removed_at[rows] > self.version]


class FaceIndex:
    """The faces of one gallery. Any number of threads may search while one at a time changes it.

    Searches take no lock: they work on the view that was current when they began, and a change publishes a new one.
    Removed rows stay in the matrix as tombstones until they are a quarter of it.

    Args:
        dimension: length d of an embedding.
        capacity: rows to make room for at once.
        deepest_fetch: candidates a probe after which a search stops widening and passes over everything instead.
    """

    def __init__(self, dimension: int, *, capacity: int = 0, deepest_fetch: int = _DEEPEST_FETCH) -> None:
        self._dimension = dimension
        self._deepest_fetch = deepest_fetch
        # Bound on what a float32 inner product of unit vectors and the rounding of the exact one can be apart:
        # d units in the last place each way (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
        self._slack = np.float32((dimension + 8) * 2.0**-23)
        self._changing = threading.Lock()
        self._view = self._allocated(capacity, version=0)

    def __len__(self) -> int:
        """Faces that a search would see now."""
        return self._view.live

    def add(
        self,
        keys: NDArray[np.int64],
        persons: NDArray[np.int64],
        face_ids: Sequence[str],
        vectors: NDArray[np.float32],
    ) -> None:
        """Append m faces; searches that begin after the return see them.

        Args:
            keys: (m,) int64, ascending and above every key added before.
            persons: (m,) int64, whose face each one is.
            face_ids: m ids.
            vectors: (m, d) float32, unit length.

        Raises:
            ValueError: lengths disagree or keys do not ascend; nothing is added.
        """
        count = len(keys)
        if len(persons) != count or len(face_ids) != count or vectors.shape != (count, self._dimension):
            raise ValueError("keys, persons, face ids and vectors differ in number, or vectors in dimension")
        if not count:
            return
        with self._changing:
            view = self._view
            last = int(view.keys[view.rows - 1]) if view.rows else -1
            if keys[0] <= last or (np.diff(keys) <= 0).any():
                raise ValueError("face keys must ascend")
            end = view.rows + count
            if end > len(view.keys):
                view = self._copied(view, np.arange(view.rows), capacity=max(end, view.rows * 3 // 2 + 16))
            view.vectors[view.rows : end] = vectors
            view.keys[view.rows : end] = keys
            view.persons[view.rows : end] = persons
            view.removed_at[view.rows : end] = _ALIVE
            view.face_ids.extend(face_ids)
            self._view = view._replace(rows=end, live=view.live + count, version=view.version + 1)

    def remove(self, keys: NDArray[np.int64]) -> int:
        """Take faces away; searches that begin after the return do not see them.

        Args:
            keys: (m,) int64; those that are not here are passed over.

        Returns:
            How many there were.
        """
        with self._changing:
            view = self._view
            rows = np.searchsorted(view.keys[: view.rows], keys)
            here = rows < view.rows
            rows, keys = rows[here], keys[here]
            rows = np.unique(view.visible(rows[view.keys[rows] == keys]))
            if not len(rows):
                return 0
            version = view.version + 1
            view.removed_at[rows] = version
            view = view._replace(live=view.live - len(rows), version=version)
            dead = view.rows - view.live
            if dead >= _COMPACT_FROM and dead * 4 >= view.rows:
                view = self._copied(view, np.flatnonzero(view.removed_at[: view.rows] == _ALIVE), view.live * 5 // 4)
            self._view = view
            return len(rows)

    def search(self, probes: NDArray[np.float32], top_k: int) -> tuple[list[list[Hit]], int]:
        """The `top_k` most similar persons for each probe, and how many faces were searched.

        FAISS scans in float32 for more faces than wanted; those are scored again exactly. The answer stands once
        `top_k` persons are certain, that is once nobody outside the candidates could reach the last of them within
        the rounding of the scan. Until then the scan is repeated four times as deep.

        Args:
            probes: (n, d) float32, contiguous, unit length.
            top_k: at least 1.

        Returns:
            n lists, best first by similarity, ties by face id, one entry a person; and the size.
        """
        view = self._view
        found: list[list[Hit]] = []
        for start in range(0, len(probes), _PROBES_AT_ONCE):
            found.extend(self._search(view, probes[start : start + _PROBES_AT_ONCE], top_k))
        return found, view.live

    def _search(self, view: _View, probes: NDArray[np.float32], top_k: int) -> list[list[Hit]]:
        found: list[list[Hit]] = [[] for _ in range(len(probes))]
        if not view.live:
            return found
        unsettled = list(range(len(probes)))
        depth = max(4 * top_k, top_k + 28)
        while unsettled and (depth <= self._deepest_fetch or depth >= view.rows):
            depth = min(depth, view.rows)
            scores, rows = faiss.knn(
                probes[unsettled], view.vectors[: view.rows], depth, metric=faiss.METRIC_INNER_PRODUCT
            )
            missing = []
            for position, probe in enumerate(unsettled):
                hits = self._ranked(view, probes[probe], rows[position], top_k)
                nobody_else = len(hits) == top_k and scores[position, -1] + self._slack < hits[-1].similarity
                if depth == view.rows or nobody_else:
                    found[probe] = hits
                else:
                    missing.append(probe)
            unsettled = missing
            depth *= 4
        for probe in unsettled:
            found[probe] = self._search_everything(view, probes[probe], top_k)
        return found

    def _search_everything(self, view: _View, probe: NDArray[np.float32], top_k: int) -> list[Hit]:
        """For galleries where thousands of faces tie or belong to a few persons: O(n d + n log n)."""
        rows = view.visible(np.arange(view.rows))
        if not len(rows):
            return []
        scores = (view.vectors[: view.rows] @ probe)[rows]
        persons, person_of = np.unique(view.persons[rows], return_inverse=True)
        best = np.full(len(persons), -np.inf, dtype=np.float32)
        np.maximum.at(best, person_of, scores)
        last = np.partition(best, -top_k)[-top_k] if top_k < len(persons) else np.float32(-np.inf)
        # Both sides of a comparison carry the rounding of the scan, hence twice the slack.
        best_here = best[person_of]
        near = (best_here >= last - 2 * self._slack) & (scores >= best_here - 2 * self._slack)
        return self._ranked(view, probe, rows[near], top_k)

    @staticmethod
    def _ranked(view: _View, probe: NDArray[np.float32], rows: NDArray[np.int64], top_k: int) -> list[Hit]:
        rows = view.visible(rows)
        scores = cosines(view.vectors[rows], probe).tolist()
        face_ids = [view.face_ids[row] for row in rows.tolist()]
        ranking = sorted(zip([-score for score in scores], face_ids, view.persons[rows].tolist(), strict=True))
        hits: dict[int, Hit] = {}
        for negated, face_id, person in ranking:
            if person not in hits:
                hits[person] = Hit(person, face_id, -negated)
                if len(hits) == top_k:
                    break
        return list(hits.values())

    def _allocated(self, capacity: int, *, version: int) -> _View:
        return _View(
            vectors=np.empty((capacity, self._dimension), dtype=np.float32),
            keys=np.empty(capacity, dtype=np.int64),
            persons=np.empty(capacity, dtype=np.int64),
            removed_at=np.empty(capacity, dtype=np.int64),
            face_ids=[],
            rows=0,
            live=0,
            version=version,
        )

    def _copied(self, view: _View, kept: NDArray[np.int64], capacity: int) -> _View:
        """The same state in fresh arrays: searches that are under way go on with the old ones."""
        copy = self._allocated(capacity, version=view.version)
        count = len(kept)
        np.take(view.vectors, kept, axis=0, out=copy.vectors[:count])
        copy.keys[:count] = view.keys[kept]
        copy.persons[:count] = view.persons[kept]
        copy.removed_at[:count] = view.removed_at[kept]
        face_ids = [view.face_ids[row] for row in kept.tolist()]
        return copy._replace(face_ids=face_ids, rows=count, live=view.live)
