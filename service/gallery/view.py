"""The rows of one gallery as a search sees them at one moment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.gallery.sieve import Sieve

ALIVE = np.iinfo(np.int64).max


class View(NamedTuple):
    """What one search works on. Rows below `rows` never change in the arrays it holds; only their removal is noted.

    Attributes:
        vectors: (capacity, d) float32.
        keys: (capacity,) int64, ascending: the order of commits is the order of rows.
        persons: (capacity,) int64.
        removed_at: (capacity,) int64, the version that removed the row, `ALIVE` while none has.
        face_ids: at least `rows` long.
        rows: rows filled, removed ones included.
        live: rows not removed.
        version: number of changes before this view.
        sieve: over the first of the rows; None while there are too few.
    """

    vectors: NDArray[np.float32]
    keys: NDArray[np.int64]
    persons: NDArray[np.int64]
    removed_at: NDArray[np.int64]
    face_ids: list[str]
    rows: int
    live: int
    version: int
    sieve: Sieve | None

    @classmethod
    def empty(cls, capacity: int, dimension: int, *, version: int = 0) -> View:
        """Room for `capacity` rows."""
        return cls(
            vectors=np.empty((capacity, dimension), dtype=np.float32),
            keys=np.empty(capacity, dtype=np.int64),
            persons=np.empty(capacity, dtype=np.int64),
            removed_at=np.empty(capacity, dtype=np.int64),
            face_ids=[],
            rows=0,
            live=0,
            version=version,
            sieve=None,
        )

    @property
    def sifted(self) -> int:
        """Rows that the sieve covers."""
        return 0 if self.sieve is None else self.sieve.rows

    @property
    def dead(self) -> int:
        """Rows removed."""
        return self.rows - self.live

    def visible(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows that had not been removed when this view was current.

        A removal that comes later is not seen, so a search sees one moment throughout.
        """
        return rows[self.removed_at[rows] > self.version]

    def living(self) -> NDArray[np.int64]:
        """Rows that nobody has removed, by now and not only by the time of this view."""
        return np.flatnonzero(self.removed_at[: self.rows] == ALIVE)

    def write(self, start: int, other: View, rows: NDArray[np.int64] | slice) -> None:
        """Copy rows of another view into the arrays from `start` on; they show once a view counts them."""
        keys = other.keys[rows]
        end = start + len(keys)
        self.keys[start:end] = keys
        self.persons[start:end] = other.persons[rows]
        self.removed_at[start:end] = other.removed_at[rows]
        if isinstance(rows, slice):
            self.vectors[start:end] = other.vectors[rows]
            chosen: Iterable[int] = range(other.rows)[rows]
        else:
            # In any other mode NumPy would gather into a copy first, of the size of the gallery.
            np.take(other.vectors, rows, axis=0, out=self.vectors[start:end], mode="clip")
            chosen = rows.tolist()
        self.face_ids.extend([other.face_ids[row] for row in chosen])

    def grown(self, capacity: int) -> View:
        """The same rows in arrays with more room: searches that are under way go on with the old ones."""
        larger = View.empty(capacity, self.vectors.shape[1], version=self.version)
        larger.write(0, self, slice(0, self.rows))
        return larger._replace(rows=self.rows, live=self.live, sieve=self.sieve)
