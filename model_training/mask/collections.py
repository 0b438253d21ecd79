"""Prepared faces with and without masks, and which of them never train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_training.data.faces import AlignedFaces
from service.contract import normalise_embeddings

_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Collection:
    """A folder of prepared faces, all with masks or all without.

    Attributes:
        name: of the folder.
        held_out: (n,) bool: which never train.
    """

    name: str
    faces: AlignedFaces
    masked: bool
    held_out: NDArray[np.bool_]

    def learned(self) -> NDArray[np.uint8]:
        """(m, 112, 112, 3) uint8 BGR: the crops that train."""
        return np.asarray(self.faces.crops[~self.held_out])

    def kept(self) -> NDArray[np.uint8]:
        """(m, 112, 112, 3) uint8 BGR: the crops that do not."""
        return np.asarray(self.faces.crops[self.held_out])


def split(
    folders: Sequence[tuple[Path, bool]],
    embeddings: Sequence[NDArray[np.float32]],
    *,
    held_out: float,
    alike: float,
    seed: int,
) -> list[Collection]:
    """Hold out a share of the pictures of all folders.

    Pictures that look alike, in whichever folder, are held out together or not at all: data sets hold the same picture
    several times, cut or turned otherwise.

    Args:
        folders: made by `prepare`, each with whether its faces wear masks.
        embeddings: of each folder's faces, (n, d) of unit length.
        held_out: share of all pictures.
        alike: cosine from which on two look alike.

    Raises:
        DataError: a folder is incomplete.
    """
    opened = [AlignedFaces.load(folder) for folder, _ in folders]
    groups = alike_groups(normalise_embeddings(np.concatenate(embeddings)), alike)
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    sizes = np.bincount(groups)[order]
    chosen = order[np.cumsum(sizes) <= held_out * len(groups)]
    kept = np.isin(groups, chosen)
    ends = np.cumsum([len(faces.sources) for faces in opened])
    return [
        Collection(folder.name, faces, masked, part)
        for (folder, masked), faces, part in zip(folders, opened, np.split(kept, ends[:-1]), strict=True)
    ]


def alike_groups(embeddings: NDArray[np.float32], alike: float) -> NDArray[np.int64]:
    """(n,) number of the group of each row: rows of a cosine of `alike` or more, and whoever is alike with these."""
    above = np.arange(len(embeddings))

    def root(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = int(above[row])
        return row

    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        near = embeddings[start : start + _ROWS_AT_ONCE] @ embeddings.T >= alike
        for one, other in zip(*np.nonzero(near), strict=True):
            first, second = root(int(one) + start), root(int(other))
            above[max(first, second)] = min(first, second)
    return np.unique([root(row) for row in range(len(embeddings))], return_inverse=True)[1]


def held_out_sources(collections: Sequence[Collection]) -> dict[str, list[str]]:
    """By folder, the pictures that never train."""
    return {
        each.name: [source for source, kept in zip(each.faces.sources, each.held_out, strict=True) if kept]
        for each in collections
    }
