"""The search index of one gallery: what changes it, and what keeps it in order.

An addition is O(d) amortised, a removal O(log n). Memory is 4 d + d / 4 + 48 bytes a face, and the face's id.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import ALIVE, Rows
from service.gallery.search import DEEPEST_FETCH, Hit, search_exactly, search_sifted
from service.gallery.sieve import FEWEST_ROWS, TRAINING_ROWS, Sieve
from service.gallery.snapshot import Snapshot, SnapshotFolder, reconciled
from service.gallery.team import Team
from service.gallery.view import View

_PROBES_AT_ONCE = 1_024
_COMPACT_FROM = 256

# Up to this many faces a pass over everything takes no longer than a search may.
SIEVE_FROM = 20_000
# Rows behind the sieve are scanned exactly, at this many for about a quarter of a millisecond; to take them in, the
# last shard of the sieve is copied.
_TAIL_ROWS = 8_192
# A gallery that has grown this much since its codes were fitted gets new ones.
_REFIT_GROWTH = 8
# Rows that a start may have to read from the store because no snapshot has them yet.
_UNSAVED_ROWS = 32_768

# Agreement with exact searches that the depth of sifted ones is steered to. A check that disagrees makes them half as
# deep again; as many as may pass before the next one does bring them back (Robbins and Monro, 1951).
_TARGET_AGREEMENT = 0.999
_STEP = math.log(1.5)
_DEEPEST = 8.0

# At most this often a sifted search is repeated exactly, to know how well the sieve does on live probes.
_CHECK_EVERY_S = 1.0

# Runs a job some time soon, on a thread of its own.
Upkeep = Callable[[Callable[[], None]], object]

_log = logging.getLogger(__name__)


def search_on_one_core() -> None:
    """Let FAISS use one core for what the calling thread asks of it, and leave other threads as they are.

    Concurrent searches fill the cores without a team of threads each. Such a team waits for its slowest member: on two
    busy cores one probe among 300,000 faces took 58 ms with it and 13 ms without.
    """
    faiss.omp_set_num_threads(1)


class FaceIndex:
    """The faces of one gallery. Any number of threads may search while one at a time changes it.

    Searches take no lock: they work on the view that was current when they began, and a change publishes a new one.
    Removed rows are blanked and stay in the matrix as tombstones until they are a quarter of it. Taking them out,
    fitting a sieve, carrying it on as rows arrive and writing snapshots is upkeep: it runs beside searches and changes,
    which go on with what there is.

    Args:
        dimension: length d of an embedding.
        capacity: rows to make room for at once.
        deepest_fetch: candidates a probe after which an exact search stops widening and looks at everything instead.
        sieve_from: rows from which on a sieve is used; fewer than `sieve.FEWEST_ROWS` are never sifted.
        on_check: told of a sifted search that upkeep repeated exactly, whether the first face was the same; such checks
            also steer how deep sifted searches go.
        upkeep: runs the upkeep; without it, it is done only when `tend` is called. An attribute too, for an index
            that is filled first and looked after later.
        team: helps a search that is alone; without one, it uses one core.
        home: where the rows are kept from `sieve_from` on; without one they stay in memory.
        dtype: of the matrix, float32 or float16.
    """

    def __init__(
        self,
        dimension: int,
        *,
        capacity: int = 0,
        deepest_fetch: int = DEEPEST_FETCH,
        sieve_from: int = SIEVE_FROM,
        on_check: Callable[[bool], None] | None = None,
        upkeep: Upkeep | None = None,
        team: Team | None = None,
        home: SnapshotFolder | None = None,
        dtype: type | np.dtype[np.floating] = np.float32,
    ) -> None:
        self._dimension = dimension
        self._dtype = dtype
        self._deepest_fetch = deepest_fetch
        self._sieve_from = max(sieve_from, FEWEST_ROWS)
        self.upkeep = upkeep
        self._on_check = on_check
        self._next_check_s = 0.0
        self._caution = 1.0
        self._team = team or Team(0)
        self._home = home
        # Columns, rows and codes of the last snapshot.
        self._saved: tuple[Rows | None, int, int] = (None, 0, 0)
        self._tending = threading.Lock()
        self._scheduled = False
        self._changing = threading.Lock()
        self._kept = Rows(dimension, dtype)
        self._kept = self._new_rows(capacity)
        self._kept.reserve(capacity)
        self._view = View.of(self._kept)

    def __len__(self) -> int:
        """Faces that a search would see now."""
        return self._view.live

    @property
    def sifted(self) -> int:
        """Rows that searches look through compressed; 0 while every search is exact."""
        return self._view.sifted

    @property
    def last_key(self) -> int:
        """The greatest face key that was ever added; -1 before the first."""
        return self._view.last_key

    def resume(self, kept: Rows, snapshot: Snapshot, live: NDArray[np.int64]) -> None:
        """Begin with the rows of a snapshot instead of none.

        Args:
            kept, snapshot: as loaded.
            live: keys of the faces enrolled in the gallery, ascending; the others are blanked.

        Raises:
            SnapshotDamaged: the rows cannot be used; the index stays empty.
        """
        alive = reconciled(kept, snapshot.rows, live)
        dead = np.flatnonzero(~alive)
        kept.removed_at.array[dead] = 0
        left = dead[~kept.blank_rows(dead)]
        if len(left):
            kept.blank(left)
            kept.sync_blanked()
        view = View.of(kept, rows=snapshot.rows, live=int(alive.sum()), revision=snapshot.revision)
        if snapshot.codes is not None:
            empty = Sieve.of_codes(snapshot.codes, snapshot.trained_on)
            view = view._replace(sieve=empty.extended(view.vectors[: view.rows]))
        self._kept, self._view = kept, view
        self._saved = (kept, snapshot.rows, snapshot.trained_on)

    def add(
        self,
        keys: NDArray[np.int64],
        persons: NDArray[np.int64],
        face_ids: Sequence[str],
        vectors: NDArray[np.float32],
        *,
        revision: int = 0,
    ) -> None:
        """Append m faces; searches that begin after the return see them.

        Args:
            keys: (m,) int64, ascending and above every key added before.
            persons: (m,) int64, whose face each one is.
            face_ids: m ids.
            vectors: (m, d) float32, unit length.
            revision: of the store that this change made.

        Raises:
            ValueError: lengths disagree or keys do not ascend; nothing is added.
        """
        count = len(keys)
        if len(persons) != count or len(face_ids) != count or vectors.shape != (count, self._dimension):
            raise ValueError("keys, persons, face ids and vectors differ in number, or vectors in dimension")
        if not count:
            return
        with self._changing:
            view, kept = self._view, self._kept
            if keys[0] <= view.last_key or (np.diff(keys) <= 0).any():
                raise ValueError("face keys must ascend")
            end = view.rows + count
            if end > kept.capacity:
                kept.reserve(max(end, view.rows * 3 // 2 + 16))
            kept.append(view.rows, vectors, keys, persons, face_ids)
            self._view = View.of(
                kept,
                rows=end,
                live=view.live + count,
                version=view.version + 1,
                revision=max(view.revision, revision),
            )._replace(sieve=view.sieve)
        self._ask_for_upkeep()

    def remove(self, keys: NDArray[np.int64], *, revision: int = 0) -> int:
        """Take faces away; searches that begin after the return do not see them.

        A search that began before may miss them or, since their rows are blanked, score them 0.

        Args:
            keys: (m,) int64; those that are not here are passed over.
            revision: of the store that this change made.

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
            self._view = view._replace(
                live=view.live - len(rows), version=version, revision=max(view.revision, revision)
            )
            self._kept.blank(rows)
        self._ask_for_upkeep()
        return len(rows)

    def sync_removed(self) -> None:
        """Return when nothing of the faces removed is left on disk."""
        synced = None
        while synced is not self._kept:
            synced = self._kept
            # Files that are gone went with an older generation; then the newer one is to be seen to.
            with suppress(FileNotFoundError):
                synced.sync_blanked()

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
        found: list[list[Hit]] = []
        for start in range(0, len(probes), _PROBES_AT_ONCE):
            some = probes[start : start + _PROBES_AT_ONCE]
            if exact or view.sieve is None:
                found.extend(search_exactly(view, some, top_k, deepest_fetch=self._deepest_fetch))
            else:
                with self._team.searching():
                    found.extend(search_sifted(view, some, top_k, self._team, caution=self._caution))
        if not exact and view.sieve is not None and len(probes):
            self._have_checked(view, probes[0], found[0])
        return found, view.live

    def tend(self) -> None:
        """Do what upkeep there is. Blocks; at a million faces it may take seconds, which searches do not notice."""
        with self._tending:
            while self._tend_once():
                pass

    def _have_checked(self, view: View, probe: NDArray[np.float32], hits: list[Hit]) -> None:
        """Now and then have a search repeated exactly on the same rows, beside everything else."""
        on_check, now_s = self._on_check, time.monotonic()
        if on_check is None or self.upkeep is None or now_s < self._next_check_s or not hits:
            return
        # Two searches may both get here; a check too many does no harm.
        self._next_check_s = now_s + _CHECK_EVERY_S
        probe = probe.copy()

        def check() -> None:
            (exact,) = search_exactly(view, probe[np.newaxis], 1)
            # Of faces at the same cosine either is right; less is found only of faces blanked in the meantime.
            agrees = exact[0].similarity <= hits[0].similarity
            self._steer(agrees)
            on_check(agrees)

        self.upkeep(check)

    def save(self) -> None:
        """Write a snapshot if there is something that the last one lacks and there is to be one at all."""
        with self._tending:
            view = self._view
            known = self._saved == (self._kept, view.rows, view.sieve.trained_on if view.sieve else 0)
            if self._home is not None and view.sieve is not None and not known:
                self._save(view)

    def abandon(self) -> None:
        """Leave nothing on disk; the index is not used any more."""
        with self._tending:
            self.upkeep = None
            if self._home is not None:
                with self._changing:
                    self._kept.detach()
                self._home.discard()
                self._home = None

    def _steer(self, agrees: bool) -> None:
        """Search deeper or less deep, so that in the long run the target share of checks agrees."""
        odds = _TARGET_AGREEMENT / (1 - _TARGET_AGREEMENT)
        factor = math.exp(-_STEP / odds if agrees else _STEP)
        self._caution = min(max(self._caution * factor, 1.0), _DEEPEST)

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
            return self._move
        if view.rows < self._sieve_from:
            return None
        if self._home is not None and not self._kept.on_disk:
            return self._move
        if view.sieve is None or view.rows >= _REFIT_GROWTH * view.sieve.trained_on:
            return self._fit
        if view.rows - view.sifted >= _TAIL_ROWS:
            return self._extend
        kept, rows, trained_on = self._saved
        unsaved = kept is not self._kept or trained_on != view.sieve.trained_on or view.rows - rows >= _UNSAVED_ROWS
        return self._save if unsaved and self._home is not None else None

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
        # Rows are renumbered by `_move` alone, and upkeep is done by one thread at a time.
        with self._changing:
            self._view = self._view._replace(sieve=sieve)

    def _move(self, view: View) -> None:
        """Take the removed rows out: copy what lives to where it belongs, then catch up with what has changed since."""
        kept = view.living()
        fresh = self._new_rows(len(kept))
        fresh.reserve(len(kept) * 5 // 4 + _COMPACT_FROM)
        if fresh.folder is not None and not fresh.on_disk:
            fresh.detach()
            self._give_up_home(None)
        fresh.copy(0, self._kept, kept)
        sieve = None
        if view.sieve is not None and len(kept) >= self._sieve_from:
            sieve = view.sieve.emptied().extended(fresh.vectors.array[: len(kept)])
        with self._changing:
            now = self._view
            later = np.arange(view.rows, now.rows)
            rows = len(kept) + len(later)
            if rows > fresh.capacity:
                fresh.reserve(rows * 5 // 4)
            fresh.copy(len(kept), self._kept, later)
            fresh.removed_at.array[: len(kept)] = now.removed_at[kept]
            # Erased while it was being copied.
            fresh.blank(np.flatnonzero(fresh.removed_at.array[: len(kept)] != ALIVE))
            self._kept = fresh
            self._view = View.of(fresh, rows=rows, live=now.live, version=now.version, revision=now.revision)._replace(
                sieve=sieve
            )
        if self._home is not None and fresh.folder is None:
            self._home.discard()

    def _new_rows(self, rows: int) -> Rows:
        """Columns for so many rows, on disk where they belong there."""
        if self._home is not None and rows >= self._sieve_from:
            try:
                return self._home.begin()
            except OSError as error:
                self._give_up_home(error)
        return Rows(self._dimension, self._dtype)

    def _save(self, view: View) -> None:
        """Write a snapshot of the rows there are."""
        assert self._home is not None and view.sieve is not None
        if not self._kept.on_disk:
            # A file found no more room. What is left of them would only be in the way.
            self._give_up_home(None)
            return
        trained_on = view.sieve.trained_on
        try:
            self._home.save(self._kept, Snapshot(view.rows, view.revision, view.sieve.codes, trained_on))
        except OSError as error:
            self._give_up_home(error)
        self._saved = (self._kept, view.rows, trained_on)

    def _give_up_home(self, error: OSError | None) -> None:
        """Go on without snapshots: a start will take longer, nothing else."""
        assert self._home is not None
        _log.warning("no more snapshots of a gallery until the next start: %s", error or "the disk is full")
        with self._changing:
            self._kept.detach()
        self._home.discard()
        self._home = None
