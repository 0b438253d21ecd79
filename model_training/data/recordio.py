"""InsightFace's data sets: pictures with their labels in one RecordIO file of MXNet.

A record is a magic number, a word of a 3-bit part marker and a 29-bit length, and the payload, padded to four bytes.
Where a payload contains the magic number at a multiple of four bytes the writer cuts it there, into a first, middle
and last part, and leaves the number out. A picture's payload begins with MXNet's image header: a count of extra
labels, one label, two numbers, the extra labels. Record 0 of InsightFace's files has no picture; its labels say where
the records of identities begin, which have none either and name ranges of pictures.

Source: dmlc-core's `recordio.h`, MXNet's `python/mxnet/recordio.py`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_training.data.faces import DataError
from model_training.data.pictures import MAX_PICTURE_BYTES, Picture

MAGIC = 0xCED7230A
_MARK = struct.Struct("<II")
_IMAGE = struct.Struct("<IfQQ")
_LENGTH_BITS = 29
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
# Of one record: a picture has a handful of extra labels, and each part but the last ends at a chance magic number.
_MAX_LABELS, _MAX_PARTS = 4096, 10_000


class Record(NamedTuple):
    """A record of a picture.

    Attributes:
        label: number of the person.
        picture: the encoded picture; empty in records that only describe others.
    """

    label: int
    picture: bytes


class RecordFile:
    """The pictures of a `.rec` file in the order of its `.idx`, one at a time; any number of threads may read.

    Args:
        path: the `.rec`; the `.idx` lies beside it.

    Attributes:
        name: of the file.
        keys: (n,) int64, the keys of the records that hold pictures.

    Raises:
        DataError: one of the files is missing or is not RecordIO.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        try:
            index = _read_index(path.with_suffix(".idx"))
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path} cannot be read, or its .idx: {error.strerror}") from error
        self._size = os.fstat(self._file).st_size
        self.keys, self._offsets = self._of_pictures(index)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Record:
        """The picture of this number, counted from 0 in the order of keys.

        Raises:
            DataError: the file is damaged there.
        """
        return self._record(int(self._offsets[number]))

    def labels(self) -> NDArray[np.int64]:
        """(n,) int64: the label of every picture, read from the records' heads alone.

        Raises:
            DataError: the file is damaged.
        """
        return np.fromiter((self._head(int(offset))[0] for offset in self._offsets), np.int64, len(self._offsets))

    def read(self, start: int = 0) -> Iterator[Picture]:
        """Pictures from number `start` on, named `label/key`. See `Source`."""
        for number in range(start, len(self)):
            record = self[number]
            if len(record.picture) > MAX_PICTURE_BYTES:
                record = Record(record.label, b"")
            yield Picture(f"{record.label}/{self.keys[number]}", record.picture)

    def _of_pictures(self, index: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        keys = np.array(sorted(index), dtype=np.int64)
        if 0 in index:
            count, labels = self._labels(self._payload(index[0], _IMAGE.size + 8))
            if count and labels[0] >= 1:
                # InsightFace's: from this key on there are identities.
                keys = keys[(keys > 0) & (keys < int(labels[0]))]
        offsets = np.array([index[key] for key in keys.tolist()], dtype=np.int64)
        return keys, offsets

    def _record(self, offset: int) -> Record:
        payload = self._payload(offset)
        count, labels = self._labels(payload)
        return Record(int(labels[0]), payload[_IMAGE.size + 4 * count :])

    def _head(self, offset: int) -> tuple[int, int]:
        """Label of a record and the bytes of its first part."""
        payload = self._payload(offset, _IMAGE.size + 4)
        return int(self._labels(payload)[1][0]), len(payload)

    def _labels(self, payload: bytes) -> tuple[int, tuple[float, ...]]:
        """Number of extra labels, and the first two of them, or the only label."""
        if len(payload) < _IMAGE.size:
            raise DataError(f"{self._path} has a record without MXNet's image header")
        count, label, _, _ = _IMAGE.unpack_from(payload)
        if count > _MAX_LABELS:
            raise DataError(f"{self._path} has a record of {count} labels")
        if not count:
            return 0, (label,)
        shown = min(count, 2, (len(payload) - _IMAGE.size) // 4)
        if not shown:
            raise DataError(f"{self._path} has a record without its labels")
        return count, struct.unpack_from(f"<{shown}f", payload, _IMAGE.size)

    def _payload(self, offset: int, at_most: int | None = None) -> bytes:
        """Payload of the record at an offset, its parts joined, or its first bytes."""
        parts: list[bytes] = []
        for number in range(_MAX_PARTS):
            magic, word = _MARK.unpack(self._bytes(offset, _MARK.size))
            part, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
            if magic != MAGIC or part not in ((_WHOLE, _FIRST) if number == 0 else (_MIDDLE, _LAST)):
                raise DataError(f"{self._path} has no record at byte {offset}")
            if at_most is not None:
                return self._bytes(offset + _MARK.size, min(length, at_most))
            parts.append(self._bytes(offset + _MARK.size, length))
            if part in (_WHOLE, _LAST):
                return struct.pack("<I", MAGIC).join(parts)
            offset += _MARK.size + length + -length % 4
        raise DataError(f"{self._path} has a record of too many parts")

    def _bytes(self, offset: int, count: int) -> bytes:
        if offset < 0 or offset + count > self._size:
            raise DataError(f"{self._path} ends within a record")
        return os.pread(self._file, count, offset)


def _read_index(path: Path) -> dict[int, int]:
    """Key to offset."""
    index: dict[int, int] = {}
    with path.open() as stream:
        for line in stream:
            try:
                key, offset = line.split()
                index[int(key)] = int(offset)
            except ValueError as error:
                raise DataError(f"{path} is no index of a RecordIO file") from error
    return index
