"""The rows of one gallery as a search sees them at one moment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import ALIVE, Rows, unpacked
from service.gallery.sieve import Sieve


class View(NamedTuple):
    """What one search works on. Rows below `rows` never change in the arrays it holds, unless they are removed.

    Attributes:
        vectors: (capacity, d) float32 or float16; zeros once a row's removal has been made good.
        keys: (capacity,) int64, ascending: the order of commits is the order of rows.
        persons: (capacity,) int64.
        removed_at: (capacity,) int64, the version that removed the row, `ALIVE` while none has.
        id_ends, id_words: ids of the faces, see `columns`.
        rows: rows filled, removed ones included.
        live: rows not removed.
        version: number of changes before this view.
        revision: of the store after the last of these changes.
        sieve: over the first of the rows; None while there are too few.
    """

    vectors: NDArray[np.floating]
    keys: NDArray[np.int64]
    persons: NDArray[np.int64]
    removed_at: NDArray[np.int64]
    id_ends: NDArray[np.int64]
    id_words: NDArray[np.uint64]
    rows: int
    live: int
    version: int
    revision: int
    sieve: Sieve | None

    @classmethod
    def of(cls, kept: Rows, *, rows: int = 0, live: int = 0, version: int = 0, revision: int = 0) -> View:
        """The first rows of some columns, without a sieve."""
        return cls(
            vectors=kept.vectors.array,
            keys=kept.keys.array,
            persons=kept.persons.array,
            removed_at=kept.removed_at.array,
            id_ends=kept.id_ends.array,
            id_words=kept.id_words.array,
            rows=rows,
            live=live,
            version=version,
            revision=revision,
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

    @property
    def last_key(self) -> int:
        """Key of the last row; -1 without rows."""
        return int(self.keys[self.rows - 1]) if self.rows else -1

    def face_id(self, row: int) -> str:
        """Id of a row's face."""
        start = self.id_ends[row - 1] if row else 0
        return unpacked(self.id_words[start : self.id_ends[row]])

    def visible(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows that had not been removed when this view was current.

        A removal that comes later is not seen, so a search sees one moment throughout.
        """
        return rows[self.removed_at[rows] > self.version]

    def living(self) -> NDArray[np.int64]:
        """Rows that nobody has removed, by now and not only by the time of this view."""
        return np.flatnonzero(self.removed_at[: self.rows] == ALIVE)
