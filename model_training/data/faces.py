"""Aligned faces on disk."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

CROPS, SOURCES = "crops.npy", "sources.json"

# Class of a face whose person is not known, or of a view that shows two.
NOBODY = -1


class DataError(ValueError):
    """A data folder is not what it should be."""


@dataclass(frozen=True)
class AlignedFaces:
    """Aligned crops and where each came from.

    Attributes:
        crops: (n, 112, 112, 3) uint8, BGR, memory-mapped.
        sources: the picture of each crop, relative to the folder or data set it was read from.
    """

    crops: NDArray[np.uint8]
    sources: list[str]

    @classmethod
    def load(cls, folder: Path) -> AlignedFaces:
        """Open a folder that `prepare` wrote.

        Raises:
            DataError: it is incomplete.
        """
        try:
            sources = json.loads((folder / SOURCES).read_text())
            crops = np.load(folder / CROPS, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} holds no prepared faces") from error
        if len(sources) != len(crops):
            raise DataError(f"{folder} has {len(crops)} crops but {len(sources)} sources")
        return cls(crops, sources)

    def without(self, names: Container[str]) -> AlignedFaces:
        """Those whose picture's name, without ending, is not among `names`; the crops are copied into memory."""
        return self.only([row for row, source in enumerate(self.sources) if PurePosixPath(source).stem not in names])

    def people(self) -> list[str]:
        """The sub-folder that each crop's picture lay in, by which data sets name people."""
        return [PurePosixPath(source).parent.as_posix() for source in self.sources]

    def only(self, rows: Sequence[int]) -> AlignedFaces:
        """Some of the faces, in memory."""
        return AlignedFaces(np.asarray(self.crops[list(rows)]), [self.sources[row] for row in rows])

    def save(self, folder: Path, rows: Sequence[int]) -> None:
        """Write some of the faces to a folder of their own, which `load` opens.

        Raises:
            DataError: there are faces in the folder.
        """
        if (folder / CROPS).exists():
            raise DataError(f"{folder} holds faces already")
        folder.mkdir(parents=True, exist_ok=True)
        kept = np.lib.format.open_memmap(folder / CROPS, "w+", np.uint8, (len(rows), *self.crops.shape[1:]))
        for place, row in enumerate(rows):
            kept[place] = self.crops[row]
        kept.flush()
        (folder / SOURCES).write_text(json.dumps([self.sources[row] for row in rows]))


def person_numbers(faces: Sequence[AlignedFaces], identities: Sequence[bool]) -> NDArray[np.int64]:
    """Number of the person on each crop of all folders; the same name in two folders is two people.

    Args:
        faces: the folders.
        identities: for each, whether its pictures lie in a sub-folder for each person.

    Returns:
        (crops,) int64, `NOBODY` where a folder names nobody.
    """
    numbers: dict[tuple[int, str], int] = {}
    found: list[int] = []
    for place, (part, named) in enumerate(zip(faces, identities, strict=True)):
        for name in part.people():
            found.append(numbers.setdefault((place, name), len(numbers)) if named else NOBODY)
    return np.array(found, dtype=np.int64)
