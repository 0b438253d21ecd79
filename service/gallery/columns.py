"""The rows of one gallery as arrays that grow: in memory, or in files that are mapped into it.

A row is an embedding, the keys of its face and its person, the face's id and a checksum over all of these. Rows are
appended, and blanked when a face is erased; nothing else ever changes in them. So whoever holds arrays from before a
growth goes on reading the rows they knew, and a file that was written to disk stays right up to its last row.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIVE = np.iinfo(np.int64).max

_CHECKED_AT_ONCE = 16_384
# Ids are padded to whole words, so that checksums and copies handle words and not characters.
_WORD = 8
_MAX_ID_WORDS = 64


class Column:
    """One value or vector a row. `array` has room for more rows than are filled.

    Args:
        dtype: of a value.
        shape: of a row; () for single values.
        path: the file to keep it in, which may exist; None for memory.
    """

    def __init__(self, dtype: type | np.dtype[Any], shape: tuple[int, ...] = (), path: Path | None = None) -> None:
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._row_bytes = self._dtype.itemsize * math.prod(shape)
        self.path = path
        self.array: NDArray[Any] = np.empty((0, *shape), dtype=self._dtype)
        if path is not None and path.exists():
            self._map(path.stat().st_size // self._row_bytes)

    def reserve(self, rows: int) -> None:
        """Make room. A file that finds no room on the disk is given up for memory, so that the index can follow."""
        if rows <= len(self.array):
            return
        if self.path is not None:
            try:
                self._extend_file(rows)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                self.path.unlink(missing_ok=True)
                self.path = None
            else:
                self._map(rows)
                return
        larger = np.empty((rows, *self._shape), dtype=self._dtype)
        larger[: len(self.array)] = self.array
        self.array = larger

    def sync(self) -> None:
        """Bring a file's content to disk."""
        if self.path is None:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _extend_file(self, rows: int) -> None:
        assert self.path is not None
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Blocks are taken now: a page of a hole that finds none later would kill the process.
            os.posix_fallocate(descriptor, 0, rows * self._row_bytes)
        finally:
            os.close(descriptor)

    def _map(self, rows: int) -> None:
        if not rows:
            return
        assert self.path is not None
        with self.path.open("r+b") as stream:
            mapped = mmap.mmap(stream.fileno(), rows * self._row_bytes)
        # The mapping goes when the last array of it does.
        self.array = np.frombuffer(mapped, dtype=self._dtype).reshape(rows, *self._shape)


