"""The search indexes of all galleries of a data folder, and the thread that keeps them in order."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.gallery.index import FaceIndex, search_on_one_core
from service.gallery.records import now_us
from service.gallery.snapshot import SnapshotDamaged, SnapshotFolder
from service.gallery.store import Store
from service.gallery.team import Team

Progress = Callable[[int, int], None]

# Checks that the running recall is taken over.
_CHECKS = 1_000
# What a lone search shares its work among; past a few, the memory is the limit.
_MOST_CORES = 4

_log = logging.getLogger(__name__)


class IndexCollection:
    """One `FaceIndex` a gallery.

    Args:
        dimension: length of an embedding.
        exact_up_to: galleries of more faces get a sieve.
        on_recall: told, when it is measured anew, which share of the last sifted searches an exact one agrees with.
        dtype: of the matrices, float32 or float16.
        home: where the index of a gallery of this name is kept once it has a sieve; without it, nowhere.
    """

    def __init__(
        self,
        dimension: int,
        exact_up_to: int,
        on_recall: Callable[[float], None] | None = None,
        *,
        dtype: np.dtype[Any] = np.dtype(np.float32),  # noqa: B008 - a dtype never changes
        home: Callable[[str], SnapshotFolder] | None = None,
    ) -> None:
        self.dimension = dimension
        self._dtype = dtype
        self._home = home
        self._removed_from: set[str] = set()
        # Faces whose time has come and whose rows still exist, by gallery: stored, and in no index.
        self._hidden: dict[str, set[int]] = {}
        self._hiding = threading.Lock()
        self._exact_up_to = exact_up_to
        self._on_recall = on_recall
        self._agreed: deque[bool] = deque(maxlen=_CHECKS)
        self._indexes: dict[str, FaceIndex] = {}
        # A search may have all cores but not more: each thread uses one.
        self._team = Team(min(os.cpu_count() or 1, _MOST_CORES) - 1, search_on_one_core)
        # On one core: the others are for searches.
        self._upkeep = ThreadPoolExecutor(1, "gallery-upkeep", initializer=search_on_one_core)

    def get(self, gallery: str) -> FaceIndex | None:
        """A gallery's index; None where nobody has ever been enrolled."""
        return self._indexes.get(gallery)

    def begun(self, gallery: str, *, capacity: int = 0) -> FaceIndex:
        """A gallery's index, which begins empty with room for `capacity` faces."""
        index = self._indexes.get(gallery)
        if index is None:
            index = FaceIndex(
                self.dimension,
                capacity=capacity,
                sieve_from=self._exact_up_to + 1,
                on_check=self._note_check,
                upkeep=self._schedule,
                team=self._team,
                home=self._home and self._home(gallery),
                dtype=self._dtype,
            )
            self._indexes[gallery] = index
        return index

    def build(self, store: Store, progress: Progress | None = None) -> None:
        """Fill the indexes from the store. Blocks; a million faces take seconds.

        Args:
            store: where the faces are.
            progress: called now and then with the faces indexed so far and the faces in all.

        Raises:
            StorageUnusable: an embedding is damaged; it is named.
        """
        keys = store.face_keys()
        for name, expired in store.expired_keys(now_us()).items():
            # They begin hidden: a snapshot may hold them, hold blanked rows of them, or have lost them to a compaction.
            keys[name] = np.setdiff1d(keys[name], expired, assume_unique=True)
            self._hidden[name] = set(expired.tolist())
        for name, live in keys.items():
            index = self._begun_at_start(name, live)
            index.upkeep = None
            keys[name] = live[np.searchsorted(live, index.last_key, side="right") :]
        total, done = sum(map(len, keys.values())), 0
        for name, missing in keys.items():
            index = self.begun(name)
            for faces in store.stored_faces(missing):
                index.add(faces.face_keys, faces.person_keys, faces.face_ids, faces.embeddings)
                done += len(faces.face_ids)
                if progress is not None:
                    progress(done, total)
            # The first search is to be as fast as the later ones.
            index.tend()
            index.upkeep = self._schedule

    def remove(self, gallery: str, keys: NDArray[np.int64], *, revision: int) -> int:
        """Take faces out of a gallery's index; how many there were, hidden ones included. See `FaceIndex.remove`."""
        self._removed_from.add(gallery)
        index = self.begun(gallery)
        with self._hiding:
            hidden = self._hidden.get(gallery, set())
            gone = hidden.intersection(keys.tolist())
            if not gone:
                return index.remove(keys, revision=revision)
            hidden -= gone
            told_before = np.array(sorted(gone), dtype=np.int64)
            index.remove(told_before, revision=revision)
            return len(gone) + index.remove(np.setdiff1d(keys, told_before), revision=revision)

    def hide(self, gallery: str, keys: NDArray[np.int64]) -> None:
        """Let no search see some faces any more, whose rows are still to be erased. From any thread.

        Args:
            gallery: nothing happens where it has no index.
            keys: (m,) int64, ascending; those that are hidden already may be among them.
        """
        with self._hiding:
            index = self._indexes.get(gallery)
            if index is not None:
                index.remove(keys)
                self._hidden.setdefault(gallery, set()).update(keys.tolist())

    def drop(self, gallery: str) -> Future[None]:
        """Take a gallery's index away at once; done when nothing of it is left on disk."""
        self._removed_from.discard(gallery)
        with self._hiding:
            self._hidden.pop(gallery, None)
            index = self._indexes.pop(gallery, None)
        if index is None:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        # On the upkeep's thread, so behind what it is doing for this index and before anything for the next one.
        return self._upkeep.submit(index.abandon)

    def sync_removed(self) -> None:
        """Return when nothing of the faces removed is left on disk."""
        for gallery in self._removed_from:
            self.begun(gallery).sync_removed()
        self._removed_from.clear()

    def close(self) -> None:
        """Wait for upkeep under way, begin none any more and write snapshots; closing twice does nothing."""
        self._upkeep.shutdown(cancel_futures=True)
        self._team.close()
        for index in self._indexes.values():
            index.save()

    def _begun_at_start(self, gallery: str, live: NDArray[np.int64]) -> FaceIndex:
        """A gallery's index with the rows of its snapshot, or with room for all of its faces.

        Args:
            live: keys of the faces that searches are to see, ascending.
        """
        home = self._home and self._home(gallery)
        if home is not None:
            try:
                found = home.load()
                if found is not None:
                    index = self.begun(gallery)
                    index.resume(*found, live)
                    return index
            except SnapshotDamaged as damage:
                # The store has it all.
                _log.warning("the snapshot of a gallery is not used, its index is built from the database: %s", damage)
            home.discard()
            self._indexes.pop(gallery, None)
        # Room that is not used takes no memory; without it the first enrolment would copy the whole matrix.
        return self.begun(gallery, capacity=len(live) * 5 // 4 + 1_024)

    def _note_check(self, agrees: bool) -> None:
        """On the upkeep's thread."""
        self._agreed.append(agrees)
        if self._on_recall is not None:
            self._on_recall(sum(self._agreed) / len(self._agreed))

    def _schedule(self, job: Callable[[], None]) -> None:
        try:
            future = self._upkeep.submit(job)
        except RuntimeError:
            # Closing. The next start puts everything in order.
            return
        future.add_done_callback(
            lambda done: (
                None
                if done.cancelled() or done.exception() is None
                else _log.error("upkeep of a search index failed; searches go on without it", exc_info=done.exception())
            )
        )
