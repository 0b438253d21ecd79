"""The search indexes of all galleries of a data folder, and the thread that keeps them in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.gallery.index import FaceIndex, search_on_one_core
from service.gallery.store import Store

Progress = Callable[[int, int], None]

# Checks that the running recall is taken over.
_CHECKS = 1_000

_log = logging.getLogger(__name__)


class IndexCollection:
    """One `FaceIndex` a gallery.

    Args:
        dimension: length of an embedding.
        exact_up_to: galleries of more faces get a sieve.
        on_recall: told, when it is measured anew, which share of the last sifted searches an exact one agrees with.
    """

    def __init__(self, dimension: int, exact_up_to: int, on_recall: Callable[[float], None] | None = None) -> None:
        self.dimension = dimension
        self._exact_up_to = exact_up_to
        self._on_recall = on_recall
        self._agreed: deque[bool] = deque(maxlen=_CHECKS)
        self._indexes: dict[str, FaceIndex] = {}
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
        galleries = store.galleries()
        total, done = sum(summary.faces for summary in galleries), 0
        for summary in galleries:
            # Room that is not used takes no memory; without it the first enrolment would copy the whole matrix.
            self.begun(summary.name, capacity=summary.faces * 5 // 4 + 1_024).upkeep = None
        names = store.gallery_names()
        for faces in store.stored_faces():
            for gallery_key in np.unique(faces.gallery_keys).tolist():
                chosen = np.flatnonzero(faces.gallery_keys == gallery_key)
                self.begun(names[gallery_key]).add(
                    faces.face_keys[chosen],
                    faces.person_keys[chosen],
                    [faces.face_ids[row] for row in chosen.tolist()],
                    faces.embeddings[chosen],
                )
            done += len(faces.face_ids)
            if progress is not None:
                progress(done, total)
        # The first search is to be as fast as the later ones.
        for index in self._indexes.values():
            index.tend()
            index.upkeep = self._schedule

    def close(self) -> None:
        """Wait for upkeep under way and begin none any more; closing twice does nothing."""
        self._upkeep.shutdown(cancel_futures=True)

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