class Rows:
    """The columns of one gallery. One thread at a time may change them.

    Args:
        dimension: d of an embedding.
        dtype: float32, or float16 to save half of the memory at a score error of about 1e-4.
        folder: where to keep the files, which may exist; None for memory.
    """

    def __init__(self, dimension: int, dtype: type | np.dtype[Any] = np.float32, folder: Path | None = None) -> None:
        self.dimension = dimension
        self.dtype = np.dtype(dtype)
        self.folder = folder

        def column(name: str, kind: type | np.dtype[Any], shape: tuple[int, ...] = ()) -> Column:
            return Column(kind, shape, None if folder is None else folder / name)

        self.vectors = column("vectors", self.dtype, (dimension,))
        self.keys = column("keys", np.int64)
        self.persons = column("persons", np.int64)
        self.id_ends = column("id_ends", np.int64)
        self.id_words = column("id_words", np.uint64)
        self.checks = column("checks", np.uint64)
        # Not kept: a start compares the keys with those that are enrolled.
        self.removed_at = Column(np.int64)

    @property
    def on_disk(self) -> bool:
        """Whether all of it is in files."""
        return self.folder is not None and all(column.path is not None for column in self._kept())

    @property
    def capacity(self) -> int:
        """Rows that there is room for."""
        return min(len(column.array) for column in (*self._a_row(), self.removed_at))

    @property
    def capacity_on_disk(self) -> int:
        """Rows that the kept columns have room for."""
        return min(len(column.array) for column in self._a_row())

    def reserve(self, rows: int) -> None:
        """Make room for so many rows."""
        for column in (*self._a_row(), self.removed_at):
            column.reserve(rows)

    def words(self, rows: int) -> int:
        """Words that the ids of the first rows take."""
        return int(self.id_ends.array[rows - 1]) if rows else 0

    def append(
        self,
        start: int,
        vectors: NDArray[np.floating],
        keys: NDArray[np.int64],
        persons: NDArray[np.int64],
        face_ids: Sequence[str],
    ) -> None:
        """Write rows from `start`, the number of rows filled, on. There must be room."""
        words, lengths = packed(face_ids)
        end = start + len(keys)
        self.vectors.array[start:end] = vectors
        self._append_ids(start, words, lengths)
        self.keys.array[start:end] = keys
        self.persons.array[start:end] = persons
        self.removed_at.array[start:end] = ALIVE
        self.checks.array[start:end] = self.checksums(start, end)

    def copy(self, start: int, other: Rows, rows: NDArray[np.int64]) -> None:
        """Write rows of another set of columns from `start` on, with what is known of their removal."""
        end = start + len(rows)
        for mine, theirs in (
            (self.vectors, other.vectors),
            (self.keys, other.keys),
            (self.persons, other.persons),
            (self.removed_at, other.removed_at),
            (self.checks, other.checks),
        ):
            # In any other mode NumPy would gather into a copy first, of the size of the gallery.
            np.take(theirs.array, rows, axis=0, out=mine.array[start:end], mode="clip")
        ends = other.id_ends.array[rows]
        lengths = ends - np.where(rows > 0, other.id_ends.array[np.maximum(rows, 1) - 1], 0)
        first = np.repeat(ends - np.cumsum(lengths), lengths)
        self._append_ids(start, other.id_words.array[first + np.arange(len(first))], lengths)

    def blank(self, rows: NDArray[np.int64]) -> None:
        """Overwrite rows with zeros, all but their keys."""
        self.vectors.array[rows] = 0
        self.checks.array[rows] = 0
        for row in rows.tolist():
            self.id_words.array[self.words(row) : self.words(row + 1)] = 0

    def blank_rows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the rows nothing is left of: (m,) bool."""
        return np.asarray(~(self.vectors.array[rows].any(axis=1) | (self.checks.array[rows] != 0)))

    def checksums(self, start: int, end: int) -> NDArray[np.uint64]:
        """What the checksums of rows should be, (end - start,) uint64.

        A multilinear hash with odd factors: a change within one word never goes unnoticed.
        """
        found = np.empty(end - start, dtype=np.uint64)
        for first in range(start, end, _CHECKED_AT_ONCE):
            last = min(first + _CHECKED_AT_ONCE, end)
            vectors = _as_words(self.vectors.array[first:last])
            found[first - start : last - start] = (
                vectors @ _FACTORS[: vectors.shape[1]]
                + self._id_checksums(first, last)
                + self.keys.array[first:last].view(np.uint64) * _FACTORS[-1]
                + self.persons.array[first:last].view(np.uint64) * _FACTORS[-2]
                + _FACTORS[-3]
            )
        return found

    def detach(self) -> None:
        """Go on without the files, which somebody is about to delete; what is mapped stays."""
        for column in self._kept():
            column.path = None
        self.folder = None

    def sync(self) -> None:
        """Bring all files to disk."""
        for column in self._kept():
            column.sync()

    def sync_blanked(self) -> None:
        """Bring to disk what `blank` changes."""
        for column in (self.vectors, self.checks, self.id_words):
            column.sync()

    def _a_row(self) -> tuple[Column, ...]:
        return self.vectors, self.keys, self.persons, self.id_ends, self.checks

    def _kept(self) -> tuple[Column, ...]:
        return (*self._a_row(), self.id_words)

    def _append_ids(self, start: int, words: NDArray[np.uint64], lengths: NDArray[np.int64]) -> None:
        used = self.words(start)
        needed = used + len(words)
        if needed > len(self.id_words.array):
            self.id_words.reserve(max(needed, len(self.id_words.array) * 3 // 2))
        self.id_words.array[used:needed] = words
        self.id_ends.array[start : start + len(lengths)] = used + np.cumsum(lengths)

    def _id_checksums(self, start: int, end: int) -> NDArray[np.uint64]:
        used = self.words(start)
        lengths = np.diff(self.id_ends.array[start:end], prepend=used)
        starts = np.cumsum(lengths) - lengths
        words = self.id_words.array[used : self.words(end)]
        places = np.arange(len(words)) - np.repeat(starts, lengths)
        return np.add.reduceat(words * _FACTORS[_MAX_VECTOR_WORDS + places], starts)


def packed(face_ids: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Ids as UTF-8, each padded with zeros to whole words: all words, and how many each one takes."""
    encoded = [face_id.encode() for face_id in face_ids]
    lengths = np.array([-(-len(each) // _WORD) for each in encoded], dtype=np.int64)
    padded = b"".join(each.ljust(-(-len(each) // _WORD) * _WORD, b"\0") for each in encoded)
    return np.frombuffer(padded, dtype=np.uint64), lengths


def unpacked(words: NDArray[np.uint64]) -> str:
    """One id of its words."""
    return words.tobytes().rstrip(b"\0").decode()


def _as_words(vectors: NDArray[np.floating]) -> NDArray[np.uint64]:
    size = vectors.dtype.itemsize * vectors.shape[1]
    unit = next(unit for unit in (np.uint64, np.uint32, np.uint16) if size % np.dtype(unit).itemsize == 0)
    return vectors.view(unit).astype(np.uint64, copy=False)


_MAX_VECTOR_WORDS = 4_096
# Drawn once and for all, because the checksums are kept. Odd, so that multiplying by one loses nothing.
_FACTORS = np.random.Generator(np.random.PCG64(190_510_620)).integers(
    2**64, size=_MAX_VECTOR_WORDS + _MAX_ID_WORDS + 8, dtype=np.uint64
) | np.uint64(1)
