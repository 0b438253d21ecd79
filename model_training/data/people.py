"""Aligned faces whose persons are known: what a teacher is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_training.data.alignment import Aligner, Alignment, Lost
from model_training.data.faces import AlignedFaces, DataError
from model_training.data.recordio import RecordFile
from model_training.data.views import augmented_view


class LabelledFaces(Protocol):
    """Faces that can be read in any order.

    Attributes:
        classes: (n,) int64, the number of each face's person, from 0 on without a gap.
    """

    classes: NDArray[np.int64]

    def crops(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(k, 112, 112, 3) uint8, BGR: those of some rows.

        Raises:
            DataError: one of them cannot be read.
        """


class PreparedPeople:
    """Folders that `prepare` wrote, whose sub-folders are persons; the same name in two folders is two people."""

    def __init__(self, folders: Sequence[AlignedFaces]) -> None:
        self._folders = folders
        self._starts = np.cumsum([0, *(len(folder.sources) for folder in folders)])
        names = [f"{place}/{name}" for place, folder in enumerate(folders) for name in folder.people()]
        self.classes: NDArray[np.int64] = np.unique(names, return_inverse=True)[1].astype(np.int64)

    def crops(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `LabelledFaces`."""
        places = np.searchsorted(self._starts, rows, side="right") - 1
        found = [self._folders[place].crops[row - self._starts[place]] for row, place in zip(rows, places, strict=True)]
        return np.stack(found)


class RecordedPeople:
    """An InsightFace RecordIO file of aligned pictures, which are decoded as they are wanted."""

    def __init__(self, records: RecordFile) -> None:
        self._records = records
        self._aligner = Aligner(Alignment(None))
        self.classes: NDArray[np.int64] = np.unique(records.labels(), return_inverse=True)[1].astype(np.int64)

    def crops(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `LabelledFaces`."""
        return np.stack([self._crop(int(row)) for row in rows])

    def _crop(self, row: int) -> NDArray[np.uint8]:
        crop = self._aligner.crop_of(self._records[row].picture)
        if isinstance(crop, Lost):
            raise DataError(f"record {self._records.keys[row]} of {self._records.name} holds no aligned face")
        return crop


def held_out_people(classes: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """(n,) bool: the faces of a share of the people, drawn at random."""
    people = int(classes.max(initial=-1)) + 1
    drawn = np.random.default_rng([seed, people]).permutation(people)[: round(share * people)]
    return np.isin(classes, drawn)


def shuffled(
    rows: NDArray[np.int64], size: int, epoch: int, seed: int, skip: int = 0, *, rank: int = 0, peers: int = 1
) -> Iterator[NDArray[np.int64]]:
    """One process's share of each batch of an epoch; the order depends on `seed` and `epoch` alone.

    Args:
        rows: what is shuffled; an incomplete last batch is dropped.
        size: of a batch of all processes.
        skip: batches to leave out at the start.
    """
    order = rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]
    for start in range(skip * size, len(rows) - size + 1, size):
        yield order[start : start + size][rank::peers]


def drawn_views(
    faces: LabelledFaces, rows: NDArray[np.int64], augmented: float, seed: int, epoch: int
) -> NDArray[np.uint8]:
    """(k, 112, 112, 3) uint8: a share of the faces augmented, the others as they are or mirrored.

    What a face looks like depends on `seed`, `epoch` and its row alone.
    """
    views = faces.crops(rows)
    for place, row in enumerate(rows):
        rng = np.random.default_rng([seed, epoch, int(row)])
        if rng.random() < augmented:
            views[place] = augmented_view(views[place], rng)
        elif rng.random() < 0.5:
            views[place] = views[place][:, ::-1].copy()
    return views
