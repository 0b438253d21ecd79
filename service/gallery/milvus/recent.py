"""What this process has changed of late, laid over searches that see it in Milvus only a moment later."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.domain import GallerySettings
from service.gallery.milvus.connection import Consistency
from service.gallery.milvus.rows import FaceRow, Galleries, PersonRow
from service.gallery.records import now_us

# Kept longer than any query node lags behind the one that answered the strong read.
_KEPT_S = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class RecentFaces:
    """Faces of one gallery as this process has left them.

    Attributes:
        faces: newly stored, by key; row i of `embeddings` (n, d) float32 is the i-th.
        removed: keys of erased ones.
        consistency: how searches have to read; strongly, when the gallery was dropped and has begun anew.
        expires_us: when the first of `faces` expires, microseconds since 1970; 0 if none does.
    """

    faces: Mapping[str, FaceRow]
    embeddings: NDArray[np.float32]
    removed: frozenset[str]
    consistency: Consistency
    expires_us: int

    @classmethod
    def none(cls) -> RecentFaces:
        """Nothing has changed."""
        return cls({}, np.empty((0, 0), dtype=np.float32), frozenset(), "Strong", 0)


@dataclass(slots=True)
class _Gallery:
    faces: dict[str, tuple[FaceRow, float]] = field(default_factory=dict)
    removed: dict[str, float] = field(default_factory=dict)
    dropped_at: float | None = None
    size: int | None = None
    counted_at: float = -np.inf
    counted_us: int = 0
    seen: RecentFaces | None = None

    def see(self) -> RecentFaces:
        now = now_us()
        if self.seen is None or 0 < self.seen.expires_us <= now:
            faces = {key: face for key, (face, _) in self.faces.items() if not face.expired(now)}
            rows = [face.embedding for face in faces.values()]
            self.seen = RecentFaces(
                faces=faces,
                embeddings=np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32),
                removed=frozenset(self.removed),
                consistency="Eventually" if self.dropped_at is None else "Strong",
                expires_us=min((face.expires_us for face in faces.values() if face.expires_us), default=0),
            )
        return self.seen


class Recent:
    """Recent changes by gallery, and what is known of the galleries: their sizes and settings.

    An entry goes once a strong read that began after it has come back: from then on every read finds it in Milvus.
    All methods are safe to call from several threads; those that change are called by the writer alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._galleries: dict[str, _Gallery] = {}
        self._people: dict[str, tuple[PersonRow | None, float]] = {}
        self._settings: dict[str, GallerySettings] = {}
        self._known_at = -np.inf

    def record(
        self,
        added: Iterable[FaceRow],
        removed: Iterable[FaceRow],
        people: Mapping[str, PersonRow | None],
        changed: Iterable[str],
    ) -> None:
        """Note what was stored and erased, all of it visible at once.

        Args:
            added: new faces.
            removed: faces that went; one that is also added was replaced.
            people: persons as they are now, by key; None for those who went.
            changed: galleries that exist since, if they did not.
        """
        now = time.monotonic()
        with self._lock:
            for name in changed:
                self._of(name).seen = None
            for face in removed:
                gallery = self._of(face.gallery)
                gallery.seen = None
                gallery.faces.pop(face.face_key, None)
                gallery.removed[face.face_key] = now
                # The count left out what had expired by then.
                if gallery.size is not None and not face.expired(gallery.counted_us):
                    gallery.size = max(0, gallery.size - 1)
            for face in added:
                gallery = self._of(face.gallery)
                gallery.faces[face.face_key] = (face, now)
                gallery.removed.pop(face.face_key, None)
                if gallery.size is not None and not face.expired(gallery.counted_us):
                    gallery.size += 1
            for key, person in people.items():
                self._people[key] = (person, now)

    def drop(self, gallery: str) -> None:
        """Note that a gallery exists no more, or that the last of what it held is erased."""
        now = time.monotonic()
        with self._lock:
            self._galleries[gallery] = _Gallery(dropped_at=now, size=0, counted_at=now, counted_us=now_us())
            for key, (person, _) in list(self._people.items()):
                if person is not None and person.gallery == gallery:
                    del self._people[key]

    def know(self, galleries: Galleries) -> None:
        """Note all galleries' settings, read while no change was under way."""
        with self._lock:
            self._settings = {name: row.settings for name, row in galleries.existing.items()}
            self._known_at = time.monotonic()

    def counted(self, gallery: str, faces: int, at_us: int) -> None:
        """Note a gallery's size, read while no change was under way.

        Args:
            gallery: its name.
            faces: that had not expired at `at_us`.
            at_us: microseconds since 1970.
        """
        with self._lock:
            noted = self._of(gallery)
            noted.size, noted.counted_at, noted.counted_us = faces, time.monotonic(), at_us

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
                erased = gallery.dropped_at is not None and gallery.dropped_at < bound
                if erased:
                    gallery.dropped_at = None
                if old or gone or erased:
                    gallery.seen = None
            for key in [key for key, (_, at) in self._people.items() if at < bound]:
                del self._people[key]

    def size(self, gallery: str) -> tuple[int | None, float]:
        """Faces of a gallery, None if they were never counted, and how many seconds ago they were."""
        with self._lock:
            noted = self._galleries.get(gallery)
            return (None, np.inf) if noted is None else (noted.size, time.monotonic() - noted.counted_at)

    def settings(self, gallery: str) -> tuple[GallerySettings, float]:
        """A gallery's settings, the defaults where there is none, and how many seconds ago they were read."""
        with self._lock:
            return self._settings.get(gallery, GallerySettings()), time.monotonic() - self._known_at

    def view(self, gallery: str) -> tuple[RecentFaces, Mapping[str, PersonRow | None], int]:
        """Recent faces, recent persons and the size of one gallery, all of the same moment."""
        with self._lock:
            noted = self._of(gallery)
            return noted.see(), {key: person for key, (person, _) in self._people.items()}, noted.size or 0

    def _of(self, gallery: str) -> _Gallery:
        return self._galleries.setdefault(gallery, _Gallery())
