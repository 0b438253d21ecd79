"""What this process has changed of late, laid over searches that see it in Milvus only a moment later."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.gallery.milvus.rows import FaceRow, PersonRow

# Kept longer than any query node lags behind the one that answered the strong read.
_KEPT_S = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class RecentFaces:
    """Faces of one gallery as this process has left them.

    Attributes:
        faces: newly stored, by key; row i of `embeddings` (n, d) float32 is the i-th.
        removed: keys of erased ones.
    """

    faces: Mapping[str, FaceRow]
    embeddings: NDArray[np.float32]
    removed: frozenset[str]


@dataclass(slots=True)
class _Gallery:
    faces: dict[str, tuple[FaceRow, float]] = field(default_factory=dict)
    removed: dict[str, float] = field(default_factory=dict)
    size: int | None = None
    counted_at: float = -np.inf
    seen: RecentFaces | None = None


class Recent:
    """Recent changes by gallery, and the galleries' sizes.

    An entry goes once a strong read that began after it has come back: from then on every read finds it in Milvus.
    All methods are safe to call from several threads; those that change are called by the writer alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._galleries: dict[str, _Gallery] = {}
        self._people: dict[str, tuple[PersonRow | None, float]] = {}

    def record(
        self,
        added: Iterable[FaceRow],
        removed: Iterable[tuple[str, str]],
        people: Mapping[str, PersonRow | None],
        changed: Iterable[str],
    ) -> None:
        """Note what was stored and erased, all of it visible at once.

        Args:
            added: new faces.
            removed: gallery and key of faces that went; one that is also added was replaced.
            people: persons as they are now, by key; None for those who went.
            changed: galleries that exist since, if they did not.
        """
        now = time.monotonic()
        with self._lock:
            for name in changed:
                self._of(name).seen = None
            for name, key in removed:
                gallery = self._of(name)
                gallery.faces.pop(key, None)
                gallery.removed[key] = now
                if gallery.size is not None:
                    gallery.size -= 1
            for face in added:
                gallery = self._of(face.gallery)
                gallery.faces[face.face_key] = (face, now)
                gallery.removed.pop(face.face_key, None)
                if gallery.size is not None:
                    gallery.size += 1
            for key, person in people.items():
                self._people[key] = (person, now)

    def counted(self, gallery: str, faces: int) -> None:
        """Note a gallery's size, read while no change was under way."""
        with self._lock:
            noted = self._of(gallery)
            noted.size, noted.counted_at = faces, time.monotonic()

    def settle(self, read_at: float) -> None:
        """Forget what was noted before `read_at`, when a strong read began that has come back."""
        bound = min(read_at, time.monotonic() - _KEPT_S)
        with self._lock:
            for gallery in self._galleries.values():
                old = [key for key, (_, at) in gallery.faces.items() if at < bound]
                gone = [key for key, at in gallery.removed.items() if at < bound]
                for key in old:
                    del gallery.faces[key]
                for key in gone:
                    del gallery.removed[key]
                if old or gone:
                    gallery.seen = None
            for key in [key for key, (_, at) in self._people.items() if at < bound]:
                del self._people[key]

    def size(self, gallery: str) -> tuple[int | None, float]:
        """Faces of a gallery, None if they were never counted, and how many seconds ago they were."""
        with self._lock:
            noted = self._galleries.get(gallery)
            return (None, np.inf) if noted is None else (noted.size, time.monotonic() - noted.counted_at)

    def view(self, gallery: str) -> tuple[RecentFaces, Mapping[str, PersonRow | None], int]:
        """Recent faces, recent persons and the size of one gallery, all of the same moment."""
        with self._lock:
            noted = self._of(gallery)
            if noted.seen is None:
                faces = {key: face for key, (face, _) in noted.faces.items()}
                rows = [face.embedding for face in faces.values()]
                stacked = np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
                noted.seen = RecentFaces(faces, stacked, frozenset(noted.removed))
            return noted.seen, {key: person for key, (person, _) in self._people.items()}, noted.size or 0

    def _of(self, gallery: str) -> _Gallery:
        return self._galleries.setdefault(gallery, _Gallery())
