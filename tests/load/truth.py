"""What an exact search finds, and how a structure's answers compare to it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.density import Vectors
from tests.load.drawing import Rows

# Of two faces this close in similarity either is right: float32 tells them apart in one order of summation only.
TIE = 1e-6
_PROBES_AT_ONCE = 512


class Truth(NamedTuple):
    """Probes and their nearest rows.

    Attributes:
        probes: (n, d) float32, unit length.
        nearest: (n,) int64, a row of the highest similarity.
        similarity: (n,) float64, of that row.
    """

    probes: Vectors
    nearest: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def part(self, start: int, end: int | None) -> Truth:
        """Some of the probes."""
        return Truth(self.probes[start:end], self.nearest[start:end], self.similarity[start:end])

    def save(self, path: Path) -> None:
        """Write an .npz; whoever reads at the same time sees all of it or nothing."""
        being_written = path.with_name(f".{path.name}")
        with being_written.open("wb") as out:
            np.savez(out, **self._asdict())
        being_written.replace(path)

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(*(stored[name] for name in cls._fields))


def find(rows: Rows, probes: int) -> Truth:
    """Draw probes and compare them with every row, one chunk after another."""
    asked = rows.probes(probes)
    nearest = np.full(probes, -1, dtype=np.int64)
    best = np.full(probes, -np.inf, dtype=np.float32)
    for first, faces in rows.chunks():
        for start in range(0, probes, _PROBES_AT_ONCE):
            some = slice(start, start + _PROBES_AT_ONCE)
            scores = asked[some] @ faces.T
            columns = scores.argmax(axis=1)
            highest = scores[np.arange(len(scores)), columns]
            better = highest > best[some]
            nearest[some][better] = columns[better] + first
            best[some][better] = highest[better]
    return Truth(asked, nearest, _similarities(asked, rows.at(nearest)))


class Agreement(NamedTuple):
    """How the first places compare with those of an exact search.

    Attributes:
        share: of probes whose first row is as similar as the nearest one, in [0, 1].
        score_error: largest difference between a similarity that was returned and the row's own.
    """

    share: float
    score_error: float


def agreement(rows: Rows, truth: Truth, found: NDArray[np.int64], scores: Vectors) -> Agreement:
    """Compare first places: (n,) int64 rows, -1 where there is none, and (n,) float32 similarities."""
    own = truth.similarity.copy()
    other = np.flatnonzero((found != truth.nearest) & (found >= 0))
    own[other] = _similarities(truth.probes[other], rows.at(found[other]))
    own[found < 0] = -np.inf
    here = found >= 0
    error = float(np.abs(own[here] - scores[here]).max(initial=0.0))
    return Agreement(float((own >= truth.similarity - TIE).mean()), error)


def _similarities(probes: Vectors, rows: Vectors) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", probes, rows, dtype=np.float64))
