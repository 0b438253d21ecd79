"""Search over the faces of one gallery, in memory: exact where it is small, sifted first where it is large.

Cost, for n rows of d values: an exact search is one pass over the matrix, 4 n d bytes; a sifted one is a pass over the
sieve, a sixteenth of that, and exact work on a few hundred candidates. An addition is O(d) amortised, a removal
O(log n). Memory is 4 d + d / 4 + 24 bytes a face, and the face's id.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.sieve import FEWEST_ROWS, TRAINING_ROWS, Sieve
from service.gallery.vectors import cosines
from service.gallery.view import ALIVE, View

_PROBES_AT_ONCE = 1_024
# Past this many candidates a probe, one full pass is cheaper than a deeper heap.
_DEEPEST_FETCH = 2_048
_COMPACT_FROM = 256

# Up to this many faces a pass over everything takes no longer than a search may.
SIEVE_FROM = 20_000
# Rows behind the sieve are scanned exactly, at this many for about a quarter of a millisecond; to take them in, a sieve
# is copied whole, 32 MB at a million faces.
_TAIL_ROWS = 8_192
# A gallery that has grown this much since its codes were fitted gets new ones.
_REFIT_GROWTH = 8
# Candidates a probe of the first pass through the sieve, at least so many a person wanted; the second goes deeper.
_SIFTED = 256
_SIFTED_A_PERSON = 16
_DEEPER = 4
# The best face of a probe is beyond doubt when the sieve had it among the first quarter of its candidates.
_SAFE_SHARE = 4

# At most this often a sifted search is repeated exactly, to know how well the sieve does on live probes.
_CHECK_EVERY_S = 1.0

# Runs a job some time soon, on a thread of its own.
Upkeep = Callable[[Callable[[], None]], object]


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


class FaceIndex:
    """The faces of one gallery. Any number of threads may search while one at a time changes it.

    Searches take no lock: they work on the view that was current when they began, and a change publishes a new one.
    Removed rows stay in the matrix as tombstones until they are a quarter of it. Taking them out, fitting a sieve and
    carrying it on as rows arrive is upkeep: it runs beside searches and changes, which go on with what there is.

    Args:
        dimension: length d of an embedding.
        capacity: rows to make room for at once.
        deepest_fetch: candidates a probe after which a search stops widening and passes over everything instead.
        sieve_from: rows from which on a sieve is used; fewer than `sieve.FEWEST_ROWS` are never sifted.
        on_check: told of a sifted search that upkeep repeated exactly, whether the first face was the same.
        upkeep: runs the upkeep; without it, it is done only when `tend` is called. An attribute too, for an index
            that is filled first and looked after later.
    """

    def __init__(
        self,
        dimension: int,
        *,
        capacity: int = 0,
        deepest_fetch: int = _DEEPEST_FETCH,
        sieve_from: int = SIEVE_FROM,
        on_check: Callable[[bool], None] | None = None,
        upkeep: Upkeep | None = None,
    ) -> None:
        self._dimension = dimension
        self._deepest_fetch = deepest_fetch
        self._sieve_from = max(sieve_from, FEWEST_ROWS)
        self.upkeep = upkeep
        self._on_check = on_check
        self._next_check_s = 0.0
        self._tending = threading.Lock()
        self._scheduled = False
        # Bound on what a float32 inner product of unit vectors and the rounding of the exact one can be apart:
        # d units in the last place each way (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
        self._slack = np.float32((dimension + 8) * 2.0**-23)
        self._changing = threading.Lock()
        self._view = View.empty(capacity, dimension)

    def __len__(self) -> int:
        """Faces that a search would see now."""
        return self._view.live

    @property
    def sifted(self) -> int:
        """Rows that searches look through compressed; 0 while every search is exact."""
        return self._view.sifted

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
                view = view.grown(max(end, view.rows * 3 // 2 + 16))
            view.vectors[view.rows : end] = vectors
            view.keys[view.rows : end] = keys
            view.persons[view.rows : end] = persons
            view.removed_at[view.rows : end] = ALIVE
            view.face_ids.extend(face_ids)
            self._view = view._replace(rows=end, live=view.live + count, version=view.version + 1)
        self._ask_for_upkeep()

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
            self._view = view._replace(live=view.live - len(rows), version=version)
        self._ask_for_upkeep()
        return len(rows)

    def search(self, probes: NDArray[np.float32], top_k: int, *, exact: bool = False) -> tuple[list[list[Hit]], int]:
        """The `top_k` most similar persons for each probe, and how many faces were searched.

        Every similarity is the exact cosine. Where there is a sieve, a person whose face it passes over is missing
        from the answer; docs/benchmarks.md says how rarely the first place differs from that of an exact search.

        Args:
            probes: (n, d) float32, contiguous, unit length.
            top_k: at least 1.
            exact: pass over everything, whatever it costs.

        Returns:
            n lists, best first by similarity, ties by face id, one entry a person; and the size.
        """
        view = self._view
        search = self._search_exactly if exact or view.sieve is None else self._search_sifted
        found: list[list[Hit]] = []
        for start in range(0, len(probes), _PROBES_AT_ONCE):
            found.extend(search(view, probes[start : start + _PROBES_AT_ONCE], top_k))
        if not exact and view.sieve is not None and len(probes):
            self._have_checked(view, probes[0], found[0])
        return found, view.live

    def tend(self) -> None:
        """Do what upkeep there is. Blocks; at a million faces it may take seconds, which searches do not notice."""
        with self._tending:
            while self._tend_once():
                pass

    def _search_sifted(self, view: View, probes: NDArray[np.float32], top_k: int) -> list[list[Hit]]:
        """Candidates by the sieve and by a scan of the rows behind it, then exact scores.

        The sieve looks again, deeper, where it is in doubt about the first place. Where one or a few persons fill the
        candidates, so that others have no room, the search is exact.
        """
        assert view.sieve is not None
        found: list[list[Hit]] = [[] for _ in range(len(probes))]
        if not view.live:
            return found
        unsettled = list(range(len(probes)))
        # Removed rows take up candidates until the upkeep has taken them out.
        crowd = min(view.rows / view.live, 4.0)
        first = int(crowd * max(_SIFTED, _SIFTED_A_PERSON * top_k))
        for wanted, last in ((first, False), (_DEEPER * first, True)):
            depth = min(wanted, view.sieve.rows)
            sifted = view.sieve.candidates(probes[unsettled], depth)
            behind = self._behind_the_sieve(view, probes[unsettled], min(depth, _SIFTED))
            missing = []
            for position, probe in enumerate(unsettled):
                rows = np.concatenate([sifted[position], behind[position]])
                found[probe], best = self._ranked_roughly(view, probes[probe], rows, top_k)
                enough = len(found[probe]) == top_k
                # A winner from behind the sieve was found exactly.
                sure = last or best >= depth or best * _SAFE_SHARE < depth
                if not (enough and sure) and depth < view.sieve.rows:
                    missing.append(probe)
            unsettled = missing
            if not unsettled:
                return found
        exact = self._search_exactly(view, probes[unsettled], top_k)
        for probe, hits in zip(unsettled, exact, strict=True):
            found[probe] = hits
        return found

    def _behind_the_sieve(self, view: View, probes: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
        start = view.sifted
        depth = min(depth, view.rows - start)
        if not depth:
            return np.empty((len(probes), 0), dtype=np.int64)
        _, rows = faiss.knn(probes, view.vectors[start : view.rows], depth, metric=faiss.METRIC_INNER_PRODUCT)
        return np.asarray(rows + start, dtype=np.int64)

    def _ranked_roughly(
        self, view: View, probe: NDArray[np.float32], rows: NDArray[np.int64], top_k: int
    ) -> tuple[list[Hit], int]:
        """Rank candidates of which few matter: float32 tells which those are.

        Returns:
            Hits, and the place among `rows` of the face that scores best.
        """
        places = np.flatnonzero(view.removed_at[rows] > view.version)
        if not len(places):
            return [], 0
        scores = view.vectors[rows[places]] @ probe
        few = 2 * top_k + 14
        if few < len(places):
            least = np.partition(scores, -few)[-few] - 2 * self._slack
            hits = self._ranked(view, probe, rows[places[scores >= least]], top_k)
            if len(hits) == top_k:
                return hits, int(places[scores.argmax()])
        return self._ranked(view, probe, rows[places], top_k), int(places[scores.argmax()])

    def _search_exactly(self, view: View, probes: NDArray[np.float32], top_k: int) -> list[list[Hit]]:
        """By a scan of all rows.

        FAISS scans in float32 for more faces than wanted; those are scored again exactly. The answer stands once
        `top_k` persons are certain, that is once nobody outside the candidates could reach the last of them within
        the rounding of the scan. Until then the scan is repeated four times as deep.
        """
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

    def _search_everything(self, view: View, probe: NDArray[np.float32], top_k: int) -> list[Hit]:
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
    def _ranked(view: View, probe: NDArray[np.float32], rows: NDArray[np.int64], top_k: int) -> list[Hit]:
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

    def _have_checked(self, view: View, probe: NDArray[np.float32], hits: list[Hit]) -> None:
        """Now and then have a search repeated exactly on the same rows, beside everything else."""
        on_check, now_s = self._on_check, time.monotonic()
        if on_check is None or self.upkeep is None or now_s < self._next_check_s or not hits:
            return
        # Two searches may both get here; a check too many does no harm.
        self._next_check_s = now_s + _CHECK_EVERY_S
        probe = probe.copy()

        def check() -> None:
            (exact,) = self._search_exactly(view, probe[np.newaxis], 1)
            # Of faces at the same cosine either is right.
            on_check(exact[0].similarity == hits[0].similarity)

        self.upkeep(check)

    def _ask_for_upkeep(self) -> None:
        """Have the upkeep run if there is any and it is not about to."""
        if self.upkeep is None or self._scheduled or self._work(self._view) is None:
            return
        self._scheduled = True
        self.upkeep(self._run_upkeep)

    def _run_upkeep(self) -> None:
        # Cleared first: what turns up from now on may come too late for this run, and then asks for another.
        self._scheduled = False
        self.tend()

    def _work(self, view: View) -> Callable[[View], None] | None:
        if view.dead >= _COMPACT_FROM and view.dead * 4 >= view.rows:
            return self._compact
        if view.rows < self._sieve_from:
            return None
        if view.sieve is None or view.rows >= _REFIT_GROWTH * view.sieve.trained_on:
            return self._fit
        return self._extend if view.rows - view.sifted >= _TAIL_ROWS else None

    def _tend_once(self) -> bool:
        view = self._view
        work = self._work(view)
        if work is not None:
            work(view)
        return work is not None

    def _fit(self, view: View) -> None:
        """Fit a sieve to the rows there are."""
        # A sample in the order of rows, the same every time: a search is then repeatable after a restart.
        step = max(1, view.rows // TRAINING_ROWS)
        sieve = Sieve.fitted(view.vectors[: view.rows : step][:TRAINING_ROWS], gallery_rows=view.rows)
        self._publish(sieve.extended(view.vectors[: view.rows]))

    def _extend(self, view: View) -> None:
        """Carry the sieve on over the rows behind it."""
        assert view.sieve is not None
        self._publish(view.sieve.extended(view.vectors[view.sifted : view.rows]))

    def _publish(self, sieve: Sieve) -> None:
        # Rows are renumbered by `_compact` alone, and upkeep is done by one thread at a time.
        with self._changing:
            self._view = self._view._replace(sieve=sieve)

    def _compact(self, view: View) -> None:
        """Take the removed rows out: copy what lives, then catch up with what has changed in the meantime."""
        kept = view.living()
        fresh = View.empty(len(kept) * 5 // 4 + _COMPACT_FROM, self._dimension)
        fresh.write(0, view, kept)
        sieve = None
        if view.sieve is not None and len(kept) >= self._sieve_from:
            sieve = view.sieve.emptied().extended(fresh.vectors[: len(kept)])
        with self._changing:
            now = self._view
            rows = len(kept) + now.rows - view.rows
            if rows > len(fresh.keys):
                fresh = fresh._replace(rows=len(kept)).grown(rows * 5 // 4)
            fresh.write(len(kept), now, slice(view.rows, now.rows))
            fresh.removed_at[: len(kept)] = now.removed_at[kept]
            self._view = fresh._replace(rows=rows, live=now.live, version=now.version, sieve=sieve)
